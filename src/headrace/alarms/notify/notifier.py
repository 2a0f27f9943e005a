"""Sends what is due, each channel at its own pace, and lets what a channel cannot deliver fall to the next.

::

    take ── plan ── store ──► channel's turn ── attempt ── answer ── store
                                 ▲                           │ failed 3 times, or refused
                                 └──── next step now ◄───────┘ the next channel is told, this one tried on

What was taken is on disk when :meth:`Notifier.take` returns; a delivery is marked as delivered when its
answer is known. A kill between the two makes the message go once more, under the same key: it is told
at least once, and in all other cases exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from headrace.alarms.notify.plan import (
    DIGEST_MAX,
    FALL_AFTER,
    MINUTE_US,
    Allowance,
    Delivery,
    back_off_us,
    parcel,
    plan,
)
from headrace.alarms.notify.robots import REMEDIES, Outcome
from headrace.alarms.notify.store import NotifyStore
from headrace.alarms.notify.texts import Message, clock_text, compose, compose_test
from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Misconfigured, Transient
from headrace.model.health import Event, Severity
from headrace.model.notify import ChannelConfig, Notice, NotifyConfig
from headrace.model.time import US_PER_S, Clock

LOOK_S: Final = 30.0
AGAIN_S: Final = 2.0
TIDY_S: Final = 3_600.0
STOP_S: Final = 2.5
NAMED_MAX: Final = 5
Send = Callable[[ChannelConfig, Message, str], Awaitable[Outcome]]
_log = logging.getLogger(__name__)


class _Turn:
    """What is remembered of one channel while the process runs."""

    def __init__(self, channel: ChannelConfig, sent_us: Sequence[int]) -> None:
        self.channel = channel
        self.allowance = Allowance(channel.rate_per_min, sent_us)
        self.failures = 0
        self.paused_us = 0
        self.wake = asyncio.Event()

    @property
    def dead(self) -> bool:
        return self.failures >= FALL_AFTER


class Notifier:
    """Tells people of alarms.

    Args:
        store: what is due and what became of it.
        clock: decides when; held in tests.
        send: one attempt, :meth:`headrace.alarms.notify.sending.Sender.send`.
        report: takes what happens to channels.
    """

    def __init__(
        self, store: NotifyStore, clock: Clock, *, send: Send, report: Callable[[Event], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._send = send
        self._report = report
        self._config = NotifyConfig()
        self._calendar = PlantCalendar()
        self._turns: dict[str, _Turn] = {}
        self._changed = asyncio.Event()

    async def configure(self, config: NotifyConfig, calendar: PlantCalendar) -> None:
        """From now on these settings; what waits keeps its channel and time.

        Raises:
            Transient: ALARM-2006 when the store does not answer.
        """
        now_us = self._clock.now_us()
        turns = {}
        for channel in config.channels:
            known = self._turns.get(channel.name)
            if known is None or known.channel != channel:
                since_us = now_us - MINUTE_US
                sent_us = await asyncio.to_thread(self._store.sent_us, channel.name, since_us)
                known = _Turn(channel, sent_us)
            turns[channel.name] = known
        gone = await asyncio.to_thread(self._store.abandon, list(turns), now_us)
        for name, count in gone.items():
            text = f"{count} notifications waited for channel {name}, which is no more"
            self._say(
                "warning", "ALARM-2014", name, text, "They are in the log: headrace notify log"
            )
        for turn in self._turns.values():
            turn.wake.set()
        self._config, self._calendar, self._turns = config, calendar, turns
        self._changed.set()

    async def take(self, notices: Sequence[Notice], position: str) -> None:
        """Take transitions in the order of the journal; they are on disk when this returns.

        Args:
            position: where to go on after a restart, given back by :meth:`position`.

        Raises:
            Transient: ALARM-2006 when the store does not answer; take them again.
        """
        changes = [
            (each, plan(each, self._config, self._calendar) if each.event == "raised" else ())
            for each in notices
        ]
        now_us = self._clock.now_us()
        lost = await asyncio.to_thread(self._store.take, changes, self._config, position, now_us)
        if lost:
            text = f"{lost} notifications found no room: too many wait to be sent"
            self._say(
                "error",
                "ALARM-2015",
                "store",
                text,
                "See which channel fails: headrace notify list",
            )
        self._wake()

    async def position(self) -> str:
        """Where the journal was read to; empty at the first start.

        Raises:
            Transient: ALARM-2006 when the store does not answer.
        """
        return await asyncio.to_thread(self._store.position)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop`` is set; what is under way then has a moment to end."""
        await self._patiently(lambda: asyncio.to_thread(self._store.recover), stop)
        tasks: dict[str, asyncio.Task[None]] = {}
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._changed.clear()
                for name in self._turns:
                    if name not in tasks or tasks[name].done():
                        tasks[name] = asyncio.create_task(self._serve(name, stop))
                await self._patiently(self._tidy, stop)
                changed = asyncio.create_task(self._changed.wait())
                done, _ = await asyncio.wait(
                    {stopping, changed, *tasks.values()},
                    timeout=TIDY_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                changed.cancel()
                for task in done - {stopping, changed}:
                    task.result()  # an error of ours ends the role, which is started anew
                tasks = {name: task for name, task in tasks.items() if not task.done()}
        finally:
            self._wake()
            grace_s = STOP_S if stop.is_set() else 0.0
            _, late = await asyncio.wait({stopping, *tasks.values()}, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _tidy(self) -> None:
        await asyncio.to_thread(self._store.tidy, self._clock.now_us())

    async def _patiently(self, call: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await call()
            except Transient as error:
                _log.warning("%s", error)
                await _pause(stop, AGAIN_S)
            else:
                return

    async def _serve(self, name: str, stop: asyncio.Event) -> None:
        while not stop.is_set() and (turn := self._turns.get(name)) is not None:
            turn.wake.clear()
            try:
                next_us = await self.turn(name)
            except Transient as error:
                _log.warning("%s", error)
                await _pause(stop, AGAIN_S)
                continue
            wait_s = LOOK_S
            if next_us is not None:
                wait_s = min(max((next_us - self._clock.now_us()) / US_PER_S, 0.0), LOOK_S)
            await _pause(turn.wake, wait_s)

    async def turn(self, name: str) -> int | None:
        """One channel's turn: at most one message. Gives when it wants the next; None: nothing waits.

        Raises:
            Transient: ALARM-2006 when the store does not answer.
        """
        turn, store = self._turns[name], self._store
        now_us = self._clock.now_us()
        await asyncio.to_thread(store.expire, name, now_us)
        await self._fall(turn)
        if now_us < turn.paused_us:
            return await self._next_us(turn, turn.paused_us)
        left = turn.allowance.left(now_us)
        if not left:
            return await self._next_us(turn, turn.allowance.next_us(now_us))
        due = await asyncio.to_thread(store.due, name, now_us, DIGEST_MAX)
        if not due.total:
            return await self._next_us(turn, now_us)
        count = parcel(turn.channel, due.total, left)
        await self._attempt(turn, due.deliveries[:count], count, due.attempts)
        return self._clock.now_us()

    async def _next_us(self, turn: _Turn, earliest_us: int) -> int | None:
        return await asyncio.to_thread(
            self._store.next_us, turn.channel.name, earliest_us, dead=turn.dead
        )

    async def _attempt(
        self, turn: _Turn, deliveries: tuple[Delivery, ...], count: int, attempts: int
    ) -> None:
        channel, first = turn.channel, deliveries[0]
        zone = self._calendar.zone
        message = compose(deliveries, count, self._config, channel.language, zone)
        kind = "digest" if count > 1 else "alarm" if first.notice.event == "raised" else "return"
        now_us = self._clock.now_us()
        number = await asyncio.to_thread(
            self._store.begin, channel.name, kind, message.title, now_us, count
        )
        turn.allowance.spend(now_us)
        key = first.key if count == 1 else f"{first.key}+{count - 1}"
        outcome = await self._send(channel, message, key)
        now_us = self._clock.now_us()
        retry_us = self._judge(turn, outcome, attempts, now_us)
        await asyncio.to_thread(self._store.finish, number, outcome, now_us, retry_us)
        await self._fall(turn)

    def _judge(self, turn: _Turn, outcome: Outcome, attempts: int, now_us: int) -> int:
        """What an answer means for the channel; gives when what was not delivered is tried again."""
        name = turn.channel.name
        if outcome.result == "sent":
            if turn.dead:
                self._say("info", "ALARM-2011", name, f"channel {name} delivers again", "")
            turn.failures, turn.paused_us = 0, 0
            return 0
        if outcome.result == "limited":
            turn.paused_us = now_us + int(outcome.retry_after_s * US_PER_S)
            return turn.paused_us
        was_dead = turn.dead
        turn.failures = FALL_AFTER if outcome.result == "refused" else turn.failures + 1
        turn.paused_us = now_us + back_off_us(turn.failures, outcome.retry_after_s)
        if turn.dead and not was_dead:
            self._say(
                "error",
                "ALARM-2010",
                name,
                f"channel {name} does not deliver: {outcome.code} {outcome.text}",
                REMEDIES.get((turn.channel.kind, outcome.code), "")
                or f"Mend it, then: headrace notify test {name}",
            )
        return max(turn.paused_us, now_us + back_off_us(attempts + 1))

    async def _fall(self, turn: _Turn) -> None:
        name, now_us = turn.channel.name, self._clock.now_us()
        nowhere: list[str] = []
        channels: set[str] = set()
        fall = partial(self._store.fall, name, self._config, now_us, dead=turn.dead)
        while (fallen := await asyncio.to_thread(fall)).total:
            nowhere += [each.notice.alarm for each in fallen.nowhere]
            channels |= fallen.channels
        if nowhere:
            more = f" and {len(nowhere) - NAMED_MAX} more" if len(nowhere) > NAMED_MAX else ""
            text = f"nobody could be told yet of {', '.join(nowhere[:NAMED_MAX])}{more}"
            remedy = f"Give channel {name} a fallback, or its routes a further step."
            self._say("error", "ALARM-2012", name, text, remedy)
        for each in channels & set(self._turns):
            self._turns[each].wake.set()

    def _wake(self) -> None:
        for turn in self._turns.values():
            turn.wake.set()

    def _say(self, severity: Severity, code: str, source: str, text: str, remedy: str) -> None:
        event = Event(
            at_us=self._clock.now_us(),
            severity=severity,
            code=code,
            source=f"notify/{source}",
            text=text,
            remedy=remedy,
        )
        self._report(event)


async def send_test(
    name: str, config: NotifyConfig, calendar: PlantCalendar, store: NotifyStore, clock: Clock,
    send: Send,
) -> Outcome:  # fmt: skip
    """Send a test message on a channel, and record it.

    Raises:
        Misconfigured: ALARM-2007 when there is no such channel.
        Transient: ALARM-2006 when the store does not answer.
    """
    channel = config.channel(name)
    if channel is None:
        known = ", ".join(each.name for each in config.channels)
        raise Misconfigured(
            "ALARM-2007",
            f"there is no channel {name!r}",
            f"Known: {known}." if known else "Add [notify.channel.NAME] to the site file.",
        )
    now_us = clock.now_us()
    at = clock_text(now_us, calendar.zone)
    message = compose_test(config, channel.language, at)
    number = await asyncio.to_thread(store.record_test, name, message.title, now_us)
    outcome = await send(channel, message, f"test/{name}/{now_us}")
    await asyncio.to_thread(store.finish_test, number, outcome, clock.now_us())
    return outcome


async def _pause(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        pass
