"""A server in a process of its own with a structure that nobody else knows; prints its endpoint.

With the argument ``other`` the structures of the same node ids have other fields.
"""

from __future__ import annotations

import asyncio
import sys

from asyncua import Server, ua
from asyncua.common.structures104 import new_struct, new_struct_field

OTHER = sys.argv[1:] == ["other"]
EDGE_FIELDS = [
    new_struct_field("wear", ua.VariantType.Double),
    new_struct_field("note", ua.VariantType.String, optional=True),
    new_struct_field("cuts", ua.VariantType.UInt32),
]


async def main() -> None:
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:acme:tools")
    edge_type, _ = await new_struct(
        server,
        index,
        "Edge",
        EDGE_FIELDS[::-1] if OTHER else EDGE_FIELDS,
    )
    tool_type, _ = await new_struct(
        server,
        index,
        "Tool",
        [
            new_struct_field("name", ua.VariantType.String),
            new_struct_field("edge", edge_type),
            new_struct_field("lengths", ua.VariantType.Double, array=True),
        ],
    )
    await server.load_data_type_definitions()
    tool = ua.Tool(
        name="T7",
        edge=ua.Edge(wear=0.25, cuts=4_000_000_000, note="new" if OTHER else None),
        lengths=[1.0, 2.0],
    )
    await server.get_objects_node().add_variable(
        ua.NodeId("tool", index),
        ua.QualifiedName("tool", index),
        tool,
        datatype=tool_type.nodeid,
    )
    async with server:
        assert server.bserver is not None
        print(f"opc.tcp://127.0.0.1:{server.bserver.port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
