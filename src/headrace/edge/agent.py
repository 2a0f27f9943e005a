"""The edge agent: runs exactly what its desired state says, and tells what it runs.

A change of desired state touches only the connections that changed: same session settings and same
addresses keep their session, whatever happens to units, scales, envelopes or other connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from headrace import __version__
from headrace.bus import subjects as bus_subjects
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.edge.books import Books
from headrace.edge.catalog import connector_type
from headrace.edge.contract import BrowseItem, ConnectorContext, ConnectorType
from headrace.edge.events import connection_event
from headrace.edge.host import ConnectionHost
from headrace.edge.ledger import LedgerTeller
from headrace.edge.load import Load
from headrace.edge.local_log import LocalLog, local_folder
from headrace.edge.marks import Marks
from headrace.edge.outlet import Outlet, SealingPublisher
from headrace.edge.pipeline import Counts
from headrace.edge.publisher import Lane
from headrace.edge.secrets import EdgeSecrets, names_in
from headrace.model.desired import ConnectionConfig, EdgeConfig, ProtectionRule, TagConfig
from headrace.model.errors import HeadraceError, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import ConnectionState, EdgeLog, EdgeState, Event, Severity
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock
from headrace.model.why_facts import EdgeFacts
from headrace.model.zones import ZoneMap
from headrace.security.frames import load_frame_key
from headrace.security.sealing import EdgeKey

EVENTS_WAITING_MAX: Final = 1_000
HEALTH_INTERVAL_S: Final = 1.0
LEDGER_INTERVAL_S: Final = 1.0
MARK_INTERVAL_S: Final = 10.0
MARK_WAIT_S: Final = 1.0
DRAIN_S: Final = 2.0


class _Running(msgspec.Struct):
    """One connection that runs: its host, its lane, and their tasks."""

    host: ConnectionHost
    lane: Lane
    tasks: list[asyncio.Task[None]]


class Agent:
    """One edge.

    Args:
        bus: open connection to the broker.
        broker: its address, for the MQTT listener's endpoint and credentials.
        subjects: of this edge's site.
        edge: its name.
        certificates: folder of certificates.
        clock: time.
        types: finds a connector by its protocol; None looks among those that are installed.
        key: to which secrets are sealed; None for an edge that gets none.
        folder: its data folder, for what stays here and for tenants' keys; None: nothing stays.

    Attributes:
        tell_log: gives the state of the edge's own log; set for an edge on its own machine.
    """

    def __init__(
        self,
        bus: Bus,
        broker: BrokerAddress,
        subjects: Subjects,
        *,
        edge: str,
        certificates: Path,
        clock: Clock,
        types: Callable[[str], ConnectorType] | None = None,
        key: EdgeKey | None = None,
        folder: DataFolder | None = None,
    ) -> None:
        self._bus = bus
        self._types = types
        self._broker = broker
        self._subjects = subjects
        self._edge = edge
        self._certificates = certificates
        self._secrets = EdgeSecrets(edge, key)
        self._folder = folder
        self._zones = ZoneMap()
        self._clock = clock
        self._marks = Marks(bus, edge)
        self._epoch = clock.now_us()
        self._books = Books(edge, clock)
        self.load = Load(clock)
        self._ledger = LedgerTeller(bus, subjects, self._books)
        self._down_since_us: dict[str, int] = {}
        self._running: dict[str, _Running] = {}
        self._broken: dict[str, ConnectionState] = {}
        self._counts: dict[str, Counts] = {}
        self._config = EdgeConfig(enterprise="", site="", edge=edge)
        self._events: deque[Event] = deque(maxlen=EVENTS_WAITING_MAX)
        self._has_events = asyncio.Event()
        self._identity = edge
        self.tell_log: Callable[[], EdgeLog | None] = lambda: None

    @property
    def config(self) -> EdgeConfig:
        """The desired state that runs now."""
        return self._config

    async def apply(self, config: EdgeConfig) -> list[str]:
        """Run ``config``; gives the names of the connections that were touched."""
        wanted = {connection.name: connection for connection in config.connections}
        self._identity = f"{config.enterprise}-{config.site}-{config.edge}"
        renewed = self._secrets.take(config.secrets)
        zones_changed, self._zones = config.zones != self._zones, config.zones
        touched = []
        for name in [name for name in self._running if name not in wanted]:
            await self._stop(name)
            touched.append(name)
        self._broken = {name: state for name, state in self._broken.items() if name in wanted}
        self._counts = {name: counts for name, counts in self._counts.items() if name in wanted}
        for name, connection in wanted.items():
            running = self._running.get(name)
            has_new_secret = bool(names_in(connection) & renewed)
            if running is not None and zones_changed and not self._may_cross(connection):
                await self._stop(name)
                running = None
            if running is not None and running.host.config == connection and not has_new_secret:
                continue
            touched.append(name)
            same_session = running is not None and not _needs_session(
                running.host.config, connection
            )
            if running is not None and same_session and not has_new_secret:
                running.host.retag(connection)
                continue
            if running is not None:
                await self._stop(name)
            self._start(connection, running.host if running is not None else None)
        self._config = config
        return touched

    def state(self) -> EdgeState:
        """What runs now, for the health subject."""
        states = [running.host.state() for running in self._running.values()]
        return EdgeState(
            edge=self._edge,
            config_hash=self._config.content_hash(),
            at_us=self._clock.now_us(),
            started_us=self._epoch,
            connections=sorted(
                [*states, *self._broken.values()], key=lambda state: state.connection
            ),
            log=self.tell_log(),
            version=__version__,
        )

    def find(self, tag_id: int) -> tuple[ConnectionHost, TagConfig]:
        """Host and settings of a tag.

        Raises:
            Refused: EDGE-1030 when this edge does not have it.
        """
        for running in self._running.values():
            for tag in running.host.config.tags:
                if tag.tag_id == tag_id:
                    return running.host, tag
        raise Refused("EDGE-1030", f"edge {self._edge} has no tag {tag_id}", "Check the site file.")

    def why(self, tag_id: int, connection: str) -> EdgeFacts:
        """What is known here of a tag's way into the log.

        Args:
            connection: the tag's, as the site file has it; its state is told although it could not
                be started.
        """
        for running in self._running.values():
            if any(tag.tag_id == tag_id for tag in running.host.config.tags):
                facts = running.host.why(tag_id)
                break
        else:
            facts = EdgeFacts(at_us=self._clock.now_us(), connection=self._broken.get(connection))
        facts.config_hash = self._config.content_hash()
        return facts

    def check_crossing(
        self,
        connection: ConnectionConfig,
        zones: ZoneMap | None = None,
        *,
        write_to: str | None = None,
    ) -> None:
        """See that what this edge wants of a device may cross between their zones.

        Args:
            zones: None takes those of the desired state.
            write_to: path of a tag that is to be written; None: the device is to be read.

        Raises:
            Refused: EDGE-1510 when no conduit leads from the device to here, EDGE-1511 when none leads
                from here to what is to be written.
        """
        zones = zones or self._zones
        if not zones.zones:
            return
        here = zones.zone_of_edge(self._edge)
        device = zones.zone_of_connection(connection.name, connection.endpoint)
        if write_to is None:
            groups = sorted({tag.group for tag in connection.tags})
            if not zones.may_cross(device, here, connection.protocol, groups):
                raise Refused(
                    "EDGE-1510",
                    f"{connection.name} is in the zone {device}, and no conduit leads"
                    f" {connection.protocol} from there to {here}, the zone of edge {self._edge}",
                    "Add a [[conduit]] to the site file, or give it to an edge in its zone.",
                )
            return
        for target in dict.fromkeys((device, zones.zone_of(write_to))):
            if not zones.may_cross(here, target, connection.protocol):
                raise Refused(
                    "EDGE-1511",
                    f"{write_to} is in the zone {target}, and no conduit leads there from {here}",
                    'Give the conduit direction = "both" in the site file.',
                )

    def hide(self, connection: ConnectionConfig, items: list[BrowseItem]) -> list[BrowseItem]:
        """What a device shows, without the values of tags that do not leave this edge."""
        hidden = {
            (running.host.config.protocol, running.host.config.endpoint, tag.address)
            for running in self._running.values()
            for tag in running.host.config.tags
            if running.host.outlet.protection.covers(tag.tag_id)
        }
        place = (connection.protocol, connection.endpoint)
        return [
            msgspec.structs.replace(item, value="") if (*place, item.address) in hidden else item
            for item in items
        ]

    def _may_cross(self, connection: ConnectionConfig) -> bool:
        try:
            self.check_crossing(connection)
        except Refused:
            return False
        return True

    def try_now(self, connection: str) -> None:
        """Try a waiting connection at once; "" tries all of them."""
        for name, running in self._running.items():
            if connection in ("", name):
                running.host.try_now()

    async def context(
        self, name: str, resume_us: int, secrets: Mapping[str, str] | None = None
    ) -> ConnectorContext:
        """What a connector of the connection ``name`` is lent; ``secrets`` are those of a call."""
        first_us = 0
        if resume_us == 0:
            mark = await self._marks.begin(name, self._clock.now_us())
            resume_us = await self._bus.last_resume_us(self._subjects.batch(self._edge, name))
            if mark is not None:
                resume_us, first_us = resume_us or mark.durable_us, mark.first_us
        return ConnectorContext(
            clock=self._clock,
            certificates=self._certificates,
            secret=lambda setting: self._secrets.resolve(setting, secrets),
            mqtt_endpoint=self._broker.mqtt_endpoint,
            mqtt_user=self._broker.device_user,
            mqtt_password=self._broker.device_password,
            mqtt_tls_files=self._broker.client_files,
            identity=self._identity,
            resume_us=resume_us,
            first_us=first_us,
        )

    def report(self, event: Event) -> None:
        """Queue an event; the oldest is dropped when a thousand wait for an absent broker."""
        self._events.append(event)
        self._has_events.set()

    async def publish_events(self) -> None:
        """Send queued events for ever."""
        while True:
            await self._has_events.wait()
            self._has_events.clear()
            while self._events:
                event = self._events.popleft()
                name = event.source.rsplit("/", 1)[-1]
                try:
                    await self._bus.publish_event(self._subjects.event("edge", name), event)
                except Transient:
                    self._events.appendleft(event)
                    await asyncio.sleep(1.0)

    async def publish_health(self) -> None:
        """Send the state each second for ever."""
        while True:
            try:
                await self._bus.publish(self._subjects.edge_health(self._edge), self.state())
            except Transient:
                pass  # the broker is away; lanes report that, and the next second tries again
            await asyncio.sleep(HEALTH_INTERVAL_S)

    async def keep_marks(self) -> None:
        """Note how far each connection has come, every ten seconds for ever."""
        while True:
            await asyncio.sleep(MARK_INTERVAL_S)
            for name, running in list(self._running.items()):
                await self._keep_mark(name, running.lane)

    async def begin_ledger(self) -> None:
        """Open the books of this life of the edge; call before :meth:`apply`."""
        self._down_since_us = await self._ledger.begin()

    async def keep_ledger(self) -> None:
        """Tell the books each second for ever."""
        while True:
            await asyncio.sleep(LEDGER_INTERVAL_S)
            await self._ledger.tell([running.host for running in self._running.values()])

    async def stop(self) -> None:
        """Stop every connection; what was read is given to the log for at most two seconds."""
        await asyncio.gather(*(self._stop(name) for name in list(self._running)))

    async def end_ledger(self) -> None:
        """Close the books, after :meth:`stop`."""
        await self._ledger.end()

    async def _keep_mark(self, name: str, lane: Lane) -> None:
        # The broker may be away: the next turn notes it, and a stop does not wait for it.
        with contextlib.suppress(Transient, TimeoutError):
            async with asyncio.timeout(MARK_WAIT_S):
                await self._marks.keep(name, lane.durable_us)

    def _start(self, connection: ConnectionConfig, earlier: ConnectionHost | None) -> None:
        name = connection.name
        self._broken.pop(name, None)
        try:
            kind = (self._types or connector_type)(connection.protocol)
            kind.check_connection(connection)
            self.check_crossing(connection)
        except HeadraceError as error:
            self._broken[name] = _broken_state(connection, error, self._edge, self._clock.now_us())
            return
        lane = Lane(
            self._bus,
            self._subjects.batch(self._edge, name),
            edge=self._edge,
            connection=name,
            epoch=self._clock.now_us(),
            on_trouble=lambda error: self._lane_trouble(name, error),
        )
        sealed = self._sealed_lanes(connection)
        host = ConnectionHost(
            connection,
            kind,
            context=lambda resume_us: self.context(name, resume_us),
            lane=lane,
            clock=self._clock,
            report=self.report,
            edge=self._edge,
            counts=self._counts.pop(name, None),
            account=self._books.account(name),
            load=self.load,
            outlet=self._outlet(connection, lane, sealed),
        )
        if name in self._down_since_us:
            host.count_down(self._down_since_us.pop(name))
        if earlier is not None:
            host.continue_from(earlier)
        tasks = [asyncio.create_task(lane.run()), asyncio.create_task(host.run())]
        tasks += [asyncio.create_task(each.run()) for each in sealed.values()]
        self._running[name] = _Running(host, lane, tasks)

    def _sealed_lanes(self, connection: ConnectionConfig) -> dict[str, Lane]:
        if self._folder is None:
            return {}
        keys, name = self._folder.keys, connection.name

        def lane(rule: ProtectionRule) -> Lane:
            return Lane(
                SealingPublisher(self._bus, lambda: load_frame_key(keys, rule.key)),
                self._subjects.sealed(self._edge, name),
                edge=self._edge,
                connection=f"{name}.{rule.name}",
                epoch=self._clock.now_us(),
                on_trouble=lambda error: self._lane_trouble(name, error),
            )

        return {r.name: lane(r) for r in connection.protection if r.rule == "encrypted"}

    def _outlet(self, connection: ConnectionConfig, lane: Lane, sealed: dict[str, Lane]) -> Outlet:
        folder = None if self._folder is None else local_folder(self._folder.root, connection.name)
        return Outlet(
            lane,
            connection.protection,
            local=None if folder is None else lambda keep_bytes: LocalLog(folder, keep_bytes),
            sealed=sealed,
            trouble=lambda error: self._lane_trouble(connection.name, error),
        )

    async def _stop(self, name: str) -> None:
        running = self._running.pop(name)
        lane_task, host_task, *sealed_tasks = running.tasks
        await end_tasks(host_task)
        running.host.count_away()
        sealed = running.host.outlet.sealed.values()
        await asyncio.gather(*(each.drain(DRAIN_S) for each in (running.lane, *sealed)))
        await end_tasks(lane_task, *sealed_tasks)
        if lost := sum(sum(each.abandon()) for each in sealed) + running.host.outlet.overflown:
            self._tell_dropped(name, lost)
        waiting, in_doubt = running.lane.abandon()
        if in_doubt:
            running.host.account.doubt()
        left = waiting + in_doubt
        counts = running.host.pipeline.counts
        counts.dropped += left
        counts.published += running.lane.published
        self._counts[name] = counts
        if left:
            self._tell_dropped(name, left)
        await self._keep_mark(name, running.lane)

    def _tell_dropped(self, name: str, samples: int) -> None:
        self._tell(
            name,
            "error",
            "EDGE-1016",
            f"{samples} samples were read and are not in the log: the connection was "
            f"stopped and the log did not take them in {DRAIN_S:.0f} s",
            "See whether the broker runs: headrace status",
        )

    def _lane_trouble(self, name: str, error: HeadraceError | None) -> None:
        if error is None:
            self._tell(name, "info", "EDGE-1017", "the log takes samples again")
        else:
            self._tell(name, "warning", error.code, error.what, error.remedy)

    def _tell(self, name: str, severity: Severity, code: str, text: str, remedy: str = "") -> None:
        self.report(connection_event(self._clock, self._edge, name, severity, code, text, remedy))


def _needs_session(old: ConnectionConfig, new: ConnectionConfig) -> bool:
    """Whether a change is visible to the connector: settings, or which addresses are read how."""

    def seen(config: ConnectionConfig) -> list[tuple[int, str, int, int]]:
        return [
            (tag.tag_id, tag.address, tag.scan_interval_ms, tag.sample_interval_us)
            for tag in config.tags
        ]

    if old.protection != new.protection:
        return True  # what was read under the old rule is out before the new one counts
    return old.session_key != new.session_key or seen(old) != seen(new)


def _broken_state(
    connection: ConnectionConfig, error: HeadraceError, edge: str, now_us: int
) -> ConnectionState:
    return ConnectionState(
        connection=connection.name,
        protocol=connection.protocol,
        endpoint=connection.endpoint,
        edge=edge,
        state="refused",
        since_us=now_us,
        last_error_code=error.code,
        last_error=error.what,
        last_error_remedy=error.remedy,
        last_error_us=now_us,
        tags=len(connection.tags),
        tags_bad=len(connection.tags),
    )


async def follow_desired(agent: Agent, bus: Bus, edge: str) -> None:
    """Apply each desired state that appears for ``edge``, for ever."""
    async for body in bus.watch(bus_subjects.DESIRED_BUCKET, f"edge.{edge}"):
        await agent.apply(msgspec.json.decode(body, type=EdgeConfig))
