"""A lease: of several processes on any machines, one at a time does a piece of work.

A key of the bucket ``lease`` holds who has it; each renewal moves its revision. Whoever sees a revision
stand still for the whole term takes it by compare-and-set. Nobody compares clocks: each side measures the term
with its own, and the holder counts from before it renewed, so it stops before another begins.
"""

from __future__ import annotations

import secrets
from typing import Final

import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from headrace.bus.client import Bus
from headrace.model.time import Clock

LEASE_BUCKET: Final = "lease"
TERM_S: Final = 6.0
RENEWALS_A_TERM: Final = 3
_AWAY: Final = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)


class Lease:
    """One process' side of one lease.

    Args:
        bus: open.
        key: what the lease is for.
        place: where the holder lives, for people; a holder of the same place that came before is
            known to be gone (the caller holds a lock there), and its lease is taken over at once.
        clock: only its monotonic side is used.
        term_s: how long a holder that was killed blocks the others.
    """

    def __init__(
        self, bus: Bus, key: str, place: str, clock: Clock, *, term_s: float = TERM_S
    ) -> None:
        self._bus = bus
        self._key = key
        self._place = place
        self._clock = clock
        self._term_s = term_s
        self._token = f"{place}/{secrets.token_hex(8)}".encode()
        self._revision = 0
        self._seen: tuple[int, float] = (-1, 0.0)
        self._renewed_s = float("-inf")

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have it now."""
        return self._clock.monotonic_s() - self._renewed_s < self._term_s * 0.8

    async def hold(self) -> bool:
        """Take it when it is free, renew it when that is due; True while it is ours. Call it each second."""
        begun_s = self._clock.monotonic_s()
        if begun_s - self._renewed_s < self._term_s / RENEWALS_A_TERM:
            return True
        try:
            bucket = await self._bus.key_value(LEASE_BUCKET, history=1)
            if await self._renew(bucket, begun_s):
                self._renewed_s = begun_s
        except _AWAY:
            return self.is_held  # the broker is away; nobody else can take it either
        return self.is_held

    async def _renew(self, bucket: KeyValue, begun_s: float) -> bool:
        try:
            entry = await bucket.get(self._key)
            held_by, revision = entry.value or b"", int(entry.revision or 0)
        except nats.js.errors.KeyNotFoundError:
            held_by, revision = b"", 0
        if self._seen[0] != revision:
            self._seen = (revision, begun_s)
        free = not held_by or begun_s - self._seen[1] >= self._term_s
        ours = held_by.rpartition(b"/")[0] == self._place.encode()
        if not (free or ours):
            self._renewed_s = float("-inf")
            return False
        try:
            self._revision = await bucket.update(self._key, self._token, last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            self._renewed_s = float("-inf")
            return False
        self._seen = (self._revision, begun_s)
        return True

    async def release(self) -> None:
        """Let the next one begin at once."""
        if not self.is_held:
            return
        self._renewed_s = float("-inf")
        try:
            bucket = await self._bus.key_value(LEASE_BUCKET, history=1)
            await bucket.update(self._key, b"", last=self._revision)
        except _AWAY:
            return  # it runs out by itself
