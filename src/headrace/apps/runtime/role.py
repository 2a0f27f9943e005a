"""The runtime's process: follows which apps are installed, runs each, says each second how it does.

Of several on one site, one at a time works, by a lease; the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.alarms.store import AlarmStore
from headrace.app.records import AlarmChange
from headrace.apps.runtime.run import GREEDY_S, AppRun, Place, Secrets
from headrace.apps.runtime.tail import Tail
from headrace.apps.runtime.wire import Told
from headrace.apps.runtime.writing import SitePolicy
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.desired import read_desired
from headrace.bus.lease import Lease
from headrace.bus.log import log_subjects
from headrace.bus.outbox import Outbox
from headrace.bus.subjects import DESIRED_BUCKET, RUNTIME_EDGE, Subjects
from headrace.historian.reader import open_reader
from headrace.model.alarm import Transition
from headrace.model.app_state import AppEvent
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.sample import Int64Array, concat_batches
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock, SystemClock
from headrace.security.files import hold_lock, make_folder
from headrace.security.identity import Identity

APP_KEY: Final = "app."
HEALTH_S: Final = 1.0
BROKER_WAIT_S: Final = 30.0
LINES_MAX: Final = 500
ACTIVE: Final = ("UNACK", "ACKED")
_log = logging.getLogger(__name__)


async def run(
    folder: DataFolder,
    address: BrokerAddress,
    subjects: Subjects,
    stop: asyncio.Event,
    *,
    clock: Clock | None = None,
    app_secrets: Secrets | None = None,
    greedy_s: float = GREEDY_S,
) -> None:
    """Run the Python of installed apps until ``stop`` is set; none of their processes is left then.

    Args:
        app_secrets: who gives apps their users; None: the installation's actors.
        greedy_s: how long an app may want more than its budget before it is ended.

    Raises:
        Refused: APPS-2245 when another runtime works on this folder.
        Transient: BUS-1025 when the broker does not come within 30 s.
    """
    clock = clock or SystemClock()
    make_folder(folder.run, 0o700)
    refused = Refused(
        "APPS-2245", f"another runtime works on {folder.root}", "Stop it first: headrace down"
    )
    with hold_lock(folder.run / "runtime.lock", refused):
        async with open_bus(address, "runtime", wait_s=BROKER_WAIT_S) as bus:
            await ensure_streams(bus)
            role = _Role(folder, address, bus, subjects, clock, app_secrets, greedy_s)
            try:
                await role.run(stop)
            finally:
                await role.close()


class ActorSecrets:
    """Users of apps at the broker, as actors of kind ``app``: one secret each start of the runtime."""

    def __init__(self, folder: DataFolder, clock: Clock) -> None:
        self._identity = Identity(folder, clock)
        self.audit = self._identity.audit
        self._given: dict[str, str] = {}

    def secret(self, word: str) -> str:
        """A new secret at the first call of this life, the same later.

        Raises:
            Misconfigured: SEC-1021 when somebody else has that name.
        """
        if word not in self._given:
            actors = self._identity.actors
            known = [entry for entry in actors.list("app") if entry.name == word]
            if known and known[0].state == "disabled":
                raise Misconfigured(
                    "APPS-2249",
                    f"the actor {word} is disabled",
                    f"Allow it again: headrace actor enable {word}",
                )
            made = actors.renew(word, days=0) if known else actors.add("app", word, days=0)
            self._given[word] = made
        return self._given[word]

    def close(self) -> None:
        """Give the database back."""
        self._identity.close()


class TablePast:
    """The historian's table with what the log has after it."""

    def __init__(self, folder: DataFolder, bus: Bus) -> None:
        self._folder = folder
        self._bus = bus

    async def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        wanted = [int(tag) for tag in np.asarray(tag_ids)]
        async with open_reader(self._folder, self._bus) as reader:
            before = await asyncio.to_thread(reader.before, wanted, start_us)
            found = await asyncio.to_thread(reader.read, wanted, start_us, end_us)
        return concat_batches([before, found])


class StoredAlarms:
    """The journal that the apps role writes; opened when an app first wants it."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._store: AlarmStore | None = None

    async def last(self) -> int:
        return await asyncio.to_thread(self._opened().last_number)

    async def after(self, number: int) -> list[Told]:
        lines = await asyncio.to_thread(self._opened().after, number, LINES_MAX)
        return [Told(sequence=line.number, alarm=_change(line.transition)) for line in lines]

    def close(self) -> None:
        """Give the database back."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> AlarmStore:
        self._store = self._store or AlarmStore(self._folder)
        return self._store


