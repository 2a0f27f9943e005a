"""Raw OPC UA messages into columns, without a Python object per value (OPC 10000-6, 5.2).

A DataChangeNotification is a row of records of differing length::

    ClientHandle u32 | mask u8 | Variant | StatusCode u32 | SourceTimestamp i64 | SourcePicoseconds u16
                                                          | ServerTimestamp i64 | ServerPicoseconds u16

where the mask says which parts are there. Records with the same mask and the same scalar type have
the same length, so a run of them is one numpy view. Anything else (strings, arrays, structures) is
read record by record; asyncua decodes the Variants that are not plain numbers or strings.

The record itself is decoded here and not by asyncua, which puts the picoseconds behind both
timestamps where the standard puts each behind its own (OPC 10000-6, 5.2.2.17).
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, variant_from_binary

from headrace.model.sample import EXACT_INTEGER_MAX

HAS_VALUE, HAS_STATUS, HAS_SOURCE, HAS_SERVER = 0x01, 0x02, 0x04, 0x08
HAS_SOURCE_PICO, HAS_SERVER_PICO = 0x10, 0x20
IS_ARRAY, HAS_DIMENSIONS = 0x80, 0x40
STRING_TYPE: Final = 12

UNIX_EPOCH_US: Final = 11_644_473_600_000_000
"""Microseconds from 1601-01-01, where OPC UA's DateTime starts, to 1970-01-01."""
TICKS_MAX: Final = 2_650_467_743_990_000_000
"""9999-12-31T23:59:59 in 100 ns since 1601: the standard's greatest DateTime (5.2.2.5)."""
NO_TIME: Final = np.iinfo(np.int64).min

NUMBERS: Final[dict[int, str]] = {
    1: "u1",  # Boolean
    2: "i1",
    3: "u1",
    4: "<i2",
    5: "<u2",
    6: "<i4",
    7: "<u4",
    8: "<i8",
    9: "<u8",
    10: "<f4",
    11: "<f8",
}
_RUN_WINDOW: Final = 16

DATA_CHANGE: Final = ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary
STATUS_CHANGE: Final = ua.ObjectIds.StatusChangeNotification_Encoding_DefaultBinary


class Undecodable(Exception):
    """The bytes are no message of this kind; the text says where they break."""


Unusual: TypeAlias = npt.NDArray[Any] | str | ua.Variant


@dataclass
class Values:
    """Decoded DataValues as columns; position is the order in the message.

    Attributes:
        handle: uint32, ClientHandle, or the position for messages without handles.
        source_us: int64, source timestamp in UTC microseconds; NO_TIME where the device gave none.
        server_us: int64, server timestamp likewise.
        value: float64.
        is_null: bool, where there is no number.
        status: uint32.
        text: position -> text, for integers that float64 cannot hold.
        unusual: (position, value) for everything that is not a scalar number.
    """

    handle: npt.NDArray[np.uint32]
    source_us: npt.NDArray[np.int64]
    server_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    is_null: npt.NDArray[np.bool_]
    status: npt.NDArray[np.uint32]
    text: dict[int, str] = field(default_factory=dict)
    unusual: list[tuple[int, Unusual]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.handle)


@dataclass
class Publish:
    """A decoded PublishResponse.

    Attributes:
        subscription_id, sequence_number: of its NotificationMessage.
        has_data: false for a keep-alive, which is not acknowledged (OPC 10000-4, 5.14.1.1).
        more: the server holds more notifications.
        values: one for each DataChangeNotification.
        publish_time_us: the server's clock when it sent the message; NO_TIME when it did not say.
        status_change: StatusCode of a StatusChangeNotification, or None.
    """

    subscription_id: int
    sequence_number: int
    has_data: bool
    more: bool
    values: list[Values]
    publish_time_us: int = NO_TIME
    status_change: int | None = None


@dataclass(frozen=True, eq=False)
class _Layout:
    size: int
    dtype: np.dtype[np.void]
    boolean: bool
    wide: bool


