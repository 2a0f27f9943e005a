"""Marks of alarms that read without colour: priorities by shape and number, states by picture and word.

Shapes as ISA-101 and EEMUA 201 advise: each priority has one of its own, and colour only repeats it.
"""

from __future__ import annotations

from typing import Final

from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, tag

_SHAPES: Final[dict[str, tuple[str, int, float]]] = {
    "urgent": ("M6.2 1h7.600L19 6.200v7.600L13.800 19H6.200L1 13.800V6.200z", 1, 14.2),
    "high": ("M10 1.500 19.200 18H.8z", 2, 15.8),
    "medium": ("M.8 2h18.400L10 18.500z", 3, 11.2),
    "low": ("M10 1.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17z", 4, 14.2),
}
STATE_ICONS: Final = {
    "NORM": "check",
    "UNACK": "bell",
    "ACKED": "check",
    "RTNUN": "returned",
    "LATUN": "lock",
    "LATCH": "lock",
    "SHLVD": "clock",
    "DSUPR": "muted",
    "OOSRV": "wrench",
}


def priority_mark(priority: str, title: str) -> Markup:
    """The priority's shape with its number, 1 the highest."""
    outline, number, baseline = _SHAPES[priority]
    shape = Markup(
        f'<svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true"><path d="{outline}"/>'
        f'<text x="10" y="{baseline}" text-anchor="middle">{number}</text></svg>'
    )
    return tag("span.hr-prio", shape, cls=priority, title=title, role="img", aria_label=title)


def state_mark(state: str, title: str) -> Markup:
    """The state as picture and word."""
    return tag("span.hr-alstate", icon(STATE_ICONS[state], 15), tag("span", title), cls=state)
