"""One part of a back-fill: some assets of a formula over some time, evaluated and compared with what is stored.

Pure work on the table and its tail; it runs in any process that reaches them. What comes back is only what
changes: new and other samples, and samples that are no more.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.formula.binding import bind
from headrace.formula.bound import Bound
from headrace.formula.evaluate import evaluate
from headrace.formula.steps import Constant
from headrace.historian.index import Snapshot
from headrace.historian.inputs import read_inputs
from headrace.historian.reader import Reader
from headrace.historian.scan import matching, scan_files
from headrace.historian.storage import open_storage
from headrace.historian.tail import FrozenTail
from headrace.model.calendar import PlantCalendar
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import SCHEMA, TIMESTAMP, Int64Array
from headrace.model.status import RETRACTED

PART_ROWS: Final = 1_000_000
PART_TIMES: Final = 256
LOOKBACKS_MIN: Final = 8
STRETCH: Final = 4
"""A part may have so many times its samples to be longer than what each part reads again before its start."""
_IDENTITY: Final = ("tag_id", "source_timestamp")


class Part(NamedTuple):
    """Assets ``first`` to ``last`` (exclusive) of a formula over ``[start_us, end_us)``."""

    first: int
    last: int
    start_us: int
    end_us: int


@dataclass(frozen=True)
class Source:
    """What a worker needs to read: the same for all parts of a back-fill.

    Attributes:
        root: of the data folder.
        tail: files of what the table had not got yet; see :class:`headrace.historian.tail.FrozenTail`.
        config: JSON of the :class:`headrace.model.knowledge.AppsConfig` that has the formula.
        key: of the formula, ``pump.load_15``.
        received_us: when reading began: what a repair in live operation writes later wins over it.
    """

    root: Path
    tail: tuple[Path, ...]
    config: bytes
    key: str
    received_us: int


class Done(NamedTuple):
    """What a part gave.

    Attributes:
        samples: of inputs that were read for results; results: that the formula has.
        changed, retracted: of them, what is written.
        frames: rows and body of each message to publish.
    """

    samples: int
    results: int
    changed: int
    retracted: int
    frames: list[tuple[int, bytes]]


def formula_of(config: AppsConfig, key: str) -> Bound | None:
    """The formula of that key on its assets; None when there is none."""
    found = (each for each in bind(config, with_off=True).bound if each.role == "formula")
    return next((each for each in found if each.key == key), None)


@lru_cache(maxsize=2)
def _opened(source: Source) -> tuple[Reader, Bound, PlantCalendar]:
    """The reader and the formula of a back-fill; kept for the next part in this process."""
    config = msgspec.json.decode(source.config, type=AppsConfig)
    bound = formula_of(config, source.key)
    assert bound is not None, "whoever made the parts had it"
    tail = FrozenTail(source.tail) if source.tail else None
    return Reader(open_storage(DataFolder(source.root)), tail), bound, config.calendar


def run_part(source: Source, part: Part) -> Done:
    """Evaluate one part and compare it with what is stored.

    Raises:
        Refused: HIST-2001 when a part needs more samples than one read may give.
    """
    reader, bound, calendar = _opened(source)
    return evaluate_part(reader, bound, part, calendar, source.received_us)


def evaluate_part(
    reader: Reader, bound: Bound, part: Part, calendar: PlantCalendar, received_us: int
) -> Done:
    """The same with what :func:`run_part` opens."""
    chosen = slice(part.first, part.last)
    inputs = {name: tags[chosen] for name, tags in bound.inputs.items()}
    histories = read_inputs(reader, inputs, part.start_us, part.end_us, bound.plan.back_us)
    found = evaluate(
        bound.plan,
        histories,
        part.start_us,
        part.end_us,
        assets=part.last - part.first,
        attributes=attributes_of(bound, chosen),
        calendar=calendar,
    )
    read = sum(
        int(np.count_nonzero((each.at_us >= part.start_us) & (each.at_us < part.end_us)))
        for each in histories.values()
    )
    outputs = bound.outputs[chosen]
    results = _as_batch(found, outputs, received_us)
    stored = reader.read(np.unique(outputs).tolist(), part.start_us, part.end_us)
    changed, gone = changes(results, stored, received_us)
    frames = [*_frames(changed), *_frames(gone)]
    return Done(read, found.height, changed.height, gone.height, frames)


def attributes_of(bound: Bound, chosen: slice | Int64Array) -> Mapping[str, Constant]:
    """The attributes of some of the assets."""
    return {
        name: each if len(each.value) == 1 else each._replace(value=each.value[chosen])
        for name, each in bound.attributes.items()
    }


def _as_batch(found: pl.DataFrame, outputs: Int64Array, received_us: int) -> pl.DataFrame:
    """Results as samples of the derived tags, sorted by identity."""
    tag_id = pl.Series("tag_id", outputs[found["asset"].to_numpy()])
    received = pl.Series("received_timestamp", [received_us]).cast(TIMESTAMP)
    batch = found.select(
        tag_id,
        pl.col("at_us").cast(TIMESTAMP).alias("source_timestamp"),
        "value",
        "text",
        "status",
    ).with_columns(received.new_from_index(0, found.height))
    ascending = bool(np.all(outputs[1:] > outputs[:-1]))
    batch = batch if ascending else batch.sort(_IDENTITY)
    return batch.select(list(SCHEMA))


def changes(
    results: pl.DataFrame, stored: pl.DataFrame, received_us: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What has to be written so that ``results`` are what is stored; samples that take others back.

    Args:
        results: of one formula, a batch.
        stored: what the table has of the same tags and time, a batch without retracted ones.
        received_us: stored samples that were received later are newer than the results and stay.

    Returns:
        (changed, retracted).
    """
    if not stored.height:
        return results, stored
    # -0 and 0 are the same number to a plant; of NaN there is none in results.
    told = stored.rename({name: f"_{name}" for name in ("value", "text", "status")}).rename(
        {"received_timestamp": "_received"}
    )
    both = results.join(told, on=list(_IDENTITY), how="left", maintain_order="left")
    same = pl.all_horizontal(
        pl.col(name).eq_missing(pl.col(f"_{name}")) for name in ("value", "text", "status")
    )
    newer = (pl.col("_received") > pl.col("received_timestamp")).fill_null(False)
    there = pl.col("_received").is_not_null()
    changed = both.filter(~((same & there) | newer)).select(list(SCHEMA))
    received = pl.lit(received_us).cast(TIMESTAMP)
    gone = (
        stored.filter(pl.col("received_timestamp") <= received)
        .join(results, on=list(_IDENTITY), how="anti", maintain_order="left")
        .with_columns(
            pl.lit(None, pl.Float64).alias("value"),
            pl.lit(None, pl.String).alias("text"),
            pl.lit(RETRACTED, pl.UInt32).alias("status"),
            received.alias("received_timestamp"),
        )
    )
    return changed, gone


