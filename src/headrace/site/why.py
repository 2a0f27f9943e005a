"""Collects the facts about one tag's way to the screen, from every role that has some.

The edge is asked first and all others after it: so what the edge had given to the log at that moment, the
others must have. Nobody is waited for longer than two seconds; who does not answer is a fact too.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.bus.client import Bus
from headrace.bus.log import LogInfo, log_info, newest_stored_us, stored_at_us
from headrace.bus.subjects import DESIRED_BUCKET, FORMULA_CALL, Subjects, apps_edge
from headrace.model.apps import DerivedFacts
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.health import HistorianState
from headrace.model.knowledge import given_name
from headrace.model.time import Clock
from headrace.model.why import diagnose
from headrace.model.why_facts import (
    BusFacts,
    EdgeFacts,
    Facts,
    InputFacts,
    ScreenFacts,
    TableFacts,
    WhyTag,
    WriterFacts,
)
from headrace.site.keeper import STATE_KEY, EdgeFollow, SiteState
from headrace.site.registry import Registry, TagRecord

ASK_S: Final = 2.0
SIMILAR_MAX: Final = 3
INPUTS_MAX: Final = 20
DEPTH_MAX: Final = 4


@dataclass(frozen=True)
class Sources:
    """Where facts come from.

    Attributes:
        bus: None when the broker could not be reached; ``bus_error`` says why.
        subjects: of the site.
        table: reads the history of a tag now; told whether the broker answers.
        screen: asks a console; told whether the broker answers. None when none answered.
        edge_seen_us: when the tag's edge was last heard; 0 not.
        historian: its last health message and when it came.
        find: gives a tag by its id, for the inputs of a derived one; None when nobody can.
    """

    bus: Bus | None
    subjects: Subjects
    table: Callable[[int, bool], Awaitable[TableFacts]]
    screen: Callable[[int, bool], Awaitable[ScreenFacts | None]]
    edge_seen_us: int = 0
    historian: tuple[HistorianState, int] | None = None
    find: Callable[[int], Awaitable[WhyTag | None]] | None = None
    bus_error: HeadraceError | None = None


def find_tag(registry: Registry, name: str) -> WhyTag:
    """The tag of a path, an earlier path, or an id; also one that left the site file.

    Raises:
        Misconfigured: SITE-1801 when there is none, or several.
    """
    found = _records(registry, name)
    if len(found) != 1:
        paths = [record.path for record in found] or _similar(registry, name)
        shown = ", ".join(paths[:SIMILAR_MAX])
        raise Misconfigured(
            "SITE-1801",
            f"{len(found) or 'no'} tags are called {name!r}",
            f"Name one: {shown}" if shown else "See the tags with: headrace site show",
        )
    record = found[0]
    if record.derived:
        machine = _machine(registry, record.path)
        return WhyTag(
            tag_id=record.tag_id,
            path=record.path,
            connection=record.asset_type,
            edge=apps_edge(machine),
            retired=record.retired,
            derived=True,
            machine=machine,
        )
    places = {place.name: place for place in registry.connections()}
    place = places.get(record.connection)
    return WhyTag(
        tag_id=record.tag_id,
        path=record.path,
        connection=record.connection,
        edge=record.edge,
        scan_interval_ms=record.scan_interval_ms,
        retired=record.retired,
        paused=place is not None and not place.enabled,
    )


def _machine(registry: Registry, path: str) -> str:
    """The edge on whose own machine a derived tag is worked out; "" is the platform."""
    config = registry.apps()
    place, _, name = path.rpartition("/")
    found = (asset for asset in config.assets if asset.path == place) if config else ()
    edges = (
        edge for asset in found for formula, edge in asset.edges.items()
        if given_name(asset.type, formula) == name
    )  # fmt: skip
    return next(edges, "")


def _records(registry: Registry, name: str) -> list[TagRecord]:
    if name.isascii() and name.isdigit() and len(name) < 20:
        by_id = registry.tag(int(name))
        return [by_id] if by_id is not None else []
    found = registry.find(name, include_retired=True)
    in_use = [record for record in found if not record.retired]
    return in_use or found


def _similar(registry: Registry, name: str) -> list[str]:
    paths = [record.path for record in registry.find()]
    last = name.rpartition("/")[2]
    same = [path for path in paths if last and path.rpartition("/")[2] == last]
    return same[:SIMILAR_MAX] or difflib.get_close_matches(name, paths, SIMILAR_MAX, 0.5)


async def collect(tag: WhyTag, sources: Sources, clock: Clock, *, depth: int = 0) -> Facts:
    """All that can be known of a tag now, within about five seconds.

    Args:
        clock: the asking process's; ages of the other processes' facts are made with it.
        depth: how many formulas the tag is away from the one that was asked about.
    """
    info, bus = await _ask_log(sources)
    edge, follow = None, EdgeFollow(desired_hash="")
    derived, inputs = None, list[InputFacts]()
    if tag.derived and bus.answers and sources.bus is not None:
        derived = await _ask_apps(sources.bus, sources.subjects, tag)
        inputs = await _inputs(derived, sources, clock, depth)
    elif bus.answers and sources.bus is not None:
        edge = await _ask_edge(sources.bus, sources.subjects, tag)
        follow = await _desired(sources.bus, tag.edge)
    places = asyncio.gather(
        sources.table(tag.tag_id, bus.answers), sources.screen(tag.tag_id, bus.answers)
    )
    writer = WriterFacts()
    if info is not None and sources.bus is not None:
        bus.subject_us = await _newest(sources.bus, sources.subjects, tag)
        writer = await _writer(sources, info)
    table, screen = await places
    return Facts(
        at_us=clock.now_us(),
        tag=tag,
        derived=derived,
        inputs=inputs,
        edge=edge,
        edge_seen_us=sources.edge_seen_us,
        desired_hash=follow.desired_hash,
        desired_since_us=follow.since_us,
        bus=bus,
        writer=writer,
        table=table,
        screen=screen,
    )


async def _ask_log(sources: Sources) -> tuple[LogInfo | None, BusFacts]:
    error = sources.bus_error
    if sources.bus is not None and not sources.bus.client.is_connected:
        error = Transient(
            "BUS-1030",
            "there is no connection to the broker",
            "It starts again by itself; if it does not, see logs/broker.log.",
        )
    elif sources.bus is not None:
        try:
            async with asyncio.timeout(ASK_S):
                info = await log_info(sources.bus)
            return info, BusFacts(answers=True, last_sequence=info.last_sequence)
        except Transient as failed:
            error = failed
        except TimeoutError:
            error = Transient(
                "BUS-1030",
                f"the broker did not tell about the log in {ASK_S:.0f} s",
                "See whether its process runs: logs/broker.log.",
            )
    if error is None:
        return None, BusFacts()
    return None, BusFacts(code=error.code, error=error.what, remedy=error.remedy)


async def _ask_edge(bus: Bus, subjects: Subjects, tag: WhyTag) -> EdgeFacts | None:
    """None when it does not answer, or answers what we cannot read: an edge of another version."""
    if not tag.edge:
        return None
    call = msgspec.json.encode({"tag_id": tag.tag_id, "connection": tag.connection})
    try:
        answer = await bus.request(subjects.edge_call(tag.edge, "why"), call, timeout_s=ASK_S)
        return msgspec.json.decode(answer, type=EdgeFacts)
    except (HeadraceError, msgspec.DecodeError):
        return None


async def _ask_apps(bus: Bus, subjects: Subjects, tag: WhyTag) -> DerivedFacts | None:
    call = msgspec.json.encode({"tag_id": tag.tag_id})
    whom = subjects.apps_call("why")
    if tag.machine:
        whom = subjects.edge_call(tag.machine, FORMULA_CALL)
    try:
        answer = await bus.request(whom, call, timeout_s=ASK_S)
        return msgspec.json.decode(answer, type=DerivedFacts)
    except (HeadraceError, msgspec.DecodeError):
        return None


async def _inputs(
    derived: DerivedFacts | None, sources: Sources, clock: Clock, depth: int
) -> list[InputFacts]:
    """How the inputs of a derived tag do, each on its way into the log."""
    if derived is None or sources.find is None or depth > DEPTH_MAX:
        return []
    asked = derived.inputs[:INPUTS_MAX]
    tags = [tag for tag_id in asked if (tag := await sources.find(tag_id)) is not None]
    facts = await asyncio.gather(*(collect(tag, sources, clock, depth=depth + 1) for tag in tags))
    return [_input(each) for each in facts]


def _input(facts: Facts) -> InputFacts:
    hops = diagnose(facts).hops
    to_log = hops[: [hop.name for hop in hops].index("bus") + 1]
    for state in ("broken", "waiting", "unknown"):
        for hop in to_log:
            if hop.state == state:
                return InputFacts(path=facts.tag.path, hop=hop.name, state=hop.state)
    return InputFacts(path=facts.tag.path)


async def _desired(bus: Bus, edge: str) -> EdgeFollow:
    try:
        async with asyncio.timeout(ASK_S):
            raw = await bus.get(DESIRED_BUCKET, STATE_KEY)
        state = msgspec.json.decode(raw, type=SiteState) if raw else SiteState()
    except (HeadraceError, TimeoutError, msgspec.DecodeError):
        state = SiteState()
    return state.edges.get(edge) or EdgeFollow(desired_hash="")


async def _newest(bus: Bus, subjects: Subjects, tag: WhyTag) -> int:
    if not tag.edge or not tag.connection:
        return 0
    try:
        async with asyncio.timeout(ASK_S):
            return await newest_stored_us(bus, subjects.batch(tag.edge, tag.connection))
    except (HeadraceError, TimeoutError):
        return 0


async def _writer(sources: Sources, info: LogInfo) -> WriterFacts:
    if sources.historian is None:
        return WriterFacts()
    state, heard_us = sources.historian
    facts = WriterFacts(state=state, heard_us=heard_us)
    if sources.bus is not None and state.committed_sequence < info.last_sequence:
        try:
            async with asyncio.timeout(ASK_S):
                at_us = await stored_at_us(sources.bus, state.committed_sequence + 1)
            facts.oldest_waiting_us = at_us or 0
        except (HeadraceError, TimeoutError):
            facts.oldest_waiting_us = 0
    return facts


async def ask_console(bus: Bus, subjects: Subjects, tag_id: int) -> ScreenFacts | None:
    """What a console says of a tag's live value; None when none answers."""
    call = msgspec.json.encode({"tag_id": tag_id})
    try:
        answer = await bus.request(subjects.console_call("why"), call, timeout_s=ASK_S)
        return msgspec.json.decode(answer, type=ScreenFacts)
    except (HeadraceError, msgspec.DecodeError):
        return None
