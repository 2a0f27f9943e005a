"""The hub takes what its edges' logs hold into its own: JetStream sources, set, watched and renewed.

The place in each edge's log is kept by the hub's broker together with what it stored, so a hub that
was killed, or restored to an older copy, goes on where its own log ends. What the broker does slowly
is to notice that an edge is back: it looks at its sources every ten seconds and waits ten more and
longer between tries (40 s measured). :func:`renew_sources` sets an edge's sources anew when its
connection is, which takes milliseconds. See ADR 0011.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import nats.errors
import nats.js.errors

from headrace.bus import subjects as names
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.leaf import Leaf, deliver_prefix
from headrace.bus.subjects import Subjects
from headrace.bus.system import open_system
from headrace.model.errors import Refused, Transient
from headrace.model.ids import NAME

SOURCE_HEADER: Final = "Nats-Stream-Source"
API_TIMEOUT_S: Final = 5.0
_ERRORS: Final = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)


@dataclass(frozen=True)
class SourcedEdge:
    """An edge whose log is taken in: its name, and the domain of its JetStream."""

    name: str
    domain: str


@dataclass(frozen=True)
class SourceState:
    """How one stream of one edge is taken in.

    Attributes:
        lag: messages the edge has and the hub does not, when it last heard.
        silent_s: since it last heard; None when it never did.
    """

    lag: int
    silent_s: float | None


def sourced_streams(subjects: Subjects, edge: str) -> dict[str, tuple[str, ...]]:
    """Stream -> which of an edge's subjects the hub takes from it: its own, and those of its formulas and
    apps.

    Example:
        >>> sourced_streams(Subjects("acme", "mill"), "north")["SAMPLES"]
        ('v1.acme.mill.batch.north.>', 'v1.acme.mill.batch.apps-north.>', 'v1.acme.mill.batch.runtime-north.>')
    """
    both = [name for name in (edge, names.apps_edge(edge)) if NAME.match(name)]
    return {
        names.SAMPLES_STREAM: tuple(map(subjects.every_batch, _names_of(edge))),
        names.EVENTS_STREAM: (f"{subjects.prefix}.event.>",),
        names.LEDGER_STREAM: tuple(subjects.edge_ledger(name) for name in both),
        names.SEALED_STREAM: (subjects.every_sealed(edge),),
        # The bucket with the books of the minutes that are still open.
        f"KV_{names.LEDGER_BUCKET}": tuple(f"$KV.{names.LEDGER_BUCKET}.{name}" for name in both),
    }


def _names_of(edge: str) -> tuple[str, ...]:
    """In whose names an edge's log has samples."""
    every = (edge, names.apps_edge(edge), names.runtime_edge(edge))
    return tuple(name for name in every if NAME.match(name))


async def set_sources(bus: Bus, subjects: Subjects, edges: Sequence[SourcedEdge]) -> list[str]:
    """Make the hub's streams take from exactly these edges; gives the streams that were changed.

    What is stored of the samples is published once more under ``live.``, for those who show it: what
    comes by a source reaches no subscriber otherwise.

    Raises:
        Transient: BUS-1110 when the broker does not answer.
    """
    changed = []
    for stream in sourced_streams(subjects, "any"):
        info = await _info(bus, stream)
        if info is None:
            continue  # whoever needs it makes it, and the next call finds it
        config = info["config"]
        wanted = [_source(subjects, stream, edge) for edge in edges]
        live = {"src": names.ALL_BATCHES, "dest": names.LIVE_BATCHES}
        republish = live if stream == names.SAMPLES_STREAM else config.get("republish")
        if _keys(config.get("sources")) != _keys(wanted) or config.get("republish") != republish:
            await _update(bus, config, wanted, republish)
            changed.append(stream)
    return changed


async def renew_sources(bus: Bus, subjects: Subjects, edge: SourcedEdge) -> None:
    """Begin an edge's sources anew, where the hub's own log ends; the other edges' go on.

    Raises:
        Transient: BUS-1110 when the broker does not answer; the next :func:`set_sources` mends it.
    """
    for stream in sourced_streams(subjects, edge.name):
        info = await _info(bus, stream)
        if info is None:
            continue
        config = info["config"]
        sources = config.get("sources") or []
        own = _source(subjects, stream, edge)
        others = [source for source in sources if _key(source) != _key(own)]
        await _update(bus, config, others, config.get("republish"))
        await _update(bus, config, [*others, own], config.get("republish"))


