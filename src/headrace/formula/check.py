"""From the tree to the plan: names, kinds, units and windows are checked when a formula is written."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal

import numpy as np

from headrace.formula import pointwise
from headrace.formula.functions import FUNCTIONS, Function, Option
from headrace.formula.grammar import parse_expression
from headrace.formula.measure import (
    NONE,
    PLAIN,
    SECOND,
    TIME,
    Measure,
    conversion,
    dimension_text,
    measure_of,
)
from headrace.formula.memory import Derivative, Ewma, Held, Hold, Increments, Lag, NoData
from headrace.formula.plan import (
    US_PER_S,
    Calendar,
    Input,
    Literal_,
    Node,
    Plan,
    Pointwise,
    Recode,
    SharedWords,
    word_input,
)
from headrace.formula.problems import FormulaProblem
from headrace.formula.spans import Fold, PerCalendar, PerCycle, Sliding
from headrace.formula.tree import (
    Binary,
    Call,
    Convert,
    Cycle,
    For,
    If,
    In,
    Is,
    Name,
    Number,
    Place,
    Text,
    Unary,
)
from headrace.formula.tree import Calendar as CalendarWindow
from headrace.formula.tree import NoData as NoDataTree
from headrace.formula.tree import Node as Tree
from headrace.model.calendar import PlantCalendar
from headrace.model.calendar_words import TEXT_WORDS
from headrace.model.units import near_units

Kind = Literal["number", "condition", "text"]
WINDOW_MIN_US: Final = 1_000
WINDOW_MAX_US: Final = 400 * 86_400 * US_PER_S
# Of these a value that grew old is one more step; other windows count samples, and it is none.
_STEPWISE: Final = frozenset({"time_mean", "integral", "duration", "transitions", "lag"})
_COMPARISONS: Final = frozenset({"<", "<=", ">", ">=", "=", "<>"})


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a name means.

    Attributes:
        kind: number, condition or text.
        unit: of a number, as the site file writes it; ``""`` and ``1`` are bare numbers.
        constant: an attribute of the asset, the same at all times.
        max_age_us: a value that got no successor for so long is Uncertain; 0: it never grows old.
        converted: assets measure it in units of their own; :func:`scales_of` names what brings it to this.
    """

    kind: Kind = "number"
    unit: str = "1"
    constant: bool = False
    max_age_us: int = 0
    converted: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """A checked part of a formula."""

    node: Node
    kind: Kind
    measure: Measure
    place: Place
    steady: bool = False
    bare: float | None = None
    words: tuple[str, ...] | None = None
    word: str = ""


