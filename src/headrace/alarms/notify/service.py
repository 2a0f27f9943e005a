"""Notifications as a part of the apps role: follows the alarms' journal and the settings, and sends.

The journal is followed from a position of its own, so what was written while nobody told people is
told afterwards, as far as it is not too old.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from headrace.alarms.notify.notices import Guide, guide_of, notice_of
from headrace.alarms.notify.notifier import Notifier
from headrace.alarms.notify.sending import Sender
from headrace.alarms.notify.store import NotifyStore
from headrace.alarms.store import AlarmStore
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.model.health import Event
from headrace.model.knowledge import AppsConfig
from headrace.model.notify import NotifyConfig
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock

LOOK_S: Final = 1.0
LINES_A_TURN: Final = 1_000
FIRST_US: Final = 3_600 * 1_000_000
"""How far back a first start looks into a journal that was there before."""
_log = logging.getLogger(__name__)


class JournalFollower:
    """Hands new lines of the alarms' journal to a notifier, once each.

    Args:
        alarms: the journal. notifier: takes notices and keeps the position.
    """

    def __init__(self, alarms: AlarmStore, notifier: Notifier, clock: Clock) -> None:
        self._alarms = alarms
        self._notifier = notifier
        self._clock = clock
        self._number: int | None = None
        self._since_us = 0
        self.guide = Guide({}, {})

    def rest(self) -> None:
        """Another process follows now; begin where it ends."""
        self._number = None

    async def step(self) -> bool:
        """Take the next lines; whether there were any.

        Raises:
            Transient: ALARM-1103 or ALARM-2006 when a store does not answer; call again.
        """
        if self._number is None:
            position = await self._notifier.position()
            self._since_us = 0 if position else self._clock.now_us() - FIRST_US
            self._number = int(position or 0)
        lines = await asyncio.to_thread(self._alarms.after, self._number, LINES_A_TURN)
        if not lines:
            return False
        notices = [
            notice
            for line in lines
            if line.transition.recorded_us >= self._since_us
            and (notice := notice_of(line.transition, self.guide)) is not None
        ]
        await self._notifier.take(notices, str(lines[-1].number))
        self._number = lines[-1].number
        return True


async def run_notify(
    folder: DataFolder,
    bus: Bus,
    clock: Clock,
    stop: asyncio.Event,
    *,
    report: Callable[[Event], None],
    may_work: Callable[[], bool] = lambda: True,
) -> None:
    """Tell people of alarms until ``stop`` is set; stores that do not answer are waited for.

    Args:
        report: takes what happens to channels.
        may_work: whether this process is the one of several that tells; asked each second.
    """
    while (found := await _stores(folder)) is None:
        await _pause(stop)
        if stop.is_set():
            return
    alarms, store = found
    try:
        sender = Sender(folder.root, clock.now_us)
        notifier = Notifier(store, clock, send=sender.send, report=report)
        service = _Service(bus, JournalFollower(alarms, notifier, clock), notifier, may_work)
        await service.run(stop)
    finally:
        store.close()
        alarms.close()


async def _stores(folder: DataFolder) -> tuple[AlarmStore, NotifyStore] | None:
    """Both stores; None when the database does not answer now."""
    try:
        alarms = await asyncio.to_thread(AlarmStore, folder)
        try:
            return alarms, await asyncio.to_thread(NotifyStore, folder)
        except HeadraceError:
            alarms.close()
            raise
    except HeadraceError as error:
        _log.warning("%s", error)
        return None


class _Service:
    def __init__(
        self,
        bus: Bus,
        follower: JournalFollower,
        notifier: Notifier,
        may_work: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._follower = follower
        self._notifier = notifier
        self._may_work = may_work
        self._apps: AppsConfig | None = None
        self._config: NotifyConfig | None = None
        self._changed = False

    async def run(self, stop: asyncio.Event) -> None:
        watching = [
            asyncio.create_task(self._watch_apps()),
            asyncio.create_task(self._watch_settings()),
        ]
        sending: asyncio.Task[None] | None = None
        resting = asyncio.Event()
        try:
            while not stop.is_set():
                may_work = self._may_work() and self._config is not None and self._apps is not None
                if may_work and sending is None:
                    resting.clear()
                    sending = asyncio.create_task(self._notifier.run(resting))
                elif not may_work and sending is not None:
                    resting.set()
                    await sending
                    sending = None
                    self._follower.rest()
                if sending is not None and sending.done():
                    sending.result()
                busy = may_work and await self._turn()
                if not busy:
                    await _pause(stop)
            resting.set()
            if sending is not None:
                await sending  # what is under way has a moment to end
        finally:
            await end_tasks(*watching, *([sending] if sending is not None else []))

    async def _turn(self) -> bool:
        """Settings first, then the journal; whether there may be more."""
        assert self._config is not None and self._apps is not None, "there are settings"
        try:
            if self._changed:
                await self._notifier.configure(self._config, self._apps.calendar)
                self._follower.guide = guide_of(self._apps)
                self._changed = False
            return await self._follower.step()
        except HeadraceError as error:
            _log.warning("%s", error)
            return False

    async def _watch_apps(self) -> None:
        async for raw in self._bus.watch(DESIRED_BUCKET, "apps"):
            try:
                self._apps = msgspec.json.decode(raw, type=AppsConfig)
            except UNREADABLE as error:
                _log.warning("the desired state of the apps role cannot be read: %s", error)
                continue
            self._changed = True

    async def _watch_settings(self) -> None:
        async for raw in self._bus.watch(DESIRED_BUCKET, "notify"):
            try:
                self._config = msgspec.json.decode(raw, type=NotifyConfig)
            except UNREADABLE as error:
                _log.warning("the settings of notifications cannot be read: %s", error)
                continue
            self._changed = True


async def _pause(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), LOOK_S)
    except TimeoutError:
        pass
