"""Types on the wire, the published vectors, and the published schema's field numbers."""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sparkplug_wire import NOW_US, Bench

from data import data_folder
from headrace.edge.connectors.mqtt.columns import Gathered
from headrace.edge.connectors.sparkplug.config import MetricAddress
from headrace.edge.connectors.sparkplug.payload import (
    decode_value,
    quality_status,
    set_array,
    set_quality,
    set_value,
)
from headrace.edge.connectors.sparkplug.schema import DataType, Metric, Payload
from headrace.edge.connectors.sparkplug.session import HostSession
from headrace.model import status as codes
from headrace.model.errors import Misconfigured

RANGES = {
    DataType.INT8: (-(2**7), 2**7 - 1),
    DataType.INT16: (-(2**15), 2**15 - 1),
    DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT64: (-(2**63), 2**63 - 1),
    DataType.UINT8: (0, 2**8 - 1),
    DataType.UINT16: (0, 2**16 - 1),
    DataType.UINT32: (0, 2**32 - 1),
    DataType.UINT64: (0, 2**64 - 1),
    DataType.DATETIME: (0, 2**64 - 1),
}


def through_the_wire(metric: Any) -> Any:
    return Metric.FromString(metric.SerializeToString())


@pytest.mark.parametrize("datatype", RANGES)
@given(share=st.floats(0, 1))
def test_integers_survive(datatype: DataType, share: float) -> None:
    low, high = RANGES[datatype]
    for value in (low, high, 0, low + int((high - low) * share) if share < 1 else high):
        metric = Metric()
        set_value(metric, datatype, value, "test")
        assert decode_value(through_the_wire(metric), datatype).number == value
    for value in (low - 1, high + 1, 0.5, float("nan"), float("inf"), "1"):
        with pytest.raises(Misconfigured, match="EDGE-4208"):
            set_value(Metric(), datatype, value, "test")


def test_short_twos_complement_is_understood() -> None:
    for raw in (0xFF, 0xFFFFFFFF):
        assert decode_value(Metric(int_value=raw), DataType.INT8).number == -1
    assert decode_value(Metric(long_value=0xFFFFFFFE), DataType.INT32).number == -2
    assert decode_value(Metric(long_value=4_000_000_000), DataType.UINT32).number == 4_000_000_000


@given(st.floats(allow_nan=True))
def test_doubles_keep_their_bits(value: float) -> None:
    metric = Metric()
    set_value(metric, DataType.DOUBLE, value, "test")
    number = decode_value(through_the_wire(metric), DataType.DOUBLE).number
    assert number is not None
    assert struct.pack("<d", number) == struct.pack("<d", value)


@given(st.floats(width=32, allow_nan=False))
def test_floats_are_exact(value: float) -> None:
    metric = Metric()
    set_value(metric, DataType.FLOAT, value, "test")
    assert decode_value(through_the_wire(metric), DataType.FLOAT).number == value


@given(st.text())
def test_text_survives(text: str) -> None:
    for datatype in (DataType.STRING, DataType.TEXT, DataType.UUID):
        metric = Metric()
        set_value(metric, datatype, text, "test")
        assert decode_value(through_the_wire(metric), datatype).text == text


@pytest.mark.parametrize(
    "fields", [{"dataset_value": b""}, {"template_value": b""}, {"bytes_value": b"x"}]
)
def test_compound_types_are_refused_by_name(fields: dict[str, bytes]) -> None:
    names = {
        "dataset_value": DataType.DATASET,
        "template_value": DataType.TEMPLATE,
        "bytes_value": DataType.BYTES,
    }
    datatype = names[next(iter(fields))]
    value = decode_value(Metric(name="recipe", **fields), datatype)
    assert value.status == codes.BAD_NOT_SUPPORTED
    assert "recipe" in value.problem and datatype.name.capitalize() in value.problem


@pytest.mark.parametrize(
    ("fields", "datatype"),
    [
        ({"string_value": "12"}, DataType.DOUBLE),
        ({"double_value": 1.0}, DataType.INT32),
        ({"int_value": 300}, DataType.UINT8),
        ({"int_value": 1, "datatype": 5}, DataType.INT32),
    ],
)
def test_wrong_type_is_no_value(fields: dict[str, Any], datatype: DataType) -> None:
    value = decode_value(Metric(**fields), datatype)
    assert (value.number, value.text) == (None, None)
    assert value.status == codes.BAD_TYPE_MISMATCH


def test_null_is_no_value() -> None:
    for metric in (Metric(is_null=True), Metric(is_null=True, double_value=3.0), Metric()):
        value = decode_value(metric, DataType.DOUBLE)
        assert (value.number, value.status) == (None, codes.BAD_NO_DATA)


@pytest.mark.parametrize(
    ("quality", "status"),
    [
        (192, codes.GOOD),
        (500, codes.UNCERTAIN_LAST_USABLE_VALUE),
        (0, codes.BAD),
        (64, codes.UNCERTAIN),
        (216, codes.GOOD),
        (24, codes.BAD),
    ],
)
def test_quality_property(quality: int, status: int) -> None:
    metric = Metric(double_value=1.0)
    metric.properties.keys.append("Quality")
    metric.properties.values.add(type=3, int_value=quality)
    assert quality_status(metric) == status
    assert decode_value(metric, DataType.DOUBLE) == (1.0, None, status, "")