def decode_publish(data: bytes) -> Publish:
    """A PublishResponse, from its type id on.

    Raises:
        Undecodable: the bytes are something else, or break off.
        UaStatusCodeError: the server's answer is a refusal; some stacks send it in this form instead
            of a ServiceFault.
    """
    try:
        buffer = Buffer(data)
        _skip_response_header(buffer, ua.ObjectIds.PublishResponse_Encoding_DefaultBinary)
        subscription_id = _u32(buffer)
        buffer.skip(4 * max(0, _i32(buffer)))
        more = buffer.read(1) != b"\0"
        sequence_number = _u32(buffer)
        publish_time_us = _time(buffer.read(8), 0)
        count = max(0, _i32(buffer))
        publish = Publish(subscription_id, sequence_number, count > 0, more, [], publish_time_us)
        for _ in range(count):
            _notification(data, buffer, publish)
    except (Undecodable, ua.UaStatusCodeError):
        raise
    except (ua.UaError, struct.error, IndexError, ValueError, TypeError) as error:
        raise Undecodable(f"a PublishResponse of {len(data)} bytes: {error}") from error
    return publish


def decode_read(data: bytes) -> Values:
    """The results of a ReadResponse; handles are positions.

    Raises:
        Undecodable: the bytes are something else, or break off.
        UaStatusCodeError: the server's answer is a refusal.
    """
    try:
        buffer = Buffer(data)
        _skip_response_header(buffer, ua.ObjectIds.ReadResponse_Encoding_DefaultBinary)
        count = max(0, _i32(buffer))
        values, _ = decode_values(data, buffer.cur_pos, count, len(data), has_handle=False)
    except ua.UaStatusCodeError:
        raise
    except (ua.UaError, struct.error, IndexError, ValueError, TypeError) as error:
        raise Undecodable(f"a ReadResponse of {len(data)} bytes: {error}") from error
    return values


def decode_history_data(data: bytes) -> Values:
    """The DataValues of a HistoryData structure (its body); handles are positions.

    Raises:
        Undecodable: the bytes break off.
    """
    try:
        count = max(0, struct.unpack_from("<i", data)[0])
        values, _ = decode_values(data, 4, count, len(data), has_handle=False)
    except (ua.UaError, struct.error, IndexError, ValueError, TypeError) as error:
        raise Undecodable(f"a HistoryData of {len(data)} bytes: {error}") from error
    return values


def _notification(data: bytes, buffer: Buffer, publish: Publish) -> None:
    type_id = nodeid_from_binary(buffer)
    if buffer.read(1) != b"\1":
        return
    length = _i32(buffer)
    start = buffer.cur_pos
    # Some old servers leave the length out (-1); then the body ends where it ends.
    end = start + length if length >= 0 else len(data)
    if end > len(data):
        raise Undecodable(f"a notification ends at byte {end} of {len(data)}")
    if type_id.NamespaceIndex == 0 and type_id.Identifier == DATA_CHANGE:
        count = max(0, _i32(buffer))
        values, end_of_values = decode_values(data, start + 4, count, end, has_handle=True)
        publish.values.append(values)
        if length < 0:
            end = end_of_values + 4  # an empty array of diagnostics follows
    elif type_id.NamespaceIndex == 0 and type_id.Identifier == STATUS_CHANGE:
        publish.status_change = _u32(buffer)
    buffer.rewind(end)


def decode_values(
    data: bytes, start: int, count: int, end: int, *, has_handle: bool
) -> tuple[Values, int]:
    """``count`` DataValues from ``data[start:end]``, each behind its handle when there are handles.

    Returns:
        The columns, and the position behind the last record.

    Raises:
        Undecodable: the records do not fit between ``start`` and ``end``.
    """
    head = 4 if has_handle else 0
    if count > end - start:
        raise Undecodable(f"{count} values in {end - start} bytes")
    values = _empty(count)
    runs: dict[_Layout, list[tuple[int, int, int]]] = {}
    at, i = start, 0
    while i < count:
        mask = data[at + head]
        encoding = data[at + head + 1] if mask & HAS_VALUE else 0
        layout = _layout(mask, encoding, has_handle)
        if layout is None:
            at = _one(data, at, i, values, has_handle)
            i += 1
        else:
            run = _run_length(data, at + head, layout.size, count - i, mask & HAS_VALUE)
            runs.setdefault(layout, []).append((i, run, at))
            at += run * layout.size
            i += run
        if at > end:
            raise Undecodable(f"value {i} of {count} ends at byte {at} of {end}")
    for layout, found in runs.items():
        _gather(data, found, values, layout)
    return values, at


