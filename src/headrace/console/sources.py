"""Everything the console shows, from the rooms that own it, behind one small face.

Live values, states and events come from the bus; tags and equipment from the site registry; history
from the historian's reader. Nothing here knows of pages or routes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from headrace.alarms.store import AlarmStore
from headrace.bus import envelope, subjects
from headrace.bus.client import Bus
from headrace.bus.desired import read_desired
from headrace.bus.recent import recent_events
from headrace.console.alarms import AlarmBoard
from headrace.console.app_board import AppBoard
from headrace.console.app_records import RecordBoard
from headrace.console.backfills import BackfillBoard
from headrace.console.history import History
from headrace.console.live import LiveValues
from headrace.console.notifications import NotifyBoard
from headrace.console.site_view import SiteView, TagView, build_view
from headrace.model.app_state import AppState
from headrace.model.apps import AppsState
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import (
    ConnectionState,
    EdgeLink,
    EdgeState,
    Event,
    HistorianState,
    HubState,
)
from headrace.model.historians import together
from headrace.model.tasks import end_tasks
from headrace.model.time import US_PER_S, Clock
from headrace.model.why_facts import WhyTag
from headrace.site.keeper import ERRORS_KEY
from headrace.site.knowledge import FormulaVersion
from headrace.site.model import Problem

EVENTS_KEPT: Final = 2_000
HEALTH_SILENT_US: Final = 5 * US_PER_S
SITE_REFRESH_S: Final = 1.0
EDGES_MAX: Final = 1_000
APPS_MAX: Final = 1_000
HISTORIANS_MAX: Final = 64
APPS_KEY: Final = "apps"


class SiteSource(Protocol):
    """Where tags and equipment come from; every call may block, and is made in a thread."""

    def fingerprint(self) -> str:
        """Cheap text that changes when the site changed."""
        ...

    def tags(self) -> list[TagView]:
        """All tags in use."""
        ...

    def find_tag(self, name: str) -> WhyTag:
        """One tag, in use or not."""
        ...

    def formula_versions(self, asset_type: str, name: str) -> list[FormulaVersion]:
        """Versions of a formula, oldest first."""
        ...

    def about(self) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """Site attributes (enterprise, name, title, title_zh, time_zone, quantities of asset types),
        and equipment titles."""
        ...


@dataclass(frozen=True)
class ConnectionLine:
    """One connection's state and whether its edge still reports."""

    state: ConnectionState
    silent: bool


