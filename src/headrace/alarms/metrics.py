"""How good the alarms are: the figures of ISA-18.2 and EEMUA 191, over the journal. Pure.

What counts is what operators were told: transitions into UNACK, at their source time. Alarms that were
shelved, suppressed or out of service when they occurred do not count, nor do those in shadow.

Limits, by ISA-18.2-2016, clause 16, unless another source is given, for one operator position:

- alarms: 1 in 10 minutes on average is acceptable, 2 are manageable;
- 10-minute periods with more than 10 alarms: below 1 %;
- floods, from a period with more than 10 until one with fewer than 5: below 1 % of the time;
- the 10 most frequent alarms: 1 % to 5 % of all;
- chattering, 3 times within a minute (EEMUA 191, 3rd edition): none;
- stale, active for more than 24 hours: fewer than 5;
- priorities: 80 % low, 15 % medium, 5 % high, and of four the highest below 1 % (with EEMUA 191).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.model.alarm import ANNUNCIATED, PRIORITIES, AlarmState, Priority
from headrace.model.time import US_PER_S

PERIOD_US: Final = 600 * US_PER_S
FLOOD_FROM: Final = 10
FLOOD_UNTIL: Final = 5
ACCEPTABLE_RATE: Final = 1.0
MANAGEABLE_RATE: Final = 2.0
BUSY_SHARE_MAX: Final = 0.01
BAD_ACTORS: Final = 10
BAD_ACTORS_SHARE_MAX: Final = 0.05
CHATTER: Final = 3
CHATTER_US: Final = 60 * US_PER_S
STALE_US: Final = 86_400 * US_PER_S
STALE_MAX: Final = 5
TARGETS: Final[Mapping[Priority, float]] = {
    "low": 0.80,
    "medium": 0.15,
    "high": 0.05,
    "urgent": 0.01,
}


class Count(msgspec.Struct, frozen=True):
    """How often an alarm was told, and its share of all."""

    alarm: str
    asset: str
    count: int
    share: float


class Flood(msgspec.Struct, frozen=True):
    """A stretch with more alarms than a person can work: when, how many, and the most in a period."""

    start_us: int
    end_us: int
    count: int
    peak: int


class PriorityShare(msgspec.Struct, frozen=True):
    """How many alarms of a priority were told; ``target`` is the share that the standards advise."""

    priority: Priority
    count: int
    share: float
    target: float


class OperatorWork(msgspec.Struct, frozen=True):
    """What one user did; ``response_s`` is the median time from alarm to acknowledgement, None of none."""

    actor: str
    acknowledged: int
    shelved: int
    comments: int
    response_s: float | None


class AlarmMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a time ``[start_us, end_us)``. Shares are 0 to 1.

    Attributes:
        told: how many alarms.
        periods: (start, alarms) of each period of 10 minutes of the clock.
        average, peak: alarms a period.
        busy_share: periods with more than 10.
        flood_share: of the time.
        bad_actors: the ten most frequent; ``bad_actors_share`` of all.
        chattering: those that came three times within a minute, at least once.
        standing: active and in the list at the end; stale: those for more than 24 hours.
        response_s: median time from alarm to acknowledgement; None when there was none.
        corrected, revoked: made by late data; told though there was no such alarm.
    """

    start_us: int
    end_us: int
    told: int = 0
    periods: tuple[tuple[int, int], ...] = ()
    average: float = 0.0
    peak: int = 0
    busy_share: float = 0.0
    floods: tuple[Flood, ...] = ()
    flood_share: float = 0.0
    bad_actors: tuple[Count, ...] = ()
    bad_actors_share: float = 0.0
    chattering: tuple[Count, ...] = ()
    standing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    priorities: tuple[PriorityShare, ...] = ()
    operators: tuple[OperatorWork, ...] = ()
    response_s: float | None = None
    corrected: int = 0
    revoked: int = 0


def metrics(
    journal: pl.DataFrame, states: Iterable[AlarmState], start_us: int, end_us: int
) -> AlarmMetrics:
    """The figures of one area, or of all.

    Args:
        journal: as :meth:`headrace.alarms.store.AlarmStore.journal_frame` gives it, of that time and area.
        states: of the same area, as they are at the end.
        start_us, end_us: source time; the end is not before the start.
    """
    journal = journal.filter(pl.col("at_us").is_between(start_us, end_us, closed="left"))
    told = _told(journal)
    first, counts = _counts(told, start_us, end_us)
    span_us = max(end_us - start_us, 1)
    found = _floods(counts, first)
    frequent = _frequent(told, told)
    bad_actors = frequent[:BAD_ACTORS]
    waits = _responses(journal)
    standing = [s for s in states if s.active and s.state in ANNUNCIATED and not s.shadow]
    standing.sort(key=lambda state: (state.active_us, state.alarm))
    return AlarmMetrics(
        start_us=start_us,
        end_us=end_us,
        told=told.height,
        periods=tuple((first + n * PERIOD_US, int(count)) for n, count in enumerate(counts)),
        average=told.height * PERIOD_US / span_us,
        peak=int(counts.max(initial=0)),
        busy_share=float((counts > FLOOD_FROM).mean()) if len(counts) else 0.0,
        floods=found,
        flood_share=min(1.0, sum(_inside(each, start_us, end_us) for each in found) / span_us),
        bad_actors=bad_actors,
        bad_actors_share=sum(each.share for each in bad_actors),
        chattering=_chattering(told),
        standing=tuple(state.alarm for state in standing),
        stale=tuple(s.alarm for s in standing if end_us - s.active_us > STALE_US),
        priorities=_priorities(told),
        operators=_operators(journal, waits),
        response_s=_median_s(waits["wait_us"]),
        corrected=int(told["correction"].sum()),
        revoked=journal.filter(pl.col("event") == "revoke").height,
    )


