"""Lanes for the work of hashing passwords: what an attacker may take of it has a bound.

Each hash takes 64 MiB and a core for some 50 ms. A lane has a few threads and a short queue; an address has
few places in it, and a browser in which this user signed in before goes by a lane of its own, so that a
flood of sign-ins neither fills the memory nor holds up who is known. Bounds::

    lane       threads  places  of one address    who
    strangers     2       32          2           everybody
    known         1        8          2           browsers with a device secret of that user; who is signed in
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from headrace.model.errors import Transient

STRANGERS_MAX: Final = 32
KNOWN_MAX: Final = 8
PER_ADDRESS_MAX: Final = 2
RETRY_S: Final = 1.0
T = TypeVar("T")


class Lane:
    """A few threads with a short queue in which one address has few places.

    Args:
        name: in the names of its threads.
        threads: how many calls run at once.
        places: how many run and wait, in all.
    """

    def __init__(self, name: str, threads: int, places: int) -> None:
        self._pool = ThreadPoolExecutor(threads, f"sign-in-{name}")
        self._places = places
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    async def run(self, address: str, call: Callable[..., T], *args: Any, **named: Any) -> T:
        """Give what ``call`` gives, in a thread of this lane.

        Raises:
            Transient: SEC-1027 at once when the lane, or the address's places in it, are taken.
        """
        self._enter(address)
        work: Future[T] = self._pool.submit(call, *args, **named)
        work.add_done_callback(lambda _: self._leave(address))
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Begin nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _enter(self, address: str) -> None:
        with self._lock:
            if self._taken.total() >= self._places or self._taken[address] >= PER_ADDRESS_MAX:
                raise Transient(
                    "SEC-1027",
                    f"too many sign-ins at once, from {address} or in all",
                    "Try again in a second.",
                    retry_after_s=RETRY_S,
                )
            self._taken[address] += 1

    def _leave(self, address: str) -> None:
        with self._lock:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


class SignInLanes:
    """Both lanes of one console."""

    def __init__(self) -> None:
        self.strangers = Lane("strangers", 2, STRANGERS_MAX)
        self.known = Lane("known", 1, KNOWN_MAX)

    def close(self) -> None:
        """Begin nothing any more."""
        self.strangers.close()
        self.known.close()


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the /64, which one host has for itself.

    Example:
        >>> network_of("2001:db8::1:2:3:4"), network_of("10.0.0.7")
        ('2001:db8::/64', '10.0.0.7')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network(f"{found}/64", strict=False))
    return str(found)
