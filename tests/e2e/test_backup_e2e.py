"""A backup of the running demo, under its full load, put back elsewhere: to the sample, and it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl
import pytest
from bookkeeping import check_closed, rows_stored
from installation import Installation
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from headrace.bus.broker import load_address, start_broker, stop_broker
from headrace.bus.client import open_bus
from headrace.cli.app import build
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.site.backup import Repository
from headrace.site.registry import Registry
from waiting import until_sync

PASSPHRASE = "four words of one plant"


def samples(folder: DataFolder, before_us: int) -> pl.DataFrame:
    """All samples received before a moment, of table and log."""

    async def ask() -> pl.DataFrame:
        registry = Registry.of(folder)
        ids = [record.tag_id for record in registry.find("**", include_retired=True)]
        registry.close()
        async with (
            open_bus(load_address(folder), "test") as bus,
            open_reader(folder, bus) as reader,
        ):
            return await asyncio.to_thread(reader.read, ids, -(2**62), 2**62)

    received = pl.col("received_timestamp").to_physical()
    return asyncio.run(ask()).filter(received < before_us)


def backup(*words: str, code: int = 0) -> str:
    run = CliRunner().invoke(
        build(("backup",)), ["backup", *words], env={"HEADRACE_BACKUP_PASSPHRASE": PASSPHRASE}
    )
    assert run.exit_code == code, f"{run.output} {run.exception!r}"
    return run.output


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_running_demo_comes_back_elsewhere_to_the_sample(tmp_path: Path) -> None:
    demo = Installation(tmp_path / "data", "--demo")
    place, target = str(tmp_path / "backups"), tmp_path / "elsewhere" / "data"
    try:
        demo.start()
        until_sync(lambda: len(list(demo.folder.table.glob("*.parquet"))) > 1, 60, "two commits")
        backup("create", place, "--data", str(demo.folder.root))
        first = Repository(Path(place)).heads()[0]
        backup("create", place, "--data", str(demo.folder.root))
        head = Repository(Path(place)).heads()[1]
        assert head.bytes > head.new_bytes > 0
        before = samples(demo.folder, head.at_us)
    finally:
        demo.stop()
    backup("verify", place)
    backup("verify", place, "--backup", first.id)
    backup("restore", place, "--data", str(target))
    folder = DataFolder(target)
    process = start_broker(folder, load_address(folder))
    try:
        after = samples(folder, head.at_us)
    finally:
        stop_broker(process)
    assert before.height > 100
    assert_frame_equal(after, before)
    known = Identity(folder)
    assert known.audit.verify().flaws == ()
    assert known.audit.entries(action="backup.restore")
    known.close()
    again = Installation(target, "--demo")
    start_us = SystemClock().now_us()
    try:
        again.start()
        assert "one-time password" not in again.output
        rows = rows_stored(folder)
        until_sync(lambda: rows_stored(folder) > rows, 60, "new samples")
        check_closed(folder, start_us)
    finally:
        again.stop()
