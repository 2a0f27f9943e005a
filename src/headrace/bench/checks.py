"""Whether what had to happen did; each verdict says what was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import singledispatch
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.bench.platform import Seen
from headrace.bench.scenario import (
    Must,
    MustAlarm,
    MustFind,
    MustKeep,
    MustPropose,
    MustQuiet,
    MustValue,
)
from headrace.bench.sight import Episode, Sight
from headrace.model.sample import Int64Array
from headrace.model.time import US_PER_S

SHOWN: Final = 5
BUSY_S: Final = 10
Bools = npt.NDArray[np.bool_]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a run.

    Attributes:
        kind: of the check; ``error`` for what nobody asked for. asked: what had to happen.
        seen: what did, by the run's own clock.
    """

    kind: str
    asked: str
    seen: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """What an app may take by its manifest; 0: nothing is said.

    Attributes:
        cpu_percent: of one core. taken_percent: that its Python took, of a second of the scenario.
    """

    rows_per_s: float = 0.0
    cpu_percent: float = 0.0
    taken_percent: float = 0.0


def judge(sight: Sight, musts: list[Must], *, warm_up_s: float = 0.0) -> list[Verdict]:
    """The verdicts on a run, in the order of the scenario; first whether anything failed."""
    found = [_no_trouble(sight)]
    for must in musts:
        if not isinstance(must, MustKeep):
            found.append(_judge(must, sight, warm_up_s))
    return found


def _no_trouble(sight: Sight) -> Verdict:
    told: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], float] = {}
    for each in sight.troubles:
        key = (each.code, each.what)
        told[key] = told.get(key, 0) + 1
        first.setdefault(key, sight.second(each.at_us))
    shown = [
        f"{code} {what} (at {_s(first[code, what])}{f', {n} times' if n > 1 else ''})"
        for (code, what), n in told.items()
    ]
    return Verdict(
        kind="error",
        asked="no error",
        seen=_few(shown) or "none",
        passed=not shown,
    )


@singledispatch
def _judge(must: Must, sight: Sight, warm_up_s: float) -> Verdict:
    raise AssertionError(f"no check for {type(must).__name__}")


@_judge.register
def _alarm(must: MustAlarm, sight: Sight, warm_up_s: float) -> Verdict:
    every = sight.alarms(must.asset, must.alarm)
    begin, end = sight.at(must.from_s), sight.at(must.from_s + must.within_s)
    inside = [each for each in every if begin <= each.start_us <= end]
    if inside:
        after = sight.second(inside[0].start_us) - must.from_s
        seen = f"{inside[0].path} after {_s(after)}"
    elif every:
        seen = "not in this time: " + _few([_shown(each, sight) for each in every])
    else:
        other = sight.alarms(must.asset, "*")
        seen = "no such alarm" + (
            "; instead " + _few([_shown(each, sight) for each in other]) if other else ""
        )
    asked = (
        f"alarm {must.asset}/{must.alarm} within {_s(must.within_s)} from second {must.from_s:g}"
    )
    return Verdict(kind="alarm", asked=asked, seen=seen, passed=bool(inside))


@_judge.register
def _quiet(must: MustQuiet, sight: Sight, warm_up_s: float) -> Verdict:
    begin_s = max(must.from_s, warm_up_s)
    begin = sight.at(begin_s)
    end = sight.at(must.until_s) if must.until_s else sight.end_us
    loud = [
        each
        for each in sight.alarms(must.asset, must.alarm)
        if begin <= each.start_us <= end
        and not any(fnmatchcase(each.path, pattern) for pattern in must.without)
    ]
    asked = f"no alarm {must.asset}/{must.alarm} from second {begin_s:g}"
    asked += f" to {must.until_s:g}" if must.until_s else " on"
    asked += f" but {', '.join(must.without)}" if must.without else ""
    seen = _few([_shown(each, sight) for each in loud]) or "none"
    return Verdict(kind="quiet", asked=asked, seen=seen, passed=not loud)


