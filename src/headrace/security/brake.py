"""The sign-in brake: slows guessing down, and can never lock the plant out.

Failures are counted for the pair (name, address). After three free tries each failure doubles the
wait, up to 30 s, and a quarter of an hour without a failure forgets them. Somebody who guesses from
elsewhere does not slow down the person at the plant, and no account is ever closed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from headrace.model.errors import Transient
from headrace.model.time import US_PER_S, Clock

FREE_TRIES: Final = 3
WAIT_MAX_S: Final = 30.0
FORGET_S: Final = 900.0
PAIRS_MAX: Final = 10_000


class Failures(Protocol):
    """Where failures are counted: (count, UTC microseconds of the last one) of a pair."""

    def get(self, pair: tuple[str, str]) -> tuple[int, int]:
        """(0, 0) when there was none."""
        ...

    def put(self, pair: tuple[str, str], count: int, last_us: int) -> None: ...

    def drop(self, pair: tuple[str, str]) -> None: ...


class _InMemory:
    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def get(self, pair: tuple[str, str]) -> tuple[int, int]:
        return self._known.get(pair, (0, 0))

    def put(self, pair: tuple[str, str], count: int, last_us: int) -> None:
        self._known.pop(pair, None)
        self._known[pair] = (count, last_us)
        while len(self._known) > PAIRS_MAX:
            self._known.popitem(last=False)

    def drop(self, pair: tuple[str, str]) -> None:
        self._known.pop(pair, None)


class SignInBrake:
    """Counts failed sign-ins, bounded.

    Args:
        clock: its wall clock, which several consoles have in common; a failure that lies in its
            future was counted before it was set back, and is forgotten.
        failures: shared with other consoles; None counts in memory.
        free_tries: so many failures cost nothing.

    Example:
        >>> from headrace.model.time import ManualClock
        >>> brake = SignInBrake(ManualClock())
        >>> brake.check("admin", "10.0.0.7")
    """

    def __init__(
        self, clock: Clock, failures: Failures | None = None, *, free_tries: int = FREE_TRIES
    ) -> None:
        self._free_tries = free_tries
        self._clock = clock
        self._failures = failures or _InMemory()

    def check(self, name: str, address: str) -> None:
        """Pass, or say how long to wait.

        Raises:
            Transient: SEC-1002 with ``retry_after_s`` while this pair must wait.
        """
        count, passed_s = self._known(name, address)
        if count < self._free_tries:
            return
        wait_s = min(WAIT_MAX_S, 2.0 ** (count - self._free_tries)) - passed_s
        if wait_s > 0:
            raise Transient(
                "SEC-1002",
                f"too many failed sign-ins as {name!r} from {address}",
                f"Try again in {int(wait_s) + 1} s.",
                retry_after_s=wait_s,
            )

    def failed(self, name: str, address: str) -> int:
        """Count a failure; gives how many there are now."""
        count, _ = self._known(name, address)
        self._failures.put((name, address), min(count + 1, 64), self._clock.now_us())
        return min(count + 1, 64)

    def succeeded(self, name: str, address: str) -> None:
        """Forget this pair's failures."""
        if self._failures.get((name, address))[0]:
            self._failures.drop((name, address))

    def _known(self, name: str, address: str) -> tuple[int, float]:
        """(failures that still count, seconds since the last one)."""
        count, last_us = self._failures.get((name, address))
        passed_s = (self._clock.now_us() - last_us) / US_PER_S
        return (count, passed_s) if 0 <= passed_s <= FORGET_S else (0, 0.0)