@dataclass(slots=True)
class _Checker:
    source: str
    line: int
    names: Mapping[str, Quantity]
    subject: str
    calendar: Calendar | None
    calendar_names: tuple[str, ...]
    used: dict[str, None] = field(default_factory=dict)
    calendar_words: dict[str, None] = field(default_factory=dict)
    samples: bool = False
    ages_us: list[int] = field(default_factory=list)

    def problem(self, code: str, place: Place, **values: object) -> FormulaProblem:
        return FormulaProblem(code, self.source, place, self.line, **values)

    def text(self, place: Place) -> str:
        return self.source[place.start : place.end]

    def part(self, tree: Tree) -> _Part:
        return _CHECKS[type(tree)](self, tree)

    def number(self, tree: Tree) -> _Part:
        part = self.part(tree)
        return self.want(part, "number")

    def condition(self, tree: Tree) -> _Part:
        return self.want(self.part(tree), "condition")

    def want(self, part: _Part, kind: Kind) -> _Part:
        if part.kind == kind:
            return part
        hint, hint_zh = _KIND_HINTS[kind]
        raise self.problem(
            "FORM-1022", part.place, wanted=kind, found=part.kind, hint=hint, hint_zh=hint_zh
        )

    def converted(self, part: _Part, target: Measure, code: str, **values: object) -> Node:
        """The part's node in another unit of its dimension."""
        if part.measure.dimension != target.dimension:
            raise self.problem(code, part.place, **values)
        factor, offset = conversion(part.measure, target)
        if factor == 1.0 and offset == 0.0:
            return part.node
        return Pointwise(pointwise.scale(factor, offset), (part.node,))

    def alike(self, left: _Part, right: _Part) -> tuple[Node, Node, Measure]:
        """Both in one unit, so that they can be compared, added or chosen from."""
        if left.bare is not None and right.bare is None:
            right_node, left_node, measure = self.alike(right, left)
            return left_node, right_node, measure
        if right.bare is not None and not left.measure.is_plain:
            if right.bare == 0.0 and not left.measure.offset:
                return left.node, right.node, left.measure
            raise self.problem(
                "FORM-1013",
                right.place,
                number=f"{right.bare:g}",
                other=self.text(left.place),
                unit=left.measure,
            )
        node = self.converted(
            right,
            left.measure,
            "FORM-1012",
            left=self.text(left.place),
            right=self.text(right.place),
            left_dimension=dimension_text(left.measure.dimension),
            right_dimension=dimension_text(right.measure.dimension),
        )
        return left.node, node, left.measure

    def no_offset(self, part: _Part) -> _Part:
        if part.measure.offset:
            raise self.problem(
                "FORM-1014", part.place, unit=part.measure, text=self.text(part.place)
            )
        return part

    def duration_us(self, number: Number) -> int:
        """A literal duration; windows are between :data:`WINDOW_MIN_US` and :data:`WINDOW_MAX_US`."""
        measure = self.unit(number.unit or "1", number.place)
        if measure.dimension != TIME:
            raise self.problem("FORM-1026", number.place, text=self.text(number.place))
        length_us = round(number.value * measure.factor * US_PER_S)
        if not WINDOW_MIN_US <= length_us <= WINDOW_MAX_US:
            raise self.problem(
                "FORM-1027", number.place, text=self.text(number.place), least="1 ms", most="400 d"
            )
        return length_us

    def unit(self, text: str, place: Place) -> Measure:
        measure = measure_of(text)
        if measure is None:
            raise self.problem("FORM-1011", place, unit=text, **self._unit_hint(text))
        return measure

    def _unit_hint(self, text: str) -> dict[str, str]:
        head = text.split("/")[0].split(".")[0]
        if any(part in self.names for part in text.replace(".", "/").split("/")):
            return {
                "hint": f"If {text} is a quantity, write an operator and spaces: 2 * {head}.",
                "hint_zh": f"如果 {text} 是变量，请写运算符和空格：2 * {head}。",
            }
        near = near_units(text)
        return {
            "hint": f"Did you mean {' or '.join(near)}?" if near else "Write a unit such as m3/h.",
            "hint_zh": f"是否指 {' 或 '.join(near)}？" if near else "请写单位，例如 m3/h。",
        }


_KIND_HINTS: Final = {
    "number": (
        "A condition becomes a number with: if x then 1 else 0.",
        "条件可写成数值：if x then 1 else 0。",
    ),
    "condition": ("Compare it with something: x > 0.", "请与某值比较：x > 0。"),
    "text": ('Texts stand in double quotes: "RUN".', '文本请用双引号："RUN"。'),
}


def _check_number(c: _Checker, tree: Number) -> _Part:
    if tree.unit is None:
        return _Part(Literal_(tree.value), "number", PLAIN, tree.place, True, tree.value)
    measure = c.unit(tree.unit, tree.place)
    return _Part(Literal_(tree.value), "number", measure, tree.place, True)


def _check_text(c: _Checker, tree: Text) -> _Part:
    words = (tree.value,)
    return _Part(Literal_(0.0, words), "text", PLAIN, tree.place, True, words=words)


