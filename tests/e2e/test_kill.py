"""``kill -9`` of any one process during a replay, ten times at random: the table equals the file.

The processes are the broker, the edge, the historian, the console and the replaying device itself. The
recording comes in three ways at once, each with its own way to keep what the edge did not
acknowledge: Modbus with a record hand-shake, OPC UA with server history, MQTT JSON at QoS 1.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import polars as pl
import pytest
from bookkeeping import check_books
from installation import Installation
from polars.testing import assert_frame_equal
from replaying import Replay, start_all, stored
from test_recordings import long

from data import data_folder
from waiting import until_sync

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]

KILLS = 10
ROWS = 1_145
SPEED = 40  # the recording has a row a second: ~28 s of replay for ten kills


def recording() -> tuple[Path, pl.DataFrame]:
    file = data_folder("skab") / "valve1" / "1.csv.gz"
    frame = pl.read_csv(file, separator=";", infer_schema_length=None, n_rows=ROWS)
    at = pl.col("datetime").str.to_datetime(time_zone="UTC").alias("at")
    return file, frame.with_columns(at)


def kill_at_random(installation: Installation, replays: list[Replay], seed: int) -> list[str]:
    """Ten kills at seeded moments and of seeded victims; each victim comes back before the next."""
    chance = random.Random(seed)
    victims: list[str] = []
    for _ in range(KILLS):
        resume_s = time.monotonic() + chance.uniform(0.2, 2.5)
        until_sync(lambda at=resume_s: time.monotonic() >= at)
        running = [replay for replay in replays if not replay.ended]
        names = ["broker", "edge", "edge", "historian", "console", "replay"]
        victim = chance.choice(names)
        if victim == "replay":
            if running:
                chance.choice(running).kill_and_restart()
        else:
            installation.kill(victim)
        victims.append(victim)
    return victims


@pytest.mark.parametrize("seed", [1])
def test_ten_kills_lose_nothing_and_double_nothing(installation: Installation, seed: int) -> None:
    ten_kills(installation, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, *range(100, 120)])
def test_many_times_ten_kills(installation: Installation, seed: int) -> None:
    ten_kills(installation, seed)


def ten_kills(installation: Installation, seed: int) -> None:
    file, frame = recording()
    expected = {
        name: long(frame.drop("datetime"), f"replay/{name}") for name in ("modbus", "opcua", "mqtt")
    }
    replays = [
        Replay(installation, file, name, "--speed", str(SPEED), "--prefix", f"replay/{name}")
        for name in expected
    ]
    try:
        start_all(installation, replays)
        victims = kill_at_random(installation, replays, seed)
        for replay in replays:
            until_sync(lambda replay=replay: replay.ended, 120, replay.output)
            assert "All rows are shown" in replay.output, replay.output

        def arrived() -> bool:
            wanted = sum(each.height for each in expected.values())
            return (
                stored(installation.folder, "replay/**").filter(pl.col("status") == 0).height
                >= wanted
            )

        until_sync(arrived, 60, f"all rows after killing {victims}")
        found = stored(installation.folder, "replay/**").filter(pl.col("status") == 0)
        for name, wanted in expected.items():
            rows = found.filter(pl.col("path").str.starts_with(f"replay/{name}/"))
            assert_frame_equal(
                rows.select("path", "source_timestamp", "value").sort("path", "source_timestamp"),
                wanted,
                check_exact=True,
            )
        sums = check_books(installation.folder)
        assert sums["stored"] >= found.height
    except BaseException:
        print(installation.logs(), *[replay.output for replay in replays], sep="\n")
        raise
    finally:
        for replay in replays:
            replay.stop()
