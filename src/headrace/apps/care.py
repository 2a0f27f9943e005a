"""What the apps role tells of the installation itself: certificates that end soon, as alarms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.alarms.standing import Standing
from headrace.model.alarm import Priority, Wording
from headrace.security.expiry import remedy, text, threshold
from headrace.security.listener import Issued

ASSET: Final = "certificates"
_PRIORITIES: Final[dict[int, Priority]] = {30: "low", 7: "medium", 1: "high", 0: "urgent"}


def ending(entries: Iterable[Issued], now_us: int) -> list[Standing]:
    """An alarm for each certificate that ends within 30 days, graver at 7, at 1, and when it has ended.

    Args:
        entries: the newest of each use and name: one that is renewed is not there any more.
    """
    found = []
    for entry in entries:
        reached = threshold(entry, now_us)
        if reached is not None:
            what = Wording(text(entry, now_us), text(entry, now_us, "zh"))
            name = f"{entry.use}:{entry.name}"
            found.append(
                Standing(
                    ASSET, name, "certificate", _PRIORITIES[reached], what, Wording(remedy(entry))
                )
            )
    return found
