"""Samples that come as they do in life, and what the formulas then are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from headrace.formula.bound import Bound
from headrace.formula.check import Quantity, compile_formula
from headrace.formula.evaluate import History, evaluate
from headrace.formula.steps import Constant
from headrace.formula.stream import Need, Stream
from headrace.model import status as codes
from headrace.model.calendar import PlantCalendar, Shift, Stop
from headrace.model.sample import make_batch

SECOND = 1_000_000
ASSETS = 3
CALENDAR = PlantCalendar(
    time_zone="Europe/Berlin",
    shifts=(
        Shift(name="early", start="06:00", end="14:00"),
        Shift(name="late", start="14:00", end="22:00"),
        Shift(name="night", start="22:00", end="06:00"),
    ),
)
BUSY = PlantCalendar(
    time_zone="Europe/Berlin",
    shifts=(
        Shift(name="early", start="06:00", end="14:00", teams=("A", "B"), rotate="day"),
        Shift(name="night", start="22:00", end="06:00", teams=("B", "C"), on_holidays=True),
    ),
    holidays={"2026-03-29": "when the clocks change", "2026-10-25": "and again"},
    stops=(
        Stop(start_us=1_774_729_800 * SECOND, end_us=1_774_733_400 * SECOND),
        Stop(start_us=1_774_733_400 * SECOND, end_us=1_774_735_200 * SECOND),
        Stop(start_us=1_792_882_000 * SECOND, end_us=1_792_884_000 * SECOND),
    ),
)
"""A night with all that can be: shifts with teams and a gap, a holiday, stops that touch."""
NAMES = {
    "x": Quantity(unit="m3/h"),
    "y": Quantity(unit="kW"),
    "counter": Quantity(unit="1"),
    "state": Quantity("text"),
    "rated": Quantity(unit="kW", constant=True),
}
INPUTS = ("x", "y", "counter", "state")
STATES = ("RUN", "IDLE", "STOP")


def tag_of(asset: int, name: str) -> int:
    return 1000 * (1 + asset) + INPUTS.index(name)


def bounds_of(*formulas: str, calendar: PlantCalendar = CALENDAR) -> list[Bound]:
    """Formulas ``f0``, ``f1`` ... of which each may read those before it."""
    names, made = dict(NAMES), list[Bound]()
    assets = np.arange(ASSETS)
    for at, text in enumerate(formulas):
        plan = compile_formula(text, names, calendar=calendar, calendar_names=calendar.names())
        inputs = {}
        for name in plan.inputs:
            if name in INPUTS:
                inputs[name] = np.array([tag_of(asset, name) for asset in range(ASSETS)])
            elif name != "rated":
                inputs[name] = 100 * (1 + int(name[1:])) + assets
        attributes = (
            {"rated": Constant(np.array([5.0, 7.0, 0.0]))} if "rated" in plan.inputs else {}
        )
        outputs = 100 * (1 + at) + assets
        paths = tuple(f"mill/pump_{asset}" for asset in range(ASSETS))
        made.append(Bound(f"pump.f{at}", "formula", plan, paths, inputs, outputs, attributes))
        names[f"f{at}"] = Quantity(plan.kind, plan.unit)
    return made


@dataclass(slots=True, repr=False)
class Samples:
    """Of all tags, in the order in which they come."""

    tag: np.ndarray
    at_us: np.ndarray
    value: np.ndarray
    status: np.ndarray
    received_us: np.ndarray

    def __len__(self) -> int:
        return len(self.tag)

    def batch(self, rows: np.ndarray | slice) -> pl.DataFrame:
        tag, value = self.tag[rows], self.value[rows]
        is_text = tag % 1000 == INPUTS.index("state")
        texts = [STATES[int(v) % 3] if t else None for v, t in zip(value, is_text, strict=True)]
        bad = self.status[rows] >= 0x80000000
        return make_batch(
            tag, self.at_us[rows], value, status=self.status[rows],
            received_timestamp_us=self.received_us[rows],
            text=texts, value_is_null=is_text | bad,
        )  # fmt: skip

    def known(self, upto: int | None = None) -> pl.DataFrame:
        """What there is when so many have come: of each identity the last received, then the last put."""
        everything = self.batch(slice(upto)).with_row_index("put")
        return (
            everything.sort("received_timestamp", "put")
            .unique(["tag_id", "source_timestamp"], keep="last")
            .filter(pl.col("status") != codes.RETRACTED)
            .sort("tag_id", "source_timestamp")
            .drop("put")
        )


def arrivals(
    seed: int, *, start_us: int = 0, unit_us: int = SECOND, delay: int = 30, size: int = 30
) -> Samples:
    """Samples of three assets, late by up to some units; some twice, some corrected, some taken back."""
    generator = np.random.default_rng(seed)
    chance = (0.0, 0.1, 0.5)[seed % 3]
    parts = []
    for asset in range(ASSETS):
        for name in INPUTS:
            n = int(generator.integers(0, size))
            gaps = generator.integers(1, 9 * unit_us, n)
            if generator.random() < 0.3:
                gaps = np.full(n, unit_us)
            at_us = start_us + np.cumsum(gaps)
            value = np.round(generator.normal(3, 6, n), int(generator.integers(0, 4)))
            if name == "counter":
                value = generator.integers(0, 99, n).astype(float)
            if name == "state":
                value = np.repeat(generator.integers(0, 3, n), 2)[:n].astype(float)
            status = generator.choice([0, 0x40000000, 0x80000000], n, p=[0.85, 0.05, 0.1])
            parts.append((np.full(n, tag_of(asset, name)), at_us, value, status))
    tag, at_us, value, status = (np.concatenate(column) for column in zip(*parts, strict=True))
    again = np.flatnonzero(generator.random(len(tag)) < chance / 2)
    twice = np.r_[np.arange(len(tag)), again, again]
    value = value[twice]
    status = status[twice].astype(np.uint32)
    corrected = np.arange(len(twice)) >= len(tag) + len(again)
    value[corrected] += 1.0
    status[corrected & (generator.random(len(twice)) < 0.2)] = codes.RETRACTED
    late = np.where(
        generator.random(len(twice)) < chance, generator.integers(0, delay, len(twice)), 0
    )
    received = at_us[twice] + late * unit_us + generator.integers(0, 3, len(twice))
    order = np.argsort(received, kind="stable")
    if generator.random() < 0.2:
        received[:] = 7
    return Samples(
        tag[twice][order], at_us[twice][order], value[order], status[order], received[order]
    )


def truth(
    bounds: Sequence[Bound],
    samples: Samples,
    end_us: int,
    start_us: int = 0,
    calendar: PlantCalendar = CALENDAR,
) -> list[pl.DataFrame]:
    """What each bound is on all samples at once."""
    known = samples.known()
    texts = known["text"]
    table = {
        "tag": known["tag_id"].to_numpy(),
        "at": known["source_timestamp"].to_physical().to_numpy(),
        "value": known["value"].fill_null(math.nan).to_numpy(),
        "status": known["status"].to_numpy(),
    }
    made: list[pl.DataFrame] = []
    for bound in bounds:
        histories = {}
        for name, tags in bound.inputs.items():
            if name in INPUTS:
                mine = np.isin(table["tag"], tags)
                histories[name] = History(
                    np.searchsorted(tags, table["tag"][mine]), table["at"][mine],
                    table["value"][mine], table["status"][mine],
                    texts.filter(pl.Series(mine)) if name == "state" else None,
                )  # fmt: skip
            else:
                histories[name] = as_history(made[int(name[1:])], name in bound.plan.texts)
        result = evaluate(
            bound.plan, histories, start_us, end_us, assets=ASSETS,
            attributes=bound.attributes, calendar=calendar,
        )  # fmt: skip
        made.append(result)
    return made


def as_history(rows: pl.DataFrame, is_text: bool) -> History:
    return History(
        rows["asset"].to_numpy(),
        rows["at_us"].to_numpy(),
        rows["value"].fill_null(math.nan).to_numpy(),
        rows["status"].to_numpy(),
        rows["text"] if is_text else None,
    )


@dataclass(slots=True)
class Told:
    """All that a stream said, one after the other."""

    bounds: Sequence[Bound]
    frames: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    behind: list[tuple[str, int, int, int]] = field(default_factory=list)
    _known: dict[str, dict[tuple[int, int], list[object]]] = field(default_factory=dict)

    def take(self, stream: Stream, to_us: int, stored: pl.DataFrame | None = None) -> None:
        """Advance; what the stream lacks comes from what a historian has stored."""
        results, behind = stream.advance(to_us)
        for bound, frame in results:
            self._check_news(bound, frame)
            self.frames.setdefault(bound.key, []).append(frame)
        lacking = {tag: need for each in behind for tag, need in each.needs.items()}
        if lacking:
            assert stored is not None
            stream.fill(needed(stored, lacking))
            self.take(stream, to_us, stored)
        self.behind += [(b.bound.key, b.asset, b.start_us, b.end_us) for b in behind]

    def _check_news(self, bound: Bound, frame: pl.DataFrame) -> None:
        """What is told is new, other than before, or gone."""
        if self.behind:
            return
        known = self._known.setdefault(bound.key, {})
        for asset, at_us, *row in frame.rows():
            before = known.pop((asset, at_us), None)
            assert before != row, f"{bound.key} told twice: {asset} {at_us} {row}"
            if row[2] == codes.RETRACTED:
                assert before is not None, f"{bound.key} took back what was not: {asset} {at_us}"
            else:
                known[asset, at_us] = row

    def rows(self, bound: Bound) -> pl.DataFrame:
        frames = self.frames.get(bound.key)
        if not frames:
            return pl.DataFrame()
        return (
            pl.concat(frames)
            .unique(["asset", "at_us"], keep="last", maintain_order=True)
            .filter(pl.col("status") != codes.RETRACTED)
            .sort("asset", "at_us")
        )

    def mended(self, bound: Bound, wanted: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What it said and what is, without what it said to be evaluated elsewhere."""
        made = []
        for frame in (self.rows(bound), wanted):
            for key, asset, start_us, end_us in self.behind:
                if key == bound.key and frame.width:
                    there = (pl.col("asset") == asset) & pl.col("at_us").is_between(
                        start_us, end_us, closed="left"
                    )
                    frame = frame.filter(~there)
            made.append(frame)
        return made[0], made[1]


