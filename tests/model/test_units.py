"""Units: what engineers write is known, its dimension and size are right, the algebra holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Misconfigured
from headrace.model.units import check_unit, near_units, parse_unit, same_dimension

SYMBOLS = st.sampled_from(["m", "kg", "s", "A", "kPa", "h", "min", "L", "W", "mol", "rad", "mm"])


@pytest.mark.parametrize(
    ("text", "other", "ratio"),
    [
        ("m3/h", "L/min", 1000 / 60),
        ("m³/h", "m3/h", 1),
        ("l/min", "L/min", 1),
        ("bar", "kPa", 100),
        ("kWh", "MJ", 3.6),
        ("rpm", "1/min", 1),
        ("/min", "1/min", 1),
        ("km/h", "m/s", 1 / 3.6),
        ("N.m", "J", 1),
        ("N·m", "Nm", 1),
        ("kg.m/s2", "N", 1),
        ("m.s-2", "m/s²", 1),
        ("[g]", "m/s2", 9.80665),
        ("V.A", "VA", 1),
        ("mg/m3", "ug/m3", 1000),
        ("%", "1", 0.01),
        ("{parts}", "1", 1),
        ("{parts}/h", "1/h", 1),
        ("µm", "um", 1),
        ("kΩ", "Ohm", 1000),
        ("bar/min", "Pa/s", 1e5 / 60),
        ("uS/cm", "S/m", 1e-4),
    ],
)
def test_size(text: str, other: str, ratio: float) -> None:
    one, two = check_unit(text), check_unit(other)
    assert one.dimension == two.dimension
    assert one.factor / two.factor == pytest.approx(ratio)


def test_temperatures_have_an_offset() -> None:
    for text in ("Cel", "°C", "degC", "℃"):
        assert check_unit(text) == check_unit("Cel")
    assert check_unit("Cel").offset == 273.15
    fahrenheit = check_unit("°F")
    assert 212 * fahrenheit.factor + fahrenheit.offset == pytest.approx(373.15)


@pytest.mark.parametrize(
    "text", ["furlong", "m3/hr", "m//s", "m.", "m12345", "kkg", "µ", "3m", "-"]
)
def test_unknown(text: str) -> None:
    assert parse_unit(text) is None
    assert not same_dimension(text, text)
    with pytest.raises(Misconfigured, match="MODEL-1004"):
        check_unit(text)


def test_what_was_meant() -> None:
    assert near_units("m3/hr") == ["m3/h"]
    assert near_units("meter") == ["m"]
    assert "kWh" in near_units("kwh")


@given(SYMBOLS, SYMBOLS, st.integers(1, 3))
def test_products_add_and_quotients_subtract_dimensions(one: str, two: str, power: int) -> None:
    first, second = check_unit(one), check_unit(two)
    product, quotient = check_unit(f"{one}.{two}"), check_unit(f"{one}/{two}")
    pairs = list(zip(first.dimension, second.dimension, strict=True))
    assert product.dimension == tuple(a + b for a, b in pairs)
    assert quotient.dimension == tuple(a - b for a, b in pairs)
    assert product.factor == pytest.approx(first.factor * second.factor)
    raised = check_unit(f"{one}{power}")
    assert raised.dimension == tuple(axis * power for axis in first.dimension)
    assert raised.factor == pytest.approx(first.factor**power)