async def source_states(bus: Bus, stream: str = names.SAMPLES_STREAM) -> dict[str, SourceState]:
    """Domain of an edge -> how its samples are taken in.

    Raises:
        Transient: BUS-1110 when the broker does not answer.
    """
    found = {}
    for source in (await _info(bus, stream) or {}).get("sources") or []:
        api = source.get("external", {}).get("api", "")
        active_ns = source.get("active", -1)
        silent_s = active_ns / 1e9 if active_ns >= 0 else None
        found[api.removeprefix("$JS.").removesuffix(".API")] = SourceState(source["lag"], silent_s)
    return found


async def stored_sequence(bus: Bus, subjects: Subjects, edge: SourcedEdge) -> int:
    """Up to which sequence of its own log the hub's log has an edge's samples; 0 when the hub's log
    does not tell, because it holds none of them now.

    Raises:
        Transient: BUS-1110 when the broker does not answer.
    """
    # One source takes all of them, in order: what was stored last tells.
    found = [await _last_of(bus, subjects.every_batch(name)) for name in _names_of(edge.name)]
    return max(found)


async def _last_of(bus: Bus, subject: str) -> int:
    try:
        message = await bus.stream.get_last_msg(names.SAMPLES_STREAM, subject)
    except nats.js.errors.NotFoundError:
        return 0
    except _ERRORS as error:
        raise _no_answer() from error
    return _sequence_of((message.headers or {}).get(SOURCE_HEADER, ""))


async def cut_leaf(address: BrokerAddress, leaf: Leaf) -> None:
    """End an edge's connection; it comes again only if the broker still knows its user.

    Raises:
        Transient: BUS-1111 when the broker does not do it.
    """
    async with open_system(address) as system:
        await system.kick(leaf.server_id, leaf.client_id)


def _sequence_of(header: str) -> int:
    """``SAMPLES:<hash> <sequence> <filter> ...``, as the broker marks what it took in."""
    parts = header.split(" ")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def _source(subjects: Subjects, stream: str, edge: SourcedEdge) -> dict[str, Any]:
    filters = sourced_streams(subjects, edge.name)[stream]
    # Several filters of one source are said as transforms that change nothing.
    what: dict[str, Any] = {"subject_transforms": [{"src": each, "dest": each} for each in filters]}
    if len(filters) == 1:
        what = {"filter_subject": filters[0]}
    return {
        "name": stream,
        **what,
        "external": {
            "api": f"$JS.{edge.domain}.API",
            "deliver": deliver_prefix(edge.domain),
        },
    }


def _key(source: dict[str, Any]) -> tuple[str, ...]:
    filters = [each.get("src", "") for each in source.get("subject_transforms") or []]
    own = filters or [source.get("filter_subject", "")]
    return source.get("external", {}).get("api", ""), *own


def _keys(sources: list[dict[str, Any]] | None) -> list[tuple[str, ...]]:
    return sorted(_key(source) for source in sources or [])


async def _info(bus: Bus, stream: str) -> dict[str, Any] | None:
    """What the broker tells of a stream; None when there is none."""
    return await _ask(bus, f"$JS.API.STREAM.INFO.{stream}", {})


async def _update(
    bus: Bus, config: dict[str, Any], sources: list[dict[str, Any]], republish: Any
) -> None:
    # The broker's own JSON with one field changed: whatever else a stream is set to stays.
    changed = {**config, "sources": sources, "republish": republish}
    await _ask(bus, f"$JS.API.STREAM.UPDATE.{config['name']}", changed)


async def _ask(bus: Bus, subject: str, body: dict[str, Any]) -> dict[str, Any] | None:
    try:
        answer = await bus.client.request(subject, json.dumps(body).encode(), timeout=API_TIMEOUT_S)
        told: dict[str, Any] = json.loads(answer.data)
    except (*_ERRORS, ValueError) as error:
        raise _no_answer() from error
    if "error" in told:
        description = told["error"].get("description", "")
        if told["error"].get("code") == 404:
            return None
        raise Refused(
            "BUS-1112",
            f"the broker refused {subject}: {description}",
            "See logs/broker.log.",
        )
    return told


def _no_answer() -> Transient:
    return Transient(
        "BUS-1110", "the broker does not answer about the edges' logs", "It is asked again."
    )