def _check_name(c: _Checker, tree: Name) -> _Part:
    if tree.name in ("true", "false"):
        return _Part(Literal_(float(tree.name == "true")), "condition", PLAIN, tree.place, True)
    quantity = c.names.get(tree.name)
    if quantity is None:
        raise c.problem(
            "FORM-1010", tree.place, name=tree.name, subject=c.subject, **_near(tree.name, c.names)
        )
    c.used[tree.name] = None
    measure = PLAIN
    if quantity.kind == "number":
        measure = c.unit(quantity.unit or "1", tree.place)
    node: Node = Input(tree.name)
    if quantity.converted:
        node = _rescaled(c, tree.name, node)
    if quantity.max_age_us and c.samples:
        c.ages_us.append(quantity.max_age_us)
    elif quantity.max_age_us:
        node = Hold(node, quantity.max_age_us)
    return _Part(node, quantity.kind, measure, tree.place, quantity.constant)


def scales_of(name: str) -> tuple[str, str]:
    """Names of the two attributes by which a converted quantity is multiplied, and which is added then;
    nobody can write them."""
    return f"{name} *", f"{name} +"


def is_scale(name: str) -> bool:
    """Whether it is one of :func:`scales_of`.

    Example:
        >>> is_scale("flow"), is_scale("flow *")
        (False, True)
    """
    return name.endswith((" *", " +"))


def _rescaled(c: _Checker, name: str, node: Node) -> Node:
    for scale, operator in zip(scales_of(name), "*+", strict=True):
        c.used[scale] = None
        node = Pointwise(pointwise.arithmetic(operator), (node, Input(scale)))
    return node


def _near(name: str, known: Mapping[str, object]) -> dict[str, str]:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    shown = near or sorted(known)[:12]
    return {
        "hint": f"Did you mean {' or '.join(near)}?" if near else f"It has: {', '.join(shown)}.",
        "hint_zh": f"是否指 {' 或 '.join(near)}？" if near else f"可用：{'、'.join(shown)}。",
    }


def _check_unary(c: _Checker, tree: Unary) -> _Part:
    if tree.operator == "not":
        part = c.condition(tree.operand)
        return _Part(
            Pointwise(pointwise.not_, (part.node,)), "condition", PLAIN, tree.place, part.steady
        )
    part = c.no_offset(c.number(tree.operand))
    node = Pointwise(pointwise.negate, (part.node,))
    return _Part(node, "number", part.measure, tree.place, part.steady)


def _check_binary(c: _Checker, tree: Binary) -> _Part:
    if tree.operator in ("and", "or"):
        left, right = c.condition(tree.left), c.condition(tree.right)
        kernel = pointwise.and_ if tree.operator == "and" else pointwise.or_
        node = Pointwise(kernel, (left.node, right.node))
        return _Part(node, "condition", PLAIN, tree.place, left.steady and right.steady)
    if tree.operator in _COMPARISONS:
        return _check_comparison(c, tree)
    left, right = c.number(tree.left), c.number(tree.right)
    if left.bare is not None and right.bare is not None:
        return _folded(tree, left.bare, right.bare)
    if tree.operator in ("*", "/"):
        return _check_product(c, tree, left, right)
    if tree.operator == "^":
        return _check_power(c, tree, left, right)
    return _check_sum(c, tree, left, right)


def _folded(tree: Binary, left: float, right: float) -> _Part:
    """Two numbers as one: 1/3 is as bare as 3."""
    kernel = pointwise.arithmetic(tree.operator)
    good = np.zeros(1, np.uint32)
    value = float(kernel((np.array([left]), good), (np.array([right]), good))[0][0])
    return _Part(Literal_(value), "number", PLAIN, tree.place, True, value)