def _gather(
    data: bytes, found: list[tuple[int, int, int]], values: Values, layout: _Layout
) -> None:
    """Place all runs of one layout at once: numpy costs by the call, not by the value."""
    size = layout.size
    if len(found) == 1:
        i, run, at = found[0]
        records = np.frombuffer(data, layout.dtype, count=run, offset=at)
        _place(values, slice(i, i + run), records, layout)
        return
    joined = b"".join([data[at : at + run * size] for _, run, at in found])
    table = np.array(found, np.intp)
    ends = np.cumsum(table[:, 1])
    first_of_run = np.repeat(table[:, 0] - ends + table[:, 1], table[:, 1])
    positions = first_of_run + np.arange(ends[-1], dtype=np.intp)
    _place(values, positions, np.frombuffer(joined, layout.dtype), layout)


def _run_length(data: bytes, first: int, size: int, remaining: int, has_value: int) -> int:
    """How many records have the mask and type of the one at ``first``, hence its length.

    Every step of ``size`` lands on a mask as long as all masks and types before it were equal, so the
    first that differs ends the run. Slices with a step and ``lstrip`` look at them in C.
    """
    done, window = 0, _RUN_WINDOW
    mask, encoding = data[first : first + 1], data[first + 1 : first + 2]
    while done < remaining:
        begin = first + done * size
        end = begin + min(window, remaining - done) * size
        same = _leading(data[begin:end:size], mask)
        if has_value:
            same = min(same, _leading(data[begin + 1 : end + 1 : size], encoding))
        done += same
        if begin + same * size < end:
            break
        window *= 8
    return done


def _leading(row: bytes, byte: bytes) -> int:
    """How many bytes at the start of the row are this one."""
    return len(row) - len(row.lstrip(byte))


@functools.cache
def _layout(mask: int, encoding: int, has_handle: bool) -> _Layout | None:
    """The fixed layout of a record, or None when its length depends on its content."""
    kind = "" if encoding == 0 else NUMBERS.get(encoding, "?")
    if kind == "?" or mask > 0x3F:
        return None
    fields: list[tuple[str, str]] = [("handle", "<u4")] if has_handle else []
    fields.append(("mask", "u1"))
    if mask & HAS_VALUE:
        fields.append(("encoding", "u1"))
        if kind:
            fields.append(("value", kind))
    for bit, name, form in (
        (HAS_STATUS, "status", "<u4"),
        (HAS_SOURCE, "source", "<i8"),
        (HAS_SOURCE_PICO, "source_pico", "<u2"),
        (HAS_SERVER, "server", "<i8"),
        (HAS_SERVER_PICO, "server_pico", "<u2"),
    ):
        if mask & bit:
            fields.append((name, form))
    dtype = np.dtype(fields)
    return _Layout(dtype.itemsize, dtype, boolean=encoding == 1, wide=encoding in (8, 9))


def _place(
    values: Values,
    where: slice | npt.NDArray[np.intp],
    records: npt.NDArray[Any],
    layout: _Layout,
) -> None:
    names = layout.dtype.names or ()
    if "handle" in names:
        values.handle[where] = records["handle"]
    if "value" in names:
        numbers = records["value"]
        values.value[where] = numbers != 0 if layout.boolean else numbers
        values.is_null[where] = False
        if layout.wide:
            _keep_exact(values, where, numbers)
    if "status" in names:
        values.status[where] = records["status"]
    if "source" in names:
        values.source_us[where] = ticks_to_us(records["source"])
    if "server" in names:
        values.server_us[where] = ticks_to_us(records["server"])


def _keep_exact(
    values: Values, where: slice | npt.NDArray[np.intp], numbers: npt.NDArray[Any]
) -> None:
    wide = beyond_float(numbers)
    if wide.size:
        positions = np.arange(len(values))[where]
        for i in wide:
            values.text[int(positions[i])] = str(numbers[i])


