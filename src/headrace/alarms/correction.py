"""What late and corrected data make of an alarm that was told already.

What was told stays in the journal. Two histories of one alarm are compared: the one that was told, and the
one that the data say now. A stretch of being active that overlaps one of the other history is the same
alarm with other edges, and is not told again. Then:

- one that was not told at all is told now: as ``alarm`` and ``return_to_normal`` if the alarm is not active,
  else as ``missed``;
- one that was told and is not there is noted as ``revoke``;
- if the alarm is active now and was told not to be, or the other way round, ``alarm`` or
  ``return_to_normal`` brings it to what is true.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.model.alarm import EventName

FOREVER: Final = 1 << 62


class Edge(NamedTuple):
    """From ``at_us`` on the alarm is active, or not."""

    at_us: int
    active: bool


class Stretch(NamedTuple):
    """Active in ``[start_us, end_us)``."""

    start_us: int
    end_us: int

    def overlaps(self, others: list[Stretch]) -> list[Stretch]:
        return [o for o in others if o.start_us < self.end_us and self.start_us < o.end_us]


def stretches(start_us: int, active: bool, edges: list[Edge]) -> list[Stretch]:
    """When an alarm was active, from a time on; one that was active before begins before it.

    Example:
        >>> stretches(0, False, [Edge(3, True), Edge(5, False), Edge(9, True)])[0]
        Stretch(start_us=3, end_us=5)
    """
    begun = start_us - 1 if active else None
    found = []
    for edge in edges:
        if edge.active and begun is None:
            begun = edge.at_us
        elif not edge.active and begun is not None:
            found.append(Stretch(begun, edge.at_us))
            begun = None
    return found if begun is None else [*found, Stretch(begun, FOREVER)]


def corrections(
    start_us: int, active: bool, told: list[Edge], true: list[Edge]
) -> list[tuple[int, EventName]]:
    """(source time, event) of what is to be told, in order.

    Args:
        start_us: from when the histories may differ.
        active: whether the alarm was active just before.
        told, true: the edges since, of what was told and of what the data say.

    Example:
        >>> corrections(0, False, [], [Edge(3, True), Edge(5, False)])
        [(3, 'alarm'), (5, 'return_to_normal')]
        >>> corrections(0, False, [Edge(3, True)], [])
        [(3, 'revoke'), (3, 'return_to_normal')]
    """
    old, new = stretches(start_us, active, told), stretches(start_us, active, true)
    was_active = bool(old) and old[-1].end_us == FOREVER
    is_active = bool(new) and new[-1].end_us == FOREVER
    found: list[tuple[int, EventName]] = []
    for stretch in old:
        if not stretch.overlaps(new):
            found.append((stretch.start_us, "revoke"))
    for stretch in new:
        if stretch.overlaps(old):
            continue
        if was_active:
            found.append((stretch.start_us, "missed"))
        elif stretch.end_us < FOREVER:
            found += [(stretch.start_us, "alarm"), (stretch.end_us, "return_to_normal")]
    if is_active and not was_active:
        same = new[-1].overlaps(old)
        at_us = same[-1].end_us if same else new[-1].start_us
        found.append((at_us, "alarm"))
    elif was_active and not is_active:
        same = old[-1].overlaps(new)
        found.append((same[-1].end_us if same else old[-1].start_us, "return_to_normal"))
    return sorted(found, key=lambda each: each[0])
