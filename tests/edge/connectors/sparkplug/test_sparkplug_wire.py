"""The array decoder gives what protobuf gives, or nothing."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sparkplug_wire import NOW_US, Bench, bd_seq, birth_metric

from headrace.edge.connectors.mqtt.columns import Columns
from headrace.edge.connectors.sparkplug import session as session_module
from headrace.edge.connectors.sparkplug import wire
from headrace.edge.connectors.sparkplug.node import AliasTable
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.edge.connectors.sparkplug.template import Template, parts_of

COUNT = 120
NOW_MS = NOW_US // 1_000
METRIC = st.fixed_dictionaries(
    {
        "alias": st.integers(1, COUNT),
        "timestamp": st.integers(NOW_MS, NOW_MS + 10**6),
    },
    optional={
        "datatype": st.sampled_from([DataType.DOUBLE, DataType.FLOAT]),
        "is_historical": st.booleans(),
        "is_null": st.booleans(),
        "name": st.sampled_from(["", "m1"]),
        "double_value": st.floats(),
        "float_value": st.floats(width=32),
        "string_value": st.text(max_size=3),
        "int_value": st.integers(0, 9),
    },
)


def plain(count: int, seq: int = 1, **more: Any) -> Any:
    payload = Payload(timestamp=NOW_MS + 5, seq=seq)
    for number in range(count):
        payload.metrics.add(
            alias=number % COUNT + 1, timestamp=NOW_MS + number, double_value=number / 7, **more
        )
    return payload


@pytest.mark.parametrize("more", [{}, {"datatype": 10}])
def test_plain_runs_are_decoded_exactly(more: dict[str, int]) -> None:
    payload = plain(300, seq=200, **more)
    message = wire.decode_runs(payload.SerializeToString())
    assert message is not None
    assert (message.timestamp_ms, message.seq) == (NOW_MS + 5, 200)
    for column, name in (("alias", "alias"), ("at_ms", "timestamp"), ("value", "double_value")):
        got = np.concatenate([getattr(run, column) for run in message.runs]).tolist()
        assert got == [getattr(metric, name) for metric in payload.metrics]


@pytest.mark.parametrize(
    "odd", [{"is_null": True}, {"is_historical": True}, {"name": "x"}, {"datatype": 9}]
)
def test_anything_else_is_left_to_protobuf(odd: dict[str, Any]) -> None:
    payload = plain(100)
    payload.metrics.add(alias=3, timestamp=NOW_MS, double_value=1.0, **odd)
    assert wire.decode_runs(payload.SerializeToString()) is None


@given(st.binary(max_size=80), st.integers(0, 3000), st.integers(0, 3000))
def test_damaged_bytes_raise_nothing(noise: bytes, start: int, stop: int) -> None:
    body = plain(100).SerializeToString()
    wire.decode_runs(body[:start] + noise + body[stop:])


def births(kinds: list[DataType]) -> bytes:
    payload = Payload(timestamp=NOW_MS, seq=0)
    for fields in (bd_seq(1), *(birth_metric(f"m{n}", n, 0.0, k) for n, k in enumerate(kinds, 1))):
        entry = payload.metrics.add(name=fields["name"], datatype=fields["datatype"])
        if "alias" in fields:
            entry.alias = fields["alias"]
            entry.is_null = True
        else:
            entry.long_value = fields["value"]
    return bytes(payload.SerializeToString())


def outcome(kinds: list[DataType], bodies: list[bytes], runs: bool) -> tuple[Any, ...]:
    """All that a session makes of the messages, with or without the array decoder."""
    bench = Bench(*(("", f"m{number}", number) for number in range(1, COUNT + 1, 2)))
    with contextlib.ExitStack() as patches:
        if not runs:
            careful = mock.patch.object(session_module, "decode_runs", lambda _: None)
            patches.enter_context(careful)
            patches.enter_context(mock.patch.object(AliasTable, "template", lambda *_: None))
        bench.node("NBIRTH", births(kinds))
        bench.out.columns = Columns()
        for body in bodies:
            bench.node("NDATA", body)
    node = bench.session.nodes["hall", "node_1"]
    node.drop_tables()
    newest = [metric.last_us for metric in node.metrics[""].values()]
    frame = bench.out.columns.take().to_dict(as_series=False)
    counts = (node.next_seq, node.undeclared, bench.out.expected, bench.out.tag_errors)
    return repr(frame), newest, counts, bench.codes()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([DataType.DOUBLE, DataType.FLOAT]), min_size=COUNT, max_size=COUNT),
    st.lists(
        st.tuples(st.integers(0, 150), st.lists(METRIC, max_size=2), st.booleans()), max_size=3
    ),
)
def test_both_ways_give_the_same(
    kinds: list[DataType], shapes: list[tuple[int, list[dict[str, Any]], bool]]
) -> None:
    bodies = []
    for seq, (count, odd, as_born) in enumerate(shapes, 1):
        payload = Payload(timestamp=NOW_MS + seq, seq=seq)
        for number in range(count):
            alias = number % COUNT + 1
            double = kinds[alias - 1] == DataType.DOUBLE if as_born else True
            entry = payload.metrics.add(alias=alias, timestamp=NOW_MS + number)
            setattr(entry, "double_value" if double else "float_value", number / 8 - 3)
        for fields in odd:
            payload.metrics.add(**fields)
        bodies.append(payload.SerializeToString())
    assert outcome(kinds, bodies, True) == outcome(kinds, bodies, False)


def repeated(seq: int, aliases: list[int], value: float, kinds: list[DataType], late: int) -> Any:
    """A message of the kind that repeats its layout: one time for all its metrics, but for a late one."""
    payload = Payload(timestamp=NOW_MS + seq, seq=seq)
    for at, alias in enumerate(aliases):
        entry = payload.metrics.add(alias=alias, timestamp=NOW_MS + seq + (at == late))
        double = kinds[alias - 1] == DataType.DOUBLE
        setattr(entry, "double_value" if double else "float_value", value + at)
    return payload


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([DataType.DOUBLE, DataType.FLOAT]), min_size=COUNT, max_size=COUNT),
    st.lists(st.lists(st.integers(1, COUNT), min_size=1, max_size=30), min_size=1, max_size=3),
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.floats(-1e6, 1e6, width=32),
            st.sampled_from([-1, -1, -1, 0, 5]),
            st.none() | st.tuples(st.floats(0, 1), st.integers(0, 255)),
        ),
        max_size=12,
    ),
)
def test_repeated_layouts_give_the_same_both_ways(
    kinds: list[DataType], layouts: list[list[int]], shown: list[tuple[Any, ...]]
) -> None:
    bodies = []
    for seq, (which, value, late, damage) in enumerate(shown, 1):
        aliases = layouts[which % len(layouts)]
        body = bytearray(repeated(seq, aliases, value, kinds, late).SerializeToString())
        if damage is not None:
            body[int(damage[0] * (len(body) - 1))] = damage[1]
        bodies.append(bytes(body))
    assert outcome(kinds, bodies, True) == outcome(kinds, bodies, False)


def test_a_layout_is_learnt_once_and_used_for_every_sequence_number() -> None:
    kinds = [DataType.DOUBLE] * COUNT
    bench = Bench(*(("", f"m{number}", number) for number in range(1, COUNT + 1)))
    bench.node("NBIRTH", births(kinds))
    bench.samples()
    careful = mock.Mock(side_effect=AssertionError("a known layout needs no other way"))
    with mock.patch.object(session_module, "decode_runs", careful):
        for number in range(1, 300):
            body = repeated(number % 256, [3, 1, 120], number / 8, kinds, -1)
            bench.node("NDATA", bytes(body.SerializeToString()))
            assert bench.samples() == [(3, number / 8), (1, number / 8 + 1), (120, number / 8 + 2)]


@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 400))
def test_a_template_raises_nothing_on_damaged_bytes(noise: bytes, start: int, stop: int) -> None:
    body = repeated(7, [1, 2, 3, 120], 1.5, [DataType.DOUBLE] * COUNT, -1).SerializeToString()
    damaged = body[:start] + noise + body[stop:]
    parts_of(damaged)
    parts, metrics = parts_of(body) or ([], [])
    template = Template(body, parts, metrics, np.arange(len(metrics)))
    if len(damaged) in (template.size + 2, template.size + 3):
        match = template.match(damaged)
        if match is not None:
            told = Payload.FromString(damaged)
            assert match.seq == told.seq
            assert match.timestamp_ms == told.timestamp
            values = [metric.double_value for metric in told.metrics]
            assert repr(list(match.values)) == repr(values)


def test_large_aliases_and_two_tags_on_one_metric() -> None:
    body = plain(100).SerializeToString()
    bench = Bench(("", "m1", 1), ("", "m1", 2), ("", "m2", 3))
    bench.node("NBIRTH", births([DataType.DOUBLE] * COUNT))
    bench.samples()
    bench.node("NDATA", body)
    assert bench.samples() == [(1, 0.0), (2, 0.0), (3, 1 / 7)]