def _check_product(c: _Checker, tree: Binary, left: _Part, right: _Part) -> _Part:
    one, other = c.no_offset(left).measure, c.no_offset(right).measure
    if other.is_plain:  # twice a flow in m3/h is in m3/h
        measure = one
    elif one.is_plain and tree.operator == "*":
        measure = other
    else:
        measure = one.times(other, 1 if tree.operator == "*" else -1)
    node = Pointwise(pointwise.arithmetic(tree.operator), (left.node, right.node))
    return _settled(node, measure, tree.place, left.steady and right.steady)


def _settled(node: Node, measure: Measure, place: Place, steady: bool) -> _Part:
    """A result; where its units cancel out, as of A.V/kW, it is a bare number and no multiple of one."""
    if measure.dimension == NONE and not measure.text and measure.factor != 1.0:
        node, measure = Pointwise(pointwise.scale(measure.factor, 0.0), (node,)), PLAIN
    return _Part(node, "number", measure, place, steady)


def _check_comparison(c: _Checker, tree: Binary) -> _Part:
    left, right = c.part(tree.left), c.part(tree.right)
    steady = left.steady and right.steady
    if left.kind != right.kind:
        c.want(right, left.kind)
    if left.kind == "number":
        one, other, _ = c.alike(left, right)
    elif left.kind == "text":
        if tree.operator not in ("=", "<>"):
            c.want(left, "number")
        _known_word(c, left, right.words or (), right.place)
        _known_word(c, right, left.words or (), left.place)
        one, other = _same_words(left, right)
    else:
        one, other = left.node, right.node
    node = Pointwise(pointwise.compare(tree.operator), (one, other))
    return _Part(node, "condition", PLAIN, tree.place, steady)


def _same_words(left: _Part, right: _Part) -> tuple[Node, Node]:
    """Two texts whose numbers mean the same words; of two measured ones that is found at the time."""
    words = right.words or left.words
    if words is None:
        return SharedWords(left.node, right.node), SharedWords(right.node, left.node)
    return Recode(left.node, words), Recode(right.node, words)


def _check_power(c: _Checker, tree: Binary, left: _Part, right: _Part) -> _Part:
    if right.bare is None:
        if not right.measure.is_plain or not left.measure.is_plain:
            raise c.problem("FORM-1016", tree.right.place)
        measure = PLAIN
    else:
        measure = c.no_offset(left).measure.power(Fraction(right.bare).limit_denominator(1000))
    node = Pointwise(pointwise.arithmetic("^"), (left.node, right.node))
    return _settled(node, measure, tree.place, left.steady and right.steady)


def _check_sum(c: _Checker, tree: Binary, left: _Part, right: _Part) -> _Part:
    steady = left.steady and right.steady
    kernel = pointwise.arithmetic(tree.operator)
    zero = left.measure.offset != 0.0 or right.measure.offset != 0.0
    if zero and left.measure.dimension == right.measure.dimension:
        return _check_temperatures(c, tree, left, right)
    one, other, measure = c.alike(left, right)
    return _Part(Pointwise(kernel, (one, other)), "number", measure, tree.place, steady)


def _check_temperatures(c: _Checker, tree: Binary, left: _Part, right: _Part) -> _Part:
    """Degrees: a difference of two is in K; to one of them a difference can be added."""
    steady = left.steady and right.steady
    kernel = pointwise.arithmetic(tree.operator)
    if left.measure.offset and not right.measure.offset:
        factor = right.measure.factor / left.measure.factor
        other: Node = right.node
        if factor != 1.0:
            other = Pointwise(pointwise.scale(factor, 0.0), (right.node,))
        return _Part(
            Pointwise(kernel, (left.node, other)), "number", left.measure, tree.place, steady
        )
    number = tree.right if isinstance(tree.right, Number) else tree.left
    if tree.operator == "+" or not left.measure.offset:
        value = number.value if isinstance(number, Number) else 5.0
        raise c.problem("FORM-1015", number.place, unit=right.measure, number=f"{value:g}")
    node = c.converted(right, left.measure, "FORM-1012")
    measure = left.measure.difference()
    return _Part(Pointwise(kernel, (left.node, node)), "number", measure, tree.place, steady)


