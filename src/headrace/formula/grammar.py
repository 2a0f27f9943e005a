"""From text to the tree: an LALR grammar with places, and syntax errors that name what to write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from headrace.formula import clauses
from headrace.formula.clauses import Part, Parts
from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import (
    AlarmStatement,
    Binary,
    Calendar,
    Call,
    Clause,
    Convert,
    Cycle,
    For,
    If,
    In,
    Is,
    Name,
    NoData,
    Node,
    Number,
    Place,
    Statement,
    Text,
    Unary,
)

KEYWORDS: Final = (
    *("and", "or", "not", "if", "then", "else", "for", "per", "in", "is", "of"),
    *("true", "false", "cycle", "value", "alarm"),
)
TEXT_MAX: Final = 10_000
_RESERVED: Final = frozenset(KEYWORDS) - {"cycle", "value", "alarm"}

_FACTOR: Final = r"(?:(?:mm|m|in)H2O|[A-Za-zµμ°Ω℃℉%‰]+(?:\^?-?\d+|⁻?[¹²³])?)"
_UNIT: Final = rf"{_FACTOR}(?:[\/·.]{_FACTOR})*"
_NUMBER: Final = r"(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?"
_NO_UNIT: Final = rf"(?!(?:{'|'.join(KEYWORDS)})\b)"
_GRAMMAR: Final = rf"""
start: convert
?convert: choice
    | choice ARROW -> convert
?choice: or
    | "if" choice "then" choice "else" choice -> if_
?or: and
    | or "or" and -> binary_or
?and: held
    | and "and" held -> binary_and
?held: not
    | not "for" quantity -> for_
?not: comparison
    | NOT not -> not_
?comparison: sum
    | sum COMPARE sum -> binary
    | sum "in" "(" literals ")" -> in_
    | sum NOT "in" "(" literals ")" -> not_in
    | sum "is" NAME -> is_
    | sum "is" NOT NAME -> is_not
    | NO_DATA path "for" quantity -> no_data
literals: literal ("," literal)*
?literal: quantity
    | MINUS quantity -> minus
    | STRING -> text
?sum: product
    | sum PLUS product -> binary
    | sum MINUS product -> binary
?product: unary
    | product TIMES unary -> binary
?unary: power
    | MINUS unary -> minus
?power: postfix
    | postfix POWER unary -> binary
?postfix: atom
    | call
    | call "per" window -> per
?window: NAME -> calendar
    | QUANTITY -> tumbling
    | "cycle" "of" comparison -> cycle
    | "value" "of" sum -> value
?atom: quantity
    | STRING -> text
    | "true" -> true
    | "false" -> false
    | path
    | "(" convert ")" -> brackets
path: NAME ("." NAME)?
call: NAME "(" [argument ("," argument)*] ")"
?argument: convert
    | NAME quantity -> named
?quantity: NUMBER -> number
    | QUANTITY -> quantity

