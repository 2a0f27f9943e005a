"""Values in Sparkplug metrics: from the wire to numbers and text, and back. Pure.

Signed integers travel in unsigned members as two's complement (Sparkplug 3.0, 6.4.16): an INT8 of -1
may arrive as 0xFF or 0xFFFFFFFF, so only the low bits of the type's width count.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import numpy as np

from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.model import status as codes
from headrace.model.errors import Misconfigured

QUALITY: Final = "Quality"
UNIT: Final = "engUnit"
QUALITY_GOOD: Final = 192
QUALITY_STALE: Final = 500
QUALITY_BAD: Final = 0

SIGNED_BITS: Final = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
UNSIGNED_BITS: Final = {
    DataType.UINT8: 8,
    DataType.UINT16: 16,
    DataType.UINT32: 32,
    DataType.UINT64: 64,
    DataType.DATETIME: 64,
}
TEXT_TYPES: Final = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})
ARRAY_DTYPES: Final = {
    DataType.INT8ARRAY: "<i1",
    DataType.INT16ARRAY: "<i2",
    DataType.INT32ARRAY: "<i4",
    DataType.INT64ARRAY: "<i8",
    DataType.UINT8ARRAY: "<u1",
    DataType.UINT16ARRAY: "<u2",
    DataType.UINT32ARRAY: "<u4",
    DataType.UINT64ARRAY: "<u8",
    DataType.FLOATARRAY: "<f4",
    DataType.DOUBLEARRAY: "<f8",
}
_FLOAT_MAX: Final = 3.4028235677973366e38  # rounds to the largest float32; above is infinite


class Value(NamedTuple):
    """One decoded metric: a number (int, float) or text or neither, and why there is neither."""

    number: float | int | None
    text: str | None
    status: int
    problem: str = ""


def type_name(datatype: int) -> str:
    """The type's name for people, also when we do not know it."""
    try:
        return DataType(datatype).name.capitalize()
    except ValueError:
        return f"type {datatype}"


def decode_value(metric: Any, datatype: int) -> Value:
    """A metric's value as its declared type.

    Args:
        metric: a protobuf Metric.
        datatype: what the birth declared.
    """
    status = quality_status(metric)
    which = None if metric.is_null else metric.WhichOneof("value")
    if which is None:
        bad = status if codes.is_bad(status) else codes.BAD_NO_DATA
        return Value(None, None, bad, f"EDGE-4210 the metric {metric.name!r} is null")
    stated = metric.datatype
    if stated and stated != datatype:
        return _mismatch(metric, f"{type_name(stated)} instead of {type_name(datatype)}")
    if which in ("int_value", "long_value"):
        raw = getattr(metric, which)
        if datatype in SIGNED_BITS:
            bits = SIGNED_BITS[DataType(datatype)]
            raw &= (1 << bits) - 1
            return Value(raw - (1 << bits) if raw >> (bits - 1) else raw, None, status)
        if datatype in UNSIGNED_BITS:
            if raw >> UNSIGNED_BITS[DataType(datatype)]:
                return _mismatch(metric, f"{raw}, too large for {type_name(datatype)}")
            return Value(raw, None, status)
    elif which == "double_value" and datatype == DataType.DOUBLE:
        return Value(metric.double_value, None, status)
    elif which == "float_value" and datatype == DataType.FLOAT:
        return Value(metric.float_value, None, status)
    elif which == "boolean_value" and datatype == DataType.BOOLEAN:
        return Value(float(metric.boolean_value), None, status)
    elif which == "string_value" and datatype in TEXT_TYPES:
        return Value(None, metric.string_value, status)
    if datatype in SIGNED_BITS or datatype in UNSIGNED_BITS or datatype <= DataType.UUID:
        return _mismatch(metric, f"a {which} for {type_name(datatype)}")
    return Value(
        None,
        None,
        codes.BAD_NOT_SUPPORTED,
        f"EDGE-4205 the metric {metric.name!r} has the type {type_name(datatype)}, which is no sample",
    )


def _mismatch(metric: Any, found: str) -> Value:
    text = f"EDGE-4207 the metric {metric.name!r} carries {found}"
    return Value(None, None, codes.BAD_TYPE_MISMATCH, text)


def decode_array(metric: Any, datatype: int) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """A numeric array metric as float64, shape (n,); None when it is none or malformed."""
    dtype = ARRAY_DTYPES.get(DataType(datatype)) if datatype in ARRAY_DTYPES else None
    if dtype is None or metric.is_null or metric.WhichOneof("value") != "bytes_value":
        return None
    body = metric.bytes_value
    if len(body) % np.dtype(dtype).itemsize:
        return None
    return np.frombuffer(body, dtype).astype(np.float64)


