"""An OPC UA server on loopback that shows points (OPC 10000); see :mod:`headrace.sim.emulators`."""

from __future__ import annotations

import uuid
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import numpy as np
from asyncua import ua
from asyncua.common.callback import CallbackType
from asyncua.common.node import Node
from asyncua.crypto.security_policies import SecurityPolicyType
from asyncua.server.address_space import AttributeValue

from headrace.model.errors import Misconfigured
from headrace.model.time import Clock, SystemClock
from headrace.security.certificates import own_certificate
from headrace.sim.emulators import Point, PointType, Value, WriteHandler
from headrace.sim.emulators.opcua_server import (
    EmulatorServer,
    MemoryHistory,
    monitored_items,
    pending_values,
    publish_value,
    unacknowledged,
    utc,
)

APPLICATION_URI: Final = "urn:headrace:emulator"
NAMESPACE: Final = "urn:headrace:emulator:points"

_TYPES: Final[dict[PointType, ua.VariantType]] = {
    "bool": ua.VariantType.Boolean,
    "int16": ua.VariantType.Int16,
    "uint16": ua.VariantType.UInt16,
    "int32": ua.VariantType.Int32,
    "uint32": ua.VariantType.UInt32,
    "int64": ua.VariantType.Int64,
    "uint64": ua.VariantType.UInt64,
    "float32": ua.VariantType.Float,
    "float64": ua.VariantType.Double,
    "string": ua.VariantType.String,
}
_POLICIES: Final = {
    "None": SecurityPolicyType.NoSecurity,
    "Sign": SecurityPolicyType.Basic256Sha256_Sign,
    "SignAndEncrypt": SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
}


class _Shown:
    """A point in the address space of the running server."""

    __slots__ = ("attribute", "is_array", "kind", "node_id", "point")

    def __init__(self, point: Point, node_id: ua.NodeId, attribute: AttributeValue) -> None:
        self.point = point
        self.node_id = node_id
        self.attribute = attribute
        self.kind = _TYPES[point.data_type]
        self.is_array = _is_array(point.initial)


