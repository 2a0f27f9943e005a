"""A real recording through a real Modbus server: every value and every time comes out unchanged."""

from __future__ import annotations

import polars as pl
import pytest
from modbus_rig import connected, group

from data import data_folder
from headrace.edge.contract import ScanGroup
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

COLUMNS = {
    "LV ActivePower (kW)": "input:10:float64",
    "Wind Speed (m/s)": "input:14:float64:CDAB",
    "Theoretical_Power_Curve (KWh)": "input:18:float64:BADC",
    "Wind Direction (deg)": "input:22:float64:DCBA",
}
RECORD = {
    "timestamp": "input:0:uint64@us",
    "record_sequence": "input:4:uint16",
    "record_acknowledge": "holding:0:uint16",
}


def recording(rows: int | None) -> pl.DataFrame:
    """The wind turbine's rows: ``at`` in UTC microseconds, and four float64 columns."""
    file = data_folder("wind_yalova") / "T1_2018_jan_sep.csv.gz"
    frame = pl.read_csv(file, n_rows=rows, schema_overrides=dict.fromkeys(COLUMNS, pl.Float64))
    at = pl.col("Date/Time").str.to_datetime("%d %m %Y %H:%M", time_unit="us").to_physical()
    return frame.select(at.alias("at"), *COLUMNS)


@pytest.mark.parametrize(
    ("rows", "framing"),
    [
        (3000, "tcp"),
        (500, "rtu_over_tcp"),
        pytest.param(None, "tcp", marks=pytest.mark.soak),
    ],
)
async def test_wind_yalova_comes_out_as_it_went_in(rows: int | None, framing: str) -> None:
    frame = recording(rows)
    device = ModbusEmulator(
        [Point(address, "float64") for address in COLUMNS.values()],
        framing=framing,  # type: ignore[arg-type]
        **RECORD,
    )
    await device.start()
    asked = group(*COLUMNS.values())
    batches = []
    async with connected(device.endpoint, framing=framing, **RECORD) as connector:
        for at, *values in frame.iter_rows():
            await device.update(dict(zip(COLUMNS.values(), values, strict=True)), at)
            reading = await connector.read(asked)
            assert reading.acknowledge is not None and reading.expected == len(COLUMNS)
            batches.append(reading.batch)
            await reading.acknowledge()
            await device.wait_acknowledged(device.sequence, 5.0)
            assert reading.device_time_us == at
    await device.stop()
    assert_equal(frame, pl.concat(batches), asked)


def assert_equal(frame: pl.DataFrame, samples: pl.DataFrame, asked: ScanGroup) -> None:
    """Row by row: the samples are the file."""
    assert samples.height == frame.height * len(COLUMNS)
    assert (samples["status"] == 0).all()
    for tag, column in zip(asked.tags, COLUMNS, strict=True):
        one = samples.filter(pl.col("tag_id") == tag.tag_id)
        assert one["value"].equals(frame[column].rename("value")), column
        assert one["source_timestamp"].to_physical().to_list() == frame["at"].to_list()
