"""The packed address space is the one that asyncua builds."""

from __future__ import annotations

from asyncua import ua
from asyncua.ua import ua_binary

from headrace.sim.emulators.opcua_standard import load_packed_nodes, standard_nodes


async def test_every_node_comes_out_of_the_packing_as_it_was() -> None:
    packed = await load_packed_nodes()
    built = standard_nodes()
    assert len(built) > 5_000
    assert packed.keys() == built.keys()
    for key, node in built.items():
        found = packed[key]
        assert found.nodeid == node.nodeid
        assert found.references == node.references, key
        assert found.attributes.keys() == node.attributes.keys()
        for attribute, held in node.attributes.items():
            # As on the wire, which knows no difference between no list and an empty one.
            wanted = ua_binary.struct_to_binary(held.value)
            unpacked = found.attributes[attribute].value
            assert ua_binary.struct_to_binary(unpacked) == wanted, (key, attribute)
    assert ua.NodeId(1, 99) not in packed
