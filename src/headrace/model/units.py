"""Engineering units: UCUM-like symbols, their dimension and their size in SI.

A unit is factors joined by ``.`` and ``/``: ``m3/h``, ``kg.m/s2``, ``mm/s``, ``1/min``. A factor is a
symbol, with an SI prefix where the symbol takes one, and a whole exponent. ``{...}`` is UCUM's
annotation and has no dimension. Spellings that engineers use beside UCUM's own (``°C``, ``rpm``,
``m³/h``, ``l/min``) are known too. An empty unit means: no unit was declared.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Final, NamedTuple

from headrace.model.errors import Misconfigured

Dimension = tuple[int, int, int, int, int, int, int]
"""Exponents of length, mass, time, current, temperature, amount, luminous intensity."""

DIMENSIONLESS: Final[Dimension] = (0, 0, 0, 0, 0, 0, 0)


class Unit(NamedTuple):
    """What a unit measures, and ``SI value = value * factor + offset``.

    Attributes:
        dimension: exponents of the seven SI base quantities.
        factor: size in SI base units.
        offset: not 0 for degrees Celsius and Fahrenheit alone.
    """

    dimension: Dimension
    factor: float
    offset: float = 0.0


_LENGTH: Final[Dimension] = (1, 0, 0, 0, 0, 0, 0)
_MASS: Final[Dimension] = (0, 1, 0, 0, 0, 0, 0)
_TIME: Final[Dimension] = (0, 0, 1, 0, 0, 0, 0)
_CURRENT: Final[Dimension] = (0, 0, 0, 1, 0, 0, 0)
_TEMPERATURE: Final[Dimension] = (0, 0, 0, 0, 1, 0, 0)
_FREQUENCY: Final[Dimension] = (0, 0, -1, 0, 0, 0, 0)
_FORCE: Final[Dimension] = (1, 1, -2, 0, 0, 0, 0)
_PRESSURE: Final[Dimension] = (-1, 1, -2, 0, 0, 0, 0)
_ENERGY: Final[Dimension] = (2, 1, -2, 0, 0, 0, 0)
_POWER: Final[Dimension] = (2, 1, -3, 0, 0, 0, 0)
_VOLTAGE: Final[Dimension] = (2, 1, -3, -1, 0, 0, 0)
_VOLUME: Final[Dimension] = (3, 0, 0, 0, 0, 0, 0)
_DOSE: Final[Dimension] = (2, 0, -2, 0, 0, 0, 0)

# Symbols that take SI prefixes.
_PREFIXED: Final[dict[str, Unit]] = {
    "m": Unit(_LENGTH, 1),
    "g": Unit(_MASS, 1e-3),
    "s": Unit(_TIME, 1),
    "A": Unit(_CURRENT, 1),
    "K": Unit(_TEMPERATURE, 1),
    "mol": Unit((0, 0, 0, 0, 0, 1, 0), 1),
    "cd": Unit((0, 0, 0, 0, 0, 0, 1), 1),
    "Hz": Unit(_FREQUENCY, 1),
    "N": Unit(_FORCE, 1),
    "Pa": Unit(_PRESSURE, 1),
    "bar": Unit(_PRESSURE, 1e5),
    "J": Unit(_ENERGY, 1),
    "eV": Unit(_ENERGY, 1.602176634e-19),
    "Wh": Unit(_ENERGY, 3600),
    "VAh": Unit(_ENERGY, 3600),
    "varh": Unit(_ENERGY, 3600),
    "W": Unit(_POWER, 1),
    "VA": Unit(_POWER, 1),
    "var": Unit(_POWER, 1),
    "VAr": Unit(_POWER, 1),
    "VArh": Unit(_ENERGY, 3600),
    "V": Unit(_VOLTAGE, 1),
    "C": Unit((0, 0, 1, 1, 0, 0, 0), 1),
    "Ah": Unit((0, 0, 1, 1, 0, 0, 0), 3600),
    "Ohm": Unit((2, 1, -3, -2, 0, 0, 0), 1),
    "S": Unit((-2, -1, 3, 2, 0, 0, 0), 1),
    "F": Unit((-2, -1, 4, 2, 0, 0, 0), 1),
    "H": Unit((2, 1, -2, -2, 0, 0, 0), 1),
    "Wb": Unit((2, 1, -2, -1, 0, 0, 0), 1),
    "T": Unit((0, 1, -2, -1, 0, 0, 0), 1),
    "lm": Unit((0, 0, 0, 0, 0, 0, 1), 1),
    "lx": Unit((-2, 0, 0, 0, 0, 0, 1), 1),
    "Bq": Unit(_FREQUENCY, 1),
    "Gy": Unit(_DOSE, 1),
    "Sv": Unit(_DOSE, 1),
    "rad": Unit(DIMENSIONLESS, 1),
    "L": Unit(_VOLUME, 1e-3),
    "l": Unit(_VOLUME, 1e-3),
    "t": Unit(_MASS, 1e3),
    "P": Unit((-1, 1, -1, 0, 0, 0, 0), 0.1),
    "St": Unit((2, 0, -1, 0, 0, 0, 0), 1e-4),
    "cal": Unit(_ENERGY, 4.184),
    "bit": Unit(DIMENSIONLESS, 1),
    "By": Unit(DIMENSIONLESS, 8),
    "B": Unit(DIMENSIONLESS, 8),
}

_PLAIN: Final[dict[str, Unit]] = {
    "1": Unit(DIMENSIONLESS, 1),
    "10": Unit(DIMENSIONLESS, 10),
    "100": Unit(DIMENSIONLESS, 100),
    "%": Unit(DIMENSIONLESS, 1e-2),
    "‰": Unit(DIMENSIONLESS, 1e-3),
    "ppm": Unit(DIMENSIONLESS, 1e-6),
    "ppb": Unit(DIMENSIONLESS, 1e-9),
    "ppth": Unit(DIMENSIONLESS, 1e-3),
    "%RH": Unit(DIMENSIONLESS, 1e-2),
    "pH": Unit(DIMENSIONLESS, 1),
    "dB": Unit(DIMENSIONLESS, 1),
    "deg": Unit(DIMENSIONLESS, 0.017453292519943295),
    "rev": Unit(DIMENSIONLESS, 6.283185307179586),
    "pcs": Unit(DIMENSIONLESS, 1),
    "count": Unit(DIMENSIONLESS, 1),
    "pulse": Unit(DIMENSIONLESS, 1),
    "cycle": Unit(DIMENSIONLESS, 1),
    "min": Unit(_TIME, 60),
    "h": Unit(_TIME, 3600),
    "d": Unit(_TIME, 86_400),
    "wk": Unit(_TIME, 604_800),
    "mo": Unit(_TIME, 2_629_800),
    "a": Unit(_TIME, 31_557_600),
    "Cel": Unit(_TEMPERATURE, 1, 273.15),
    "degF": Unit(_TEMPERATURE, 5 / 9, 459.67 * 5 / 9),
    "rpm": Unit(_FREQUENCY, 1 / 60),
    "atm": Unit(_PRESSURE, 101_325),
    "at": Unit(_PRESSURE, 98_066.5),
    "psi": Unit(_PRESSURE, 6894.757293168361),
    "mmHg": Unit(_PRESSURE, 133.322387415),
    "Torr": Unit(_PRESSURE, 133.32236842105263),
    "mmH2O": Unit(_PRESSURE, 9.80665),
    "mH2O": Unit(_PRESSURE, 9806.65),
    "inHg": Unit(_PRESSURE, 3386.389),
    "barg": Unit(_PRESSURE, 1e5),
    "bara": Unit(_PRESSURE, 1e5),
    "gn": Unit((1, 0, -2, 0, 0, 0, 0), 9.80665),
    "kgf": Unit(_FORCE, 9.80665),
    "lbf": Unit(_FORCE, 4.4482216152605),
    "hp": Unit(_POWER, 745.6998715822702),
    "PS": Unit(_POWER, 735.49875),
    "BTU": Unit(_ENERGY, 1055.05585262),
    "in": Unit(_LENGTH, 0.0254),
    "ft": Unit(_LENGTH, 0.3048),
    "yd": Unit(_LENGTH, 0.9144),
    "mi": Unit(_LENGTH, 1609.344),
    "lb": Unit(_MASS, 0.45359237),
    "oz": Unit(_MASS, 0.028349523125),
    "gal": Unit(_VOLUME, 3.785411784e-3),
    "bbl": Unit(_VOLUME, 0.158987294928),
    "cfm": Unit((3, 0, -1, 0, 0, 0, 0), 0.00047194745),
    "gpm": Unit((3, 0, -1, 0, 0, 0, 0), 6.30901964e-5),
    "ha": Unit((2, 0, 0, 0, 0, 0, 0), 1e4),
    "kn": Unit((1, 0, -1, 0, 0, 0, 0), 0.5144444444444445),
    "r/min": Unit(_FREQUENCY, 1 / 60),
    "rev/min": Unit(_FREQUENCY, 1 / 60),
    "U/min": Unit(_FREQUENCY, 1 / 60),
    "Nm": Unit(_ENERGY, 1),
    "kNm": Unit(_ENERGY, 1e3),
    "NTU": Unit(DIMENSIONLESS, 1),
    "Nm3": Unit(_VOLUME, 1),
    "Sm3": Unit(_VOLUME, 1),
}

_PREFIXES: Final[dict[str, float]] = {
    "Y": 1e24,
    "Z": 1e21,
    "E": 1e18,
    "P": 1e15,
    "T": 1e12,
    "G": 1e9,
    "M": 1e6,
    "k": 1e3,
    "h": 1e2,
    "da": 1e1,
    "d": 1e-1,
    "c": 1e-2,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
}

_SPELLINGS: Final = (
    ("°C", "Cel"),
    ("degC", "Cel"),
    ("℃", "Cel"),
    ("°F", "degF"),
    ("[degF]", "degF"),
    ("℉", "degF"),
    ("°", "deg"),
    ("Ω", "Ohm"),
    ("Ω", "Ohm"),
    ("µ", "u"),
    ("μ", "u"),
    ("[psi]", "psi"),
    ("[pH]", "pH"),
    ("[g]", "gn"),
    ("[ppm]", "ppm"),
    ("[ppb]", "ppb"),
    ("²", "2"),
    ("³", "3"),
    ("⁻", "-"),
    ("¹", "1"),
    ("·", "."),
    ("*", "."),
    ("^", ""),
)
_FACTOR: Final = re.compile(r"^(.*?)([+-]?\d+)?$")
_ANNOTATION: Final = re.compile(r"\{[^{}]*\}")


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text means, or None when it means none that we know.

    Example:
        >>> parse_unit("m3/h").dimension
        (3, 0, -1, 0, 0, 0, 0)
        >>> parse_unit("furlong") is None
        True
    """
    text = text.strip()
    if not text:
        return Unit(DIMENSIONLESS, 1)
    text = _ANNOTATION.sub("", text) or "1"
    for written, ours in _SPELLINGS:
        text = text.replace(written, ours)
    if text in _PLAIN:
        return _PLAIN[text]
    return _product(re.split(r"([./])", text))


