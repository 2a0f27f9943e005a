"""The past of an app's assets as the frame that it trains on, read part by part by any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from headrace.apps.runtime.frames import Shape
from headrace.apps.runtime.store import Store
from headrace.historian.pools import Pool
from headrace.historian.reader import Reader
from headrace.historian.storage import open_storage
from headrace.historian.tail import FrozenTail, freeze
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.sample import microseconds
from headrace.model.time import to_datetime

ROWS_MAX: Final = 20_000_000
CELLS_OF_A_PART: Final = 2_000_000
Told = Callable[[int, int], None]
"""Told how many parts are done, of how many."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which past.

    Attributes:
        type: needed type of the app. assets: paths; empty: all. step_us: distance of rows.
        start_us, end_us: ``[start, end)``. held_out_us: from there on a row is marked as held out.
    """

    type: str
    start_us: int
    end_us: int
    held_out_us: int
    step_us: int
    assets: tuple[str, ...] = ()


class Source(NamedTuple):
    """Where a process finds what it reads: data folder, frozen tail of the log, and the deployment."""

    root: Path
    tail: tuple[Path, ...]
    deployment: bytes
    asked: bytes


def check_asked(deployment: AppDeployment, asked: Asked) -> list[str]:
    """Paths of the assets that are meant, sorted.

    Raises:
        Misconfigured: APPS-2520 no such type or asset, APPS-2521 no time, or more rows than fit.
    """
    bound = sorted(each.path for each in deployment.assets if each.type == asked.type)
    unknown = sorted(set(asked.assets) - set(bound))
    if unknown or not bound:
        what = f"asset {unknown[0]!r}" if unknown else f"asset of the type {asked.type!r}"
        raise Misconfigured(
            "APPS-2520",
            f"{deployment.manifest.id} is bound to no {what}",
            "See what it is bound to: headrace app show " + deployment.manifest.id,
        )
    chosen = list((asked.assets and sorted(set(asked.assets))) or bound)
    count = -(-(asked.end_us - asked.start_us) // asked.step_us)
    if not asked.start_us < asked.held_out_us < asked.end_us or count * len(chosen) > ROWS_MAX:
        raise Misconfigured(
            "APPS-2521",
            f"{to_datetime(asked.start_us).isoformat()} to {to_datetime(asked.end_us).isoformat()} gives "
            f"{max(count, 0) * len(chosen):,} rows; 1 to {ROWS_MAX:,} are possible, some of them held out",
            "Give another time, a longer --every, or fewer assets.",
        )
    return chosen


def parts_of(chosen: Sequence[str], asked: Asked, quantities: int) -> list[tuple[str, ...]]:
    """Assets that are read at once, so that a part has a bounded size."""
    count = max(1, (asked.end_us - asked.start_us) // asked.step_us) * max(1, quantities)
    size = max(1, CELLS_OF_A_PART // count)
    return [tuple(chosen[at : at + size]) for at in range(0, len(chosen), size)]


def read_part(
    reader: Reader, deployment: AppDeployment, asked: Asked, assets: Sequence[str]
) -> pl.DataFrame:
    """The frame of some assets: as that of a window, with ``held_out`` (Boolean) behind ``time``."""
    bound = [each for each in deployment.assets if each.path in set(assets)]
    shape = Shape(deployment.manifest, asked.type, bound)
    ids = sorted(shape.tag_ids)
    store = Store(np.array(ids, np.int64))
    if ids:
        store.put(reader.before(ids, asked.start_us))
        store.put(reader.read(ids, asked.start_us, asked.end_us))
    count = -(-(asked.end_us - asked.start_us) // asked.step_us)
    frame = shape.frame(store, asked.start_us, asked.step_us, count)
    held_out = microseconds(frame["time"]) >= asked.held_out_us
    frame.insert_column(2, pl.Series("held_out", held_out))
    return frame


@lru_cache(maxsize=1)
def _opened(source: Source) -> tuple[Reader, AppDeployment, Asked]:
    tail = FrozenTail(source.tail) if source.tail else None
    return (
        Reader(open_storage(DataFolder(source.root)), tail),
        msgspec.json.decode(source.deployment, type=AppDeployment),
        msgspec.json.decode(source.asked, type=Asked),
    )


def write_part(source: Source, assets: tuple[str, ...], to: Path) -> int:
    """Read a part and write it as an Arrow file; gives its rows. What a pool runs."""
    frame = read_part(*_opened(source), assets)
    fresh = to.with_suffix(".new")
    frame.write_ipc(fresh, compression="lz4")
    fresh.replace(to)
    return frame.height


def read_history(
    reader: Reader,
    folder: DataFolder,
    deployment: AppDeployment,
    asked: Asked,
    work: Path,
    pool: Pool | None = None,
    told: Told = lambda done, of: None,
) -> pl.DataFrame:
    """The whole frame; parts that an earlier run has written to ``work`` are not read again.

    Args:
        reader: with the newest samples. work: folder of this job alone.
        pool: None reads in this process.

    Raises:
        Misconfigured: APPS-2520, APPS-2521 as :func:`check_asked`.
    """
    chosen = check_asked(deployment, asked)
    manifest_type = deployment.manifest.types[asked.type]
    parts = parts_of(chosen, asked, len(manifest_type.quantities) + len(manifest_type.optional))
    work.mkdir(parents=True, exist_ok=True)
    files = [work / f"part-{number:05d}.arrow" for number in range(len(parts))]
    waiting = [(part, file) for part, file in zip(parts, files, strict=True) if not file.exists()]
    done = len(parts) - len(waiting)
    told(done, len(parts))
    source = Source(
        folder.root,
        tuple(freeze(reader.view().segments, work)) if pool is not None and waiting else (),
        msgspec.json.encode(deployment),
        msgspec.json.encode(asked),
    )
    for _ in _written(reader, deployment, asked, source, waiting, pool):
        done += 1
        told(done, len(parts))
    frame = pl.concat([pl.read_ipc(file) for file in files], rechunk=True)
    return frame.sort("asset", "time", maintain_order=True)


def _written(
    reader: Reader,
    deployment: AppDeployment,
    asked: Asked,
    source: Source,
    waiting: Sequence[tuple[tuple[str, ...], Path]],
    pool: Pool | None,
) -> Iterator[None]:
    if pool is None:
        for part, file in waiting:
            frame = read_part(reader, deployment, asked, part)
            fresh = file.with_suffix(".new")
            frame.write_ipc(fresh, compression="lz4")
            fresh.replace(file)
            yield
        return
    left = {pool.submit(write_part, source, part, file) for part, file in waiting}
    while left:
        ready, left = wait(left, return_when=FIRST_COMPLETED)
        for each in ready:
            each.result()
            yield


def frame_hash(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's columns: names, kinds and bytes, in hex; equal data have an equal hash.

    Example:
        >>> a, b = pl.DataFrame({"x": [1.0, None]}), pl.DataFrame({"x": [1.0, 2.0]})
        >>> frame_hash(a) == frame_hash(a.clone()), frame_hash(a) == frame_hash(b)
        (True, False)
    """
    digest = hashlib.sha256()
    for column in frame.get_columns():
        digest.update(f"{column.name}\0{column.dtype}\0{len(column)}\0".encode())
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        if column.dtype == pl.String:
            text = column.fill_null("")
            digest.update(text.str.len_bytes().to_numpy().tobytes())
            digest.update(text.str.join("").to_list()[0].encode() if len(text) else b"")
        else:
            numbers = column.to_physical().fill_null(0).to_numpy()
            digest.update(np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()
