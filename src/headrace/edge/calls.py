"""Requests that people and apps make to an edge: check and browse a device, write a tag."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import msgspec

from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.edge import guard
from headrace.edge.agent import Agent
from headrace.edge.catalog import connector_type
from headrace.edge.contract import Connector
from headrace.edge.events import connection_event
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.time import Clock
from headrace.security.redaction import REDACTOR

CALL_TIMEOUT_S: Final = 20.0
T = TypeVar("T", bound=msgspec.Struct)


class CheckCall(msgspec.Struct, kw_only=True):
    """Open a session with these settings and close it again; ``secrets`` are sealed to the edge."""

    connection: ConnectionConfig
    secrets: dict[str, str] = {}


class BrowseCall(msgspec.Struct, kw_only=True):
    """List what a device has below ``address``; "" is its root."""

    connection: ConnectionConfig
    address: str = ""
    secrets: dict[str, str] = {}


class RetryCall(msgspec.Struct, kw_only=True):
    """Try a connection that waits for its next try at once; "" is all of them."""

    connection: str = ""


class WhyCall(msgspec.Struct, kw_only=True):
    """Tell what is known of a tag's way into the log; nothing is read or changed."""

    tag_id: int
    connection: str = ""


class WriteCall(msgspec.Struct, kw_only=True):
    """Set a tag, in engineering units, on behalf of ``actor``."""

    tag_id: int
    value: float | str
    actor: str


class WriteAnswer(msgspec.Struct, kw_only=True):
    """What the device says the value is after the write, in engineering units."""

    value: float | str


class Calls:
    """Answers an edge's calls.

    Args:
        agent: the edge.
        clock: time of events.
        edge: its name.
    """

    def __init__(self, agent: Agent, clock: Clock, edge: str) -> None:
        self._agent = agent
        self._clock = clock
        self._edge = edge

    async def serve(self, bus: Bus, subjects: Subjects) -> None:
        """Start answering ``check``, ``browse``, ``retry``, ``why`` and ``write``."""
        await bus.answer(subjects.edge_call(self._edge, "check"), self.check)
        await bus.answer(subjects.edge_call(self._edge, "browse"), self.browse)
        await bus.answer(subjects.edge_call(self._edge, "retry"), self.retry)
        await bus.answer(subjects.edge_call(self._edge, "why"), self.why)
        await bus.answer(subjects.edge_call(self._edge, "write"), self.write)

    async def check(self, body: bytes) -> bytes:
        call = _decode(body, CheckCall)
        async with self._session(call):
            return b"{}"

    async def browse(self, body: bytes) -> bytes:
        call = _decode(body, BrowseCall)
        async with self._session(call) as connector:
            browse = getattr(connector, "browse", None)
            if browse is None:
                raise Misconfigured(
                    "EDGE-1031",
                    f"{call.connection.protocol} cannot be browsed",
                    "Type the addresses.",
                )
            items = await browse(call.address)
            return msgspec.json.encode(self._agent.hide(call.connection, items))

    async def retry(self, body: bytes) -> bytes:
        self._agent.try_now(_decode(body, RetryCall).connection)
        return b"{}"

    async def why(self, body: bytes) -> bytes:
        call = _decode(body, WhyCall)
        return msgspec.json.encode(self._agent.why(call.tag_id, call.connection))

    async def write(self, body: bytes) -> bytes:
        call = _decode(body, WriteCall)
        host, tag = self._agent.find(call.tag_id)
        self._agent.check_crossing(host.config, write_to=tag.path)
        raw = guard.raw_value(tag, call.value)
        connector = host.connector
        write = getattr(connector, "write", None)
        if connector is None or write is None:
            reason = "is not connected" if connector is None else "cannot be written"
            raise Transient("EDGE-1032", f"{host.config.name} {reason}; {tag.path} was not written")
        try:
            async with host.exclusive():
                read_back = await asyncio.wait_for(write(tag, raw), CALL_TIMEOUT_S)
        except TimeoutError as error:
            raise Transient(
                "EDGE-1033",
                f"{host.config.name} did not confirm the write of {tag.path}; it may be written or not",
                "Read the tag before you write again.",
            ) from error
        value = guard.engineering_value(tag, read_back)
        text = f"{call.actor} set {tag.path} to {call.value} {tag.unit}, read back {value}"
        if host.outlet.protection.covers(call.tag_id):
            value = _unrevealing(tag, call.value, value)
            text = f"{call.actor} set {tag.path}; its protection hides the value"
        place = (self._clock, self._edge, host.config.name)
        self._agent.report(connection_event(*place, "info", "EDGE-1034", text))
        return msgspec.json.encode(WriteAnswer(value=value))

    @contextlib.asynccontextmanager
    async def _session(self, call: CheckCall | BrowseCall) -> AsyncIterator[Connector]:
        connection = call.connection
        kind = connector_type(connection.protocol)
        kind.check_connection(connection)
        self._agent.check_crossing(connection)
        for tag in connection.tags:
            kind.check_tag(tag)
        context = await self._agent.context(connection.name, 1, call.secrets)
        connector: Connector = kind.open(connection, context)
        try:
            await asyncio.wait_for(connector.connect(), CALL_TIMEOUT_S)
            yield connector
        except HeadraceError as error:
            error.what = REDACTOR.blotted(error.what)
            raise
        except TimeoutError as error:
            raise Transient(
                "EDGE-1035", f"{connection.endpoint} did not answer in {CALL_TIMEOUT_S:.0f} s"
            ) from error
        finally:
            await connector.close()


def _unrevealing(tag: TagConfig, wanted: float | str, value: float | str) -> float | str:
    """What may be told of a write to a tag whose values do not leave: that it holds what was sent."""
    same = (
        math.isclose(wanted, value, rel_tol=1e-6)
        if isinstance(wanted, float | int) and isinstance(value, float | int)
        else wanted == value
    )
    if not same:
        raise Transient(
            "EDGE-1508",
            f"{tag.path} was written, and the device holds another value than the one that was sent",
            "Its protection hides the value: look at the device.",
        )
    return wanted


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise Misconfigured(
            "EDGE-1036", f"not a {kind.__name__}: {error}", "See the API page."
        ) from error
