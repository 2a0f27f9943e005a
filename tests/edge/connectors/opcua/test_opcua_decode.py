"""The column decoder against asyncua's own codec, and against the standard where they differ."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.edge.connectors.opcua.decode import (
    NO_TIME,
    TICKS_MAX,
    Undecodable,
    decode_publish,
    decode_values,
    ticks_to_us,
)
from headrace.edge.connectors.opcua.samples import scalar
from headrace.model.time import to_datetime, to_us

TYPES = {
    ua.VariantType.Boolean: st.booleans(),
    ua.VariantType.SByte: st.integers(-128, 127),
    ua.VariantType.Byte: st.integers(0, 255),
    ua.VariantType.Int16: st.integers(-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: st.integers(0, 2**16 - 1),
    ua.VariantType.Int32: st.integers(-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: st.integers(0, 2**32 - 1),
    ua.VariantType.Int64: st.integers(-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: st.integers(0, 2**64 - 1),
    ua.VariantType.Float: st.floats(width=32),
    ua.VariantType.Double: st.floats(),
    ua.VariantType.String: st.text(max_size=12),
    ua.VariantType.DateTime: st.integers(-11_000_000_000_000_000, 250_000_000_000_000_000).map(
        to_datetime
    ),
    ua.VariantType.ByteString: st.binary(max_size=8),
    ua.VariantType.Guid: st.uuids(),
}
TIMES = st.integers(0, 4_000_000_000_000_000).map(to_datetime)


@st.composite
def variants(draw: Any) -> ua.Variant:
    kind = draw(st.sampled_from(list(TYPES)))
    if draw(st.integers(0, 5)) == 0 and kind != ua.VariantType.Guid:
        return ua.Variant(draw(st.lists(TYPES[kind], max_size=4)), kind, is_array=True)
    return ua.Variant(draw(TYPES[kind]), kind)


@st.composite
def data_values(draw: Any) -> ua.DataValue:
    value = draw(st.one_of(variants(), st.just(ua.Variant(None, ua.VariantType.Null))))
    return ua.DataValue(
        value,
        StatusCode=draw(st.one_of(st.none(), st.integers(0, 2**32 - 1).map(ua.StatusCode))),
        SourceTimestamp=draw(st.one_of(st.none(), TIMES)),
        ServerTimestamp=draw(st.one_of(st.none(), TIMES)),
    )


def publish_response(items: list[ua.MonitoredItemNotification]) -> bytes:
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 7
    response.Parameters.AvailableSequenceNumbers = [1, 2, 3]
    response.Parameters.NotificationMessage.SequenceNumber = 42
    response.Parameters.NotificationMessage.NotificationData = [
        ua.DataChangeNotification(MonitoredItems=items)
    ]
    return bytes(struct_to_binary(response))


def assert_equal(data: bytes) -> None:
    """Our columns hold exactly what asyncua's objects hold."""
    ours = decode_publish(data)
    theirs = struct_from_binary(ua.PublishResponse, Buffer(data)).Parameters
    assert (ours.subscription_id, ours.sequence_number) == (7, 42)
    assert len(ours.values) == len(theirs.NotificationMessage.NotificationData)
    values = ours.values[0]
    items = theirs.NotificationMessage.NotificationData[0].MonitoredItems
    unusual = dict(values.unusual)
    assert len(values) == len(items)
    for i, item in enumerate(items):
        wanted = item.Value
        assert values.handle[i] == item.ClientHandle
        code = wanted.StatusCode.value if wanted.StatusCode is not None else 0
        assert values.status[i] == code
        for at, us in (
            (wanted.SourceTimestamp, values.source_us[i]),
            (wanted.ServerTimestamp, values.server_us[i]),
        ):
            assert us == (to_us(at) if at is not None else NO_TIME)
        plain = wanted.Value.Value if wanted.Value is not None else None
        if i in unusual:
            got = unusual[i]
            got = got.Value if isinstance(got, ua.Variant) else got
            if isinstance(got, np.ndarray):
                np.testing.assert_array_equal(got, np.array(plain, got.dtype))
            else:
                assert got == plain
            continue
        number, text = scalar(plain)
        assert bool(values.is_null[i]) == (number is None)
        assert values.text.get(i) == text
        if number is not None:
            assert struct.pack("<d", values.value[i]) == struct.pack("<d", number)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), data_values()), max_size=40))
