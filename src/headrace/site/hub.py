"""The hub's role: takes edges in, and keeps hub and edges of one mind.

::

    hub/edges.json ──► users of the broker, sources of its streams; who is no longer there is cut
    connections    ──► an edge that came back: its sources begin anew at once
    edge's health  ──► runs another configuration than desired: it is given the desired one
    hub's own log  ──► each edge is told up to where its samples are stored here

Every step looks at what is and mends what is not as it should be, so any of them may fail, and be
made again half a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from typing import Any, Final

import msgspec

from headrace.bus import leaf
from headrace.bus.broker import BrokerAddress
from headrace.bus.callout import Callout
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.desired import read_desired
from headrace.bus.leaf import HubSettings, JoinedEdge, Leaf
from headrace.bus.sourcing import (
    SourcedEdge,
    SourceState,
    cut_leaf,
    renew_sources,
    set_sources,
    source_states,
    stored_sequence,
)
from headrace.bus.subjects import Subjects
from headrace.edge.log_keeper import StoredCall
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import EdgeConfig
from headrace.model.errors import HeadraceError, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeLink, EdgeState, Event, HubState
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock, SystemClock
from headrace.security import authority
from headrace.site import edges
from headrace.site.joining import JoinCall, JoinListener

STEP_S: Final = 0.25
TELL_S: Final = 1.0
SOURCE_SILENT_S: Final = 4.0
RENEW_AGAIN_S: Final = 5.0
CALL_S: Final = 2.0
_log = logging.getLogger(__name__)


def prepare(
    folder: DataFolder, host: str, port: int, names: tuple[str, ...], clock: Clock
) -> HubSettings:
    """Make ready to take edges in: authority, certificate, settings; before the broker starts.

    Args:
        host, port: where to listen for edges that join; their brokers come in at ``port + 1``.
        names: by which edges reach this machine, the first one goes into tokens.
    """
    now_us = clock.now_us()
    authority.ensure_authority(folder.hub, now_us)
    authority.ensure_server(folder.hub, names, now_us)
    settings = HubSettings(
        host=host,
        join_port=port,
        leaf_port=port + 1,
        names=names,
    )
    leaf.save(folder.hub / "settings.json", settings)
    return settings


def close(folder: DataFolder) -> None:
    """From now on no edges are taken in; what is known of them stays."""
    (folder.hub / "settings.json").unlink(missing_ok=True)


async def run(
    folder: DataFolder, address: BrokerAddress, subjects: Subjects, stop: asyncio.Event
) -> None:
    """Be the hub until ``stop`` is set.

    Raises:
        Refused: SITE-1902 when the folder was not made ready, SITE-1910 when a port is taken.
        Transient: BUS-1025 when the broker does not come within 30 s.
    """
    settings = edges.require_hub(folder)
    clock = SystemClock()

    def redeem(call: JoinCall) -> edges.Admission:
        _, enterprise, site = subjects.prefix.split(".")
        admission = edges.redeem(
            folder,
            call.secret,
            call.request.encode(),
            (enterprise, site),
            clock.now_us(),
            sealing_key=call.sealing_key,
        )
        _log.warning("edge %s joined", admission.edge)
        return admission

    listener = JoinListener(folder, settings, redeem)
    await listener.start()
    try:
        async with open_bus(address.as_role("hub"), "hub") as bus:
            await ensure_streams(bus)
            judge = leaf.EdgeJudge(folder)
            answering = asyncio.create_task(
                Callout(address, judge, clock, mine=lambda knock: knock.is_leaf).run(stop)
            )
            try:
                await Hub(folder, address, subjects, settings, bus, clock).run(stop)
            finally:
                await end_tasks(answering)
    finally:
        await listener.stop()


class _Known:
    """What the hub knows of one edge from one look to the next."""

    def __init__(self, edge: JoinedEdge, stored: int) -> None:
        self.edge = edge
        self.stored = self.at_loss = stored
        """Up to where its samples are here; before this connection, or this role, began."""
        self.source = SourcedEdge(edge.name, edge.domain)
        self.leaf: Leaf | None = None
        self.since_us = 0
        self.renewed_s = float("-inf")
        self.must_renew = False
        self.told_s = float("-inf")
        self.running_hash = ""
        self.heard_us = 0
        self.desired_hash = ""
        self.lag = -1


class Hub:
    """One hub's loop; :func:`run` drives it."""

    def __init__(
        self,
        folder: DataFolder,
        address: BrokerAddress,
        subjects: Subjects,
        settings: HubSettings,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._address = address
        self._subjects = subjects
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._edges: dict[str, _Known] = {}
        self._events: list[Event] = []
        self._in_force: tuple[JoinedEdge, ...] | None = None
        self._trouble = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Look and mend, four times a second, until ``stop`` is set."""
        await self._bus.subscribe(self._subjects.every_edge_health(), self._hear, pending_max=1_000)
        while not stop.is_set():
            try:
                await self._step()
                self._trouble = ""
            except HeadraceError as error:
                if error.code != self._trouble:
                    _log.warning("%s", error)
                self._trouble = error.code
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), STEP_S)

    async def _hear(self, message: Any) -> None:
        try:
            state = msgspec.json.decode(message.data, type=EdgeState)
        except UNREADABLE:
            return  # not an edge of ours; its link stays unheard
        known = self._edges.get(state.edge)
        if known is not None:
            known.running_hash, known.heard_us = state.config_hash, self._clock.now_us()

    async def _step(self) -> None:
        await self._admit()
        await self._see_connections()
        states = await source_states(self._bus)
        for known in self._edges.values():
            if known.leaf is not None:
                await self._follow(known, states.get(known.edge.domain))
        await self._tell()

    async def _admit(self) -> None:
        """Bring users and sources in line with the book."""
        wanted = await asyncio.to_thread(leaf.joined_edges, self._folder)
        if wanted != self._in_force:
            self._edges = {edge.name: await self._known(edge) for edge in wanted}
            self._in_force = wanted
        sources = [known.source for known in self._edges.values()]
        for stream in await set_sources(self._bus, self._subjects, sources):
            _log.info("stream %s takes from %s", stream, [source.domain for source in sources])

    async def _known(self, edge: JoinedEdge) -> _Known:
        known = self._edges.get(edge.name)
        if known is not None and known.edge.domain == edge.domain:
            return known
        source = SourcedEdge(edge.name, edge.domain)
        return _Known(edge, await stored_sequence(self._bus, self._subjects, source))

    async def _see_connections(self) -> None:
        leafs = await asyncio.to_thread(leaf.connected_leafs, self._address)
        by_domain = {known.edge.domain: known for known in self._edges.values()}
        present = {each.domain: each for each in leafs}
        for domain, each in present.items():
            if domain not in by_domain:
                await cut_leaf(self._address, each)
        for domain, known in by_domain.items():
            await self._see(known, present.get(domain))

    async def _see(self, known: _Known, found: Leaf | None) -> None:
        was = known.leaf
        if found is None:
            if was is not None:
                # Nothing comes now, so this is where we really are: the edge is told when it is back.
                await self._measure(known)
                known.at_loss = known.stored
                self._say(known, "warning", "SITE-1920", "is not connected any more", _REMEDY)
            known.since_us, known.lag = 0, -1
        elif was is None or was.connection != found.connection:
            known.must_renew = True
            known.since_us = self._clock.now_us()
            self._say(known, "info", "SITE-1921", f"is connected from {found.address}", "")
        known.leaf = found

    async def _follow(self, known: _Known, state: SourceState | None) -> None:
        """Of an edge that is connected: take its log in, tell it where we are and what to run."""
        now_s = self._clock.monotonic_s()
        known.lag = state.lag if state is not None else -1
        silent = state is None or state.silent_s is None or state.silent_s > SOURCE_SILENT_S
        again = silent and now_s - known.renewed_s > RENEW_AGAIN_S
        if known.must_renew or again:
            known.renewed_s, known.must_renew = now_s, True
            await renew_sources(self._bus, self._subjects, known.source)
            known.must_renew = False
        if now_s - known.told_s >= TELL_S:
            known.told_s = now_s
            await self._tell_edge(known)

    async def _tell_edge(self, known: _Known) -> None:
        name = known.edge.name
        await self._measure(known)
        assert known.leaf is not None  # only then is there somebody to tell
        call = StoredCall(
            sequence=known.stored, at_loss=known.at_loss, connection=known.leaf.connection
        )
        await self._call(name, "stored", msgspec.json.encode(call))
        raw = await read_desired(self._bus, f"edge.{name}")
        if raw is not None:
            known.desired_hash = msgspec.json.decode(raw, type=EdgeConfig).content_hash()
        if raw is not None and known.heard_us and known.running_hash != known.desired_hash:
            await self._call(name, "desired", zlib.compress(raw, 1))

    async def _measure(self, known: _Known) -> None:
        found = await stored_sequence(self._bus, self._subjects, known.source)
        known.stored = found or known.stored

    async def _call(self, edge: str, verb: str, body: bytes) -> None:
        try:
            await self._bus.request(self._subjects.edge_call(edge, verb), body, timeout_s=CALL_S)
        except Transient as error:
            _log.info("edge %s: %s", edge, error)  # it is starting, or just gone; next second again

    async def _tell(self) -> None:
        """Our own state, and what happened."""
        state = HubState(at_us=self._clock.now_us(), edges=[_link(k) for k in self._edges.values()])
        await self._bus.publish(self._subjects.hub_health(), state)
        while self._events:
            await self._bus.publish_event(self._subjects.event("hub"), self._events[0])
            del self._events[0]

    def _say(self, known: _Known, severity: Any, code: str, text: str, remedy: str) -> None:
        if len(self._events) < 1_000:
            name = known.edge.name
            self._events.append(
                Event(
                    at_us=self._clock.now_us(),
                    severity=severity,
                    code=code,
                    source=f"edge/{name}",
                    text=f"edge {name} {text}",
                    remedy=remedy,
                )
            )


_REMEDY: Final = (
    "It goes on by itself and keeps what it reads. See its machine and the network between."
)


def _link(known: _Known) -> EdgeLink:
    found = known.leaf
    return EdgeLink(
        edge=known.edge.name,
        domain=known.edge.domain,
        joined_us=known.edge.joined_us,
        connected_us=known.since_us,
        address=found.address if found else "",
        rtt=found.rtt if found else "",
        lag_frames=known.lag,
        desired_hash=known.desired_hash,
        running_hash=known.running_hash,
        heard_us=known.heard_us,
    )
