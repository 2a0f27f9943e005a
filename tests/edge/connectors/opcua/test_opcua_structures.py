"""Fields of a structure that only the server knows."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import polars as pl

from headrace.model import status as codes
from headrace.model.desired import TagConfig

SCRIPT = Path(__file__).with_name("structure_server.py")


async def test_fields_of_a_servers_own_structure(bench: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            endpoint = (await process.stdout.readline()).decode().strip()
        assert endpoint.startswith("opc.tcp://")
        fields = ("#name", "#edge.wear", "#edge.cuts", "#lengths", "#nothing", "")
        tags = [
            TagConfig(tag_id=i, path=f"a/b/t{i}", address=f"nsu=urn:acme:tools;s=tool{field}")
            for i, field in enumerate(fields, 1)
        ]
        connector = await bench.connect(endpoint)
        batch, readings = await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 6)
        found = {row["tag_id"]: row for row in batch.unique("tag_id").iter_rows(named=True)}
        assert found[1]["text"] == "T7"
        assert found[2]["value"] == 0.25
        assert found[3]["value"] == 4e9
        errors = {k: v for reading in readings for k, v in reading.tag_errors.items()}
        assert sorted(errors) == [4, 5, 6]
        assert "array of 2" in errors[4]
        assert "no field nothing (fields: name, edge, lengths)" in errors[5]
        assert "take one field with #Field (fields: name, edge, lengths)" in errors[6]
        assert batch.filter(pl.col("tag_id") > 3)["status"].unique().to_list() == [
            codes.BAD_CONFIGURATION_ERROR
        ]
    finally:
        process.kill()
        await process.wait()