def by_area(
    journal: pl.DataFrame,
    states: Iterable[AlarmState],
    start_us: int,
    end_us: int,
    *,
    depth: int = 1,
) -> dict[str, AlarmMetrics]:
    """The figures of each area that had alarms or has some standing.

    Args:
        depth: how many parts of an asset's path make an area: 1 ``utilities``, 2 ``utilities/cooling``.
    """
    states = list(states)
    areas = pl.col("asset").str.split("/").list.head(depth).list.join("/")
    journal = journal.with_columns(area=areas)
    at_home: dict[str, list[AlarmState]] = {}
    for state in states:
        at_home.setdefault("/".join(state.asset.split("/")[:depth]), []).append(state)
    lively = {area for area, some in at_home.items() if any(s.state in ANNUNCIATED for s in some)}
    return {
        area: metrics(
            journal.filter(pl.col("area") == area).drop("area"),
            at_home.get(area, []),
            start_us,
            end_us,
        )
        for area in sorted({*journal["area"].unique(), *lively})
    }


def _told(journal: pl.DataFrame) -> pl.DataFrame:
    return journal.filter((pl.col("after") == "UNACK") & (pl.col("before") != "UNACK"))


def _counts(told: pl.DataFrame, start_us: int, end_us: int) -> tuple[int, np.ndarray]:
    """Start of the first period, and the alarms of each."""
    first = start_us // PERIOD_US
    size = max(-(-end_us // PERIOD_US) - first, 0)
    places = told["at_us"].to_numpy() // PERIOD_US - first
    return first * PERIOD_US, np.bincount(places, minlength=size)


def _floods(counts: np.ndarray, first_us: int) -> tuple[Flood, ...]:
    found, begun = list[Flood](), -1
    for place, count in enumerate([*counts.tolist(), 0]):
        if begun < 0 and count > FLOOD_FROM:
            begun = place
        elif begun >= 0 and count < FLOOD_UNTIL:
            part = counts[begun:place]
            start_us, end_us = (first_us + at * PERIOD_US for at in (begun, place))
            found.append(Flood(start_us, end_us, int(part.sum()), int(part.max())))
            begun = -1
    return tuple(found)


def _inside(flood: Flood, start_us: int, end_us: int) -> int:
    return min(flood.end_us, end_us) - max(flood.start_us, start_us)


def _frequent(told: pl.DataFrame, of: pl.DataFrame) -> tuple[Count, ...]:
    counted = told.group_by("alarm", "asset").len()
    rows = counted.sort("len", "alarm", descending=[True, False]).iter_rows()
    return tuple(Count(alarm, asset, n, n / of.height) for alarm, asset, n in rows)


def _chattering(told: pl.DataFrame) -> tuple[Count, ...]:
    before_us = pl.col("at_us").shift(CHATTER - 1).over("alarm")
    fast = told.sort("alarm", "at_us").filter(pl.col("at_us") - before_us <= CHATTER_US)
    some = told.filter(pl.col("alarm").is_in(fast["alarm"].unique().implode()))
    return _frequent(some, told)


def _priorities(told: pl.DataFrame) -> tuple[PriorityShare, ...]:
    counts = np.bincount(told["priority"].to_numpy(), minlength=len(PRIORITIES)).tolist()
    total = max(told.height, 1)
    return tuple(
        PriorityShare(name, count, count / total, TARGETS[name])
        for name, count in zip(PRIORITIES, counts, strict=True)
    )


def _responses(journal: pl.DataFrame) -> pl.DataFrame:
    """(actor, wait_us) of each acknowledgement whose alarm is in the journal."""
    came = pl.when((pl.col("after") == "UNACK") & (pl.col("before") != "UNACK")).then("at_us")
    since = came.forward_fill().over("alarm")
    return (
        journal.with_row_index("row")
        .sort("alarm", "row")
        .with_columns(since=since)
        .filter((pl.col("event") == "acknowledge") & pl.col("since").is_not_null())
        .select("actor", wait_us=pl.col("at_us") - pl.col("since"))
    )


def _median_s(waits_us: pl.Series) -> float | None:
    median = waits_us.cast(pl.Float64).median()
    return None if median is None else float(median) / US_PER_S  # type: ignore[arg-type] # of numbers


def _operators(journal: pl.DataFrame, waits: pl.DataFrame) -> tuple[OperatorWork, ...]:
    work = (
        journal.filter(pl.col("actor") != "")
        .group_by("actor")
        .agg(
            (pl.col("event") == "acknowledge").sum().alias("acknowledged"),
            (pl.col("event") == "shelve").sum().alias("shelved"),
            (pl.col("event") == "comment").sum().alias("comments"),
        )
        .sort("actor")
    )
    return tuple(
        OperatorWork(
            row["actor"],
            row["acknowledged"],
            row["shelved"],
            row["comments"],
            _median_s(waits.filter(pl.col("actor") == row["actor"])["wait_us"]),
        )
        for row in work.iter_rows(named=True)
    )
