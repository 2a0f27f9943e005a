"""Alarms of the site of ``site_fixture``: their store, and an apps role that does commands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import msgspec
from alarm_site import CNCS, PUMPS, TEXTS
from site_fixture import CLOCK, SUBJECTS, RunningSite

from headrace.alarms.book import Book, Deed
from headrace.alarms.definition import AlarmDefinition, definition_of
from headrace.alarms.runtime import AlarmRuntime
from headrace.alarms.store import AlarmStore
from headrace.bus.client import open_bus
from headrace.model.alarm import Command, EventName, Transition, Verb
from headrace.model.knowledge import FormulaConfig
from headrace.model.time import US_PER_S


class Alarms:
    """The alarms of a running site: what the plant would do is done by hand, commands by the real core.

    The apps role itself has its own tests.
    """

    def __init__(self, site: RunningSite) -> None:
        self.site = site
        self.store = AlarmStore(site.folder)
        self._definitions: list[AlarmDefinition] = []
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Every alarm is new and normal."""
        for key, text in TEXTS.items():
            kind, name = key.split(".")
            config = FormulaConfig(asset_type=kind, name=name, kind="alarm", text=text)
            self._definitions.append(definition_of(config))
        with self._book() as (book, told):
            for alarm in [*book.states]:
                told.append(book.retire(alarm, CLOCK.now_us(), CLOCK.now_us()))
        with self._book() as (book, _):
            self._define(book)

    def _define(self, book: Book) -> None:
        for definition in self._definitions:
            for asset in PUMPS if definition.asset_type == "pump" else CNCS:
                book.define(asset, definition, CLOCK.now_us(), CLOCK.now_us())

    @contextmanager
    def _book(self) -> Iterator[tuple[Book, list[Transition | None]]]:
        """What happens to the book within is written, as the apps role does."""
        with self._lock:
            book, told = Book(self.store.states()), list[Transition | None]()
            self._define(book)
            yield book, told
            states, retired = book.changed()
            self.store.write([each for each in told if each], states, retired=retired)

    def do(
        self, alarm: str, event: EventName, *, at_us: int = 0, actor: str = "", **more: Any
    ) -> None:
        """Let an event happen to an alarm; the machine's table must know it in that state."""
        at_us = at_us or CLOCK.now_us()
        with self._book() as (book, told):
            done = book.apply(alarm, Deed(event=event, at_us=at_us, actor=actor, **more), at_us)
            assert done is not None, f"{event} of {alarm} in {book.states[alarm].state}"
            told.append(done)

    def doubt(self, alarm: str) -> None:
        """Let the data of an alarm be not Good."""
        with self._book() as (book, told):
            told.append(book.doubt(alarm, CLOCK.now_us(), True, CLOCK.now_us()))

    async def command(self, body: bytes) -> bytes:
        """Answer a command as the apps role does."""
        with self._lock:
            runtime = AlarmRuntime(self.store, CLOCK)
            return msgspec.json.encode(runtime.command(msgspec.json.decode(body, type=Command)))


@contextmanager
def serve_alarms(site: RunningSite) -> Iterator[Alarms]:
    """Alarms whose commands are answered on the bus as long as the context lasts."""
    alarms, ready, loop = Alarms(site), threading.Event(), asyncio.new_event_loop()
    alarms.begin()
    stop = asyncio.Event()

    async def serve() -> None:
        async with open_bus(site.address, "test") as bus:
            for verb in get_args(Verb):
                await bus.answer(SUBJECTS.apps_call(verb), alarms.command)
            await bus.client.flush()
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20), "the test's apps role does not answer"
    try:
        yield alarms
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        alarms.store.close()


def some_alarms(alarms: Alarms) -> None:
    """A believable picture: alarms in each state that people meet."""
    now_us = CLOCK.now_us()

    def do(alarm: str, event: EventName, minutes_ago: int, actor: str = "", **more: Any) -> None:
        alarms.do(alarm, event, at_us=now_us - minutes_ago * 60 * US_PER_S, actor=actor, **more)

    pump_1, pump_2 = PUMPS
    cnc_1, cnc_2 = CNCS
    do(f"{pump_2}/overload", "alarm", 190)
    do(f"{pump_2}/overload", "acknowledge", 188, "mia")
    do(f"{pump_2}/overload", "return_to_normal", 150)
    do(f"{cnc_2}/idle", "remove_from_service", 120, "mia", comment="Overhaul")
    do(f"{cnc_2}/spindle_high", "alarm", 45)
    shelf = {"comment": "Worn tool is being replaced", "until_us": now_us + 3_600 * US_PER_S}
    do(f"{cnc_2}/spindle_high", "shelve", 40, "leo", **shelf)
    do(f"{pump_2}/low_flow", "alarm", 38)
    do(f"{pump_2}/low_flow", "acknowledge", 36, "leo")
    do(f"{pump_2}/low_flow", "assign", 35, "leo", assignee="mia")
    do(f"{cnc_1}/spindle_high", "alarm", 20)
    do(f"{cnc_1}/spindle_high", "return_to_normal", 12)
    do(f"{pump_1}/overload", "alarm", 3)
    do(f"{pump_1}/low_flow", "alarm", 2)
    alarms.doubt(f"{pump_1}/low_flow")