NOT: "not"
NO_DATA.4: /no[ \t]+data[ \t]+from\b/
ARROW.3: /->[ \t]*(?:1\/)?{_UNIT}|->[ \t]*1\b/
QUANTITY.2: /{_NUMBER}(?:[ \t]+1\/|[ \t]*{_NO_UNIT}){_UNIT}/
NUMBER.1: /{_NUMBER}/
COMPARE: "<=" | ">=" | "<>" | "!=" | "<" | ">" | "="
PLUS: "+"
MINUS: "-"
TIMES: "*" | "/"
POWER: "^" | "**"
STRING: /"[^"\n]*"/
NAME: /(?!(?:{"|".join(sorted(_RESERVED))})\b)[^\W\d]\w*/
COMMENT: /#[^\n]*/
%ignore /[ \t\r\n]+/
%ignore COMMENT
"""
_QUANTITY: Final = re.compile(rf"({_NUMBER})[ \t]*(.*)", re.DOTALL)
_NAME: Final = re.compile(r"[^\W\d]\w*")
_HEAD: Final = re.compile(r"([^\W\d]\w*)[ \t]*=(?!=)")


@cache
def _parser() -> Lark:
    return Lark(
        _GRAMMAR,
        parser="lalr",
        lexer="contextual",
        maybe_placeholders=False,
        propagate_positions=True,
    )


def _place(token: Token) -> Place:
    return Place(cast("int", token.start_pos), cast("int", token.end_pos))


@v_args(meta=True, inline=True)
class _Builder(Transformer[Token, Node]):
    def start(self, meta: Any, node: Node) -> Node:
        return node

    def convert(self, meta: Any, operand: Node, arrow: Token) -> Node:
        place = _place(arrow)
        unit = arrow[2:].strip()
        unit_place = Place(place.end - len(unit), place.end)
        return Convert(operand.place.to(place), operand, unit, unit_place)

    def if_(self, meta: Any, condition: Node, then: Node, otherwise: Node) -> Node:
        return If(_whole(meta), condition, then, otherwise)

    def binary(self, meta: Any, left: Node, operator: Token, right: Node) -> Node:
        sign = {"!=": "<>", "**": "^"}.get(str(operator), str(operator))
        return Binary(left.place.to(right.place), sign, left, right)

    def binary_or(self, meta: Any, left: Node, right: Node) -> Node:
        return Binary(left.place.to(right.place), "or", left, right)

    def binary_and(self, meta: Any, left: Node, right: Node) -> Node:
        return Binary(left.place.to(right.place), "and", left, right)

    def not_(self, meta: Any, sign: Token, operand: Node) -> Node:
        return Unary(_place(sign).to(operand.place), "not", operand)

    def minus(self, meta: Any, sign: Token, operand: Node) -> Node:
        place = _place(sign).to(operand.place)
        if isinstance(operand, Number):
            return Number(place, -operand.value, operand.unit)
        return Unary(place, "-", operand)

    def for_(self, meta: Any, condition: Node, duration: Number) -> Node:
        return For(condition.place.to(duration.place), condition, duration)

    def in_(self, meta: Any, operand: Node, choices: tuple[Node, ...]) -> Node:
        return In(_whole(meta), operand, choices, False)

    def not_in(self, meta: Any, operand: Node, sign: Token, choices: tuple[Node, ...]) -> Node:
        return In(_whole(meta), operand, choices, True)

    def literals(self, meta: Any, *choices: Node) -> tuple[Node, ...]:
        return choices

    def is_(self, meta: Any, operand: Node, status: Token) -> Node:
        return Is(operand.place.to(_place(status)), operand, str(status), False)

    def is_not(self, meta: Any, operand: Node, sign: Token, status: Token) -> Node:
        return Is(operand.place.to(_place(status)), operand, str(status), True)

    def no_data(self, meta: Any, words: Token, of: Name, duration: Number) -> Node:
        return NoData(_place(words).to(duration.place), of, duration)

    def per(self, meta: Any, call: Call, window: Calendar | Cycle) -> Node:
        return Call(
            call.place.to(window.place),
            call.function,
            call.function_place,
            call.arguments,
            call.named,
            window,
        )

    def calendar(self, meta: Any, name: Token) -> Calendar:
        return Calendar(_place(name), str(name))

    def tumbling(self, meta: Any, duration: Token) -> Calendar:
        number = _quantity(duration)
        return Calendar(number.place, "", number)

    def cycle(self, meta: Any, of: Node) -> Cycle:
        return Cycle(_whole(meta), "cycle", of)

    def value(self, meta: Any, of: Node) -> Cycle:
        return Cycle(_whole(meta), "value", of)

    def brackets(self, meta: Any, node: Node) -> Node:
        return node

    def text(self, meta: Any, token: Token) -> Node:
        return Text(_place(token), str(token)[1:-1])

    def true(self, meta: Any) -> Node:
        return Name(_whole(meta), "true")

    def false(self, meta: Any) -> Node:
        return Name(_whole(meta), "false")

    def path(self, meta: Any, *names: Token) -> Node:
        return Name(_place(names[0]).to(_place(names[-1])), ".".join(names))

    def call(self, meta: Any, function: Token, *arguments: Any) -> Node:
        plain = tuple(each for each in arguments if not isinstance(each, tuple))
        named = tuple(each for each in arguments if isinstance(each, tuple))
        return Call(_whole(meta), str(function), _place(function), plain, named)

    def named(self, meta: Any, name: Token, value: Number) -> tuple[str, Number]:
        return str(name), Number(_place(name).to(value.place), value.value, value.unit)

    def number(self, meta: Any, token: Token) -> Node:
        return Number(_place(token), float(token))

    def quantity(self, meta: Any, token: Token) -> Node:
        return _quantity(token)


def _quantity(token: Token) -> Number:
    match = _QUANTITY.fullmatch(str(token))
    assert match is not None  # the token is that expression
    return Number(_place(token), float(match[1]), match[2])


def _whole(meta: Any) -> Place:
    return Place(meta.start_pos, meta.end_pos)


def parse_expression(
    source: str, *, line: int = 1, offset: int = 0, end: int | None = None
) -> Node:
    """The tree of one expression.

    Args:
        source: the text; for an expression inside a statement, the statement with its first
            ``offset`` characters, and those from ``end``, not looked at.
        line: line of its first character in its file, for messages.

    Raises:
        FormulaProblem: FORM-1001 or FORM-1002 with the place of what cannot be read.

    Example:
        >>> parse_expression("2 * (flow + 1)").operator
        '*'
    """
    text = " " * offset + source[offset:end]
    if len(text) > TEXT_MAX:
        raise FormulaProblem("FORM-1032", source, Place(TEXT_MAX, TEXT_MAX + 1), line)
    try:
        tree = _parser().parse(text)
        return _builder().transform(tree)
    except UnexpectedCharacters as error:
        raise _unexpected(source, error.pos_in_stream or 0, 1, line) from error
    except UnexpectedToken as error:
        token = error.token
        if token.type == "$END":
            raise _early(source, line, error, end) from error
        at = token.start_pos or 0
        raise _unexpected(source, at, len(token), line) from error
    except UnexpectedEOF as error:
        raise _early(source, line, error, end) from error
    except RecursionError as error:
        raise FormulaProblem("FORM-1032", source, Place(offset, len(source)), line) from error


@cache
def _builder() -> _Builder:
    return _Builder()


_HINTS: Final = (
    (r"==", "Equality is one =.", "相等只写一个 =。"),
    (r"&&?|\bAND\b", "Write and.", "请写 and。"),
    (r"\|\|?|\bOR\b", "Write or.", "请写 or。"),
    (r"[×·]", "Write * to multiply.", "乘号请写 *。"),
    (r"[÷]", "Write / to divide.", "除号请写 /。"),
    (r"[≤]", "Write <=.", "请写 <=。"),
    (r"[≥]", "Write >=.", "请写 >=。"),
    (r"[（）]", "Use brackets of the English keyboard: ( ).", "请使用英文括号 ( )。"),
    (r"[，；]", "Use a comma of the English keyboard: , .", "请使用英文逗号。"),
    (r"['‘’“”]", 'Texts stand in double quotes: "RUN".', '文本请用英文双引号："RUN"。'),
    (r"%", "A percentage is written 80 %.", "百分数写作 80 %。"),
    (r"[0-9]+,[0-9]", "Decimals are written with a point.", "小数请用小数点。"),
    (
        r"[\w\"]",
        "An operator such as * or and is missing before it.",
        "前面缺少运算符，如 * 或 and。",
    ),
)


def _unexpected(source: str, at: int, length: int, line: int) -> FormulaProblem:
    found = source[at : at + length]
    around = source[max(0, at - 1) : at + 2]
    hint, hint_zh = "See docs/formula.md for what can be written.", "写法见 docs/formula.md。"
    for pattern, english, chinese in _HINTS:
        where = around if pattern in ("==", r"&&?|\bAND\b", r"\|\|?|\bOR\b") else found
        if re.search(pattern, where):
            hint, hint_zh = english, chinese
            break
    return FormulaProblem(
        "FORM-1001", source, Place(at, at + length), line, found=found, hint=hint, hint_zh=hint_zh
    )


def _early(source: str, line: int, error: Any, end: int | None) -> FormulaProblem:
    end = len(source[:end].rstrip())
    wanted = getattr(error, "expected", None) or getattr(error, "accepts", None) or ()
    if "RPAR" in wanted:
        hint, hint_zh = "a bracket ) is missing.", "缺少右括号 )。"
    elif "THEN" in wanted:
        hint, hint_zh = "write if ... then ... else ...", "写法：if ... then ... else ..."
    elif "ELSE" in wanted:
        hint, hint_zh = "every if needs then and else.", "每个 if 都需要 then 和 else。"
    else:
        hint, hint_zh = "a value is missing.", "缺少一个值。"
    return FormulaProblem(
        "FORM-1002", source, Place(max(0, end - 1), end), line, hint=hint, hint_zh=hint_zh
    )


def split_statements(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each statement of a file: a line that is not indented begins one."""
    begun, lines = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t" and lines:
            lines += [""] * (number - begun - len(lines)) + [line]
            continue
        if lines:
            yield begun, "\n".join(lines)
        begun, lines = number, [line]
    if lines:
        yield begun, "\n".join(lines)


