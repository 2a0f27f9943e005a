"""The standard address space of OPC UA, packed: 3 MB instead of the 50 MB that asyncua builds.

asyncua makes 6,000 nodes of 90,000 objects, of which an emulator's clients touch a few hundred. They are
built in a process of their own, which gives them away in the standard's binary encoding (OPC 10000-6,
5.2) and ends; here a node is unpacked when it is first touched::

    space = node*
    node  = length: UInt32, NodeId, references: ReferenceDescription[], count: UInt32, attribute*
    attribute = AttributeId: UInt32, DataValue
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.server.address_space import (
    AddressSpace,
    AttributeValue,
    NodeData,
    NodeManagementService,
)
from asyncua.server.standard_address_space import standard_address_space
from asyncua.ua import ua_binary

from headrace.model.errors import Terminal

_UINT32: Final = struct.Struct("<I")


class PackedNodes(Mapping[ua.NodeId, NodeData]):
    """Nodes in packed form, each unpacked anew when it is asked for.

    Args:
        packed: what :func:`pack_nodes` gave.

    Example:
        >>> node = NodeData(ua.NodeId(85))
        >>> [found.Identifier for found in PackedNodes(pack_nodes({node.nodeid: node}))]
        [85]
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._places: dict[ua.NodeId, int] = {}
        place = 0
        while place < len(packed):
            body = Buffer(packed, place + _UINT32.size)
            self._places[ua_binary.nodeid_from_binary(body)] = place
            place += _UINT32.size + _UINT32.unpack_from(packed, place)[0]

    def __getitem__(self, key: ua.NodeId) -> NodeData:
        place = self._places[key] + _UINT32.size
        body = Buffer(self._packed, place)
        node = NodeData(ua_binary.nodeid_from_binary(body))
        node.references = [
            ua_binary.struct_from_binary(ua.ReferenceDescription, body)
            for _ in range(_number(body))
        ]
        for _ in range(_number(body)):
            attribute = ua.AttributeIds(_number(body))
            value = ua_binary.struct_from_binary(ua.DataValue, body)
            node.attributes[attribute] = AttributeValue(value)
        return node

    def __iter__(self) -> Iterator[ua.NodeId]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places


def _number(body: Buffer) -> int:
    return int(_UINT32.unpack(body.read(_UINT32.size))[0])


def pack_nodes(nodes: Mapping[ua.NodeId, NodeData]) -> bytes:
    """Nodes without callbacks in packed form."""
    parts = []
    for node in nodes.values():
        body = ua_binary.nodeid_to_binary(node.nodeid)
        body += ua_binary.list_to_binary(ua.ReferenceDescription, node.references)
        body += _UINT32.pack(len(node.attributes))
        for attribute, held in node.attributes.items():
            body += _UINT32.pack(attribute) + ua_binary.struct_to_binary(held.value)
        parts += [_UINT32.pack(len(body)), body]
    return b"".join(parts)


def standard_nodes() -> dict[ua.NodeId, NodeData]:
    """The standard address space as asyncua makes it."""
    space = AddressSpace()
    standard_address_space.fill_address_space(NodeManagementService(space))
    nodes: dict[ua.NodeId, NodeData] = space._nodes
    return nodes


async def load_packed_nodes() -> PackedNodes:
    """The standard address space, built in another process; takes two seconds of its time.

    Raises:
        Terminal: SIM-1023 when that process fails.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.sim.emulators.opcua_standard",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        packed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode or not packed:
        raise Terminal(
            "SIM-1023",
            f"the standard address space of OPC UA was not built: exit code {process.returncode}",
            "See logs/sim.log; with too little memory it is killed.",
        )
    return PackedNodes(packed)


if __name__ == "__main__":
    sys.stdout.buffer.write(pack_nodes(standard_nodes()))
