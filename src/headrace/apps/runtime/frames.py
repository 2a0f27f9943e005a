"""Between samples of tags and the frames of an app: its names, its units, one row an asset and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.apps.runtime.store import Store
from headrace.model.app_manifest import AppManifest, NeededType, Output
from headrace.model.deployment import BoundAsset
from headrace.model.errors import Misconfigured, Terminal
from headrace.model.sample import TIMESTAMP, Float64Array, Int64Array, make_batch
from headrace.model.status import BAD_NO_DATA
from headrace.model.time import to_datetime
from headrace.model.units import check_unit

TEXT: Final = "text"
NO_UNIT: Final = ("", TEXT, "condition")
_BAD: Final = 1 << 31
_FIXED: Final = ("asset", "time")


class Shape:
    """The frame of one needed type.

    Args:
        manifest: of the app. type: needed type. assets: bound ones of that type.

    Raises:
        Misconfigured: APPS-2208 when a tag's unit cannot become the manifest's.
    """

    def __init__(self, manifest: AppManifest, type: str, assets: Sequence[BoundAsset]) -> None:
        needed = manifest.types[type]
        self.type = type
        self.assets = sorted(assets, key=lambda asset: asset.path)
        self.units = {**needed.quantities, **needed.optional}
        self._scales = {name: self._scale(name, unit) for name, unit in self.units.items()}

    @property
    def tag_ids(self) -> set[int]:
        """All tags that its frames are made of."""
        return {tag for asset in self.assets for tag in asset.tags.values()}

    def frame(
        self, store: Store, start_us: int, step_us: int, count: int, names: Sequence[str] = ()
    ) -> pl.DataFrame:
        """Rows by asset and time, as :class:`headrace.app.Window` says.

        Args:
            names: of quantities; none means all.
        """
        times = start_us + step_us * np.arange(count, dtype=np.int64)
        paths = pl.Series("asset", [asset.path for asset in self.assets], dtype=pl.String)
        rows = np.repeat(np.arange(len(self.assets)), count)
        columns = [
            paths.gather(rows),
            pl.Series("time", np.tile(times, len(self.assets))).cast(TIMESTAMP),
        ]
        statuses = []
        for name in names or self.units:
            value, status = self._quantity(store, name, start_us, step_us, count)
            columns.append(value)
            statuses.append(status)
        return pl.DataFrame([*columns, *statuses])

    def _quantity(
        self, store: Store, name: str, start_us: int, step_us: int, count: int
    ) -> tuple[pl.Series, pl.Series]:
        tag_ids = np.array([asset.tags.get(name, -1) for asset in self.assets], np.int64)
        held = store.hold(tag_ids, start_us, step_us, count)
        at = held.at.reshape(-1)
        known = at >= 0
        source = np.maximum(at, 0) if held.rows.height else np.zeros(0, np.int64)
        if not held.rows.height:
            return _nothing(name, self.units[name], len(at))
        status = held.rows["status"].gather(source).to_numpy().copy()
        status[~known] = BAD_NO_DATA
        is_null = ~known | (status >= _BAD)
        if self.units[name] == TEXT:
            value = held.rows["text"].gather(source).alias(name)
        else:
            scale, shift = self._scales[name]
            found = held.rows["value"].gather(source)
            is_null |= found.is_null().to_numpy()
            raw = found.fill_null(0.0).to_numpy()
            value = pl.Series(name, raw * np.repeat(scale, count) + np.repeat(shift, count))
        if is_null.any():
            value = value.set(pl.Series(is_null), None)
        return value, pl.Series(f"{name}_status", status, dtype=pl.UInt32)

    def _scale(self, name: str, unit: str) -> tuple[Float64Array, Float64Array]:
        """(scale, shift), shape (assets,): ``value * scale + shift`` is in the manifest's unit."""
        pairs = [
            conversion(asset.units.get(name, ""), unit, f"{asset.path}, {name}")
            for asset in self.assets
        ]
        both = np.array(pairs, np.float64).reshape(-1, 2)
        return both[:, 0], both[:, 1]


def conversion(given: str, wanted: str, where: str) -> tuple[float, float]:
    """(scale, shift) from a unit to another one; where either is not said, (1, 0).

    Raises:
        Misconfigured: APPS-2208 when they measure different things, MODEL-1004 no such unit.

    Example:
        >>> conversion("Cel", "K", "x")
        (1.0, 273.15)
    """
    if given == wanted or given in NO_UNIT or wanted in NO_UNIT:
        return 1.0, 0.0
    have, want = check_unit(given), check_unit(wanted)
    if have.dimension != want.dimension:
        raise Misconfigured(
            "APPS-2208",
            f"{where} is in {given}, which cannot become {wanted}",
            "Bind another tag, or correct the tag's unit in the site file.",
        )
    return have.factor / want.factor, (have.offset - want.offset) / want.factor


def as_the_tag(needed: NeededType, asset: BoundAsset, quantity: str, value: float) -> float:
    """A value that the app gives in its manifest's unit, in the unit of the tag that it is written to.

    Raises:
        Misconfigured: APPS-2208 when it cannot become that, MODEL-1004 no such unit.

    Example:
        >>> needed = NeededType(package="pump", quantities={"flow": "m3/h"})
        >>> asset = BoundAsset(path="a/p1", type="pump", tags={"flow": 1}, units={"flow": "L/s"})
        >>> as_the_tag(needed, asset, "flow", 36.0)
        10.0
    """
    unit = {**needed.quantities, **needed.optional}[quantity]
    scale, shift = conversion(unit, asset.units.get(quantity, ""), f"{asset.path}, {quantity}")
    return value * scale + shift


