"""A real recording through the real door: every value and every source timestamp, unchanged."""

from __future__ import annotations

from typing import Any

import polars as pl

from data import data_folder
from headrace.model.desired import TagConfig
from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator


async def test_skab_valve1_arrives_row_by_row(bench: Any) -> None:
    recording = pl.read_csv(
        data_folder("skab") / "valve1" / "0.csv.gz", separator=";"
    ).with_columns(pl.col("datetime").str.to_datetime(time_unit="us", time_zone="UTC"))
    columns = [name for name in recording.columns if name != "datetime"]
    times = recording["datetime"].dt.epoch("us").to_list()
    emulator = OpcUaEmulator([Point(f"ns=2;s=valve1.{name}") for name in columns])
    await emulator.start()
    tags = [
        TagConfig(tag_id=i, path=f"lab/valve1/t{i}", address=f"ns=2;s=valve1.{name}")
        for i, name in enumerate(columns)
    ]
    connector = await bench.connect(emulator.endpoint, queue_size=5000)
    await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == len(tags))
    for at_us, row in zip(times, recording.select(columns).iter_rows(), strict=True):
        values = dict(zip((tag.address for tag in tags), row, strict=True))
        await emulator.update(values, at_us)
    wanted = recording.height * len(columns)
    batch, readings = await bench.until(
        connector, tags, lambda b: b.height >= wanted, timeout_s=60.0
    )
    assert batch.height == wanted
    assert not any(reading.notices for reading in readings)
    for i, name in enumerate(columns):
        mine = batch.filter(pl.col("tag_id") == i)
        assert mine["source_timestamp"].dt.epoch("us").to_list() == times
        assert mine["value"].to_list() == recording[name].to_list()
        assert mine["status"].unique().to_list() == [0]
    await emulator.stop()