@settings(max_examples=150, deadline=None)
def test_columns_equal_asyncua_for_any_values(
    items: list[tuple[int, ua.DataValue]],
) -> None:
    assert_equal(
        publish_response([ua.MonitoredItemNotification(handle, value) for handle, value in items])
    )


@given(st.integers(1, 600), st.integers(0, 5), st.sampled_from(list(TYPES)), st.data())
@settings(max_examples=40, deadline=None)
def test_long_runs_equal_asyncua(n: int, broken_by: int, kind: ua.VariantType, data: Any) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    value = ua.Variant(data.draw(TYPES[kind]), kind)
    items = [
        ua.MonitoredItemNotification(
            i, ua.DataValue(value, ua.StatusCode(i), at + timedelta(microseconds=i), at)
        )
        for i in range(n)
    ]
    for i in data.draw(st.lists(st.integers(0, n - 1), max_size=broken_by)):
        items[i] = ua.MonitoredItemNotification(i, ua.DataValue(ua.Variant("x")))
    assert_equal(publish_response(items))


@pytest.mark.parametrize("at", [1, 2, 15, 16, 17, 143, 144, 145, 299])
def test_a_run_ends_where_mask_or_type_changes(at: int) -> None:
    """Also where a look-ahead window of the decoder ends (16, 16 + 128...)."""
    double, integer = ua.Variant(1.5), ua.Variant(7, ua.VariantType.Int32)
    without_time = ua.DataValue(double)
    for other in (ua.DataValue(integer), without_time):
        first = ua.DataValue(double, SourceTimestamp=datetime(2026, 1, 1, tzinfo=UTC))
        if other is not without_time:
            first = ua.DataValue(double)
        items = [ua.MonitoredItemNotification(i, first if i < at else other) for i in range(300)]
        assert_equal(publish_response(items))


def test_picoseconds_stand_behind_their_own_timestamp() -> None:
    """OPC 10000-6, 5.2.2.17: Source, SourcePico, Server, ServerPico."""
    source, server = 133_500_000_000_000_009, 133_500_000_000_000_017
    record = (
        struct.pack("<IBBd", 5, 0x3F, 11, 2.5)
        + struct.pack("<I", 0x40930000)
        + struct.pack("<qHqH", source, 1234, server, 4321)
    )
    for n in (1, 20):
        values, end = decode_values(record * n, 0, n, len(record) * n, has_handle=True)
        assert end == len(record) * n
        assert values.value.tolist() == [2.5] * n
        assert values.source_us.tolist() == [source // 10 - 11_644_473_600_000_000] * n
        assert values.server_us.tolist() == [server // 10 - 11_644_473_600_000_000] * n
        assert values.status.tolist() == [0x40930000] * n


def test_times_are_truncated_and_bounded() -> None:
    ticks = np.array([0, -5, 116_444_736_000_000_019, TICKS_MAX, 2**63 - 1])
    assert ticks_to_us(ticks).tolist() == [
        NO_TIME,
        NO_TIME,
        1,
        253_402_300_799_000_000,
        253_402_300_799_000_000,
    ]


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_broken_messages_are_refused_and_never_crash(data: Any) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    items = [
        ua.MonitoredItemNotification(i, ua.DataValue(ua.Variant(v), ua.StatusCode(0), at, at))
        for i, v in enumerate([1.5, "text", [1.0, 2.0], True, 7])
    ]
    message = bytearray(publish_response(items))
    cut = data.draw(st.integers(0, len(message)))
    for _ in range(data.draw(st.integers(0, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        publish = decode_publish(bytes(message[:cut]))
    except (Undecodable, ua.UaStatusCodeError):
        return
    assert all(len(values) <= len(message) for values in publish.values)


def test_a_truncated_message_says_where_it_breaks() -> None:
    item = ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant(1.5)))
    with pytest.raises(Undecodable, match=r"PublishResponse of|ends at byte"):
        decode_publish(publish_response([item])[:-12])