def needed(batch: pl.DataFrame, needs: dict[int, Need]) -> pl.DataFrame:
    """What a historian would be asked for, and nothing else."""
    parts = [batch.clear()]
    for tag_id, (from_us, back_us) in needs.items():
        mine = batch.filter(pl.col("tag_id") == tag_id)
        at_us = mine["source_timestamp"].to_physical()
        held = mine.filter(at_us <= from_us)["source_timestamp"].to_physical().max()
        begin = (from_us if held is None else held) - back_us
        before = mine.filter(at_us < begin)["source_timestamp"].to_physical().max()
        usable = mine.filter((at_us < begin) & (mine["status"] < 0x80000000))
        before = usable["source_timestamp"].to_physical().max() if usable.height else before
        begin = begin if before is None else before
        parts.append(mine.filter(at_us >= begin))
    return pl.concat(parts)


def same(found: pl.DataFrame, wanted: pl.DataFrame, *, tolerance: float = 0.0) -> None:
    """To the bit, or nearly so for a fading memory."""
    if not found.width:
        assert wanted.height == 0, wanted
        return
    names = ["asset", "at_us", "text", "status"]
    if not tolerance:
        found, wanted = (f.with_columns(bits(f["value"])) for f in (found, wanted))
        names.append("bits")
    if not found.select(names).equals(wanted.select(names)):
        only = {"nulls_equal": True, "on": names, "how": "anti"}
        difference = found.join(wanted, **only), wanted.join(found, **only)  # type: ignore[arg-type] # names of options
        raise AssertionError(f"found {difference[0].rows()}, wanted {difference[1].rows()}")
    if tolerance:
        difference = (found["value"] - wanted["value"]).abs().max()
        assert difference is None or difference <= tolerance
        assert (found["value"].is_null() == wanted["value"].is_null()).all()


def bits(values: pl.Series) -> pl.Series:
    return pl.Series("bits", values.fill_null(-9e99).to_numpy().view(np.int64))
