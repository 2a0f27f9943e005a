"""``headrace query`` in its five forms, over a table that a historian committed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "historian"))
from store import Store

from headrace.cli import query
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.site.model import Connection, SiteModel, Tag
from headrace.site.registry import Registry

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SPAN = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T01:00:00Z"]


@pytest.fixture
def installation(folder: DataFolder) -> DataFolder:
    folder.root.mkdir(parents=True)
    model = SiteModel(
        enterprise="acme",
        name="mill",
        tags=(
            Tag("utilities/pumping/pump_1/flow", "plc", "a", unit="m3/h"),
            Tag("utilities/pumping/pump_1/power", "plc", "b", unit="kW"),
        ),
        connections=(Connection(name="plc", protocol="modbus", endpoint="h:1"),),
    )
    registry = Registry.of(folder)
    registry.apply(model, 1_000)
    ids = registry.ids()
    registry.close()
    rng = np.random.default_rng(3)
    second = np.concatenate([np.arange(0, 1500), np.arange(2100, 3600)])
    at_us = START_US + second * 1_000_000
    flow = 40 + 3 * np.sin(second / 300) + rng.normal(0, 0.4, len(second))
    flow[700] = 55.0  # one spike
    status = np.where((second > 2700) & (second < 2900), 0x80050000, 0).astype(np.uint32)
    batches = [
        make_batch(
            np.full(len(second), ids[path]),
            at_us,
            values,
            status=status,
            received_timestamp_us=at_us,
            value_is_null=status != 0,
        )
        for path, values in (
            ("utilities/pumping/pump_1/flow", flow),
            ("utilities/pumping/pump_1/power", 11 + 0.1 * flow),
        )
    ]
    Store(folder).commit(*batches)
    return folder


def run(folder: DataFolder, *arguments: str) -> Result:
    app = typer.Typer()
    query.register(app)
    return CliRunner().invoke(app, [*arguments, "--data", str(folder.root)], catch_exceptions=True)


def test_csv_has_every_sample(installation: DataFolder) -> None:
    result = run(installation, "utilities/**/flow", *SPAN, "--csv")
    rows = pl.read_csv(io.StringIO(result.stdout), infer_schema_length=None)
    assert rows.height == 3000
    assert rows["path"].unique().to_list() == ["utilities/pumping/pump_1/flow"]
    assert rows["timestamp"][0] == "2026-01-01T00:00:00.000000Z"
    assert rows["value"].max() == 55.0
    assert "BUS-1010" in result.stderr, "it says that it reads without the broker"


def test_an_aggregate_as_json(installation: DataFolder) -> None:
    arguments = ("*/pumping/pump_1/*", *SPAN, "--every", "10m", "--aggregate", "Count", "--json")
    result = run(installation, *arguments)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    flow = [row["value"] for row in rows if row["path"].endswith("flow")]
    assert flow == [600, 600, 300, 300, 401, 600], "500 s are missing, 199 samples are Bad"


def test_parquet_equals_csv(installation: DataFolder, tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    run(installation, "*/**/power", *SPAN, "--parquet", str(target))
    rows = pl.read_parquet(target)
    assert rows.height == 3000
    assert rows["status"].dtype == pl.UInt32


def test_the_table_shows_units_and_bad_quality(
    installation: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = run(
        installation, "flow", "--from", "2026-01-01T00:45:00Z", "--to", "2026-01-01T00:45:05Z"
    )
    assert result.exit_code == 0
    assert "m3/h" in result.stdout
    assert "BadCommunicationError" in result.stdout


def test_a_picture(installation: DataFolder, tmp_path: Path) -> None:
    target = tmp_path / "trend.png"
    result = run(installation, "utilities/pumping/pump_1/*", *SPAN, "--plot", str(target))
    assert result.exit_code == 0, result.output
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert target.stat().st_size > 20_000


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nothing/here", *SPAN), "HIST-1090"),
        (("flow", "--from", "yesterday"), "HIST-1071"),
        (("flow", "--from", "2026-01-01T00:00:00"), "HIST-1071"),
        (("flow", "--every", "10 bananas"), "HIST-1070"),
        (("flow", "--aggregate", "Mode"), "HIST-1061"),
        (("flow", "--from", "now", "--to", "-1h"), "HIST-1091"),
    ],
)
def test_bad_input_has_a_code_and_a_remedy(
    installation: DataFolder, arguments: tuple[str, ...], code: str
) -> None:
    result = run(installation, *arguments)
    assert isinstance(result.exception, Misconfigured)
    assert result.exception.code == code
    assert result.exception.remedy


def test_windows_of_the_calendar_say_how_long_they_were(
    installation: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    span = ["--from", "2025-12-31T23:00:00Z", "--to", "2026-01-01T03:00:00Z"]
    result = run(
        installation, "**/flow", "--every", "hour", "--aggregate", "Count", *span, "--json"
    )
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["duration_h"] for row in rows] == [1.0] * 4
    assert [row["value"] for row in rows][1] == 2801.0
    shown = run(installation, "**/flow", "--every", "day", *span)
    assert "window" in shown.stdout and "24 h" in shown.stdout
    refused = run(installation, "**/flow", "--every", "shift", *span)
    assert isinstance(refused.exception, Misconfigured) and refused.exception.code == "HIST-2601"