def _nothing(name: str, unit: str, count: int) -> tuple[pl.Series, pl.Series]:
    kind = pl.String if unit == TEXT else pl.Float64
    status = np.full(count, BAD_NO_DATA, np.uint32)
    return pl.Series(name, [None] * count, dtype=kind), pl.Series(f"{name}_status", status)


def output_samples(
    given: object,
    outputs: Mapping[str, Output],
    assets: Sequence[BoundAsset],
    span_us: tuple[int, int],
    due_us: int,
) -> pl.DataFrame:
    """Samples of what a hook gave.

    Args:
        given: the frame that it returned. outputs: of this type, by name. span_us: first and last source
            time that it may give. due_us: their receive time.

    Raises:
        Terminal: APPS-2211 it is no such frame, or has a column that the manifest does not name;
            APPS-2212 a time outside of the window, or an asset that is not bound; APPS-2213 one asset
            and time twice.
    """
    frame = _checked(given, outputs, assets, span_us)
    order = {asset.path: place for place, asset in enumerate(assets)}
    place = frame["asset"].replace_strict(order, return_dtype=pl.Int64).to_numpy()
    times = frame["time"].to_numpy().view(np.int64)
    batches = []
    for name in frame.columns:
        if name in _FIXED or name.endswith("_status"):
            continue
        tag_of = np.array([asset.outputs.get(name, -1) for asset in assets], np.int64)
        status = frame.get_column(f"{name}_status", default=None)
        batches.append(_column(frame[name], outputs[name], tag_of[place], times, status, due_us))
    every = pl.concat(batches) if batches else _no_samples()
    return every.sort("tag_id", "source_timestamp")


def _column(
    column: pl.Series,
    output: Output,
    tag_ids: Int64Array,
    times: Int64Array,
    status: pl.Series | None,
    due_us: int,
) -> pl.DataFrame:
    there = column.is_not_null().to_numpy()
    given = there & (tag_ids >= 0)
    is_text = output.unit == TEXT
    value = None if is_text else column.cast(pl.Float64).fill_null(0.0).to_numpy()
    codes: npt.NDArray[np.uint32] | int = 0
    if status is not None:
        every = status.fill_null(0).cast(pl.UInt32).to_numpy()
        given = (there | (every >= _BAD)) & (tag_ids >= 0)
        codes = every[given]
    count = int(given.sum())
    return make_batch(
        tag_ids[given],
        times[given],
        np.zeros(count) if value is None else value[given],
        status=codes,
        received_timestamp_us=due_us,
        text=column.cast(pl.String).filter(pl.Series(given)) if is_text else None,
        value_is_null=np.ones(count, np.bool_) if is_text else ~there[given],
    )


def _no_samples() -> pl.DataFrame:
    nothing = np.zeros(0, np.int64)
    return make_batch(nothing, nothing, np.zeros(0), received_timestamp_us=0)


def _checked(
    given: object,
    outputs: Mapping[str, Output],
    assets: Sequence[BoundAsset],
    span_us: tuple[int, int],
) -> pl.DataFrame:
    if not isinstance(given, pl.DataFrame) or not set(_FIXED) <= set(given.columns):
        raise Terminal(
            "APPS-2211",
            f"the hook gave {type(given).__name__}, not a frame with asset and time",
            "Return a polars DataFrame with asset, time and outputs of the manifest, or None.",
        )
    allowed = {*_FIXED, *outputs, *(f"{name}_status" for name in outputs)}
    if unknown := sorted(set(given.columns) - allowed):
        raise Terminal(
            "APPS-2211",
            f"the hook gave {', '.join(unknown)}, which the manifest does not name",
            f"Declare it below [[outputs]]; it names {', '.join(sorted(outputs)) or 'none'}.",
        )
    frame = _typed(given)
    _check_rows(frame, {asset.path for asset in assets}, span_us)
    return frame


def _typed(given: pl.DataFrame) -> pl.DataFrame:
    try:
        return given.with_columns(pl.col("asset").cast(pl.String), pl.col("time").cast(TIMESTAMP))
    except pl.exceptions.PolarsError as error:
        raise Terminal(
            "APPS-2211",
            f"the hook's asset or time is of type {given['asset'].dtype}, {given['time'].dtype}",
            "Give them as the window's frame has them.",
        ) from error


def _check_rows(frame: pl.DataFrame, paths: set[str], span_us: tuple[int, int]) -> None:
    if frame["asset"].null_count() or frame["time"].null_count():
        raise Terminal("APPS-2211", "the hook gave a row without asset or time", "Leave it out.")
    foreign = sorted(set(frame["asset"].unique()) - paths)
    if foreign:
        raise Terminal(
            "APPS-2212",
            f"the hook gave samples of {foreign[0]}, which it is not bound to",
            "Give assets of the window only.",
        )
    times = frame["time"].to_numpy().view(np.int64)
    far = times[(times < span_us[0]) | (times > span_us[1])]
    if len(far):
        raise Terminal(
            "APPS-2212",
            f"the hook gave a sample at {to_datetime(int(far[0])).isoformat()}, outside its window",
            "Give times from the window's start to its end.",
        )
    if frame.select(*_FIXED).is_duplicated().any():
        raise Terminal(
            "APPS-2213", "the hook gave one asset and time in two rows", "Give each once."
        )
