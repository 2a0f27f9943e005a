"""The runtime's process: follows which apps are installed, runs each, says each second how it does.

Of several on one site, one at a time works, by a lease; the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.alarms.store import AlarmStore
from headrace.app.records import AlarmChange
from headrace.apps.models.handing import Hand, hand_over
from headrace.apps.runtime.beside import Door, LogSamples, NoAlarms
from headrace.apps.runtime.files import Receiver, hand_received
from headrace.apps.runtime.run import GREEDY_S, AppRun, Place, Secrets
from headrace.apps.runtime.sending import EdgeApps, EdgeFiles
from headrace.apps.runtime.tail import Tail
from headrace.apps.runtime.wire import Kept, Told
from headrace.apps.runtime.writing import NoWriting, SitePolicy
from headrace.bus.broker import BrokerAddress
from headrace.bus.callout import Callout
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.desired import read_desired
from headrace.bus.lease import Lease
from headrace.bus.log import log_subjects
from headrace.bus.outbox import Outbox
from headrace.bus.subjects import (
    DESIRED_BUCKET,
    PACKAGE_CALL,
    RUNTIME_BUCKET,
    Subjects,
    runtime_edge,
)
from headrace.historian.reader import open_reader
from headrace.model.alarm import Transition
from headrace.model.app_state import AppEvent, AppState
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
    edge: str = "",
    door: BrokerAddress | None = None,
) -> None:
    """Run the Python of installed apps until ``stop`` is set; none of their processes is left then.

    Args:
        edge: beside which it runs, on a machine of its own, with the apps that are placed there; empty: on
            the platform. door: with an edge, the broker's address with the installation's secret: there it
            lets its apps in itself.
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
            if not edge:  # there the edge makes them, with the bounds of its log
                await ensure_streams(bus)
            await bus.key_value(RUNTIME_BUCKET, history=1)
            teller = _Teller(bus, subjects, clock)
            around = _beside(folder, bus, clock, edge) if edge else _platform(folder, bus, clock)
            place = Place(
                folder=folder,
                address=address,
                bus=bus,
                subjects=subjects,
                clock=clock,
                secrets=app_secrets or around.secrets,
                past=around.past,
                alarms=around.alarms,
                tell=teller.tell,
                policy=around.policy,
                tail=Tail(bus, clock),
                greedy_s=greedy_s,
                edge=edge,
                hand=around.hand,
            )
            role = _Role(place)
            helping = _helping(place, around, door, stop)
            try:
                await role.run(stop)
            finally:
                await role.close()
                await end_tasks(*helping, *teller.tasks())
                await around.close()


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

    kept_us = 0

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


@dataclass
class _Around:
    """What differs between the platform and the machine of an edge."""

    secrets: ActorSecrets | Door
    past: TablePast | LogSamples
    alarms: StoredAlarms | NoAlarms
    hand: Hand
    policy: SitePolicy | None

    async def close(self) -> None:
        self.secrets.close()
        self.alarms.close()
        if isinstance(self.past, LogSamples):
            await self.past.close()


def _platform(folder: DataFolder, bus: Bus, clock: Clock) -> _Around:
    actors = ActorSecrets(folder, clock)
    policy = SitePolicy(folder, actors.audit)
    return _Around(actors, TablePast(folder, bus), StoredAlarms(folder), hand_over, policy)


def _beside(folder: DataFolder, bus: Bus, clock: Clock, edge: str) -> _Around:
    past = LogSamples(folder, bus, clock, edge)
    return _Around(Door(), past, NoAlarms(), hand_received, None)


def _helping(
    place: Place, around: _Around, door: BrokerAddress | None, stop: asyncio.Event
) -> list[asyncio.Task[None]]:
    """Tasks beside the role's own: on the platform edges get their files; on an edge apps are let in."""
    if not place.edge:
        sending = EdgeFiles(place.folder, place.bus, place.subjects)
        return [asyncio.create_task(sending.run())]
    if door is None or not isinstance(around.secrets, Door):
        return []
    answering = Callout(door, around.secrets, place.clock, mine=around.secrets.knows)
    return [asyncio.create_task(answering.run(stop))]