class Health:
    """The newest state of each role, with the time when it arrived here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._edges: dict[str, tuple[EdgeState, int]] = {}
        self._historians: dict[str, tuple[HistorianState, int]] = {}
        self._hub: tuple[HubState, int] | None = None
        self._apps: tuple[AppsState, int] | None = None
        self._beside: dict[str, tuple[AppsState, int]] = {}
        self._app_states: dict[tuple[str, str], tuple[AppState, int]] = {}
        self.version = 0

    def take(self, subject: str, body: bytes) -> None:
        """A health message; what is not one is ignored, the next comes in a second."""
        now_us = self._clock.now_us()
        try:
            if subject.endswith(".health.historian"):
                historian = msgspec.json.decode(body, type=HistorianState)
                if (
                    len(self._historians) < HISTORIANS_MAX
                    or historian.partition in self._historians
                ):
                    self._historians[historian.partition] = (historian, now_us)
            elif subject.endswith(".health.hub"):
                self._hub = (msgspec.json.decode(body, type=HubState), now_us)
            elif subject.endswith(".health.apps"):
                self._apps = (msgspec.json.decode(body, type=AppsState), now_us)
            elif ".health.apps." in subject and len(self._beside) < EDGES_MAX:
                beside = msgspec.json.decode(body, type=AppsState)
                self._beside[beside.edge] = (beside, now_us)
            elif ".health.app." in subject and len(self._app_states) < APPS_MAX:
                word = subject.split(".")[5]
                app = msgspec.json.decode(body, type=AppState)
                self._app_states[word, app.edge] = (app, now_us)
            elif ".health.edge." in subject and len(self._edges) < EDGES_MAX:
                state = msgspec.json.decode(body, type=EdgeState)
                self._edges[state.edge] = (state, now_us)
        except UNREADABLE:
            return
        self.version += 1

    @property
    def apps(self) -> AppsState | None:
        """The newest state of the apps role; None before the first or when it has been silent for 5 s."""
        return None if self._apps is None or self._silent(self._apps[1]) else self._apps[0]

    def app(self, word: str) -> AppState | None:
        """The newest state of an industrial app, of several places the worst; None when it has been silent
        for 5 s."""
        order = (
            "stopped",
            "waiting",
            "throttled",
            "starting",
            "catching_up",
            "running",
            "disabled",
        )
        return min(self.app_places(word), key=lambda each: order.index(each.state), default=None)

    def app_places(self, word: str) -> list[AppState]:
        """The newest states of an industrial app, by place, the platform first; none is silent for 5 s."""
        own = sorted(key for key in self._app_states if key[0] == word)
        heard = (self._app_states[key] for key in own)
        return [state for state, at_us in heard if not self._silent(at_us)]

    @property
    def apps_beside(self) -> list[AppsState]:
        """The newest states of the apps roles beside edges, by edge, without those silent for 5 s."""
        heard = (self._beside[edge] for edge in sorted(self._beside))
        return [state for state, at_us in heard if not self._silent(at_us)]

    @property
    def joined(self) -> dict[str, EdgeLink]:
        """The edges on other machines, by name, as the hub sees them; none when it has been silent."""
        if self._hub is None or self._silent(self._hub[1]):
            return {}
        return {link.edge: link for link in self._hub[0].edges}

    @property
    def historian(self) -> HistorianState | None:
        """The newest state of the historian, or of all of them together; None before the first or when
        it has been silent for 5 s."""
        return together([state for state, at_us in self._serving() if not self._silent(at_us)])

    @property
    def historian_heard(self) -> tuple[HistorianState, int] | None:
        """The historian's newest state, however old, and when it came; of several, all together and
        when the most silent of them was heard."""
        serving = self._serving()
        whole = together([state for state, _ in serving])
        return None if whole is None else (whole, min(at_us for _, at_us in serving))

    def _serving(self) -> list[tuple[HistorianState, int]]:
        """Those of the newest number of historians: it may change at a start."""
        all_heard = list(self._historians.values())
        newest = max(all_heard, key=lambda heard: heard[0].started_us, default=None)
        count = _count(newest[0]) if newest is not None else ""
        return [heard for heard in all_heard if _count(heard[0]) == count]

    def edge_seen_us(self, edge: str) -> int:
        """When an edge was last heard; 0 never."""
        return self._edges[edge][1] if edge in self._edges else 0

    def edges(self) -> list[tuple[EdgeState, bool]]:
        """Each edge's newest state, and whether it has been silent for 5 s; by name."""
        return [(state, self._silent(at_us)) for _, (state, at_us) in sorted(self._edges.items())]

    def connections(self) -> list[ConnectionLine]:
        """All connections of all edges, by name."""
        lines = [
            ConnectionLine(connection, silent)
            for state, silent in self.edges()
            for connection in state.connections
        ]
        return sorted(lines, key=lambda line: line.state.connection)

    def connection(self, name: str) -> ConnectionLine | None:
        """One connection, or None."""
        return next((line for line in self.connections() if line.state.connection == name), None)

    def _silent(self, at_us: int) -> bool:
        return self._clock.now_us() - at_us > HEALTH_SILENT_US


def _count(state: HistorianState) -> str:
    """How many historians there were when this one started."""
    return state.partition.partition("/")[2]