@_judge.register
def _value(must: MustValue, sight: Sight, warm_up_s: float) -> Verdict:
    begin = sight.at(must.from_s)
    end = sight.at(must.until_s) if must.until_s else sight.end_us
    frames = [
        rows.filter(pl.col("at_us").is_between(begin, end))
        for (asset, name), rows in sight.series.items()
        if name == must.name and fnmatchcase(asset, must.asset)
    ]
    low = "" if must.minimum is None else f"{must.minimum:g} <= "
    high = "" if must.maximum is None else f" <= {must.maximum:g}"
    asked = f"{low}{must.asset}/{must.name}{high}" + (
        "" if must.share == 1 else f", {must.share:.1%}"
    )
    asked += f", from second {must.from_s:g}" + (f" to {must.until_s:g}" if must.until_s else " on")
    if not frames:
        names = sorted({name for _, name in sight.series})
        seen = f"no values of that name; there are {', '.join(names) or 'none'}"
        return Verdict(kind="value", asked=asked, seen=seen, passed=False)
    rows = pl.concat(frames)
    if rows.height < must.samples or not rows.height:
        seen = f"{rows.height} samples; at least {max(must.samples, 1)} wanted"
        return Verdict(kind="value", asked=asked, seen=seen, passed=False)
    value = rows["value"].fill_null(np.nan).to_numpy()
    known = value[~np.isnan(value)]
    right = ~np.isnan(value)
    right &= value >= (-np.inf if must.minimum is None else must.minimum)
    right &= value <= (np.inf if must.maximum is None else must.maximum)
    if must.is_good:
        right &= rows["status"].to_numpy() < 1 << 30
    share = float(right.mean())
    span = f"{known.min():.6g} to {known.max():.6g}" if len(known) else "no numbers"
    seen = f"{rows.height} samples, {span}, {share:.1%} as asked"
    return Verdict(kind="value", asked=asked, seen=seen, passed=share >= must.share)


@_judge.register
def _propose(must: MustPropose, sight: Sight, warm_up_s: float) -> Verdict:
    begin, end = sight.at(must.from_s), sight.at(must.from_s + must.within_s)
    mine = [p for p in sight.proposals if p.kind == must.what and fnmatchcase(p.asset, must.asset)]
    inside = [each for each in mine if begin <= each.at_us <= end]
    shown = [f"{each.text!r} at {_s(sight.second(each.at_us))}" for each in mine]
    asked = f"{must.at_least} {must.what} for {must.asset} within {_s(must.within_s)}"
    asked += f" from second {must.from_s:g}"
    return Verdict(
        kind="propose",
        asked=asked,
        seen=_few(shown) or "none",
        passed=len(inside) >= must.at_least,
    )


@_judge.register
def _find(must: MustFind, sight: Sight, warm_up_s: float) -> Verdict:
    assets = [asset for asset in sight.labels if fnmatchcase(asset, must.asset)]
    begin_s = max(must.from_s, warm_up_s)
    asked = f"{must.alarm or f'{must.name} > {must.threshold:g}'} finds what is labelled on {must.asset}"
    asked += f": recall >= {must.recall:.3g}, precision >= {must.precision:.3g}"
    asked += f", episodes >= {must.episodes:.3g}, false <= {must.false_share:.3g}"
    if not assets:
        return Verdict(
            kind="find", asked=asked, seen="no labelled asset of that name", passed=False
        )
    score = _Score()
    for asset in assets:
        score.add(sight, asset, found_of(must, sight, asset), begin_s)
    passed = (
        score.recall >= must.recall
        and score.precision >= must.precision
        and score.episodes >= must.episodes
        and score.false_share <= must.false_share
    )
    return Verdict(kind="find", asked=asked, seen=str(score), passed=passed)


class _Score:
    """Counts of seconds and of labelled times, over assets."""

    def __init__(self) -> None:
        self.hits = self.misses = self.false = self.quiet = self.known = self.met = 0

    def add(self, sight: Sight, asset: str, found: list[tuple[int, int]], begin_s: float) -> None:
        seconds = np.arange(sight.at(begin_s), sight.end_us, US_PER_S)
        truth = _inside(seconds, list(sight.labels[asset]))
        given = _inside(seconds, found)
        self.hits += int((truth & given).sum())
        self.misses += int((truth & ~given).sum())
        self.false += int((~truth & given).sum())
        self.quiet += int((~truth & ~given).sum())
        for start, end in sight.labels[asset]:
            if end > sight.at(begin_s):
                self.known += 1
                self.met += any(a < end and start < b for a, b in found)

    @property
    def recall(self) -> float:
        return self.hits / max(self.hits + self.misses, 1)

    @property
    def precision(self) -> float:
        return self.hits / max(self.hits + self.false, 1)

    @property
    def false_share(self) -> float:
        return self.false / max(self.false + self.quiet, 1)

    @property
    def episodes(self) -> float:
        return self.met / max(self.known, 1)

    def __str__(self) -> str:
        f1 = 2 * self.hits / max(2 * self.hits + self.misses + self.false, 1)
        return (
            f"recall {self.recall:.3f}, precision {self.precision:.3f}, F1 {f1:.3f}, false"
            f" {self.false_share:.3f}, {self.met} of {self.known} labelled times"
        )