def _check_in(c: _Checker, tree: In) -> _Part:
    part = c.part(tree.operand)
    choices = [c.part(choice) for choice in tree.choices]
    for choice in choices:
        c.want(choice, part.kind)
    if part.kind == "text":
        for choice in choices:
            _known_word(c, part, choice.words or (), choice.place)
        words = tuple(dict.fromkeys(word for choice in choices for word in choice.words or ()))
        kernel = pointwise.among(tuple(range(len(words))), negated=tree.negated)
        node: Node = Pointwise(kernel, (Recode(part.node, words),))
    else:
        values = []
        for choice, written in zip(choices, tree.choices, strict=True):
            c.alike(part, choice)
            assert isinstance(written, Number), "the grammar takes only literals here"
            factor, offset = conversion(choice.measure, part.measure)
            values.append(written.value * factor + offset)
        node = Pointwise(pointwise.among(tuple(values), negated=tree.negated), (part.node,))
    return _Part(node, "condition", PLAIN, tree.place, part.steady)


def _check_is(c: _Checker, tree: Is) -> _Part:
    operand = tree.operand
    if isinstance(operand, Call) and operand.function == "status" and len(operand.arguments) == 1:
        operand = operand.arguments[0]
    part = c.part(operand)
    if tree.status not in ("good", "uncertain", "bad"):
        raise c.problem("FORM-1031", tree.place, status=tree.status)
    node = Pointwise(pointwise.has_status(tree.status, negated=tree.negated), (part.node,))
    return _Part(node, "condition", PLAIN, tree.place, part.steady)


def _check_if(c: _Checker, tree: If) -> _Part:
    condition = c.condition(tree.condition)
    then, otherwise = c.part(tree.then), c.part(tree.otherwise)
    c.want(otherwise, then.kind)
    steady = condition.steady and then.steady and otherwise.steady
    words, measure = None, PLAIN
    if then.kind == "number":
        one, other, measure = c.alike(then, otherwise)
    elif then.kind == "text":
        words = tuple(dict.fromkeys((*(then.words or ()), *(otherwise.words or ()))))
        if then.words is None or otherwise.words is None:
            raise c.problem(
                "FORM-1022",
                tree.place,
                wanted="text",
                found="text",
                hint="Choose between texts in quotes.",
                hint_zh="请在引号中的文本之间选择。",
            )
        one, other = Recode(then.node, words), Recode(otherwise.node, words)
    else:
        one, other = then.node, otherwise.node
    node = Pointwise(pointwise.choose, (condition.node, one, other), words)
    return _Part(node, then.kind, measure, tree.place, steady, words=words)


def _check_for(c: _Checker, tree: For) -> _Part:
    part = c.condition(tree.condition)
    _not_steady(c, part)
    node = Held(part.node, c.duration_us(tree.duration))
    return _Part(node, "condition", PLAIN, tree.place)


def _check_no_data(c: _Checker, tree: NoDataTree) -> _Part:
    _not_steady(c, c.part(tree.operand))
    # Samples count here, not what a value that grew old became.
    node = NoData(Input(tree.operand.name), c.duration_us(tree.duration))
    return _Part(node, "condition", PLAIN, tree.place)


def _not_steady(c: _Checker, part: _Part) -> _Part:
    if part.steady:
        raise c.problem("FORM-1033", part.place)
    return part


def _check_convert(c: _Checker, tree: Convert) -> _Part:
    part = c.number(tree.operand)
    target = c.unit(tree.unit, tree.unit_place)
    node = c.converted(
        part,
        target,
        "FORM-1017",
        found=part.measure,
        unit=target,
        dimension=dimension_text(part.measure.dimension),
    )
    return _Part(node, "number", target, tree.place, part.steady)