class Sources:
    """What the console reads and asks, for all its users at once.

    Args:
        folder: the data folder.
        bus: the console's connection to the broker.
        site_subjects: subjects of this site, for requests.
        site_source: see the protocol. history: the historian's reader, in threads.
        alarm_store: states and journal of alarms.
        clock: the only source of time.
    """

    def __init__(
        self,
        folder: DataFolder,
        bus: Bus,
        site_subjects: subjects.Subjects,
        *,
        site_source: SiteSource,
        history: History,
        alarm_store: AlarmStore,
        clock: Clock,
    ) -> None:
        self.folder = folder
        self.bus = bus
        self.subjects = site_subjects
        self.history = history
        self.clock = clock
        self.live = LiveValues()
        self.health = Health(clock)
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.events_version = 0
        self.corrupt_total = 0
        self.feed_us = 0
        self.site = SiteView()
        self.site_problems: list[Problem] = []
        self._site_source = site_source
        self.notifications = NotifyBoard(folder, partial(read_desired, bus), clock)
        self.backfills = BackfillBoard(folder, bus, history.reader, lambda: self.site.apps, clock)
        self.alarms = AlarmBoard(alarm_store, self._ask_apps, self._apps_config, clock)
        self.apps = AppBoard(folder, partial(read_desired, bus), clock.monotonic_s)
        self.records = RecordBoard(folder, bus, site_subjects, clock)

    async def follow(self, stop: asyncio.Event) -> None:
        """Take what the bus brings until ``stop`` is set."""
        live: dict[str, Callable[[], Awaitable[None]]] = {}
        unsubscribe = [
            await self.bus.subscribe(subjects.ALL_BATCHES, self._take_batch),
            await self.bus.subscribe(subjects.ALL_HEALTH, self._take_health),
            await self.bus.subscribe(subjects.ALL_EVENTS, self._take_event),
        ]
        taking = asyncio.create_task(self.records.follow(stop))
        try:
            await self._load_past()
            while not stop.is_set():
                await self.refresh_site()
                await self.backfills.resume()
                await self._refresh_problems()
                await self._follow_edges(live)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), SITE_REFRESH_S)
        finally:
            await end_tasks(taking)
            self.records.close()
            for end in [*unsubscribe, *live.values()]:
                await end()
            await self.backfills.close()

    async def find_tag(self, name: str) -> WhyTag:
        """The tag of a path, an earlier path or an id, also one that left the site file.

        Raises:
            Misconfigured: SITE-1801 when there is none, or several.
        """
        return await asyncio.to_thread(self._site_source.find_tag, name)

    async def formula_versions(self, asset_type: str, name: str) -> list[FormulaVersion]:
        """Every text that a formula of the site had, oldest first."""
        return await asyncio.to_thread(self._site_source.formula_versions, asset_type, name)

    async def refresh_site(self) -> None:
        """Take over the site's tags when they changed."""
        mark = await asyncio.to_thread(self._site_source.fingerprint)
        if mark == self.site.fingerprint:
            return
        tags = await asyncio.to_thread(self._site_source.tags)
        about, titles = await asyncio.to_thread(self._site_source.about)
        self.site = build_view(tags, titles, self.live, mark, **about)
        await self._load_last([tag.tag_id for tag in tags])

    async def _refresh_problems(self) -> None:
        """Why the site file is not accepted, as its keeper says on the bus; the last known stays
        while the broker is away."""
        if not self.bus.client.is_connected:
            return
        with contextlib.suppress(*UNREADABLE, HeadraceError, TimeoutError):
            body = await self.bus.get(subjects.DESIRED_BUCKET, ERRORS_KEY)
            self.site_problems = msgspec.json.decode(body, type=list[Problem]) if body else []

    async def _follow_edges(self, live: dict[str, Callable[[], Awaitable[None]]]) -> None:
        """Hear what edges on other machines send: it comes into the log, and from there under ``live.``."""
        joined = self.health.joined
        for edge in (*joined, *(subjects.apps_edge(edge) for edge in joined)):
            if edge not in live and len(live) < EDGES_MAX:
                subject = f"{subjects.LIVE_PREFIX}{self.subjects.every_batch(edge)}"
                live[edge] = await self.bus.subscribe(subject, self._take_batch)

    async def request(self, subject: str, message: Any = None, *, timeout_s: float = 10.0) -> Any:
        """Ask another role on the bus in JSON; gives its decoded answer.

        Raises:
            HeadraceError: what the other role raised; Transient when nobody answers.
        """
        body = b"" if message is None else msgspec.json.encode(message)
        answer = await self.bus.request(subject, body, timeout_s=timeout_s)
        return msgspec.json.decode(answer) if answer else None

    async def ask_edge(self, edge: str, verb: str, message: Any, *, timeout_s: float = 10.0) -> Any:
        """Ask an edge: ``browse``, ``check``, ``write``."""
        return await self.request(self.subjects.edge_call(edge, verb), message, timeout_s=timeout_s)

    async def _ask_apps(self, verb: str, message: Any) -> Any:
        return await self.request(self.subjects.apps_call(verb), message)

    async def _apps_config(self) -> bytes | None:
        """What the apps role is to run."""
        if not self.bus.client.is_connected:
            raise Transient(
                "BUS-1033", "the broker is away; what the apps role runs is not known now"
            )
        return await read_desired(self.bus, APPS_KEY)

    async def _take_batch(self, message: Any) -> None:
        self.feed_us = self.clock.now_us()
        try:
            self.live.update(envelope.decode(message.data))
        except Corrupt:
            self.corrupt_total += 1

    async def _take_health(self, message: Any) -> None:
        self.health.take(message.subject, message.data)

    async def _take_event(self, message: Any) -> None:
        try:
            self.events.append(msgspec.json.decode(message.data, type=Event))
        except UNREADABLE:
            self.corrupt_total += 1
        self.events_version += 1
        if ".event.alarm." in message.subject:
            self.alarms.wake()

    async def _load_past(self) -> None:
        with contextlib.suppress(Transient):
            past = await recent_events(self.bus)
            known = {(event.at_us, event.code, event.source) for event in self.events}
            fresh = [e for e in past if (e.at_us, e.code, e.source) not in known]
            self.events.extendleft(reversed(fresh))
            self.events_version += 1

    async def _load_last(self, tag_ids: list[int]) -> None:
        """After a start, show the newest known values at once; the historian may not be up yet."""
        with contextlib.suppress(HeadraceError):
            if tag_ids:
                self.live.restore(await self.history.last(tag_ids))
