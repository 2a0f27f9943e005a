"""What the plant calendar says of a moment, as steps: ``shift()``, ``team()``, ``holiday()`` and
``planned_stop()`` of the formula language; asked by :meth:`headrace.model.calendar.PlantCalendar.steps`.

Each is a function of time alone. It has a sample wherever it changes and at every midnight of the
plant, so none of them is ever older than a day, and what follows from it can be worked out from a
bounded past.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from headrace.model.time import US_PER_S

TEXT_WORDS: Final = ("shift", "team")
WORDS: Final = (*TEXT_WORDS, "holiday", "planned_stop")
GAP_MAX_US: Final = 2 * 86_400 * US_PER_S
"""No two samples of a word are further apart; two days are a zone that leaves out a day."""

Said = str | float
"""The name of a shift or a team, ``""`` for none; 1 or 0 of a condition."""


def steps_of(
    spans: Iterable[tuple[int, int, Said]],
    midnights: Iterable[int],
    nothing: Said,
    start_us: int,
    end_us: int,
) -> list[tuple[int, Said]]:
    """The samples of a word in ``[start_us, end_us)``.

    Args:
        spans: (start, end, value) in order, none into another; also those from before the start.
        midnights: of the plant in that time.
        nothing: its value outside of all spans.

    Example:
        >>> steps_of([(2, 4, 1.0), (4, 6, 1.0)], [0, 5], 0.0, 0, 9)
        [(0, 0.0), (2, 1.0), (5, 1.0), (6, 0.0)]
    """
    found: dict[int, Said] = {}
    for first_us, last_us, value in spans:
        found[first_us] = value
        found[last_us] = nothing
    changes, said = sorted(found.items()), set(midnights)
    made, value, place = list[tuple[int, Said]](), nothing, 0
    for at_us in sorted({at for at, _ in changes if start_us <= at < end_us} | said):
        before = value
        while place < len(changes) and changes[place][0] <= at_us:
            if changes[place][0] < at_us:
                before = changes[place][1]
            value = changes[place][1]
            place += 1
        if at_us in said or value != before:
            made.append((at_us, value))
    return made


def joined(
    stretches: Iterable[tuple[int, int]], start_us: int, end_us: int
) -> Iterator[tuple[int, int, Said]]:
    """Those that lie in ``[start_us, end_us)``, as spans of a condition; what touches or overlaps is one.

    Args:
        stretches: (start, end), sorted.
    """
    begun: tuple[int, int] | None = None
    for first_us, last_us in stretches:
        if last_us <= start_us or first_us >= end_us or first_us >= last_us:
            continue
        if begun is not None and first_us <= begun[1]:
            begun = begun[0], max(begun[1], last_us)
            continue
        if begun is not None:
            yield *begun, 1.0
        begun = first_us, last_us
    if begun is not None:
        yield *begun, 1.0