def _check_call(c: _Checker, tree: Call) -> _Part:
    function = FUNCTIONS.get(tree.function)
    if function is None or tree.function == "status":
        near = _near(tree.function, {k: v for k, v in FUNCTIONS.items() if k != "status"})
        raise c.problem("FORM-1020", tree.function_place, function=tree.function, **near)
    if tree.per is not None and function.shape != "window" and tree.function != "delta":
        known = ", ".join(name for name, each in FUNCTIONS.items() if each.shape == "window")
        raise c.problem("FORM-1025", tree.per.place, function=tree.function, known=known)
    if function.shape == "calendar":
        return _check_calendar_word(c, tree, function)
    if function.shape == "value":
        return _check_value_call(c, tree, function)
    return _WindowCall(c, tree, function).part()


def _check_calendar_word(c: _Checker, tree: Call, function: Function) -> _Part:
    """``shift()`` and the like: what the calendar says of a moment."""
    word = tree.function
    if tree.arguments or tree.named:
        raise _usage(c, tree, function, c.text(tree.place))
    is_text = word in TEXT_WORDS
    if is_text and (c.calendar is None or not c.calendar.values(word)):
        raise c.problem("FORM-1110", tree.place, word=word)
    c.calendar_words[word] = None
    node, kind = Input(word_input(word)), "text" if is_text else "condition"
    return _Part(node, kind, PLAIN, tree.place, word=word if is_text else "")  # type: ignore[arg-type] # a kind


def _known_word(c: _Checker, part: _Part, texts: Iterable[str], place: Place) -> None:
    """A shift that the calendar has not is a slip of the pen, and no condition that is never true."""
    if not part.word:
        return
    assert c.calendar is not None, "the word itself asks for one"
    known = c.calendar.values(part.word)
    for text in texts:
        if text and text not in known:
            near = _near(text, dict.fromkeys(known))
            raise c.problem("FORM-1111", place, word=part.word, text=text, **near)


def _usage(c: _Checker, tree: Call, function: Function, found: str) -> FormulaProblem:
    return c.problem(
        "FORM-1021", tree.place, function=tree.function, usage=function.usage, found=found
    )


def _check_value_call(c: _Checker, tree: Call, function: Function) -> _Part:
    least, most = function.operands
    if not least <= len(tree.arguments) <= most or tree.named:
        raise _usage(c, tree, function, c.text(tree.place))
    parts = [c.number(argument) for argument in tree.arguments]
    steady = all(part.steady for part in parts)
    first = parts[0]
    if len(parts) > 1:
        nodes, measure = [first.node], first.measure
        for other in parts[1:]:
            _, node, measure = c.alike(first, other)
            nodes.append(node)
        kernel: Callable[..., object] = getattr(pointwise, tree.function)
        return _Part(Pointwise(kernel, tuple(nodes)), "number", measure, tree.place, steady)  # type: ignore[arg-type] # looked up by name
    node, measure = first.node, first.measure
    if function.unit == "root":
        measure = c.no_offset(first).measure.power(Fraction(1, 2))
    elif tree.function in ("exp", "ln", "log10", "sin", "cos", "tan"):
        node = c.converted(
            first,
            PLAIN,
            "FORM-1017",
            found=measure,
            unit="1",
            dimension=dimension_text(measure.dimension),
        )
        measure = PLAIN
    elif function.unit == "plain":
        measure = PLAIN
    node = Pointwise(pointwise.simple(tree.function), (node,))
    return _Part(node, "number", measure, tree.place, steady)


