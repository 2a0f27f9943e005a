"""The address grammar, in all three ways to count registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.edge.connectors.modbus.address import Address, Grammar, check_any
from headrace.edge.connectors.modbus.datatype import BOOL, ORDERS, find_type
from headrace.model.errors import Misconfigured

TYPES = ["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
TYPES += ["bcd16", "bcd32", "bit0", "bit15", "string1", "string250"]


@st.composite
def addresses(draw: st.DrawFn) -> Address:
    table = draw(st.sampled_from(["coil", "discrete", "input", "holding"]))
    order = draw(st.sampled_from(ORDERS))
    unit = draw(st.integers(0, 255))
    register = draw(st.integers(0, 65535 - 125))
    if table in ("coil", "discrete"):
        return Address(unit, table, register, BOOL, order)  # type: ignore[arg-type]
    data_type = find_type(draw(st.sampled_from(TYPES)))
    assert data_type is not None
    return Address(unit, table, register, data_type, order)  # type: ignore[arg-type]


@given(addresses(), st.sampled_from(["zero_based", "one_based", "modicon"]), st.integers(0, 255))
def test_parse_of_format_is_the_address(address: Address, addressing: str, unit: int) -> None:
    grammar = Grammar(addressing, unit, "CDAB")  # type: ignore[arg-type]
    assert grammar.parse(grammar.format(address)) == address


@pytest.mark.parametrize(
    ("addressing", "text", "register", "table"),
    [
        ("zero_based", "holding:12:float32", 12, "holding"),
        ("one_based", "holding:13:float32", 12, "holding"),
        ("modicon", "40013:float32", 12, "holding"),
        ("modicon", "400013:float32", 12, "holding"),
        ("modicon", "465536", 65535, "holding"),
        ("modicon", "00001", 0, "coil"),
        ("modicon", "10001", 0, "discrete"),
        ("modicon", "7/30001", 0, "input"),
    ],
)
def test_the_three_ways_to_count(addressing: str, text: str, register: int, table: str) -> None:
    address = Grammar(addressing).parse(text)  # type: ignore[arg-type]
    assert (address.register, address.table) == (register, table)


@pytest.mark.parametrize(
    ("addressing", "text", "says"),
    [
        ("zero_based", "holding", "has no register"),
        ("zero_based", "40001", "has no register"),
        ("zero_based", "40001:float32", "'40001' is no table"),
        ("zero_based", "holding:65536", "outside 0 to 65535"),
        ("zero_based", "holding:65535:int32", "ends behind register 65535"),
        ("zero_based", "holding:x", "'x' is no register"),
        ("zero_based", "holding:١", "is no register"),
        ("zero_based", "holding:1:real", "'real' is no type"),
        ("zero_based", "holding:1:int32:BA", "'BA' is no byte order"),
        ("zero_based", "holding:1:int32:ABCD:x", "too many parts"),
        ("zero_based", "coil:1:uint16", "a coil is no uint16"),
        ("zero_based", "holding:1:bool", "a holding is no bool"),
        ("zero_based", "256/holding:1", "'256' is no unit"),
        ("one_based", "holding:0", "outside 1 to 65536"),
        ("modicon", "holding:1", "not a register such as 40001"),
        ("modicon", "40000", "outside 1 to 65536"),
        ("modicon", "465537", "outside 1 to 65536"),
        ("modicon", "20001", "not a register such as 40001"),
    ],
)
def test_errors_name_the_address_and_what_is_allowed(addressing: str, text: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as caught:
        Grammar(addressing).parse(text)  # type: ignore[arg-type]
    assert caught.value.code == "EDGE-3050"
    assert repr(text) in caught.value.what
    assert caught.value.remedy


def test_a_tag_alone_may_count_in_any_way() -> None:
    for text in ("holding:0", "holding:65536", "40001:float32", "3/465536"):
        check_any(text)
    with pytest.raises(Misconfigured, match="outside"):
        check_any("40000")


@given(addresses(), st.integers(0, 50), st.sampled_from(["zero_based", "one_based", "modicon"]))
def test_ranges_survive_their_text(address: Address, more: int, addressing: str) -> None:
    grammar = Grammar(addressing)  # type: ignore[arg-type]
    first = grammar.format_register(address.unit, address.table, address.register)
    wanted = grammar.parse_range(first)
    wider = type(wanted)(wanted.unit, wanted.table, wanted.first, wanted.first + more)
    assert grammar.parse_range(grammar.format_range(wider)) == wider