def parse_statement(source: str, *, line: int = 1) -> Statement | AlarmStatement:
    """The tree of ``name = expression`` or of ``alarm name: condition, ...``.

    Raises:
        FormulaProblem: FORM-1001 to FORM-1005 and FORM-1060 to FORM-1069, with its place.

    Example:
        >>> parse_statement("hot = temperature > 80 degC for 5 min").name
        'hot'
        >>> parse_statement("alarm hot: temperature > 80 degC, priority high").priority
        'high'
    """
    if clauses.is_alarm(source):
        return _alarm(source, line)
    head = _HEAD.match(source)
    if head is None:
        raise FormulaProblem("FORM-1003", source, Place(0, _first_end(source)), line)
    name = head[1]
    if name in _RESERVED:
        raise FormulaProblem("FORM-1005", source, Place(0, len(name)), line, name=name)
    return Statement(name, parse_expression(source, line=line, offset=head.end()), source, line)


def _alarm(source: str, line: int) -> AlarmStatement:
    parts = clauses.split(source, line)
    if parts.name in _RESERVED:
        raise FormulaProblem("FORM-1005", source, parts.name_place, line, name=parts.name)
    found: dict[str, Any] = {}
    for part in parts.clauses:
        family = part.word.split()[0]
        if family == "priority":
            found["priority"] = clauses.priority(source, part, line)
        elif family in ("message", "cause", "consequence", "action"):
            found[family] = clauses.wording(source, part, line)
        elif family in ("group", "class"):
            key = "alarm_class" if family == "class" else family
            found[key] = clauses.label(source, part, line)
        elif family == "latched":
            if source[part.rest.start : part.rest.end].strip():
                raise clauses.usage(source, part.place, part.word, line)
            found["latched"] = True
        elif family == "response":
            found["response"] = _response(source, part, line)
    condition = parts.condition
    expression = parse_expression(source, line=line, offset=condition.start, end=condition.end)
    found |= _ends(source, line, parts, expression)
    written = tuple(Clause(part.word, part.place) for part in parts.clauses)
    return AlarmStatement(parts.name, expression, source, line, clauses=written, **found)