def _product(parts: list[str]) -> Unit | None:
    dimension, size = [0] * 7, 1.0
    for position in range(0, len(parts), 2):
        sign = -1 if position and parts[position - 1] == "/" else 1
        if not parts[position]:
            if position:
                return None
            continue  # "/min" is UCUM for 1/min
        factor = _parse_factor(parts[position])
        if factor is None:
            return None
        for axis in range(7):
            dimension[axis] += sign * factor.dimension[axis]
        size *= factor.factor**sign
    return Unit(tuple(dimension), size)  # type: ignore[arg-type] # seven, as its list is


def _parse_factor(text: str) -> Unit | None:
    if text in _PLAIN:
        return _PLAIN[text]
    match = _FACTOR.match(text)
    assert match is not None  # the expression takes any text
    symbol, exponent = match[1], int(match[2] or 1)
    base = _PLAIN.get(symbol) or _prefixed(symbol)
    if base is None or abs(exponent) > 9:
        return None
    dimension = tuple(axis * exponent for axis in base.dimension)
    return Unit(dimension, base.factor**exponent)  # type: ignore[arg-type] # seven, as base has


def _prefixed(symbol: str) -> Unit | None:
    if symbol in _PREFIXED:
        return _PREFIXED[symbol]
    for length in (1, 2):
        prefix, rest = symbol[:length], symbol[length:]
        if prefix in _PREFIXES and rest in _PREFIXED:
            base = _PREFIXED[rest]
            return Unit(base.dimension, base.factor * _PREFIXES[prefix])
    return None