def found_of(must: MustFind, sight: Sight, asset: str) -> list[tuple[int, int]]:
    """When the app says that something is wrong with an asset."""
    if must.alarm:
        return [(each.start_us, each.end_us) for each in sight.alarms(asset, must.alarm)]
    rows = sight.series.get((asset, must.name))
    if rows is None or not rows.height:
        return []
    above = (rows["value"].fill_null(np.nan).to_numpy() > must.threshold).astype(np.int8)
    at_us = np.r_[rows["at_us"].to_numpy(), sight.end_us]
    edges = np.flatnonzero(np.diff(np.r_[0, above, 0])).reshape(-1, 2)
    return [(int(at_us[a]), int(at_us[b])) for a, b in edges]


def _inside(seconds: Int64Array, spans: list[tuple[int, int]]) -> Bools:
    found = np.zeros(len(seconds), np.bool_)
    for start, end in spans:
        found |= (seconds >= start) & (seconds < end)
    return found


def ceilings(
    must: MustKeep, sight: Sight, seen: Seen, memory_mb: float
) -> list[tuple[Verdict, str]]:
    """The verdicts on ceilings, each with the measured figure.

    A figure that depends on the machine stands in no report, so that it is the same to the byte each time:
    it is told on the screen, and the report says whether it was kept.
    """
    found: list[tuple[Verdict, str]] = []

    def add(what: str, limit: float, value: float, unit: str, *, measured: bool) -> None:
        if limit:
            figure = f"{value:.3g} {unit}"
            kept = value <= limit
            told = ("kept" if kept else "not kept") if measured else figure
            asked = f"{what} <= {limit:g} {unit}"
            found.append((Verdict(kind="keep", asked=asked, seen=told, passed=kept), figure))

    seconds = max((sight.end_us - sight.start_us) / US_PER_S, 1.0)
    add("rows given", must.rows_per_s, busiest(sight), "rows/s", measured=False)
    add("a result's delay", must.late_s, sight.late_us / US_PER_S, "s", measured=False)
    add("computing", must.cpu_ms_per_s, seen.cpu_ms / seconds, "ms/s", measured=True)
    turns = np.quantile(np.array(seen.turn_ms or [0.0]), 0.99)
    add("99 % of turns", must.turn_ms, float(turns), "ms", measured=True)
    add("memory", must.memory_mb, memory_mb, "MB", measured=True)
    return found


def budgets(budget: Budget, sight: Sight) -> list[tuple[Verdict, str]]:
    """Whether the budgets of the manifest were kept, each with the figure as of :func:`ceilings`."""
    found = []
    if budget.rows_per_s:
        value = busiest(sight)
        asked = f"budget: rows given <= {budget.rows_per_s:g} rows/s"
        is_kept, seen = value <= budget.rows_per_s, f"{value:.3g} rows/s"
        found.append((Verdict(kind="budget", asked=asked, seen=seen, passed=is_kept), seen))
    if budget.cpu_percent:
        is_kept = budget.taken_percent <= budget.cpu_percent
        asked = f"budget: computing <= {budget.cpu_percent:g} % of a core"
        told = "kept" if is_kept else "not kept"
        verdict = Verdict(kind="budget", asked=asked, seen=told, passed=is_kept)
        found.append((verdict, f"{budget.taken_percent:.2g} %"))
    return found


def busiest(sight: Sight) -> float:
    """Rows that the app gives a second, in the busiest ten seconds of the scenario's time."""
    if not sight.rows:
        return 0.0
    now_us = np.array([now for now, _ in sight.rows], np.int64)
    rows = np.cumsum([0, *(count for _, count in sight.rows)])
    since = np.searchsorted(now_us, now_us - BUSY_S * US_PER_S, "right")
    most = (rows[1:] - rows[since]).max()
    return float(most) / BUSY_S


def _shown(each: Episode, sight: Sight) -> str:
    return f"{each.path} at {_s(sight.second(each.start_us))}"


def _s(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