class _WindowCall:
    """The check of a function over a window, a duration or time."""

    def __init__(self, c: _Checker, tree: Call, function: Function) -> None:
        self.c, self.tree, self.function = c, tree, function

    def part(self) -> _Part:
        c, tree, function = self.c, self.tree, self.function
        operands, options, duration = self._arguments()
        before, c.samples, c.ages_us = (c.samples, c.ages_us), tree.function not in _STEPWISE, []
        x = _not_steady(c, c.part(operands[0]))
        if function.wants != "any":
            c.want(x, function.wants)  # type: ignore[arg-type] # a kind
        y = c.number(operands[1]).node if len(operands) > 1 else None
        ages_us, (c.samples, c.ages_us) = c.ages_us, before
        kind: Kind = x.kind if function.wants == "any" and function.unit == "same" else "number"
        measure = self._measure(x)
        node = self._node(x.node, y, options, duration)
        if ages_us and tree.per is None and tree.function != "hold":
            # Its samples stop when those of the operand do: then the result grows old as they do.
            node = Hold(node, min(ages_us))
        return _Part(node, kind, measure, tree.place)

    def _arguments(self) -> tuple[list[Tree], tuple[float, ...], int | None]:
        c, tree, function = self.c, self.tree, self.function
        arguments = list(tree.arguments)
        duration: int | None = None
        takes = function.shape in ("window", "duration")
        if takes and len(arguments) > function.operands[0] + len(function.options):
            length = arguments.pop()
            if not isinstance(length, Number):
                raise c.problem("FORM-1026", length.place, text=c.text(length.place))
            duration = c.duration_us(length)
        if len(arguments) != function.operands[0] + len(function.options):
            raise _usage(c, tree, function, c.text(tree.place))
        options = self._options(arguments[function.operands[0] :])
        self._check_window(duration)
        return arguments[: function.operands[0]], options, duration

    def _check_window(self, duration: int | None) -> None:
        c, tree, function = self.c, self.tree, self.function
        if duration is not None and tree.per is not None:
            raise c.problem("FORM-1024", tree.per.place, function=tree.function)
        if duration is None and tree.per is None:
            if function.shape == "duration":
                raise _usage(c, tree, function, c.text(tree.place))
            if function.shape == "window" and tree.function != "delta":
                usage = function.usage
                raise c.problem(
                    "FORM-1023", tree.place,
                    function=tree.function, usage=usage, per_usage=usage.replace(", 15 min", ""),
                )  # fmt: skip

    def _options(self, given: list[Tree]) -> tuple[float, ...]:
        c, tree, function = self.c, self.tree, self.function
        found = []
        for option, argument in zip(function.options, given, strict=True):
            if not isinstance(argument, Number) or (argument.unit is None) != (not option.unit):
                raise _usage(c, tree, function, c.text(tree.place))
            found.append(self._option(option, argument))
        if tree.function == "band_energy" and found[0] >= found[1]:
            place = given[0].place.to(given[1].place)
            raise c.problem("FORM-1080", place, band=c.text(place))
        known = dict(function.named)
        for name, number in tree.named:
            if name not in known:
                raise c.problem(
                    "FORM-1029",
                    number.place,
                    function=tree.function,
                    name=name,
                    usage=function.usage,
                )
            if number.value <= 0:
                raise c.problem(
                    "FORM-1030", number.place, value=f"{number.value:g}", name=name, range="> 0"
                )
            known[name] = number.value
        return (*found, *known.values())

    def _option(self, option: Option, argument: Number) -> float:
        c, value = self.c, argument.value
        if argument.unit is not None:
            written, wanted = c.unit(argument.unit, argument.place), measure_of(option.unit)
            assert wanted is not None, "ours are known"
            if written.dimension != wanted.dimension:
                raise _usage(c, self.tree, self.function, c.text(self.tree.place))
            value *= conversion(written, wanted)[0]
        if not option.least <= value <= option.most:
            raise c.problem(
                "FORM-1030",
                argument.place,
                value=c.text(argument.place),
                name=option.name,
                range=f"{option.least:g} … {option.most:g} {option.unit}".rstrip(),
            )
        return value

    def _measure(self, x: _Part) -> Measure:
        rule, measure = self.function.unit, x.measure
        if rule == "plain" or (x.kind != "number" and rule == "same"):
            return PLAIN
        if rule == "second":
            return SECOND
        if rule == "square":
            return measure.difference().power(Fraction(2))
        if rule == "times_second":
            return self.c.no_offset(x).measure.times(SECOND)
        if self.tree.function == "sum":
            return self.c.no_offset(x).measure
        if rule == "per_second":
            return measure.difference().times(SECOND, -1)
        return measure.difference() if rule == "difference" and measure.offset else measure

    def _node(
        self, x: Node, y: Node | None, options: tuple[float, ...], duration: int | None
    ) -> Node:
        name, per = self.tree.function, self.tree.per
        fold = Fold(name, x, y, options)
        if isinstance(per, CalendarWindow):
            return self._per_calendar(per, fold)
        if isinstance(per, Cycle):
            of = self.c.condition(per.of) if per.kind == "cycle" else self.c.part(per.of)
            return PerCycle(fold, _not_steady(self.c, of).node, per.kind)
        if duration is None:
            return Derivative(x) if name == "derivative" else Increments(x, options[0])
        if self.function.shape == "duration":
            made: dict[str, Callable[[Node, int], Node]] = {"lag": Lag, "hold": Hold, "ewma": Ewma}
            return made[name](x, duration)
        return Sliding(fold, duration)

    def _per_calendar(self, per: CalendarWindow, fold: Fold) -> Node:
        c = self.c
        if per.duration is not None:
            length_us = c.duration_us(per.duration)
            name = f"{length_us}us"
            return PerCalendar(fold, name, (c.calendar or PlantCalendar()).longest_us(name))
        if c.calendar is None or per.name not in c.calendar_names:
            known = ", ".join(c.calendar_names) or "—"
            raise c.problem("FORM-1028", per.place, name=per.name, known=known)
        longest = c.calendar.longest_us(per.name)
        return PerCalendar(fold, per.name, longest)