@pytest.mark.parametrize("status", [codes.GOOD, codes.BAD, codes.UNCERTAIN_LAST_USABLE_VALUE])
def test_quality_survives(status: int) -> None:
    metric = Metric(double_value=1.0)
    set_quality(metric, status)
    assert quality_status(through_the_wire(metric)) == status
    assert metric.properties.values[0].type == DataType.INT32
    assert len(metric.properties.keys) == len(metric.properties.values) == 1


def test_numeric_arrays_become_waveforms() -> None:
    out = Gathered()
    host = HostSession("scada", out)
    host.declare([(MetricAddress("hall", "node_1", "", "wave"), 9, 1_000)], 0.0, 0.0)
    birth = Payload(timestamp=NOW_US // 1_000, seq=0)
    entry = birth.metrics.add(name="wave", datatype=int(DataType.FLOATARRAY))
    set_array(entry, DataType.FLOATARRAY, [1.5, -2.0, 3.0])
    host.receive("spBv1.0/hall/NBIRTH/node_1", birth.SerializeToString(), NOW_US, 0.0)
    batch = out.columns.take()
    assert batch["value"].to_list() == [1.5, -2.0, 3.0]
    assert batch["source_timestamp"].to_physical().to_list() == [
        NOW_US - 2_000,
        NOW_US - 1_000,
        NOW_US,
    ]


def test_published_vectors_decode_exactly() -> None:
    vectors = json.loads((data_folder("sparkplug") / "test_vectors.json").read_text())
    found: dict[str, list[tuple[Any, int, Any]]] = {}
    for vector in vectors:
        raw = base64.b64decode(vector["payload_base64"])
        body = Payload.FromString(raw)
        assert len(body.metrics) == vector["metric_count"], vector["name"]
        assert Payload.FromString(body.SerializeToString()) == body
        assert body.timestamp == 1_750_855_643_474
        found[vector["name"]] = [
            (each.name or each.alias, each.datatype, decode_value(each, each.datatype).number)
            for each in body.metrics
        ]
    head = [("bdSeq", 8, 88), ("Node Control/Rebirth", 11, 0.0)]
    large = [(f"Metric_{number}", 10, number * 1.5) for number in range(1, 101)]
    assert found == {
        "NBIRTH_V1": [*head, ("Temperature", 10, 21.5)],
        "NDATA_V1": [(100, 10, 22.5)],
        "NDEATH_V1": [("bdSeq", 8, 0)],
        "NDATA_GAP": [(100, 10, 27.0)],
        "NDATA_BEFORE_BIRTH": [(100, 10, 25.0)],
        "NDATA_WRAPAROUND": [(100, 10, 30.0)],
        "NBIRTH_LARGE": [*head, *large],
    }


def test_published_vectors_drive_the_session() -> None:
    vectors = {
        each["name"]: (each["message_type"], base64.b64decode(each["payload_base64"]))
        for each in json.loads((data_folder("sparkplug") / "test_vectors.json").read_text())
    }
    bench = Bench(("", "Temperature", 1))

    def play(name: str) -> list[tuple[int, Any]]:
        kind, body = vectors[name]
        bench.node(kind, body)
        return bench.samples()

    assert play("NDATA_BEFORE_BIRTH") == []
    bench.wait(1.1)
    assert bench.rebirths() == 1
    assert play("NBIRTH_V1") == [(1, 21.5)]
    assert play("NDATA_V1") == [(1, 22.5)]
    assert play("NDATA_GAP") == []
    bench.wait(12.0)
    assert bench.rebirths() == 1
    assert play("NBIRTH_V1")[-1:] == [(1, 27.0)]  # what waited behind the gap; the birth is known
    bench.codes()
    assert play("NDEATH_V1") == []  # its bdSeq is of another session than the birth's
    assert (bench.stale(), bench.codes()) == (set(), ["EDGE-4212"])
    large = Bench(*(("", f"Metric_{number}", number) for number in range(1, 101)))
    large.node(*vectors["NBIRTH_LARGE"])
    assert large.samples() == [(number, number * 1.5) for number in range(1, 101)]


def test_field_numbers_are_the_published_ones() -> None:
    """Every field that we declare is in the published schema, with the same number."""
    text = (data_folder("sparkplug") / "sparkplug_b.proto").read_text()
    published = {
        (name, int(number)) for name, number in re.findall(r"\s(\w+)\s*=\s*(\d+)\s*;", text)
    }
    for message in (Payload.DESCRIPTOR, Metric.DESCRIPTOR):
        for field in message.fields:
            assert (field.name, field.number) in published
    enum = dict(re.findall(r"^\s{4}(\w+)\s*=\s*(\d+);", text, re.MULTILINE))
    assert {each.name: each.value for each in DataType} == {
        name.upper(): int(number) for name, number in enum.items()
    }


def test_array_type_table_is_complete() -> None:
    for datatype, dtype in (
        (DataType.INT8ARRAY, "<i1"),
        (DataType.UINT64ARRAY, "<u8"),
        (DataType.DOUBLEARRAY, "<f8"),
    ):
        metric = Metric()
        set_array(metric, datatype, [1, 2, 3])
        assert np.frombuffer(metric.bytes_value, dtype).tolist() == [1, 2, 3]
