"""The sign-in brake: slows guessing down, and can never lock the plant out.

Failures are counted for the pair (name, address). After three free tries each failure doubles the
wait, up to 30 s, and a quarter of an hour without a failure forgets them. Somebody who guesses from
elsewhere does not slow down the person at the plant, and no account is ever closed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from headrace.model.errors import Transient
from headrace.model.time import Clock

FREE_TRIES: Final = 3
WAIT_MAX_S: Final = 30.0
FORGET_S: Final = 900.0
PAIRS_MAX: Final = 10_000


class SignInBrake:
    """Counts failed sign-ins in bounded memory.

    Args:
        clock: only its monotonic side is used.

    Example:
        >>> from headrace.model.time import ManualClock
        >>> brake = SignInBrake(ManualClock())
        >>> brake.check("admin", "10.0.0.7")
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def check(self, name: str, address: str) -> None:
        """Pass, or say how long to wait.

        Raises:
            Transient: SEC-1002 with ``retry_after_s`` while this pair must wait.
        """
        count, last_s = self._failures.get((name, address), (0, 0.0))
        passed_s = self._clock.monotonic_s() - last_s
        if count < FREE_TRIES or passed_s > FORGET_S:
            return
        wait_s = min(WAIT_MAX_S, 2.0 ** (count - FREE_TRIES)) - passed_s
        if wait_s > 0:
            raise Transient(
                "SEC-1002",
                f"too many failed sign-ins as {name!r} from {address}",
                f"Try again in {int(wait_s) + 1} s.",
                retry_after_s=wait_s,
            )

    def failed(self, name: str, address: str) -> None:
        """Count a failure."""
        now_s = self._clock.monotonic_s()
        count, last_s = self._failures.pop((name, address), (0, now_s))
        fresh = count if now_s - last_s <= FORGET_S else 0
        self._failures[(name, address)] = (min(fresh + 1, 64), now_s)
        while len(self._failures) > PAIRS_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """Forget this pair's failures."""
        self._failures.pop((name, address), None)
