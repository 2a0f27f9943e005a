"""Units in formulas: multiplied, divided, rooted, converted; parsed by :mod:`headrace.model.units`."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple

from headrace.model.units import parse_unit

Dimension = tuple[Fraction, ...]
_BASES: Final = ("m", "kg", "s", "A", "K", "mol", "cd")
NONE: Final[Dimension] = (Fraction(0),) * 7
TIME: Final[Dimension] = (Fraction(0), Fraction(0), Fraction(1), *(Fraction(0),) * 4)


class Measure(NamedTuple):
    """A unit in a formula.

    Attributes:
        dimension: exponents of the seven SI base quantities; roots make fractions.
        factor, offset: ``SI value = value * factor + offset``.
        text: as it was written, for messages; empty for a result.
    """

    dimension: Dimension = NONE
    factor: float = 1.0
    offset: float = 0.0
    text: str = ""

    @property
    def is_plain(self) -> bool:
        """No dimension and no scale: a bare number."""
        return self.dimension == NONE and self.factor == 1.0

    def __str__(self) -> str:
        return self.text or dimension_text(self.dimension)

    def times(self, other: Measure, sign: int = 1) -> Measure:
        """The unit of a product, or with ``sign`` -1 of a quotient."""
        dimension = tuple(
            a + sign * b for a, b in zip(self.dimension, other.dimension, strict=True)
        )
        return Measure(dimension, self.factor * other.factor**sign)

    def power(self, exponent: Fraction) -> Measure:
        return Measure(
            tuple(axis * exponent for axis in self.dimension), self.factor ** float(exponent)
        )

    def difference(self) -> Measure:
        """The unit of differences: a scale without its own zero."""
        return self._replace(offset=0.0, text="K" if self.offset and self.factor == 1 else "")


PLAIN: Final = Measure(text="1")
SECOND: Final = Measure(TIME, 1.0, 0.0, "s")


def measure_of(text: str) -> Measure | None:
    """The measure that a unit's text means; None when it is not known.

    Example:
        >>> str(measure_of("m3/h").times(measure_of("h")))
        'm^3'
    """
    unit = parse_unit(text.replace("−", "-"))
    if unit is None:
        return None
    dimension = tuple(Fraction(axis) for axis in unit.dimension)
    return Measure(dimension, unit.factor, unit.offset, text or "1")


def dimension_text(dimension: Dimension) -> str:
    """A dimension as SI base units.

    Example:
        >>> dimension_text(measure_of("W").dimension)
        'm^2·kg/s^3'
    """
    above = [_axis(base, axis) for base, axis in zip(_BASES, dimension, strict=True) if axis > 0]
    below = [_axis(base, -axis) for base, axis in zip(_BASES, dimension, strict=True) if axis < 0]
    return "·".join(above or ["1"]) + "".join(f"/{each}" for each in below)


def _axis(base: str, exponent: Fraction) -> str:
    if exponent == 1:
        return base
    return f"{base}^{exponent}" if exponent.denominator == 1 else f"{base}^({exponent})"


def conversion(source: Measure, target: Measure) -> tuple[float, float]:
    """(factor, offset) so that ``target value = source value * factor + offset``.

    Example:
        >>> factor, offset = conversion(measure_of("degF"), measure_of("Cel"))
        >>> round(212 * factor + offset, 6)
        100.0
    """
    factor = source.factor / target.factor
    return factor, (source.offset - target.offset) / target.factor