def _change(line: Transition) -> AlarmChange:
    return AlarmChange(
        asset=line.asset,
        name=line.alarm.rpartition("/")[2],
        event=line.event,
        active=line.event == "alarm" or line.after in ACTIVE,
        at_us=line.at_us,
        id=line.id,
    )


class _Role:
    def __init__(
        self,
        folder: DataFolder,
        address: BrokerAddress,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        app_secrets: Secrets | None,
        greedy_s: float,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._own_secrets = ActorSecrets(folder, clock)
        self._lease = Lease(bus, RUNTIME_EDGE, f"{socket.gethostname()}:{folder.root}", clock)
        self._outboxes: dict[str, tuple[Outbox, asyncio.Task[None]]] = {}
        self._runs: dict[str, tuple[AppRun, asyncio.Task[None], str]] = {}
        self._alarms = StoredAlarms(folder)
        self._tail = Tail(bus, clock)
        self._place = Place(
            folder=folder,
            address=address,
            bus=bus,
            subjects=subjects,
            clock=clock,
            secrets=app_secrets or self._own_secrets,
            past=TablePast(folder, bus),
            alarms=self._alarms,
            tell=self._event,
            greedy_s=greedy_s,
            policy=SitePolicy(folder, self._own_secrets.audit),
            tail=self._tail,
        )

    async def run(self, stop: asyncio.Event) -> None:
        reading = asyncio.create_task(self._tail.run())
        try:
            await self._work(stop, reading)
        finally:
            await end_tasks(reading)

    async def _work(self, stop: asyncio.Event, reading: asyncio.Task[None]) -> None:
        while not stop.is_set():
            if reading.done():
                reading.result()  # it never ends by itself: the role ends with its error
            try:
                if await self._lease.hold():
                    await self._follow()
                else:
                    await self._end_all()
                await self._tell()
            except Transient as error:
                _log.info("%s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), HEALTH_S)

    async def close(self) -> None:
        await self._end_all()
        await end_tasks(*(task for _, task in self._outboxes.values()))
        await self._lease.release()
        self._own_secrets.close()
        self._alarms.close()

    async def _follow(self) -> None:
        """Bring what runs in line with what is installed."""
        wanted = await self._wanted()
        for word, (_, task, known) in list(self._runs.items()):
            found = wanted.get(word)
            if task.done():
                _log.error("the app %s ended", word, exc_info=task.exception())
            if found is None or found.content_hash() != known or task.done():
                await self._end(word)
        for word, deployment in wanted.items():
            if word not in self._runs:
                made = AppRun(self._place, deployment)
                task = asyncio.create_task(made.run())
                self._runs[word] = (made, task, deployment.content_hash())
                for verb, answer in (("logs", made.lines), ("restart", made.start_again)):
                    made.gate.stops.append(await self._serve(word, verb, answer))

    async def _serve(
        self, word: str, verb: str, what: Callable[[], object]
    ) -> Callable[[], Awaitable[None]]:
        async def answer(body: bytes) -> bytes:
            del body
            return msgspec.json.encode(what())

        return await self._bus.answer(self._subjects.runtime_call(word, verb), answer)

    async def _wanted(self) -> dict[str, AppDeployment]:
        """Enabled apps with Python that are for the platform, by word."""
        stream = f"KV_{DESIRED_BUCKET}"
        keys = [
            subject.removeprefix(f"$KV.{DESIRED_BUCKET}.")
            for subject in await log_subjects(self._bus, stream)
        ]
        found = {}
        for key in keys:
            raw = await read_desired(self._bus, key) if key.startswith(APP_KEY) else None
            if not raw:
                continue
            try:
                deployment = msgspec.json.decode(raw, type=AppDeployment)
            except UNREADABLE as error:
                _log.error("the desired state %s cannot be read: %s", key, error)
                continue
            manifest = deployment.manifest
            if deployment.enabled and manifest.python and manifest.placement == "platform":
                found[manifest.word] = deployment
        return found

    async def _end(self, word: str) -> None:
        _, task, _ = self._runs.pop(word)
        await end_tasks(task)

    async def _end_all(self) -> None:
        await asyncio.gather(*(self._end(word) for word in list(self._runs)))

    async def _tell(self) -> None:
        for word, (made, _, _) in self._runs.items():
            await self._bus.publish(self._subjects.app_health(word), made.state())

    def _event(self, word: str, event: AppEvent) -> None:
        """Queue an event of an app; it goes out when the broker takes it."""
        if word not in self._outboxes:
            subject = self._subjects.event("app", word)
            made = Outbox(self._bus, subject, f"app/{word}", self._clock)
            self._outboxes[word] = (made, asyncio.create_task(made.run()))
        self._outboxes[word][0].put(event)