class OpcUaEmulator:
    """A device with an OPC UA server.

    Args:
        points: what it shows; addresses are ``ns=2;s=...``, ``nsu=...;s=...``, ``ns=2;i=...``. Dots
            in a string identifier make folders. An ``initial`` list makes an array.
        endpoint: ``opc.tcp://127.0.0.1:PORT``; "" or port 0 takes a free port and keeps it.
        on_write: called with address and value after a client wrote.
        security: the modes that it offers; modes other than ``None`` need ``certificates``.
        certificates: folder for the server's own certificate.
        users: name -> password; empty lets everybody in as anonymous.
        history: answer HistoryRead from what was updated since the start.
        clock: the device's clock for its server timestamps.

    Example:
        >>> emulator = OpcUaEmulator([Point("ns=2;s=pump.flow", unit="m3/h")])
        >>> emulator.endpoint
        'opc.tcp://127.0.0.1:0'
    """

    def __init__(
        self,
        points: Sequence[Point],
        endpoint: str = "",
        on_write: WriteHandler | None = None,
        *,
        security: Sequence[Literal["None", "Sign", "SignAndEncrypt"]] = ("None",),
        certificates: Path | None = None,
        users: Mapping[str, str] | None = None,
        history: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.endpoint = endpoint or "opc.tcp://127.0.0.1:0"
        self.delay_s = 0.0
        self.clock_offset_us = 0
        self._points = {point.address: point for point in points}
        self._on_write = on_write
        self._security = tuple(security)
        self._certificates = certificates
        self._users = dict(users or {})
        self._history = MemoryHistory() if history else None
        self._clock = clock or SystemClock()
        self._server: EmulatorServer | None = None
        self._shown: dict[str, _Shown] = {}
        self._held: dict[str, ua.DataValue] = {}
        if any(mode != "None" for mode in self._security) and certificates is None:
            raise Misconfigured(
                "SIM-2000",
                f"an OPC UA emulator offers {', '.join(self._security)} without a certificate",
                "Give it a certificates folder.",
            )

    async def start(self) -> None:
        """Listen; the endpoint's port is known afterwards.

        Raises:
            Misconfigured: SIM-2000 when an address is no node id.
            OSError: the port is taken.
        """
        server = EmulatorServer(self._users, lambda: self.delay_s, self._now)
        server.set_server_name("Headrace emulator")
        await server.init()
        await server.set_application_uri(APPLICATION_URI)
        server.set_endpoint(self.endpoint)
        server.set_security_policy([_POLICIES[mode] for mode in self._security])
        if self._certificates is not None:
            certificate, key = own_certificate(
                self._certificates, "emulator", APPLICATION_URI, self._clock.now_us()
            )
            await server.load_certificate(certificate)
            await server.load_private_key(key)
        await self._show(server)
        if self._history is not None:
            server.iserver.history_manager.set_storage(self._history)
        server.iserver.callback_service.addListener(CallbackType.PostWrite, self._written)
        self._answer_current_time(server)
        await server.start()
        self._server = server
        assert server.bserver is not None, "a started server listens"
        parts = urlsplit(self.endpoint)
        self.endpoint = f"opc.tcp://{parts.hostname}:{server.bserver.port}{parts.path}"

    async def update(
        self,
        values: Mapping[str, Value | Sequence[float]],
        source_timestamp_us: int,
        status: Mapping[str, int] | None = None,
    ) -> None:
        """Set points as one change; see :meth:`headrace.sim.emulators.Emulator.update`.

        Raises:
            Misconfigured: SIM-2001 for an address that is no point, SIM-2002 for a value that its
                type cannot hold; nothing is set then.
        """
        at = utc(source_timestamp_us + self.clock_offset_us)
        now = self._now()
        codes = status or {}
        changes: list[tuple[str, _Shown, ua.DataValue]] = []
        for address in (*values, *(a for a in codes if a not in values)):
            shown = self._shown.get(address)
            if shown is None:
                raise Misconfigured(
                    "SIM-2001",
                    f"the OPC UA emulator at {self.endpoint} has no point {address!r}",
                    "Update only points that it was made with, after its start.",
                )
            value: ua.Variant | None
            code = ua.StatusCode(codes.get(address, 0))
            if code.is_bad():
                value = None  # a Bad value is null (OPC 10000-4, 7.11)
            elif address in values:
                value = self._variant(shown, values[address])
            else:
                value = shown.attribute.value.Value if shown.attribute.value else None
            changes.append((address, shown, ua.DataValue(value, code, at, now)))
        for address, shown, data_value in changes:
            publish_value(shown.attribute, data_value)
            self._held[address] = data_value
            if self._history is not None:
                self._history.keep(shown.node_id, data_value)

    def pending(self) -> int:
        """Values that wait for the next publish; a fast replay waits while there are many."""
        return pending_values(self._server) if self._server is not None else 0

    def activity(self) -> tuple[int, int, int]:
        """What connected clients still have to take, and what they read of the history: (values
        that wait, notifications not acknowledged, history reads so far)."""
        if self._server is None:
            return 0, 0, 0
        reads = self._history.reads if self._history is not None else 0
        return pending_values(self._server), unacknowledged(self._server), reads

    def monitored(self) -> int:
        """Monitored items of all clients; a replay begins once there are some."""
        return monitored_items(self._server) if self._server is not None else 0

    def _now(self) -> datetime:
        return utc(self._clock.now_us() + self.clock_offset_us)

    async def stop(self) -> None:
        """Cut the power: sockets are reset, sessions are lost, values and ids are kept."""
        server, self._server = self._server, None
        self._shown = {}
        if server is not None:
            await server.abort()

    def _variant(self, shown: _Shown, value: Value | Sequence[float]) -> ua.Variant:
        try:
            if shown.is_array:
                row = [_plain(v, shown.point.data_type) for v in value]  # type: ignore[union-attr]
                return ua.Variant(row, shown.kind, is_array=True)
            return ua.Variant(_plain(value, shown.point.data_type), shown.kind)
        except (TypeError, ValueError, OverflowError) as error:
            raise Misconfigured(
                "SIM-2002",
                f"point {shown.point.address} of type {shown.point.data_type} cannot hold {value!r}",
                "Give a value of its type; arrays take sequences.",
            ) from error

    async def _show(self, server: EmulatorServer) -> None:
        """Make namespaces, folders and variables."""
        nodes = {address: _node_text(address) for address in self._points}
        namespaces = await _register_namespaces(server, list(nodes.values()))
        ids = {address: _node_id(address, text, namespaces) for address, text in nodes.items()}
        folders: dict[ua.NodeId, Node] = {}
        taken = set(ids.values())
        for address, node_id in ids.items():
            parent = await _folder(server, node_id, folders, taken)
            self._shown[address] = await self._add(server, parent, self._points[address], node_id)

    async def _add(
        self, server: EmulatorServer, parent: Node, point: Point, node_id: ua.NodeId
    ) -> _Shown:
        kind = _TYPES[point.data_type]
        name = str(node_id.Identifier).rpartition(".")[2]
        initial = [*point.initial] if _is_array(point.initial) else point.initial  # type: ignore[misc]
        if initial == 0.0 and point.data_type == "string":
            initial = ""
        variable = await parent.add_variable(
            node_id, ua.QualifiedName(name, node_id.NamespaceIndex), _initial(initial, point), kind
        )
        if point.writable:
            await variable.set_writable()
        if point.unit:
            information = ua.EUInformation(
                NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
                DisplayName=ua.LocalizedText(point.unit),
                Description=ua.LocalizedText(point.unit),
            )
            unit = ua.QualifiedName("EngineeringUnits", 0)
            # An id of its own: generated ones are slow to find and differ from start to start.
            unit_id = ua.NodeId(f"{node_id.Identifier}/EngineeringUnits", node_id.NamespaceIndex)
            await variable.add_property(unit_id, unit, information)
        if self._history is not None:
            await variable.set_attr_bit(ua.AttributeIds.AccessLevel, ua.AccessLevel.HistoryRead)
            await variable.set_attr_bit(ua.AttributeIds.UserAccessLevel, ua.AccessLevel.HistoryRead)
        attribute = server.iserver.aspace[node_id].attributes[ua.AttributeIds.Value]
        held = self._held.get(point.address)
        if held is not None:
            attribute.value = held
        else:
            # What was never measured is not a measurement: no client may store it as Good.
            code = ua.StatusCode(ua.StatusCodes.UncertainInitialValue)
            first = attribute.value.Value if attribute.value else None
            now = self._now()
            attribute.value = ua.DataValue(first, code, now, now)
        return _Shown(point, node_id, attribute)

    async def _written(self, event: Any, _dispatcher: Any = None) -> None:
        """A client wrote: keep it over a restart and tell the owner."""
        if not event.is_external:
            return
        for request, result in zip(
            event.request_params.NodesToWrite, event.response_params, strict=True
        ):
            if request.AttributeId != ua.AttributeIds.Value or not result.is_good():
                continue
            for address, shown in self._shown.items():
                if shown.node_id == request.NodeId and request.Value.Value is not None:
                    if shown.attribute.value is not None:
                        self._held[address] = shown.attribute.value
                    if self._on_write is not None:
                        self._on_write(address, request.Value.Value.Value)

    def _answer_current_time(self, server: EmulatorServer) -> None:
        def now(_node: ua.NodeId, _attribute: ua.AttributeIds) -> ua.DataValue:
            at = self._now()
            return ua.DataValue(ua.Variant(at, ua.VariantType.DateTime), ua.StatusCode(), at, at)

        server.iserver.aspace.set_attribute_value_callback(
            ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime), ua.AttributeIds.Value, now
        )


