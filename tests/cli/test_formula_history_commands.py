"""``headrace formula backfill`` and ``backtest`` on a site's own formulas, over a committed table."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "historian"))
from store import Store

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import ensure_streams, open_bus
from headrace.cli.app import build
from headrace.historian.backfill import backfills
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.site.file import load_site
from headrace.site.registry import Registry

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[asset_type.pump]
quantities = { temperature = "degC" }
formulas = '''
slow = mean(temperature, 30 min)
warm = slow > 82 degC
alarm hot: temperature > 80 degC, off below 75 degC, priority high
'''

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"
"""
PUMP = """
[asset."hall/{name}"]
type = "pump"

[[tag]]
path = "hall/{name}/temperature"
connection = "plc"
address = "holding:{n}"
"""
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
MINUTE_US = 60_000_000
SPAN = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T10:00:00Z"]


@pytest.fixture
def installation(folder: DataFolder) -> DataFolder:
    """Two pumps for ten hours; p2 is above 80 degC from 3:00 to 4:00 and from 6:00 to 6:10."""
    folder.root.mkdir(parents=True, exist_ok=True)
    pumps = "".join(PUMP.format(name=name, n=n) for n, name in enumerate(("p1", "p2")))
    folder.site_file.write_text(SITE + pumps, encoding="utf-8")
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), START_US)
    ids = registry.ids()
    registry.close()
    minute = np.arange(600)
    hot = ((minute >= 180) & (minute < 240)) | ((minute >= 360) & (minute < 370))
    at_us = START_US + minute * MINUTE_US
    for pump, values in (("p1", np.full(600, 70.0)), ("p2", np.where(hot, 85.0, 70.0))):
        tag_id = np.full(600, ids[f"hall/{pump}/temperature"])
        Store(folder).commit(make_batch(tag_id, at_us, values, received_timestamp_us=at_us))
    return folder


def _run(folder: DataFolder, *arguments: str) -> Result:
    return CliRunner().invoke(build(), ["formula", *arguments, "--data", str(folder.root)])


def test_an_alarm_of_the_site_is_tried_against_events_and_other_limits(
    installation: DataFolder, tmp_path: Path
) -> None:
    events = tmp_path / "events.csv"
    events.write_text(
        "time,label,asset\n2026-01-01T03:30:00Z,seized,hall/p2\n2026-01-01T08:00:00Z,leak,\n"
    )
    picture = tmp_path / "out.png"
    arguments = ["backtest", "pump.hot", *SPAN, "--events", str(events), "--sweep", "70..90..10"]
    result = _run(installation, *arguments, "--json", "--plot", str(picture))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [each["asset"] for each in found["episodes"]] == ["hall/p2", "hall/p2"]
    assert found["tally"]["total_s"] == 70 * 60
    assert (found["tally"]["met"]["hits"], found["tally"]["met"]["misses"]) == (1, 1)
    assert found["tally"]["met"]["events"][0]["lead_s"] == 1_800
    counts = [(point["value"], point["tally"]["count"]) for point in found["points"]]
    assert counts == [(70, 1), (80, 2), (90, 0)], "at 70 it ends below 65 alone"
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = _run(installation, *arguments)
    assert "2 times, 1.17 h in all, the longest 1 h" in shown.stdout
    assert "1 of 2 events met, 1 false alarms" in shown.stdout
    assert "30 min before" in shown.stdout


@pytest.mark.parametrize("place", [["--type", "pump"], ["--asset", "hall/p2"]])
def test_a_condition_of_no_formula_is_tried(installation: DataFolder, place: list[str]) -> None:
    text = "temperature > 80 degC for 30 min"
    result = _run(installation, "backtest", text, *place, *SPAN, "--json")
    assert result.exit_code == 0, result.output
    episodes = json.loads(result.stdout)["episodes"]
    minutes = [(each["start_us"] - START_US) // MINUTE_US for each in episodes]
    assert minutes == [210]


def test_what_is_wrong_is_told_with_its_place(installation: DataFolder) -> None:
    result = _run(installation, "backtest", "temprature > 80 degC", "--type", "pump", *SPAN)
    assert result.exit_code == 2
    assert "temperature" in result.output
    for arguments, code in (
        (["backtest", "temperature > 80 degC"], "CLI-1312"),
        (["backfill", "pump.slow", "--to", "now"], "CLI-1310"),
        (["backfill", "pump.slow", "--version", "7"], "CLI-1311"),
    ):
        result = _run(installation, *arguments)
        assert result.exception is not None
        assert getattr(result.exception, "code", "") == code, result.output


def test_history_gets_the_results_of_a_formula(
    installation: DataFolder, broker: BrokerAddress
) -> None:
    """By processes of their own; without a historian the log has them, and a reader sees them."""

    async def streams() -> None:
        async with open_bus(broker, "test") as bus:
            await ensure_streams(bus)

    async def results() -> pl.DataFrame:
        registry = Registry.of(installation)
        wanted = [registry.ids()[f"hall/{pump}/slow"] for pump in ("p1", "p2")]
        registry.close()
        async with open_bus(broker, "test") as bus, open_reader(installation, bus) as reader:
            return reader.read(wanted, START_US, START_US + 600 * MINUTE_US)

    asyncio.run(streams())
    result = _run(installation, "backfill", "pump.slow", "--version", "1", "--cores", "1")
    assert result.exit_code == 0, result.output
    assert "1,200 results of 1,200 samples; 1,200 written, 0 taken back" in result.stdout
    assert "read by pump.warm: back-fill these next" in result.stdout
    found = asyncio.run(results())
    assert found.height == 1_200
    assert found.filter(pl.col("value") == 85.0).height == 31, "whole windows of the hot hour"
    assert [made.version for made in backfills(installation, "pump.slow")] == [1]
    told = _run(installation, "versions", "pump.slow", "--at", "2026-01-01T05:00:00Z")
    assert "back-filled by version 1: 2026-01-01 00:00:00 to 2026-01-01 09:59:00" in told.stdout
    assert "given by version 1" in told.stdout