_WORDS: Final = {
    **dict.fromkeys(("meter", "metre", "meters", "metres"), "m"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs"), "h"),
    **dict.fromkeys(("sec", "second", "seconds"), "s"),
    **dict.fromkeys(("minute", "minutes", "mins"), "min"),
    **dict.fromkeys(("liter", "litre", "liters", "litres", "ltr"), "L"),
    **dict.fromkeys(("celsius", "degc", "deg_c", "c"), "Cel"),
    **dict.fromkeys(("percent", "pct"), "%"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **dict.fromkeys(("degree", "degrees"), "deg"),
    **dict.fromkeys(("volt", "volts"), "V"),
    **dict.fromkeys(("ampere", "amperes", "amp", "amps"), "A"),
    **dict.fromkeys(("watt", "watts"), "W"),
    **dict.fromkeys(("piece", "pieces", "parts", "counts", "cycles"), "pcs"),
    **dict.fromkeys(("kelvin",), "K"),
    **dict.fromkeys(("gram", "grams"), "g"),
    **dict.fromkeys(("kilogram", "kilograms", "kgs"), "kg"),
    **dict.fromkeys(("ton", "tons", "tonne", "tonnes"), "t"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("hertz",), "Hz"),
}


def near_units(text: str, count: int = 3) -> list[str]:
    """Known units that look like ``text``, best first."""
    parts = re.split(r"([./])", text)
    spoken = "".join(_WORDS.get(part.strip().lower(), part) for part in parts)
    if spoken != text and parse_unit(spoken) is not None:
        return [spoken]
    usual = ["m3/h", "L/min", "kg/h", "t/h", "mm/s", "m/s", "m/s2", "kWh", "kvar", "mbar", "kPa"]
    usual += ["MPa", "kW", "MW", "mA", "mV", "kV", "mm", "um", "km", "kg", "mg/m3", "ug/m3"]
    usual += ["ms", "us", "kHz", "MHz", "uS/cm", "W/m2", "kJ/kg", "N.m", "kN", "degC", "°C"]
    known = [*usual, *_PLAIN, *_PREFIXED]
    found = difflib.get_close_matches(text, known, count, 0.5)
    if not found:
        lowered = {name.lower(): name for name in known}
        found = [
            lowered[name] for name in difflib.get_close_matches(text.lower(), lowered, count, 0.5)
        ]
    return found


def check_unit(text: str) -> Unit:
    """The unit, when it is known.

    Raises:
        Misconfigured: MODEL-1004 naming units that look like it.

    Example:
        >>> check_unit("kPa").factor
        1000.0
    """
    unit = parse_unit(text)
    if unit is None:
        near = near_units(text)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "Use a UCUM symbol such as m3/h."
        raise Misconfigured(
            "MODEL-1004",
            f"the unit {text!r} is not known",
            f"{remedy} What has no unit is written as 1 or {{what}}.",
        )
    return unit


def same_dimension(one: str, other: str) -> bool:
    """Whether two known units measure the same quantity; unknown ones never do.

    Example:
        >>> same_dimension("L/min", "m3/h"), same_dimension("bar", "Cel")
        (True, False)
    """
    first, second = parse_unit(one), parse_unit(other)
    return first is not None and second is not None and first.dimension == second.dimension