def _is_array(initial: object) -> bool:
    return isinstance(initial, Sequence | np.ndarray) and not isinstance(initial, str)


def _initial(initial: Any, point: Point) -> Any:
    if isinstance(initial, list):
        return [_plain(v, point.data_type) for v in initial]
    return _plain(initial, point.data_type)


def _plain(value: Any, data_type: PointType) -> Value:
    """A value in the Python type that the codec wants, or an error when it does not fit."""
    if data_type == "string":
        return str(value)
    if data_type == "bool":
        return bool(value)
    if data_type in ("float32", "float64"):
        return float(value)
    bounds = np.iinfo(data_type)
    number = int(value)
    if number != value or not bounds.min <= number <= bounds.max:
        raise ValueError(f"{value!r} is no {data_type}")
    return number


def _node_text(address: str) -> tuple[str, str]:
    """Namespace (``ns=2``, ``nsu=...`` or "") and identifier of an address."""
    head, semicolon, rest = address.partition(";")
    if semicolon and head.startswith(("ns=", "nsu=")):
        return head, rest
    return "", address


async def _register_namespaces(
    server: EmulatorServer, texts: list[tuple[str, str]]
) -> dict[str, int]:
    """Index of every namespace that the points name."""
    indexes = [int(head[3:]) for head, _ in texts if head.startswith("ns=") and head[3:].isdigit()]
    index = await server.register_namespace(NAMESPACE)
    while index < max(indexes, default=2):
        index = await server.register_namespace(f"{NAMESPACE}:{index + 1}")
    found: dict[str, int] = {"": 0, **{f"ns={i}": i for i in indexes}}
    for head, _ in texts:
        if head.startswith("nsu="):
            found[head] = await server.register_namespace(head[4:])
    return found


def _node_id(address: str, text: tuple[str, str], namespaces: dict[str, int]) -> ua.NodeId:
    head, identifier = text
    kind, value = identifier[:2], identifier[2:]
    try:
        if kind == "s=" and value:
            return ua.NodeId(value, namespaces[head])
        if kind == "i=":
            return ua.NodeId(int(value), namespaces[head])
        if kind == "g=":
            return ua.NodeId(uuid.UUID(value), namespaces[head])
        if kind == "b=":
            return ua.NodeId(b64decode(value, validate=True), namespaces[head])
    except (KeyError, ValueError):
        pass
    raise Misconfigured(
        "SIM-2000",
        f"an OPC UA emulator cannot show the point {address!r}",
        "Use a node id such as ns=2;s=pump.flow.",
    )


async def _folder(
    server: EmulatorServer,
    node_id: ua.NodeId,
    folders: dict[ua.NodeId, Node],
    taken: set[ua.NodeId],
) -> Node:
    """The folder for a dotted identifier, made with those above it; Objects for the others."""
    parent = server.get_objects_node()
    if not isinstance(node_id.Identifier, str):
        return parent
    words = node_id.Identifier.split(".")
    for depth in range(1, len(words)):
        folder_id = ua.NodeId(".".join(words[:depth]), node_id.NamespaceIndex)
        if folder_id in taken or not words[depth - 1]:
            continue  # a point stands there itself; its children stay with the folder above
        if folder_id not in folders:
            name = ua.QualifiedName(words[depth - 1], node_id.NamespaceIndex)
            folders[folder_id] = await parent.add_folder(folder_id, name)
        parent = folders[folder_id]
    return parent
