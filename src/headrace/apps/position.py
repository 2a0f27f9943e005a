"""How far the role has come: what a kill at any moment needs to go on as if nothing had been.

The position is written after the log has every result that belongs to it. A role that finds it works the
time after it out again from history, and gives the log only what it lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.bus.client import Bus
from headrace.bus.subjects import APPS_BUCKET
from headrace.formula.bound import Bound
from headrace.model.apps import Cause
from headrace.model.calendar import PlantCalendar
from headrace.model.decoding import UNREADABLE

KEY: Final = "position"
ASSETS_NAMED_MAX: Final = 50
SPANS_MAX: Final = 200


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A time whose results are to be worked out again.

    Attributes:
        key: of the formula. assets: paths; none means all.
        start_us, end_us: source time of the results, the end is not in it.
        cause: why.
    """

    key: str
    assets: tuple[str, ...] = ()
    start_us: int
    end_us: int
    cause: Cause


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far the role has come.

    Attributes:
        log_us: when the log was made that ``sequence`` counts in; its identity.
        sequence: every message up to it was taken in.
        done_us: source time up to which results are out.
        received_us: no result was given a later receive time; the next ones are given later ones.
        definitions: of each formula that ran, a hash of what is said of it; see :func:`definition`.
        births: source time from which a formula has results that is not told one.
        calendar: that they were worked out with.
        spans: what is still to be worked out again.
    """

    log_us: int
    sequence: int
    done_us: int
    received_us: int
    definitions: dict[str, str] = {}
    births: dict[str, int] = {}
    calendar: PlantCalendar = PlantCalendar()
    spans: tuple[Span, ...] = ()


def definition(bound: Bound, text: str) -> str:
    """A hash of what an engineer says of a formula: its text, version, beginning and state."""
    told = f"{bound.version}\n{bound.start_us}\n{bound.state}\n{text}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same time in few spans: of one formula and cause those that touch become one, and all of
    them where they are many.

    Example:
        >>> one = Span(key="a.b", assets=("x",), start_us=5, end_us=9, cause="late")
        >>> two = Span(key="a.b", assets=("y",), start_us=1, end_us=6, cause="late")
        >>> merged([one, two])[0].start_us, merged([one, two])[0].assets
        (1, ('y', 'x'))
    """
    ordered = sorted(spans, key=lambda span: (span.key, span.cause, span.start_us))
    found = _joined(ordered, anyhow=False)
    return tuple(found if len(found) <= SPANS_MAX else _joined(ordered, anyhow=True))


def _joined(ordered: list[Span], *, anyhow: bool) -> list[Span]:
    found: list[Span] = []
    for span in ordered:
        last = found[-1] if found else None
        same = last is not None and (last.key, last.cause) == (span.key, span.cause)
        if last is None or not same or (span.start_us > last.end_us and not anyhow):
            found.append(span)
            continue
        assets = tuple(dict.fromkeys((*last.assets, *span.assets)))
        every = not last.assets or not span.assets or len(assets) > ASSETS_NAMED_MAX
        found[-1] = Span(
            key=span.key,
            assets=() if every else assets,
            start_us=last.start_us,
            end_us=max(last.end_us, span.end_us),
            cause=span.cause,
        )
    return found


async def load_position(bus: Bus, edge: str = "") -> Position | None:
    """The position of the last life; None when there is none that can be read.

    Args:
        edge: beside which the role runs; empty: on the platform.

    Raises:
        Transient: BUS-1026 when the broker is away.
    """
    await bus.key_value(APPS_BUCKET, history=1)
    raw = await bus.get(APPS_BUCKET, _key(edge))
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Position)
    except UNREADABLE:
        return None  # of another version of ours: as if it ran for the first time


async def save_position(bus: Bus, position: Position, edge: str = "") -> None:
    """Keep a position, durably.

    Raises:
        Transient: BUS-1027 when the broker is away. Refused: BUS-1028 when it is too long.
    """
    await bus.put(APPS_BUCKET, _key(edge), msgspec.json.encode(position))


def _key(edge: str) -> str:
    return f"{KEY}.{edge}" if edge else KEY
