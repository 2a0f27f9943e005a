"""An edge on a machine of its own, as real processes: joined, cut off, killed, and nothing is missing.

The machine is a network namespace; unplugging its cable makes packets vanish. Two recordings are
replayed there, as Modbus with a record hand-shake and as MQTT at QoS 1; the hub's table must equal
them, row by row, and the ledger of the remote edge must close.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from bookkeeping import check_books
from installation import Installation
from namespace import FarMachine
from polars.testing import assert_frame_equal
from replaying import SITE, Replay, stored

from headrace.bus.broker import free_port, load_address
from headrace.bus.client import open_bus
from headrace.bus.subjects import Subjects
from headrace.model.health import EdgeState
from waiting import until_sync

pytestmark = [pytest.mark.kill, pytest.mark.timeout(300)]

ROWS = 400
SPEED = 40


@pytest.fixture
def far() -> Iterator[FarMachine]:
    machine = FarMachine()
    try:
        yield machine
    finally:
        machine.remove()


def command(prefix: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-m", "headrace", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "400", "NO_COLOR": "1"},
    )


def recording(path: Path) -> pl.DataFrame:
    """Two columns of values that differ from row to row, one row a second."""
    frame = pl.DataFrame({"n": pl.int_range(ROWS, eager=True)}).select(
        pl.datetime(2024, 1, 1, time_zone="UTC").dt.offset_by(pl.format("{}s", "n")).alias("at"),
        (pl.col("n") * 1.5).alias("level"),
        (1_000.0 - pl.col("n")).alias("flow"),
    )
    frame.with_columns(pl.col("at").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(path)
    return frame


def expected(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    long = frame.unpivot(on=["level", "flow"], index="at", variable_name="name")
    return long.select(
        pl.format("{}/{}", pl.lit(prefix), "name").alias("path"),
        pl.col("at").cast(pl.Datetime("us", "UTC")).alias("source_timestamp"),
        "value",
    ).sort("path", "source_timestamp")


def edge_state(installation: Installation) -> EdgeState | None:
    """What edge ``north`` says to the broker of this installation now; None when it says nothing."""

    async def ask() -> EdgeState | None:
        state: asyncio.Future[EdgeState] = asyncio.get_running_loop().create_future()

        async def take(message: Any) -> None:
            if not state.done():
                state.set_result(msgspec.json.decode(message.data, type=EdgeState))

        async with open_bus(load_address(installation.folder), "test") as bus:
            await bus.subscribe(Subjects("acme", "replay").edge_health("north"), take)
            try:
                return await asyncio.wait_for(state, 3)
            except TimeoutError:
                return None

    return asyncio.run(ask())


def connected_there(hub: Installation) -> set[str]:
    state = edge_state(hub)
    found = state.connections if state is not None else []
    return {each.protocol for each in found if each.state == "connected"}


def listed(hub: Installation) -> dict[str, Any]:
    done = command((), "edge", "list", "--json", "--data", str(hub.folder.root))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]


def joined(tmp_path: Path, far: FarMachine, hub: Installation, port: int) -> Installation:
    """The edge's installation, joined by the command line as a person does."""
    root = tmp_path / "edge"
    invited = command((), "edge", "invite", "north", "--data", str(hub.folder.root))
    assert invited.returncode == 0, invited.stderr
    line = next(line for line in invited.stdout.splitlines() if "edge join" in line)
    assert f"{far.near}:{port}" in line
    arguments = [*line.split()[1:], "--data", str(root)]
    done = command(far.prefix, *arguments)
    assert done.returncode == 0, done.stderr
    again = command(far.prefix, *arguments[:-1], str(tmp_path / "other"))
    assert again.returncode == 2
    assert "SITE-1906" in again.stderr
    return Installation(root, prefix=far.prefix)


def desire(hub: Installation, replays: list[Replay]) -> None:
    """Give the replays' connections to edge ``north``."""
    text = SITE
    for replay in replays:
        replay.write_site_part()
        text += replay.site_part.read_text().replace(
            "\nprotocol = ", '\nedge = "north"\nprotocol = '
        )
    temporary = hub.folder.site_file.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(hub.folder.site_file)


def trouble(far: FarMachine, hub: Installation, edge: Installation) -> None:
    """The cable out, the edge killed while apart, the hub's broker killed, all of it under load."""

    def published(installation: Installation) -> int:
        state = edge_state(installation)
        return sum(each.published for each in state.connections) if state else 0

    until_sync(lambda: published(hub) > 200, 60, "samples flow")
    far.unplug()
    hub.kill("broker")
    edge.kill("edge")
    far.plug_in()
    until_sync(lambda: edge_state(hub) is not None, 60, "the edge is back")
    hub.kill("hub")
    hub.kill("broker")
    until_sync(lambda: edge_state(hub) is not None, 60, "the edge is back again")


def compare(hub: Installation, frame: pl.DataFrame) -> None:
    """The hub's table equals both recordings, each row once."""

    def found() -> pl.DataFrame:
        return stored(hub.folder, "r/**").filter(pl.col("status") == 0)

    until_sync(lambda: found().height >= 4 * ROWS, 60, "all rows")
    rows = found().select("path", "source_timestamp", "value").sort("path", "source_timestamp")
    for kind in ("modbus", "mqtt"):
        wanted = expected(frame, f"r/{kind}")
        own = rows.filter(pl.col("path").str.starts_with(f"r/{kind}/"))
        assert_frame_equal(own, wanted, check_exact=True)


def test_an_edge_joins_is_cut_off_and_killed_and_nothing_is_missing(
    tmp_path: Path, far: FarMachine
) -> None:
    port = free_port()
    frame = recording(tmp_path / "recording.csv")
    hub = Installation(tmp_path / "hub", "--hub-listen", f"0.0.0.0:{port}", "--hub-name", far.near)
    hub.folder.root.mkdir()
    hub.folder.site_file.write_text(SITE)
    edge, replays = None, []
    try:
        hub.start()
        edge = joined(tmp_path, far, hub, port).start()
        assert not (edge.folder.run / "console.pid").exists()
        replays = [
            Replay(
                edge,
                tmp_path / "recording.csv",
                kind,
                "--speed",
                str(SPEED),
                "--prefix",
                f"r/{kind}",
            )
            for kind in ("modbus", "mqtt")
        ]
        desire(hub, replays)
        until_sync(lambda: "mqtt" in connected_there(hub), 60, "the edge follows its hub")
        for replay in replays:
            replay.start()
        trouble(far, hub, edge)
        for replay in replays:
            until_sync(lambda replay=replay: replay.ended, 120, replay.output)
            assert "All rows are shown" in replay.output, replay.output
        compare(hub, frame)
        row = listed(hub)
        assert (row["edge"], row["address"], row["lag_frames"]) == ("north", far.far, 0)
        assert row["runs_desired"]
        check_books(hub.folder)
    except BaseException:
        print(hub.logs(), edge.logs() if edge else "", *[r.output for r in replays], sep="\n")
        raise
    finally:
        for replay in replays:
            replay.stop()
        if edge is not None:
            edge.stop()
        hub.stop()