_CHECKS: Final[dict[type, Callable[..., _Part]]] = {
    Number: _check_number,
    Text: _check_text,
    Name: _check_name,
    Unary: _check_unary,
    Binary: _check_binary,
    In: _check_in,
    Is: _check_is,
    If: _check_if,
    For: _check_for,
    NoDataTree: _check_no_data,
    Convert: _check_convert,
    Call: _check_call,
}


def check(
    tree: Tree,
    source: str,
    names: Mapping[str, Quantity],
    *,
    line: int = 1,
    subject: str = "this asset type",
    calendar: Calendar | None = None,
    calendar_names: tuple[str, ...] = (),
) -> Plan:
    """The plan of a formula.

    Args:
        tree: of the expression in ``source``.
        names: what may be named: quantities, attributes, other formulas.
        subject: what the names belong to, for messages.
        calendar: of the site, with the names of its windows; None when there is none.

    Raises:
        FormulaProblem: FORM-1010 to FORM-1033, with its place.
    """
    c = _Checker(source, line, names, subject, calendar, calendar_names)
    part = _not_steady(c, c.part(tree))
    unit = part.measure.text or dimension_text(part.measure.dimension)
    node = part.node
    if part.kind == "number" and not part.measure.text and part.measure.factor != 1.0:
        # A product of units without a name of its own is given in SI units.
        node = Pointwise(pointwise.scale(part.measure.factor, 0.0), (node,))
    texts = frozenset(n for n in c.used if not is_scale(n) and names[n].kind == "text")
    words = tuple(c.calendar_words)
    return Plan(node, tuple(c.used), node.back_us, part.kind, unit, texts, words)


def compile_formula(source: str, names: Mapping[str, Quantity], **options: object) -> Plan:
    """The plan of an expression's text.

    Raises:
        FormulaProblem: what is wrong with it, with its place.

    Example:
        >>> plan = compile_formula("flow * 2", {"flow": Quantity(unit="m3/h")})
        >>> plan.inputs
        ('flow',)
    """
    return check(parse_expression(source), source, names, **options)  # type: ignore[arg-type] # those of check
