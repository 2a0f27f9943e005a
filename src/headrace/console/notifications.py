"""The console's side of notifications: channels with what became of their messages, the log, a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from headrace.alarms.notify.notifier import send_test
from headrace.alarms.notify.robots import Outcome
from headrace.alarms.notify.sending import Sender
from headrace.alarms.notify.store import Attempt, NotifyStore
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.model.notify import ChannelKind, NotifyConfig
from headrace.model.time import Clock

Read = Callable[[str], Awaitable[bytes | None]]


class ChannelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One channel as lists show it; it has no secret.

    Attributes:
        routes: names of the routes that lead to it. waiting: what is due later, or could not be sent.
        failed: refused, expired, or its channel was gone. last: the newest attempt.
    """

    name: str
    kind: ChannelKind
    routes: tuple[str, ...]
    fallback: str
    waiting: int
    sent: int
    settled: int
    failed: int
    last: Attempt | None


class NotifyBoard:
    """What pages and routes see of notifications.

    Args:
        folder: the data folder, with secrets and store.
        read: gives a key of the desired state, None when there is none.
    """

    def __init__(self, folder: DataFolder, read: Read, clock: Clock) -> None:
        self._folder = folder
        self._read = read
        self._clock = clock
        self._store: NotifyStore | None = None
        self._sender = Sender(folder.root, clock.now_us)
        self._opening = asyncio.Lock()

    async def config(self) -> NotifyConfig:
        """The settings in force.

        Raises:
            Transient: BUS-1033 when the broker does not answer.
        """
        raw = await self._read("notify")
        return msgspec.json.decode(raw, type=NotifyConfig) if raw else NotifyConfig()

    async def channels(self) -> list[ChannelLine]:
        """Every channel.

        Raises:
            Transient: BUS-1033 or ALARM-2006 when the broker or the store does not answer.
        """
        config = await self.config()
        store = await self._opened()
        counts = await asyncio.to_thread(store.counts)
        lines = []
        for channel in config.channels:
            last = await asyncio.to_thread(store.log, channel=channel.name, limit=1)
            own = counts.get(channel.name, {})
            lines.append(
                ChannelLine(
                    name=channel.name,
                    kind=channel.kind,
                    routes=tuple(
                        route.name
                        for route in config.routes
                        if any(channel.name in step.channels for step in route.steps)
                    ),
                    fallback=channel.fallback,
                    waiting=own.get("waiting", 0),
                    sent=own.get("sent", 0),
                    settled=own.get("settled", 0),
                    failed=own.get("failed", 0) + own.get("expired", 0),
                    last=last[0] if last else None,
                )
            )
        return lines

    async def log(self, *, channel: str = "", start_us: int = 0, limit: int = 200) -> list[Attempt]:
        """Attempts, newest first.

        Raises:
            Transient: ALARM-2006 when the store does not answer.
        """
        store = await self._opened()
        return await asyncio.to_thread(store.log, channel=channel, start_us=start_us, limit=limit)

    async def test(self, channel: str) -> Outcome:
        """Send a test message.

        Raises:
            Misconfigured: ALARM-2007 when there is no such channel.
            Transient: BUS-1033 or ALARM-2006 when the broker or the store does not answer.
        """
        config = await self.config()
        raw = await self._read("apps")
        apps = (
            msgspec.json.decode(raw, type=AppsConfig) if raw else AppsConfig(enterprise="", site="")
        )
        store = await self._opened()
        return await send_test(
            channel, config, apps.calendar, store, self._clock, self._sender.send
        )

    async def _opened(self) -> NotifyStore:
        async with self._opening:
            if self._store is None:
                self._store = await asyncio.to_thread(NotifyStore, self._folder)
        return self._store

    def close(self) -> None:
        """Close the store, when it was needed."""
        if self._store is not None:
            self._store.close()
