"""Proposals of the scan: the truth is among them, and they stay proposals."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headrace.edge.connectors.modbus.browse import PROPOSALS_MAX, proposals
from headrace.edge.connectors.modbus.datatype import ORDERS, encode, find_type

REGISTERS = st.lists(st.one_of(st.none(), st.integers(0, 65535)), min_size=4, max_size=4)
READINGS = st.integers(10, 300_000).map(lambda digits: digits / 100)


@given(READINGS, st.sampled_from(ORDERS))
def test_what_a_display_would_show_is_proposed(value: float, order: str) -> None:
    data_type = find_type("float32")
    assert data_type is not None
    raw = encode(data_type, order, value, "utf-8")  # type: ignore[arg-type]
    words: list[int | None] = [int.from_bytes(raw[at : at + 2], "big") for at in (0, 2)]
    found = proposals([*words, None, None])
    assert ("float32", order) in [(each.data_type.name, each.order) for each in found]


@given(REGISTERS)
def test_proposals_are_few_ordered_and_honest(registers: list[int | None]) -> None:
    found = proposals(registers)
    assert len(found) <= PROPOSALS_MAX
    scores = [each.plausibility for each in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    for each in found:
        assert math.isfinite(each.value)
        assert None not in registers[: each.data_type.registers]


def test_empty_registers_mean_nothing() -> None:
    assert proposals([0, 0, 0, 0]) == []
    assert proposals([None, 1, 2, 3]) == []
