"""Operations on values of one time: arithmetic, comparison, three-valued logic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from headrace.formula.steps import BAD_FROM, UNCERTAIN_FROM, Floats, Statuses, worst
from headrace.model import status as st

Kernel = Callable[..., tuple[Floats, Statuses]]
Pair = tuple[Floats, Statuses]

_COMPARE: Final = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "=": np.equal,
    "<>": np.not_equal,
}
_ARITHMETIC: Final = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
}
_SIMPLE: Final = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "ln": np.log,
    "log10": np.log10,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "round": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "sign": np.sign,
}


def arithmetic(operator: str) -> Kernel:
    """A kernel of two numbers."""
    function = _ARITHMETIC[operator]

    def kernel(left: Pair, right: Pair) -> Pair:
        with np.errstate(all="ignore"):  # what is no number becomes Bad
            return function(left[0], right[0]), worst(left[1], right[1])

    return kernel


def compare(operator: str) -> Kernel:
    """A kernel of two numbers or texts that gives a condition."""
    function = _COMPARE[operator]

    def kernel(left: Pair, right: Pair) -> Pair:
        status = worst(left[1], right[1])
        value = function(left[0], right[0]).astype(np.float64)
        return np.where(status >= BAD_FROM, np.nan, value), status

    return kernel


def simple(name: str) -> Kernel:
    """A kernel of one number."""
    function = _SIMPLE[name]

    def kernel(operand: Pair) -> Pair:
        with np.errstate(all="ignore"):
            return function(operand[0]), worst(operand[1])

    return kernel


def scale(factor: float, offset: float) -> Kernel:
    """A kernel that converts units."""

    def kernel(operand: Pair) -> Pair:
        value = operand[0] * factor if factor != 1.0 else operand[0]
        return (value + offset if offset else value), worst(operand[1])

    return kernel


def negate(operand: Pair) -> Pair:
    return -operand[0], worst(operand[1])


def not_(operand: Pair) -> Pair:
    return 1.0 - operand[0], worst(operand[1])


def and_(left: Pair, right: Pair) -> Pair:
    """False when one is false, whatever the other (Kleene); the status is that of what decides."""
    return _decide(left, right, 0.0)


def or_(left: Pair, right: Pair) -> Pair:
    return _decide(left, right, 1.0)


def _decide(left: Pair, right: Pair, decisive: float) -> Pair:
    one, other = left[0] == decisive, right[0] == decisive
    undecided = np.isnan(left[0]) | np.isnan(right[0])
    value = np.where(one | other, decisive, np.where(undecided, np.nan, 1.0 - decisive))
    both = worst(left[1], right[1])
    status = np.where(
        one & other,
        np.minimum(worst(left[1]), worst(right[1])),
        np.where(one, worst(left[1]), np.where(other, worst(right[1]), both)),
    )
    return value, status


def choose(condition: Pair, then: Pair, otherwise: Pair) -> Pair:
    """``if``: Bad where the condition is; else the worst of condition and what was chosen."""
    yes = condition[0] == 1.0
    status = worst(condition[1], np.where(yes, then[1], otherwise[1]))
    return np.where(yes, then[0], otherwise[0]), status


def among(choices: tuple[float, ...], *, negated: bool) -> Kernel:
    """A kernel that tells whether a value is one of the choices."""

    def kernel(operand: Pair) -> Pair:
        found = np.isin(operand[0], choices) != negated
        status = worst(operand[1])
        return np.where(status >= BAD_FROM, np.nan, found.astype(np.float64)), status

    return kernel


def has_status(wanted: str, *, negated: bool) -> Kernel:
    """A kernel that tells about the status; its own result is always Good."""
    low, high = {
        "good": (0, int(UNCERTAIN_FROM)),
        "uncertain": (int(UNCERTAIN_FROM), int(BAD_FROM)),
        "bad": (int(BAD_FROM), 1 << 32),
    }[wanted]

    def kernel(operand: Pair) -> Pair:
        status = operand[1].astype(np.int64)
        found = ((status >= low) & (status < high)) != negated
        return found.astype(np.float64), np.zeros(len(status), np.uint32)

    return kernel


def clamp(operand: Pair, low: Pair, high: Pair) -> Pair:
    """Within limits; a Good value that was cut is GoodClamped (OPC 10000-8, 6.3)."""
    value = np.minimum(np.maximum(operand[0], low[0]), high[0])
    status = worst(operand[1], low[1], high[1])
    cut = (value != operand[0]) & (status < UNCERTAIN_FROM)
    return value, np.where(cut, np.uint32(st.GOOD_CLAMPED), status)


def least(*operands: Pair) -> Pair:
    return _folded(np.minimum, operands)


def greatest(*operands: Pair) -> Pair:
    return _folded(np.maximum, operands)


def _folded(join: np.ufunc, operands: tuple[Pair, ...]) -> Pair:
    value = operands[0][0]
    for other in operands[1:]:
        value = join(value, other[0])
    return value, worst(*(status for _, status in operands))


def coalesce(*operands: Pair) -> Pair:
    """The first that is not Bad; what replaces a Bad one is Uncertain at best."""
    value, status = operands[0][0], worst(operands[0][1])
    for other, other_status in operands[1:]:
        replace = status >= BAD_FROM
        usable = replace & (other_status < BAD_FROM)
        substitute = np.maximum(worst(other_status), np.uint32(st.UNCERTAIN_SUBSTITUTE_VALUE))
        value = np.where(usable, other, value)
        status = np.where(usable, substitute, status)
    return value, status
