"""Types and byte orders: bytes against worked examples, and round trips."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.edge.connectors.modbus.columns import ColumnDecoder, Place
from headrace.edge.connectors.modbus.datatype import ORDERS, encode, find_type
from headrace.model.errors import Misconfigured

INTEGERS = {
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
    "bcd16": (0, 9_999),
    "bcd32": (0, 99_999_999),
}


def decode(raw: bytes, name: str, order: str) -> tuple[float | None, str | None, int]:
    data_type = find_type(name)
    assert data_type is not None
    columns = ColumnDecoder([Place(0, data_type, order)], "utf-8").decode(raw)  # type: ignore[arg-type]
    value = None if columns.is_null[0] else float(columns.value[0])
    return value, columns.text[0] if columns.text else None, int(columns.status[0])


@pytest.mark.parametrize(
    ("name", "order", "raw"),
    [
        ("float32", "ABCD", "42f6e979"),
        ("float32", "CDAB", "e97942f6"),
        ("float32", "BADC", "f64279e9"),
        ("float32", "DCBA", "79e9f642"),
    ],
)
def test_the_four_orders_of_123_456(name: str, order: str, raw: str) -> None:
    assert decode(bytes.fromhex(raw), name, order)[0] == pytest.approx(123.456, rel=1e-7)


@pytest.mark.parametrize(
    ("order", "raw"),
    [
        ("ABCD", "0102030405060708"),
        ("CDAB", "0708050603040102"),
        ("BADC", "0201040306050807"),
        ("DCBA", "0807060504030201"),
    ],
)
def test_orders_of_64_bits(order: str, raw: str) -> None:
    value, text, _ = decode(bytes.fromhex(raw), "uint64", order)
    assert text == str(0x0102030405060708)
    assert value == float(0x0102030405060708)


@given(st.sampled_from(sorted(INTEGERS)), st.sampled_from(ORDERS), st.data())
def test_integers_survive(name: str, order: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(*INTEGERS[name]))
    data_type = find_type(name)
    assert data_type is not None
    value, text, status = decode(encode(data_type, order, str(number), "utf-8"), name, order)  # type: ignore[arg-type]
    assert value == float(number)
    assert text == (str(number) if abs(number) > 2**53 else None)
    assert status == 0


@given(st.floats(width=32), st.sampled_from(ORDERS))
def test_float32_survives_to_the_bit(number: float, order: str) -> None:
    data_type = find_type("float32")
    assert data_type is not None
    value, _, status = decode(encode(data_type, order, number, "utf-8"), "float32", order)  # type: ignore[arg-type]
    assert value is not None and status == 0
    if math.isnan(number):
        assert math.isnan(value)
    else:
        assert struct.pack(">d", value) == struct.pack(">d", number)


@given(st.floats(), st.sampled_from(ORDERS))
def test_float64_survives(number: float, order: str) -> None:
    data_type = find_type("float64")
    assert data_type is not None
    value, _, _ = decode(encode(data_type, order, number, "utf-8"), "float64", order)  # type: ignore[arg-type]
    assert value == number or (value is not None and math.isnan(value) and math.isnan(number))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.data())
def test_text_survives(text: str, data: st.DataObject) -> None:
    size = len(text.encode())
    if not 1 <= size <= 250:
        return
    order = data.draw(st.sampled_from(ORDERS))
    data_type = find_type(f"string{data.draw(st.integers(size, 250))}")
    assert data_type is not None
    raw = encode(data_type, order, text, "utf-8")
    assert decode(raw, data_type.name, order) == (None, text, 0)


def test_what_is_no_digit_or_no_text_is_bad_and_null() -> None:
    assert decode(b"\x12\x3a", "bcd16", "ABCD") == (None, None, 0x80070000)
    assert decode(b"\xff\xfe", "string2", "ABCD") == (None, None, 0x80070000)
    assert decode(b"\x12\x34", "bcd16", "ABCD") == (1234.0, None, 0)


def test_every_nan_stays_nan() -> None:
    for raw in ("7fc00000", "7fa00000", "ffffffff"):
        value, _, status = decode(bytes.fromhex(raw), "float32", "ABCD")
        assert value is not None and math.isnan(value) and status == 0


def test_a_bit_is_counted_after_the_byte_order() -> None:
    assert decode(b"\x00\x08", "bit3", "ABCD")[0] == 1.0
    assert decode(b"\x08\x00", "bit3", "BADC")[0] == 1.0
    assert decode(b"\x08\x00", "bit3", "ABCD")[0] == 0.0


def test_many_values_of_all_types_are_decoded_side_by_side() -> None:
    names = ["uint16", "float32", "bit0", "uint16", "string4", "float32"]
    places, raw = [], b""
    for name, value in zip(names, (1, 2.5, 1, 65535, "ab", -1.0), strict=True):
        data_type = find_type(name)
        assert data_type is not None
        places.append(Place(len(raw), data_type, "ABCD"))
        raw += b"\0\1" if name == "bit0" else encode(data_type, "ABCD", value, "utf-8")
    columns = ColumnDecoder(places, "utf-8").decode(raw)
    assert columns.value.tolist()[:4] == [1.0, 2.5, 1.0, 65535.0]
    assert columns.text == [None, None, None, None, "ab", None]
    assert columns.is_null.tolist() == [False, False, False, False, True, False]
    assert not np.any(columns.status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uint16", 65_536),
        ("uint16", -1),
        ("uint16", 1.5),
        ("uint16", math.nan),
        ("uint16", "12x"),
        ("int16", 32_768),
        ("uint64", 2**64),
        ("float32", 1e39),
        ("float32", "1"),
        ("bcd16", 10_000),
        ("string2", "abc"),
        ("string2", "ü!x"),
        ("string4", 5.0),
        ("string4", "a\0b"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(name: str, value: float | str) -> None:
    data_type = find_type(name)
    assert data_type is not None
    with pytest.raises(Misconfigured, match=f"{name} cannot hold") as caught:
        encode(data_type, "ABCD", value, "utf-8")
    assert caught.value.code == "EDGE-3032"
