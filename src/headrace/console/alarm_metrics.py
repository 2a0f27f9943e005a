"""The figures of the metrics page, from the core's metrics over the journal."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from headrace.console.alarms import AlarmBoard
from headrace.model.alarm import PRIORITIES, AlarmState
from headrace.model.time import US_PER_S

TEN_MINUTES_US: Final = 600 * US_PER_S
ACTORS: Final = 10
CHATTER: Final = 3
CHATTER_US: Final = 60 * US_PER_S
STALE_US: Final = 86_400 * US_PER_S
TARGETS: Final = {"low": 0.80, "medium": 0.15, "high": 0.05, "urgent": 0.01}


class BadActor(NamedTuple):
    """An alarm that comes often: how often, and its share of all."""

    alarm: str
    asset: str
    count: int
    share: float = 0.0

    @property
    def name(self) -> str:
        return self.alarm.rpartition("/")[2]


class Flood(NamedTuple):
    """From its first ten minutes to its last: how many alarms, and the most in ten minutes."""

    start_us: int
    end_us: int
    alarms: int
    peak: int


class MetricsView(NamedTuple):
    """What the page shows of ``[start_us, end_us)``; shares are 0 to 1, times source time."""

    start_us: int
    end_us: int
    rates: tuple[tuple[int, int], ...]
    average: float
    peak: int
    floods: tuple[Flood, ...]
    flood_share: float
    actors: tuple[BadActor, ...]
    chattering: tuple[BadActor, ...]
    standing: tuple[AlarmState, ...]
    stale: int
    priorities: dict[str, float]
    targets: dict[str, float]
    operators: tuple[str, ...]


async def metrics_view(
    board: AlarmBoard, span_us: tuple[int, int], below: str, actor: str
) -> MetricsView:
    """Count.

    Args:
        below: equipment path, "" for the site. actor: only alarms that this user dealt with.

    Raises:
        Transient: ALARM-1103 when the journal cannot be read.
    """
    frame = await board.journal_frame(*span_us, below)
    return await asyncio.to_thread(_view, frame, board.states, span_us, below, actor)


def _view(
    frame: pl.DataFrame,
    states: tuple[AlarmState, ...],
    span_us: tuple[int, int],
    below: str,
    actor: str,
) -> MetricsView:
    start_us, end_us = span_us
    operators = frame.filter(pl.col("actor") != "")["actor"].unique().sort().to_list()
    if actor:
        mine = frame.filter(pl.col("actor") == actor)["alarm"].unique()
        frame = frame.filter(pl.col("alarm").is_in(mine.implode()))
    came = frame.filter(pl.col("event") == "alarm")
    first = start_us // TEN_MINUTES_US
    bins = end_us // TEN_MINUTES_US - first + 1
    counts = np.bincount(came["at_us"].to_numpy() // TEN_MINUTES_US - first, minlength=bins)
    floods = tuple(_floods(counts, first))
    total = max(came.height, 1)
    by_alarm = came.group_by("alarm", "asset").len().sort("len", "alarm", descending=[True, False])
    standing = tuple(s for s in states if s.active and not s.shadow and _below(s, below))
    return MetricsView(
        start_us,
        end_us,
        tuple((int((first + i) * TEN_MINUTES_US), int(n)) for i, n in enumerate(counts)),
        average=came.height / max((end_us - start_us) / TEN_MINUTES_US, 1.0),
        peak=int(counts.max(initial=0)),
        floods=floods,
        flood_share=sum(f.end_us - f.start_us for f in floods) / (end_us - start_us),
        actors=tuple(BadActor(a, b, n, n / total) for a, b, n in by_alarm.head(ACTORS).iter_rows()),
        chattering=_chattering(came),
        standing=standing,
        stale=sum(end_us - s.active_us > STALE_US for s in standing),
        priorities={
            name: came.filter(pl.col("priority") == rank).height / total
            for rank, name in enumerate(PRIORITIES)
        },
        targets=dict(TARGETS),
        operators=tuple(operators),
    )


def _below(state: AlarmState, below: str) -> bool:
    return not below or f"{state.asset}/".startswith(f"{below}/")


def _floods(counts: Any, first: int) -> list[Flood]:
    found: list[Flood] = []
    begun = -1
    for i, n in enumerate([*counts.tolist(), 0]):
        if begun < 0 and n > 10:
            begun = i
        elif begun >= 0 and n < 5:
            part = counts[begun:i]
            start, end = ((first + at) * TEN_MINUTES_US for at in (begun, i))
            found.append(Flood(int(start), int(end), int(part.sum()), int(part.max())))
            begun = -1
    return found


def _chattering(came: pl.DataFrame) -> tuple[BadActor, ...]:
    within = pl.col("at_us") - pl.col("at_us").shift(CHATTER - 1).over("alarm") <= CHATTER_US
    often = came.sort("alarm", "at_us").filter(within)["alarm"].unique()
    found = came.filter(pl.col("alarm").is_in(often.implode())).group_by("alarm", "asset").len()
    rows = found.sort("len", "alarm", descending=[True, False]).iter_rows()
    return tuple(BadActor(alarm, asset, count) for alarm, asset, count in rows)