def _frames(batch: pl.DataFrame) -> list[tuple[int, bytes]]:
    made = []
    for start in range(0, batch.height, envelope.FRAME_ROWS_MAX):
        frame = batch.slice(start, envelope.FRAME_ROWS_MAX)
        made.append((frame.height, envelope.encode(frame)))
    return made


def make_parts(
    reader: Reader, bound: Bound, start_us: int, end_us: int, rows: int = PART_ROWS
) -> list[Part]:
    """Cut a formula's assets, and where one has many samples also its time, into parts of like size.

    Args:
        rows: samples of inputs in a part, about.
    """
    view = reader.view()
    tags = np.unique(np.concatenate([np.empty(0, np.int64), *bound.inputs.values()]))
    width_us = max(-(-(end_us - start_us) // PART_TIMES), 1)
    counts = _counts(reader, view.snapshot, tags, start_us, end_us, width_us)
    per_asset = np.zeros((len(bound.assets), counts.shape[1]), np.int64)
    for each in bound.inputs.values():
        per_asset += counts[np.searchsorted(tags, each)]
    shortest = max(-(-LOOKBACKS_MIN * bound.plan.back_us // width_us), 1)
    return _cut(per_asset, (start_us, end_us), width_us, (rows, int(shortest)))


def _counts(
    reader: Reader,
    snapshot: Snapshot,
    tags: Int64Array,
    start_us: int,
    end_us: int,
    width_us: int,
) -> Int64Array:
    """Samples of each tag in each stretch of time, by the table's files: shape (tags, stretches)."""
    counts = np.zeros((len(tags), -(-(end_us - start_us) // width_us)), np.int64)
    if not len(tags):
        return counts
    wanted = matching(tags.tolist(), start_us, end_us)
    stretch = (pl.col("source_timestamp").to_physical() - start_us) // width_us
    for file in snapshot.select(int(tags[0]), int(tags[-1]), start_us, end_us):
        found = (
            scan_files(reader.table, [file])
            .filter(wanted)
            .group_by("tag_id", stretch.alias("stretch"))
            .len()
            .collect()
        )
        place = np.searchsorted(tags, found["tag_id"].to_numpy()), found["stretch"].to_numpy()
        np.add.at(counts, place, found["len"].to_numpy().astype(np.int64))
    return counts


def _cut(
    per_asset: Int64Array, span: tuple[int, int], width_us: int, sizes: tuple[int, int]
) -> list[Part]:
    """Assets one after another until a part is full; one that alone is too much is cut in time.

    Args:
        per_asset: samples of each asset in each stretch.
        sizes: samples in a part, about; stretches in a part at least.
    """
    (start_us, end_us), (rows, shortest) = span, sizes
    totals = per_asset.sum(axis=1)
    parts: list[Part] = []
    first, held = 0, 0
    for asset, total in enumerate(totals.tolist()):
        if held and held + total > rows:
            parts.append(Part(first, asset, start_us, end_us))
            first, held = asset, 0
        if total <= rows:
            held += total
            continue
        if first < asset:
            parts.append(Part(first, asset, start_us, end_us))
        edges = [start_us + n * width_us for n in _stretches(per_asset[asset], rows, shortest)]
        edges[-1] = end_us
        parts += (Part(asset, asset + 1, a, b) for a, b in itertools.pairwise(edges))
        first, held = asset + 1, 0
    if first < len(totals):
        parts.append(Part(first, len(totals), start_us, end_us))
    return parts


def _stretches(counts: Sequence[int] | Int64Array, rows: int, shortest: int) -> list[int]:
    """Where to cut stretches so that each part has about ``rows`` samples; with both ends."""
    total = np.cumsum(counts)
    cuts = [0]
    while cuts[-1] < len(total):
        before = int(total[cuts[-1] - 1]) if cuts[-1] else 0
        end = int(np.searchsorted(total, before + rows, "right"))
        most = int(np.searchsorted(total, before + STRETCH * rows, "right"))
        end = max(end, min(cuts[-1] + shortest, most), cuts[-1] + 1)
        cuts.append(min(end, len(total)))
    return cuts
