"""JSON messages become samples, and nothing is falsified on the way."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from headrace.edge.connectors.mqtt.columns import Columns
from headrace.edge.connectors.mqtt.config import MqttOptions, parse_pointer
from headrace.edge.connectors.mqtt.payload import (
    ABSENT,
    Decoded,
    JsonDecoder,
    leaves,
    nest,
    resolve,
)
from headrace.model import status as codes
from headrace.model.desired import TagConfig

RECEIVED_US = 1_700_000_000_000_000


def decode(
    payload: bytes | str,
    *pointers: str,
    retained: bool = False,
    tag: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[list[dict[str, Any]], Decoded]:
    """The rows and the rest of one message; tag ids are 1, 2... in the order of the pointers."""
    tags = [
        TagConfig(tag_id=number, path=f"a/b/t{number}", address=f"m#{pointer}", **(tag or {}))
        for number, pointer in enumerate(pointers, 1)
    ]
    decoder = JsonDecoder("test", tags, MqttOptions(**options))
    columns = Columns()
    body = payload.encode() if isinstance(payload, str) else payload
    decoded = decoder.decode("m", body, retained, RECEIVED_US, columns)
    return columns.take().to_dicts(), decoded


@pytest.mark.parametrize(
    ("text", "value", "kept", "status"),
    [
        ("2.5", 2.5, None, codes.GOOD),
        ("true", 1.0, None, codes.GOOD),
        ("-7", -7.0, None, codes.GOOD),
        ("9007199254740993", 9007199254740992.0, "9007199254740993", codes.GOOD),
        (
            "123456789012345678901234567890",
            1.2345678901234568e29,
            "123456789012345678901234567890",
            0,
        ),
        ('"run"', None, "run", codes.GOOD),
        ("null", None, None, codes.BAD_NO_DATA),
        ("{}", None, None, codes.BAD_TYPE_MISMATCH),
        ("[1]", None, None, codes.BAD_TYPE_MISMATCH),
    ],
)
def test_each_kind_of_value(text: str, value: float | None, kept: str | None, status: int) -> None:
    (row,), _ = decode('{"v": ' + text + "}", "/v")
    assert (row["value"], row["text"], row["status"]) == (value, kept, status)


def test_text_where_a_number_is_expected_is_uncertain() -> None:
    (row,), _ = decode('{"v": "12.5"}', "/v", tag={"unit": "Cel"})
    assert (row["value"], row["text"], row["status"]) == (None, "12.5", codes.UNCERTAIN)


def test_text_after_numbers_is_uncertain() -> None:
    tag = TagConfig(tag_id=1, path="a/b/c", address="m#/v")
    decoder, columns = JsonDecoder("test", [tag], MqttOptions()), Columns()
    for body in (b'{"v": "idle"}', b'{"v": 3}', b'{"v": "ERR"}'):
        decoder.decode("m", body, False, RECEIVED_US, columns)
    assert columns.take()["status"].to_list() == [codes.GOOD, codes.GOOD, codes.UNCERTAIN]


@pytest.mark.parametrize("body", ["17.5", " 17.5 ", "17.5\n"])
def test_whole_payload_as_a_bare_number(body: str) -> None:
    (row,), _ = decode(body, "")
    assert row["value"] == 17.5


def test_whole_payload_as_bare_text() -> None:
    (row,), decoded = decode("door open", "")
    assert (row["text"], row["status"], decoded.notices) == ("door open", codes.GOOD, [])


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"", b"[" * 100_000, b'{"v": 1', b"nope"])
def test_malformed_json_is_a_notice_and_a_bad_status(body: bytes) -> None:
    rows, decoded = decode(body, "/v", "/w")
    assert [row["status"] for row in rows] == [codes.BAD_NO_DATA] * 2
    assert [code for code, _ in decoded.notices] == ["EDGE-4101"]
    assert set(decoded.tag_errors) == {1, 2}


def test_missing_field_spoils_no_other() -> None:
    rows, decoded = decode('{"a": 1}', "/a", "/b")
    assert [(row["value"], row["status"]) for row in rows] == [(1.0, 0), (None, codes.BAD_NO_DATA)]
    assert decoded.tag_errors[2].startswith("EDGE-4102")
    assert len(decode('{"a": 1}', "/a", "/b", missing_field="ignore")[0]) == 1


@pytest.mark.parametrize(
    ("field", "option", "at_us"),
    [
        ("1700000000", "/t@s", 1_700_000_000_000_000),
        ("1700000000.123456", "/t@s", 1_700_000_000_123_456),
        ("1700000000123", "/t@ms", 1_700_000_000_123_000),
        ("1700000000123456", "/t@us", 1_700_000_000_123_456),
        ('"2023-11-14T22:13:20.5Z"', "/t@iso", 1_700_000_000_500_000),
        ('"2023-11-14T23:13:20+01:00"', "/t@iso", 1_700_000_000_000_000),
    ],
)
def test_timestamps(field: str, option: str, at_us: int) -> None:
    (row,), decoded = decode('{"v": 1, "t": ' + field + "}", "/v", timestamp=option)
    assert int(row["source_timestamp"].timestamp() * 1e6) == at_us
    assert (row["status"], decoded.notices) == (codes.GOOD, [])


@pytest.mark.parametrize("field", ['"x"', "-1", "1e300", "null", "[]", "true"])
def test_wrong_timestamp_is_arrival_and_uncertain(field: str) -> None:
    (row,), decoded = decode('{"v": 1, "t": ' + field + "}", "/v", timestamp="/t@ms")
    assert row["source_timestamp"] == row["received_timestamp"]
    assert row["status"] == codes.UNCERTAIN
    assert [code for code, _ in decoded.notices] == ["EDGE-4104"]


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ('"good"', codes.GOOD),
        ("192", codes.GOOD),
        ("true", codes.GOOD),
        ('"BAD"', codes.BAD),
        ("0", codes.BAD),
        ('"broken"', codes.BAD_SENSOR_FAILURE),
        ('"whatever"', codes.UNCERTAIN),
    ],
)
def test_quality_words(field: str, status: int) -> None:
    (row,), _ = decode(
        '{"v": 1, "q": ' + field + "}",
        "/v",
        quality="/q",
        quality_map={"Broken": "BadSensorFailure"},
    )
    assert (row["value"], row["status"]) == (1.0, status)


def test_retained_message_without_a_time_is_of_unknown_age() -> None:
    (row,), _ = decode('{"v": 1}', "/v", retained=True)
    assert row["status"] == codes.UNCERTAIN_LAST_USABLE_VALUE
    (row,), _ = decode('{"v": 1, "t": 5}', "/v", retained=True, timestamp="/t@s")
    assert row["status"] == codes.GOOD


def test_waveform_ends_at_the_source_timestamp() -> None:
    rows, _ = decode(
        '{"v": [1, 2.5, 3], "t": 1700000000000000}',
        "/v",
        tag={"sample_interval_us": 1_000},
        timestamp="/t@us",
    )
    assert [row["value"] for row in rows] == [1.0, 2.5, 3.0]
    assert [int(row["source_timestamp"].timestamp() * 1e6) % 1_000_000 for row in rows] == [
        998_000,
        999_000,
        0,
    ]
    rows, decoded = decode('{"v": [1, "x"]}', "/v", tag={"sample_interval_us": 1_000})
    assert [row["status"] for row in rows] == [codes.BAD_TYPE_MISMATCH]
    assert decoded.tag_errors[1].startswith("EDGE-4103")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_every_leaf_is_found_where_its_pointer_says(document: Any) -> None:
    for pointer, value in leaves(document, 100):
        assert resolve(document, parse_pointer(pointer, "test")) == value


@given(st.lists(st.text(), max_size=4), st.integers())
def test_nested_value_is_found(pointer: list[str], value: int) -> None:
    assert resolve(nest(tuple(pointer), value), tuple(pointer)) == value
    assert resolve(value, ("no", "such")) is ABSENT


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_bits(value: float) -> None:
    (row,), _ = decode(msgspec.json.encode({"v": value}), "/v")
    assert row["value"] == value and math.copysign(1, row["value"]) == math.copysign(1, value)


@given(st.binary(max_size=60))
def test_any_bytes_raise_nothing(body: bytes) -> None:
    rows, _ = decode(body, "/v", "", timestamp="/t@iso", quality="/q")
    assert len(rows) == 2
