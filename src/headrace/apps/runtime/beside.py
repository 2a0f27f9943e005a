"""What the runtime has on the machine of an edge, where there is no table, no journal and no security role."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Final

import numpy as np
import polars as pl

from headrace.apps.log_past import LogPast
from headrace.apps.runtime.wire import Told
from headrace.bus.client import Bus
from headrace.bus.knock import Admitted, Knock
from headrace.bus.rights import actor_rights
from headrace.bus.subjects import RUNTIME_BUCKET
from headrace.historian.reader import Reader
from headrace.model.folder import DataFolder
from headrace.model.sample import Int64Array, concat_batches
from headrace.model.time import US_PER_S, Clock
from headrace.security.policy import Actor

BACK_US: Final = 12 * 3_600 * US_PER_S
ROWS_MAX: Final = 1_000_000
"""Samples of the past in memory; older ones leave first."""


class LogSamples:
    """The past as the edge's own log has it; see :class:`headrace.apps.log_past.LogPast`.

    Args:
        folder: of the edge. bus: of its own broker. edge: its name.
    """

    def __init__(self, folder: DataFolder, bus: Bus, clock: Clock, edge: str) -> None:
        self._past = LogPast(bus, clock, f"past.{edge}", rows_max=ROWS_MAX, bucket=RUNTIME_BUCKET)
        self._reader = Reader(folder.root / "no_table", self._past)
        self._clock = clock
        self._tags = np.empty(0, np.int64)

    @property
    def kept_us(self) -> int:
        """Source time from which every sample is known; 0: all."""
        return self._past.kept_us

    async def want(self, tags: Int64Array) -> None:
        """From now on know these tags, sorted, beside those before."""
        if not np.isin(tags, self._tags).all():
            self._tags = np.union1d(self._tags, tags)
            await self._past.want(self._tags, BACK_US, self._clock.now_us)

    async def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        """Samples of ``[start, end)`` and the newest of each tag before it.

        Raises:
            Transient: APPS-1409 when the log cannot be read to its end within 10 s; ask again.
        """
        await self._past.catch_up()
        wanted = [int(tag) for tag in np.asarray(tag_ids)]
        before = await asyncio.to_thread(self._reader.before, wanted, start_us)
        found = await asyncio.to_thread(self._reader.read, wanted, start_us, end_us)
        return concat_batches([before, found])

    async def close(self) -> None:
        """Follow no more."""
        await self._past.close()


class NoAlarms:
    """Alarms have one journal, on the platform: nothing of it is told on an edge."""

    async def last(self) -> int:
        return 0

    async def after(self, number: int) -> list[Told]:
        del number
        return []

    def close(self) -> None:
        """Nothing is open."""


class Door:
    """Who may come in at the broker of an edge's machine beside our own roles: the apps that its runtime
    started, each with a secret of its own, which nobody keeps."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def secret(self, word: str) -> str:
        """The secret of an app; another one each time the runtime starts."""
        return self._given.setdefault(word, secrets.token_urlsafe(32))

    def knows(self, knock: Knock) -> bool:
        """Whether it is one of them by name."""
        return knock.name in self._given and not knock.is_leaf

    async def admit(self, knock: Knock) -> Admitted | None:
        """The app, when its secret is right."""
        known = self._given.get(knock.name, "")
        if not known or not hmac.compare_digest(known.encode(), knock.secret.encode()):
            return None
        actor = Actor(knock.name, "viewer", kind="app")
        rights = actor_rights(actor)
        return Admitted(actor, rights) if rights is not None else None

    def close(self) -> None:
        """Nothing is open."""