def _response(source: str, part: Part, line: int) -> Number:
    tree = _rest(source, part, line)
    if not isinstance(tree, Number):
        raise clauses.usage(source, part.place, part.word, line)
    return tree


def _rest(source: str, part: Part, line: int) -> Node:
    if not source[part.rest.start : part.rest.end].strip():
        raise clauses.usage(source, part.place, part.word, line)
    return parse_expression(source, line=line, offset=part.rest.start, end=part.rest.end)


def _ends(source: str, line: int, parts: Parts, expression: Node) -> dict[str, Node]:
    """What ends the alarm, and what suppresses it."""
    found: dict[str, Node] = {}
    bare = expression.condition if isinstance(expression, For) else expression
    for part in parts.clauses:
        if part.word == "suppressed when":
            found["suppressed"] = _rest(source, part, line)
        elif part.word == "off when":
            found["off"] = _rest(source, part, line)
        elif part.word == "off for":
            duration = _rest(source, part, line)
            if not isinstance(duration, Number):
                raise clauses.usage(source, part.place, part.word, line)
            found["off"] = For(part.place, Unary(part.place, "not", bare), duration)
        elif part.word in ("off below", "off above"):
            found["off"] = _beyond(source, part, line, bare)
    return found


def _beyond(source: str, part: Part, line: int, condition: Node) -> Node:
    """``off below 75 degC for 1 min``: the condition's left side against another limit."""
    if not isinstance(condition, Binary) or condition.operator not in ("<", "<=", ">", ">="):
        raise FormulaProblem("FORM-1065", source, part.word_place, line, clause=part.word)
    rising = condition.operator in (">", ">=")
    if rising != (part.word == "off below"):
        right = "off below" if rising else "off above"
        raise FormulaProblem(
            "FORM-1066", source, part.word_place, line, clause=part.word, right=right
        )
    sign = "<" if rising else ">"
    limit = _rest(source, part, line)
    if isinstance(limit, For):
        ended = Binary(part.place, sign, condition.left, limit.condition)
        return For(part.place, ended, limit.duration)
    return Binary(part.place, sign, condition.left, limit)


def name_place(statement: Statement | AlarmStatement) -> Place:
    """Where a statement's name stands in its source."""
    begin = len("alarm") if isinstance(statement, AlarmStatement) else 0
    start = statement.source.index(statement.name, begin)
    return Place(start, start + len(statement.name))


def _first_end(source: str) -> int:
    match = _NAME.match(source)
    return match.end() if match else 1


def parse_file(text: str) -> list[Statement | AlarmStatement]:
    """The statements of a whole text, in their order.

    Raises:
        FormulaProblem: of the first statement that cannot be read; FORM-1004 for a name given twice.
    """
    found: dict[str, Statement | AlarmStatement] = {}
    for line, source in split_statements(text):
        statement = parse_statement(source, line=line)
        if statement.name in found:
            raise FormulaProblem(
                "FORM-1004",
                source,
                name_place(statement),
                line,
                name=statement.name,
                first=found[statement.name].line,
            )
        found[statement.name] = statement
    return list(found.values())
