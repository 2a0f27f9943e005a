"""A whole installation loses its power in the middle of replays: the tables equal the files.

The devices have power of their own: a Modbus device whose record the edge must acknowledge, and an MQTT
publisher at QoS 1. What was acknowledged to them they do not show again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from forgetting import ForgetfulDisk, sync
from installation import Installation
from replaying import SITE, Replay, start_all, stored

from waiting import until_sync

pytestmark = [
    pytest.mark.kill,
    pytest.mark.foreign,
    pytest.mark.timeout(400),
]

SPEED = 40
PROTOCOLS = ("modbus", "mqtt")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    made = ForgetfulDisk(tmp_path / "data", "journal")
    yield made
    made.close()


def recording(path: Path, rows: int) -> Path:
    """A row a second; the two columns say which row it is."""
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in range(rows)]
    number = list(range(rows))
    frame = pl.DataFrame({"datetime": at, "up": number, "down": [rows - n for n in number]})
    frame.with_columns(pl.col("datetime").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(path)
    return path


def test_a_power_cut_of_everything(disk: ForgetfulDisk, tmp_path: Path) -> None:
    cut_everything(disk, tmp_path, rows=500, cuts=1, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_power_cuts_of_everything(disk: ForgetfulDisk, tmp_path: Path, seed: int) -> None:
    cut_everything(disk, tmp_path, rows=6_000, cuts=10, seed=seed)


def cut_everything(disk: ForgetfulDisk, tmp_path: Path, *, rows: int, cuts: int, seed: int) -> None:
    chance = random.Random(seed)
    file = recording(tmp_path / "recording.csv", rows)
    installation = Installation(disk.root)  # what the devices keep is beside it
    installation.folder.site_file.write_text(SITE)
    replays = [
        Replay(installation, file, name, "--speed", str(SPEED), "--prefix", f"replay/{name}")
        for name in PROTOCOLS
    ]
    try:
        installation.start()
        start_all(installation, replays)
        for path in (installation.folder.site_file, installation.folder.root):
            sync(path)  # an editor would
        for _ in range(cuts):
            wanted = count(installation) + chance.randrange(40, 200)
            until_sync(lambda wanted=wanted: count(installation) >= wanted, 60, f"{wanted} samples")
            how = chance.choice(["lost", "torn"])
            pids = [process.pid for process in installation.family()]
            disk.power_cut(pids, how, chance.randrange(1 << 30))
            assert installation.process is not None
            installation.process.wait(10)
            installation.start()
        for replay in replays:
            until_sync(lambda replay=replay: replay.ended, 120, replay.output)
            code = replay.process.returncode if replay.process is not None else None
            assert "All rows are shown" in replay.output, (replay.protocol, code, replay.output)
        until_sync(lambda: count(installation) >= 4 * rows, 60, f"{4 * rows} samples")
        found = good(installation)
        for name in PROTOCOLS:
            for column, expected in (("up", range(rows)), ("down", range(rows, 0, -1))):
                path = f"replay/{name}/{column}"
                values = found.filter(pl.col("path") == path).sort("source_timestamp")["value"]
                assert values.to_list() == [float(number) for number in expected], path
    except BaseException:
        print(installation.logs(), *[replay.output for replay in replays], sep="\n")
        raise
    finally:
        for replay in replays:
            replay.stop()
        installation.stop()


def good(installation: Installation) -> pl.DataFrame:
    return stored(installation.folder, "replay/**").filter(pl.col("status") == 0)


def count(installation: Installation) -> int:
    return good(installation).height
