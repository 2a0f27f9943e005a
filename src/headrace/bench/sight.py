"""What was seen of a run, laid out for the checks: episodes of alarms, and series of values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import polars as pl

from headrace.bench.ground import Span
from headrace.bench.laying import told_name
from headrace.bench.platform import Proposal, Seen, Trouble
from headrace.model.alarm import Transition
from headrace.model.knowledge import AppsConfig
from headrace.model.status import RETRACTED
from headrace.model.time import US_PER_S

OPEN_US: Final = 2**62
_HEARD: Final = ("UNACK", "ACKED")
_FRAME: Final = {"at_us": pl.Int64(), "value": pl.Float64(), "status": pl.UInt32()}


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm from when it came up until it went.

    Attributes:
        alarm: name, without the app's word before it. start_us, end_us: source time; OPEN_US: it stays.
        told_us: the scenario's time at which people were told.
    """

    asset: str
    alarm: str
    start_us: int
    end_us: int
    told_us: int

    @property
    def path(self) -> str:
        return f"{self.asset}/{self.alarm}"


@dataclass(frozen=True)
class Sight:
    """A run, ready to be judged.

    Attributes:
        series: (asset, name of formula or output) -> at_us, value, status; sorted, each time once, as they
            are after all corrections.
        rows: (now_us, rows given) of each turn.
    """

    start_us: int
    end_us: int
    episodes: tuple[Episode, ...]
    series: Mapping[tuple[str, str], pl.DataFrame]
    proposals: tuple[Proposal, ...]
    troubles: tuple[Trouble, ...]
    rows: tuple[tuple[int, int], ...]
    labels: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    samples: int = 0
    calls: int = 0
    restarts: int = 0
    late_us: int = 0

    def second(self, at_us: int) -> float:
        """Seconds from the begin."""
        return (at_us - self.start_us) / US_PER_S

    def at(self, second: float) -> int:
        """Microseconds since 1970 of a second of the scenario."""
        return self.start_us + round(second * US_PER_S)

    def alarms(self, asset: str, alarm: str) -> list[Episode]:
        """Episodes of the scenario's time whose asset and alarm are like these, by their begin."""
        return [
            each
            for each in self.episodes
            if fnmatchcase(each.asset, asset) and fnmatchcase(each.alarm, alarm)
        ]


def sight_of(
    seen: Seen,
    config: AppsConfig,
    span: Span,
    *,
    word: str = "",
    outputs: Mapping[int, tuple[str, str]] | None = None,
    labels: Mapping[str, tuple[Span, ...]] | None = None,
) -> Sight:
    """Lay out what was seen.

    Args:
        span: of the scenario. word: of the app; names are told without it.
        outputs: tag_id -> (asset, name) of what the app's Python gives.
    """
    episodes = _episodes(seen.told, word, span)
    series = _results(seen)
    series.update(_outputs(seen.outputs, outputs or {}))
    return Sight(
        start_us=span[0],
        end_us=span[1],
        episodes=tuple(sorted(episodes, key=lambda each: (each.start_us, each.path))),
        series=dict(sorted(series.items())),
        proposals=tuple(_once(seen.proposals)),
        troubles=tuple(seen.troubles),
        rows=tuple(seen.rows),
        labels=labels or {},
        samples=seen.samples,
        calls=seen.calls,
        restarts=seen.restarts,
        late_us=seen.late_us,
    )


def _episodes(told: Sequence[tuple[int, Transition]], word: str, span: Span) -> list[Episode]:
    """From the journal; one that late data took back is none."""
    begun: dict[str, tuple[int, int]] = {}
    found: list[Episode] = []

    def end(each: Transition, at_us: int, start: tuple[int, int]) -> None:
        name = told_name(word, each.alarm)
        found.append(Episode(each.asset, name, start[0], at_us, start[1]))

    last: dict[str, Transition] = {}
    for now_us, each in told:
        if each.shadow:
            continue
        last[each.alarm] = each
        heard = each.after in _HEARD
        if each.event == "missed":
            end(each, each.at_us, (each.at_us, now_us))
        elif each.event == "revoke":
            _revoke(found, each, word)
            if not heard:
                begun.pop(each.alarm, None)
        elif heard and each.alarm not in begun:
            begun[each.alarm] = each.at_us, now_us
        elif not heard and each.alarm in begun:
            end(each, each.at_us, begun.pop(each.alarm))
    for alarm, start in begun.items():
        end(last[alarm], OPEN_US, start)
    # A clock that goes back gives samples from before the run; what was missed then is none.
    return [each for each in found if span[0] < each.start_us < span[1]]


def _revoke(found: list[Episode], each: Transition, word: str) -> None:
    name = told_name(word, each.alarm)
    mine = [
        n
        for n, e in enumerate(found)
        if (e.asset, e.alarm) == (each.asset, name) and e.start_us <= each.at_us
    ]
    if mine:
        del found[mine[-1]]


def _results(seen: Seen) -> dict[tuple[str, str], pl.DataFrame]:
    by_bound: dict[str, tuple[tuple[str, ...], list[pl.DataFrame]]] = {}
    for bound, rows in seen.results:
        if bound.role == "formula":
            by_bound.setdefault(bound.key, (bound.assets, []))[1].append(rows)
    found = {}
    for key, (assets, frames) in by_bound.items():
        name = key.rpartition(".")[2]
        whole = pl.concat(frames).unique(["asset", "at_us"], keep="last", maintain_order=True)
        whole = whole.filter(pl.col("status") != RETRACTED).sort("asset", "at_us")
        for (number,), rows in whole.group_by("asset", maintain_order=True):
            found[assets[number], name] = rows.select(*_FRAME)
    return found


def _outputs(
    batches: Sequence[pl.DataFrame], names: Mapping[int, tuple[str, str]]
) -> dict[tuple[str, str], pl.DataFrame]:
    if not batches:
        return {}
    whole = pl.concat(batches).select(
        "tag_id", pl.col("source_timestamp").to_physical().alias("at_us"), "value", "status"
    )
    whole = whole.unique(["tag_id", "at_us"], keep="last", maintain_order=True)
    whole = whole.filter(pl.col("status") != RETRACTED).sort("tag_id", "at_us")
    return {
        names[tag_id]: rows.select(*_FRAME)
        for (tag_id,), rows in whole.group_by("tag_id", maintain_order=True)
        if tag_id in names
    }


def _once(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Each id counts once, as on the bus."""
    return list({each.id: each for each in proposals}.values())