class _Teller:
    """Events of apps, each queued until the broker takes it."""

    def __init__(self, bus: Bus, subjects: Subjects, clock: Clock) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._outboxes: dict[str, tuple[Outbox, asyncio.Task[None]]] = {}

    def tell(self, word: str, event: AppEvent) -> None:
        """Queue an event of an app; it goes out when the broker takes it."""
        if word not in self._outboxes:
            subject = self._subjects.event("app", word)
            made = Outbox(self._bus, subject, f"app/{word}", self._clock)
            self._outboxes[word] = (made, asyncio.create_task(made.run()))
        self._outboxes[word][0].put(event)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What sends them, to be ended."""
        return [task for _, task in self._outboxes.values()]


class _Role:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._bus, self._subjects, self._clock = place.bus, place.subjects, place.clock
        held_by = f"{socket.gethostname()}:{place.folder.root}"
        self._lease = Lease(place.bus, runtime_edge(place.edge), held_by, place.clock)
        self._runs: dict[str, tuple[AppRun, asyncio.Task[None], str]] = {}
        self._is_settled = False
        self._parts: dict[str, AppDeployment] = {}
        self._receiver = Receiver(place.folder, lambda: self._parts)

    async def run(self, stop: asyncio.Event) -> None:
        if self._place.edge:
            subject = self._subjects.edge_call(self._place.edge, PACKAGE_CALL)
            await self._bus.answer(subject, self._take)
        assert self._place.tail is not None, "the role has one"
        reading = asyncio.create_task(self._place.tail.run())
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
        await self._lease.release()

    async def _take(self, raw: bytes) -> bytes:
        """Files of apps from the platform."""
        return await asyncio.to_thread(self._receiver.take, raw)

    async def _follow(self) -> None:
        """Bring what runs in line with what is installed."""
        wanted = await self._wanted()
        await self._settle_gone(wanted)
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

        subject = self._subjects.runtime_call(word, verb, self._place.edge)
        return await self._bus.answer(subject, answer)

    async def _settle_gone(self, wanted: Collection[str]) -> None:
        """What apps had noted that run no more, since the runtime was killed: once, when it begins."""
        if self._is_settled:
            return
        prefix = f"$KV.{RUNTIME_BUCKET}."
        for subject in await log_subjects(self._bus, f"KV_{RUNTIME_BUCKET}"):
            word = subject.removeprefix(prefix)
            if word in wanted or "." in word:  # a mark of the past is no app's
                continue
            app_id = word.replace("_", "-")
            keeping = self._place.keeping(app_id)
            async with keeping.lock:
                await keeping.settle(NoWriting(self._clock, app_id))
        self._is_settled = True

    async def _wanted(self) -> dict[str, AppDeployment]:
        """What is to run here now, by word."""
        parts = await (self._placed_here() if self._place.edge else self._installed())
        self._parts = {each.manifest.word: each for each in parts}
        if isinstance(self._place.past, LogSamples):
            read = {t for each in parts for asset in each.assets for t in asset.tags.values()}
            await self._place.past.want(np.array(sorted(read), np.int64))
        found = {}
        for word, part in self._parts.items():
            stage = part.stage(await self._position(word) if part.moved_us else 0)
            if self._place.edge and not await self._is_here(part):
                stage = self._runs[word][0].deployment if word in self._runs else None
            if stage is not None:
                found[word] = stage
        return found

    async def _position(self, word: str) -> int:
        """Up to where an app ran here, source time; 0: it never did."""
        raw = await self._bus.get(RUNTIME_BUCKET, word)
        return msgspec.msgpack.decode(raw, type=Kept).to_us if raw else 0

    async def _is_here(self, part: AppDeployment) -> bool:
        """Whether an edge has the package of an app already; what runs goes on until it has."""
        return await asyncio.to_thread(self._receiver.has_package, part)

    async def _placed_here(self) -> list[AppDeployment]:
        """The apps of this edge, with the assets that they serve here."""
        raw = await read_desired(self._bus, f"edge.{self._place.edge}")
        try:
            return list(msgspec.json.decode(raw, type=EdgeApps).deployments) if raw else []
        except UNREADABLE as error:
            _log.error("the desired state of this edge cannot be read: %s", error)
            return list(self._parts.values())

    async def _installed(self) -> list[AppDeployment]:
        """Enabled apps with Python, with the assets that they serve on the platform."""
        stream = f"KV_{DESIRED_BUCKET}"
        keys = [
            subject.removeprefix(f"$KV.{DESIRED_BUCKET}.")
            for subject in await log_subjects(self._bus, stream)
        ]
        found = []
        for key in keys:
            raw = await read_desired(self._bus, key) if key.startswith(APP_KEY) else None
            if not raw:
                continue
            try:
                deployment = msgspec.json.decode(raw, type=AppDeployment)
            except UNREADABLE as error:
                _log.error("the desired state %s cannot be read: %s", key, error)
                continue
            part = deployment.part("") if deployment.assets else deployment
            if deployment.enabled and deployment.manifest.python and part is not None:
                found.append(part)
        return found

    async def _end(self, word: str) -> None:
        _, task, _ = self._runs.pop(word)
        await end_tasks(task)

    async def _end_all(self) -> None:
        await asyncio.gather(*(self._end(word) for word in list(self._runs)))

    async def _tell(self) -> None:
        edge = self._place.edge
        for word, (made, _, _) in self._runs.items():
            await self._bus.publish(self._subjects.app_health(word, edge), made.state())
        for word, part in self._parts.items():
            if edge and word not in self._runs and not await self._is_here(part):
                await self._bus.publish(self._subjects.app_health(word, edge), self._lacking(part))

    def _lacking(self, part: AppDeployment) -> AppState:
        """The state of an app whose package has not come yet, or was refused."""
        manifest, now_us = part.manifest, self._clock.now_us()
        error = self._receiver.problems.get(manifest.word) or Transient(
            "APPS-2272",
            f"the package of {manifest.id} {manifest.version} has not come from the hub yet",
            "It comes by itself when the hub is reached and its runtime runs.",
        )
        return AppState(
            app=manifest.id,
            version=manifest.version,
            at_us=now_us,
            state="waiting",
            last_error_code=error.code,
            last_error=error.what,
            last_error_remedy=error.remedy,
            last_error_us=now_us,
            assets=len(part.assets),
            edge=self._place.edge,
        )
