"""Fields of a structure that only the server knows."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from asyncua import ua

from headrace.edge.connectors.opcua.structures import Structures, UnknownStructure
from headrace.model import status as codes
from headrace.model.desired import TagConfig

SCRIPT = Path(__file__).with_name("structure_server.py")


@asynccontextmanager
async def server(*arguments: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            endpoint = (await process.stdout.readline()).decode().strip()
        assert endpoint.startswith("opc.tcp://")
        yield endpoint
    finally:
        process.kill()
        await process.wait()


def tags_of(*fields: str) -> list[TagConfig]:
    return [
        TagConfig(tag_id=i, path=f"a/b/t{i}", address=f"nsu=urn:acme:tools;s=tool{field}")
        for i, field in enumerate(fields, 1)
    ]


async def test_fields_of_a_servers_own_structure(bench: Any) -> None:
    async with server() as endpoint:
        tags = tags_of(
            "#name", "#edge.wear", "#edge.cuts", "#edge.note", "#lengths", "#nothing", ""
        )
        connector = await bench.connect(endpoint)
        batch, readings = await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 7)
        found = {row["tag_id"]: row for row in batch.unique("tag_id").iter_rows(named=True)}
        assert found[1]["text"] == "T7"
        assert found[2]["value"] == 0.25
        assert found[3]["value"] == 4e9
        assert (found[4]["value"], found[4]["text"], found[4]["status"]) == (None, None, 0)
        errors = {k: v for reading in readings for k, v in reading.tag_errors.items()}
        assert sorted(errors) == [5, 6, 7]
        assert "array of 2" in errors[5]
        assert "no field nothing (fields: name, edge, lengths)" in errors[6]
        assert "take one field with #Field (fields: name, edge, lengths)" in errors[7]
        assert batch.filter(pl.col("tag_id") > 4)["status"].unique().to_list() == [
            codes.BAD_CONFIGURATION_ERROR
        ]


async def test_two_servers_with_one_node_id_for_two_structures(bench: Any) -> None:
    """Each session decodes by its own server's definition."""
    async with server() as one, server("other") as two:
        tags = tags_of("#edge.wear", "#edge.cuts", "#edge.note")
        for endpoint, note in ((one, None), (two, "new"), (one, None)):
            connector = await bench.connect(endpoint)
            batch, _ = await bench.until(connector, tags, lambda b: b.height == 3)
            found = {row["tag_id"]: row for row in batch.iter_rows(named=True)}
            assert (found[1]["value"], found[2]["value"]) == (0.25, 4e9)
            assert found[3]["text"] == note


def structure(*fields: ua.StructureField, kind: int = 0) -> ua.StructureDefinition:
    return ua.StructureDefinition(
        DefaultEncodingId=ua.NodeId(99, 2),
        BaseDataType=ua.NodeId(22),
        StructureType=ua.StructureType(kind),
        Fields=list(fields),
    )


async def learned(definition: ua.StructureDefinition) -> Structures:
    async def tell(node: ua.NodeId) -> Any:
        return definition if node == ua.NodeId(9, 2) else None

    async def above(node: ua.NodeId) -> ua.NodeId | None:
        return ua.NodeId(29) if node == ua.NodeId(7, 2) else None

    structures = Structures()
    await structures.learn(ua.NodeId(9, 2), tell, above)
    return structures


async def test_union_and_enumeration() -> None:
    state = ua.StructureField(Name="state", DataType=ua.NodeId(7, 2), ValueRank=-1)
    speed = ua.StructureField(Name="speed", DataType=ua.NodeId(11), ValueRank=-1)
    structures = await learned(structure(state, speed, kind=2))
    coded = ua.ExtensionObject(ua.NodeId(99, 2), Body=struct.pack("<Ii", 1, 3))
    assert structures.decode(coded) == {"state": 3, "speed": None}
    coded = ua.ExtensionObject(ua.NodeId(99, 2), Body=struct.pack("<Id", 2, 1.5))
    assert structures.decode(coded) == {"state": None, "speed": 1.5}


@pytest.mark.parametrize("body", [b"", b"\0" * 7, b"\0" * 9, None])
async def test_bytes_that_do_not_fit_are_refused(body: bytes | None) -> None:
    speed = ua.StructureField(Name="speed", DataType=ua.NodeId(11), ValueRank=-1)
    structures = await learned(structure(speed))
    with pytest.raises(UnknownStructure):
        structures.decode(ua.ExtensionObject(ua.NodeId(99, 2), Body=body))
    with pytest.raises(UnknownStructure, match="ns=2;i=98"):
        structures.decode(ua.ExtensionObject(ua.NodeId(98, 2), Body=b"\0" * 8))


async def test_forms_that_we_do_not_read_are_refused() -> None:
    matrix = ua.StructureField(Name="m", DataType=ua.NodeId(11), ValueRank=2)
    structures = await learned(structure(matrix))
    with pytest.raises(UnknownStructure):
        structures.decode(ua.ExtensionObject(ua.NodeId(99, 2), Body=b"\0" * 12))