def beyond_float(numbers: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Indexes of the integers that float64 cannot hold for sure (model/sample.py, ``text``)."""
    if numbers.dtype.itemsize < 8 or numbers.dtype.kind == "f":
        return np.empty(0, np.intp)
    beyond = numbers > EXACT_INTEGER_MAX
    if numbers.dtype.kind == "i":
        beyond |= numbers < -EXACT_INTEGER_MAX
    return np.flatnonzero(beyond)


def ticks_to_us(ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """UTC microseconds of DateTimes (100 ns since 1601), truncated; NO_TIME where there is none.

    0 and below mean "no time" (OPC 10000-6, 5.2.2.5); above year 9999 is year 9999.
    """
    us = np.minimum(ticks, TICKS_MAX) // 10 - UNIX_EPOCH_US
    return np.where(ticks > 0, us, NO_TIME)


def _one(data: bytes, at: int, i: int, values: Values, has_handle: bool) -> int:
    """Read the record at ``at`` into position ``i``; return where the next one starts."""
    if has_handle:
        values.handle[i] = struct.unpack_from("<I", data, at)[0]
        at += 4
    mask = data[at]
    at += 1
    if mask > 0x3F:
        raise Undecodable(f"value {i} has the mask 0x{mask:02X}")
    if mask & HAS_VALUE:
        value, at = _variant(data, at)
        values.unusual.append((i, value))
    if mask & HAS_STATUS:
        values.status[i] = struct.unpack_from("<I", data, at)[0]
        at += 4
    if mask & HAS_SOURCE:
        values.source_us[i] = _time(data, at)
        at += 8
    at += 2 if mask & HAS_SOURCE_PICO else 0
    if mask & HAS_SERVER:
        values.server_us[i] = _time(data, at)
        at += 8
    return at + (2 if mask & HAS_SERVER_PICO else 0)


def _time(data: bytes, at: int) -> int:
    ticks = struct.unpack_from("<q", data, at)[0]
    return min(ticks, TICKS_MAX) // 10 - UNIX_EPOCH_US if ticks > 0 else NO_TIME


def _variant(data: bytes, at: int) -> tuple[Unusual, int]:
    encoding = data[at]
    if encoding == STRING_TYPE:
        length = struct.unpack_from("<i", data, at + 1)[0]
        if length >= 0:
            if at + 5 + length > len(data):
                raise Undecodable(f"a string of {length} bytes at byte {at} of {len(data)}")
            return data[at + 5 : at + 5 + length].decode("utf-8", "replace"), at + 5 + length
    elif encoding & IS_ARRAY and not encoding & HAS_DIMENSIONS:
        kind = NUMBERS.get(encoding & 0x3F)
        length = struct.unpack_from("<i", data, at + 1)[0]
        if kind is not None and length >= 0:
            numbers = np.frombuffer(data, kind, count=length, offset=at + 5)
            if encoding & 0x3F == 1:
                numbers = numbers != 0
            return numbers, at + 5 + length * np.dtype(kind).itemsize
    buffer = Buffer(data, at)
    variant = variant_from_binary(buffer)
    return variant, buffer.cur_pos


def _empty(count: int) -> Values:
    return Values(
        handle=np.arange(count, dtype=np.uint32),
        source_us=np.full(count, NO_TIME, np.int64),
        server_us=np.full(count, NO_TIME, np.int64),
        value=np.zeros(count, np.float64),
        is_null=np.ones(count, np.bool_),
        status=np.zeros(count, np.uint32),
    )


def _skip_response_header(buffer: Buffer, expected: int) -> None:
    type_id = nodeid_from_binary(buffer)
    if type_id.NamespaceIndex != 0 or type_id.Identifier != expected:
        raise Undecodable(f"the message is {type_id.to_string()}, expected i={expected}")
    struct_from_binary(ua.ResponseHeader, buffer).ServiceResult.check()


def _i32(buffer: Buffer) -> int:
    number: int = struct.unpack("<i", buffer.read(4))[0]
    return number


def _u32(buffer: Buffer) -> int:
    number: int = struct.unpack("<I", buffer.read(4))[0]
    return number