def quality_status(metric: Any) -> int:
    """The StatusCode of a metric's ``Quality`` property; Good when it has none (6.4.9).

    Beside 0, 192 and 500 the two top bits of an OPC DA quality byte are understood.
    """
    if not metric.HasField("properties"):
        return codes.GOOD
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == QUALITY:
            quality = value.long_value if value.HasField("long_value") else value.int_value
            if quality == QUALITY_STALE:
                return codes.UNCERTAIN_LAST_USABLE_VALUE
            if quality == QUALITY_BAD:
                return codes.BAD
            if quality > 0xFF:
                return codes.UNCERTAIN
            severity = quality >> 6
            return {3: codes.GOOD, 0: codes.BAD}.get(severity, codes.UNCERTAIN)
    return codes.GOOD


def unit_of(metric: Any) -> str:
    """The engineering unit that a birth declares in the customary ``engUnit`` property, or ""."""
    if metric.HasField("properties"):
        properties = metric.properties
        for key, value in zip(properties.keys, properties.values, strict=False):
            if key == UNIT:
                return str(value.string_value)
    return ""


def status_quality(status: int) -> int:
    """The nearest of Sparkplug's three qualities.

    Example:
        >>> status_quality(0), status_quality(0x80000000), status_quality(0x40900000)
        (192, 0, 500)
    """
    if codes.is_good(status):
        return QUALITY_GOOD
    return QUALITY_BAD if codes.is_bad(status) else QUALITY_STALE


def set_quality(metric: Any, status: int) -> None:
    """Put the status into the metric's ``Quality`` property, as an INT32."""
    metric.properties.keys.append(QUALITY)
    metric.properties.values.add(type=int(DataType.INT32), int_value=status_quality(status))


def set_unit(metric: Any, unit: str) -> None:
    """Declare the engineering unit in a birth's metric."""
    metric.properties.keys.append(UNIT)
    metric.properties.values.add(type=int(DataType.STRING), string_value=unit)


def set_value(metric: Any, datatype: int, value: Any, what: str) -> None:
    """Put a value of a declared type into a metric.

    Raises:
        Misconfigured: EDGE-4208 when the type cannot hold the value exactly enough: text for a
            number, a fraction for an integer, or out of range. The metric is unchanged.
    """
    if datatype in TEXT_TYPES:
        if not isinstance(value, str):
            raise _unfit(what, value, datatype)
        metric.string_value = value
        return
    if isinstance(value, str) or value is None:
        raise _unfit(what, value, datatype)
    if datatype == DataType.DOUBLE:
        metric.double_value = float(value)
    elif datatype == DataType.FLOAT:
        number = float(value)
        if abs(number) >= _FLOAT_MAX and abs(number) != float("inf"):
            raise _unfit(what, value, datatype)
        metric.float_value = number
    elif datatype == DataType.BOOLEAN:
        if value not in (0, 1):
            raise _unfit(what, value, datatype)
        metric.boolean_value = bool(value)
    elif datatype in SIGNED_BITS or datatype in UNSIGNED_BITS:
        _set_integer(metric, datatype, value, what)
    else:
        raise _unfit(what, value, datatype)


def _set_integer(metric: Any, datatype: int, value: Any, what: str) -> None:
    number = int(value) if value == value and abs(value) != float("inf") else None
    if number is None or number != value:
        raise _unfit(what, value, datatype)
    kind = DataType(datatype)
    bits = SIGNED_BITS.get(kind) or UNSIGNED_BITS[kind]
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if kind in SIGNED_BITS else (0, 1 << bits)
    if not low <= number < high:
        raise _unfit(what, value, datatype)
    if bits == 64:
        metric.long_value = number & 0xFFFF_FFFF_FFFF_FFFF
    else:
        metric.int_value = number & 0xFFFF_FFFF


def _unfit(what: str, value: Any, datatype: int) -> Misconfigured:
    return Misconfigured(
        "EDGE-4208",
        f"{what} cannot take {value!r}: its type is {type_name(datatype)}",
        "Write a value that this type can hold.",
    )


def set_array(metric: Any, datatype: int, values: Any) -> None:
    """Put numbers into a numeric array metric (packed, little-endian)."""
    metric.bytes_value = np.asarray(values).astype(ARRAY_DTYPES[DataType(datatype)]).tobytes()


def as_float32(value: float) -> float:
    """The float64 nearest to what a FLOAT metric carries.

    Example:
        >>> as_float32(0.1)
        0.10000000149011612
    """
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def rebirth_request(name: str, timestamp_ms: int) -> bytes:
    """The NCMD that asks an edge node for its births (5.11)."""
    payload = Payload(timestamp=timestamp_ms)
    payload.metrics.add(
        name=name, timestamp=timestamp_ms, datatype=int(DataType.BOOLEAN), boolean_value=True
    )
    body: bytes = payload.SerializeToString()
    return body
