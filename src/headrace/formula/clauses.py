"""The parts of an alarm between its commas, found before any of them is read.

::

    alarm hot: temperature > 80 degC for 5 min, off below 75 degC, priority high, message "Too hot"
    └─ name ─┘└──────── condition ───────────┘  └─── clauses: a word, then what it takes ─────────┘

Commas count outside of brackets, quotes and remarks only. Inside a quoted text a quotation mark is
written twice.
"""

from __future__ import annotations

import difflib
import re
from typing import Final, NamedTuple

from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import Place
from headrace.model.alarm import PRIORITIES, Priority, Wording

WORDS: Final = {
    "off below": "off below 75 degC for 1 min",
    "off above": "off above 5 degC for 1 min",
    "off when": "off when speed < 10 %",
    "off for": "off for 1 min",
    "suppressed when": 'suppressed when state = "STOP"',
    "priority": "priority high",
    "message": 'message "Pump too hot" zh "泵温度过高"',
    "cause": 'cause "Bearing dry" zh "轴承缺油"',
    "consequence": 'consequence "Bearing fails" zh "轴承损坏"',
    "action": 'action "Grease it" zh "加注润滑脂"',
    "response": "response 10 min",
    "latched": "latched",
    "group": 'group "cooling"',
    "class": 'class "safety"',
}
"""Words of a clause -> how it is written."""
TEXT_MAX: Final = 1_000
NAME_MAX: Final = 60

_HEAD: Final = re.compile(r"alarm[ \t]+([^\W\d]\w*)[ \t]*:")
_WORDS: Final = re.compile(r"\s*([^\W\d]\w*)(?:\s+([^\W\d]\w*))?")
_QUOTED: Final = r'"(?:[^"\n]|"")*"'
_WORDING: Final = re.compile(rf"\s*({_QUOTED})?(?:\s*\bzh\s*({_QUOTED}))?\s*", re.DOTALL)
_SKIPPED: Final = re.compile(rf"{_QUOTED}|#[^\n]*")


class Part(NamedTuple):
    """A clause: its words, the place of them and of what follows them, and of the comma before it."""

    word: str
    word_place: Place
    rest: Place
    comma: int = 0

    @property
    def place(self) -> Place:
        return self.word_place.to(self.rest)


class Parts(NamedTuple):
    """An alarm's name, the place of its condition, and its clauses."""

    name: str
    name_place: Place
    condition: Place
    clauses: tuple[Part, ...]


def is_alarm(source: str) -> bool:
    """Whether a statement begins as an alarm does.

    Example:
        >>> is_alarm("alarm hot: x > 1"), is_alarm("alarms = 3")
        (True, False)
    """
    return re.match(r"alarm\b(?![ \t]*=)", source) is not None


def split(source: str, line: int) -> Parts:
    """The parts of an alarm.

    Raises:
        FormulaProblem: FORM-1060 to FORM-1063 and FORM-1069, with its place.
    """
    head = _HEAD.match(source)
    if head is None:
        raise FormulaProblem("FORM-1060", source, Place(0, len("alarm")), line)
    spans = _spans(source, head.end(), line)
    condition = _trimmed(source, spans[0])
    if condition.end <= condition.start:
        raise FormulaProblem("FORM-1060", source, Place(head.end() - 1, head.end()), line)
    seen: dict[str, Part] = {}
    for span in spans[1:]:
        part = _part(source, span, line)._replace(comma=span.start - 1)
        family = part.word.split()[0]
        if family in seen:
            raise FormulaProblem("FORM-1062", source, part.word_place, line, clause=family)
        seen[family] = part
    return Parts(head[1], Place(head.start(1), head.end(1)), condition, tuple(seen.values()))


def _spans(source: str, start: int, line: int) -> list[Place]:
    """Where the text between top-level commas lies."""
    found, depth, at = [], 0, start
    begun = start
    while at < len(source):
        skipped = _SKIPPED.match(source, at)
        if skipped is not None:
            at = skipped.end()
            continue
        character = source[at]
        if character == '"':
            raise FormulaProblem("FORM-1069", source, Place(at, at + 1), line)
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            found.append(Place(begun, at))
            begun = at + 1
        at += 1
    return [*found, Place(begun, len(source))]


def _trimmed(source: str, span: Place) -> Place:
    """Without spaces and remarks around it."""
    start = span.start
    while found := re.compile(r"\s+|#[^\n]*").match(source, start, span.end):
        start = found.end()
    end = max((m.end() for m in _content(source, start, span.end)), default=start)
    return Place(start, end)


def _content(source: str, start: int, end: int) -> list[re.Match[str]]:
    """What is neither space nor remark."""
    pattern = re.compile(rf"(?P<quoted>{_QUOTED})|(?P<remark>#[^\n]*)|[^\s\"#]+")
    return [m for m in pattern.finditer(source, start, end) if not m["remark"]]


def _part(source: str, span: Place, line: int) -> Part:
    span = _trimmed(source, span)
    match = _WORDS.match(source, span.start, span.end)
    if match is None:
        place = Place(span.start, max(span.end, span.start + 1))
        raise _unknown(source, place, source[span.start : span.end] or ",", line)
    two = f"{match[1]} {match[2]}"
    if match[2] is not None and two in WORDS:
        return Part(two, Place(match.start(1), match.end(2)), Place(match.end(2), span.end))
    word = Place(match.start(1), match.end(1))
    if match[1] in WORDS:
        return Part(match[1], word, Place(match.end(1), span.end))
    family = next((each for each in WORDS if each.split()[0] == match[1]), None)
    if family is not None:
        raise usage(source, Place(word.start, span.end), match[1], line)
    raise _unknown(source, word, match[1], line)


def _unknown(source: str, place: Place, found: str, line: int) -> FormulaProblem:
    words = list(dict.fromkeys(word.split()[0] for word in WORDS))
    near = difflib.get_close_matches(found, words, 2, 0.6)
    return FormulaProblem(
        "FORM-1061",
        source,
        place,
        line,
        found=found,
        hint=f"Did you mean {' or '.join(near)}?" if near else f"It has: {', '.join(words)}.",
        hint_zh=f"是否指 {' 或 '.join(near)}？" if near else f"可用：{'、'.join(words)}。",
    )


def usage(source: str, place: Place, clause: str, line: int) -> FormulaProblem:
    """FORM-1063: a clause that is not written as it must be."""
    forms = [form for word, form in WORDS.items() if word.split()[0] == clause.split()[0]]
    return FormulaProblem("FORM-1063", source, place, line, clause=clause, usage=" / ".join(forms))


def priority(source: str, part: Part, line: int) -> Priority:
    """The word after ``priority``.

    Raises:
        FormulaProblem: FORM-1063 or FORM-1064.
    """
    place = _trimmed(source, part.rest)
    word = source[place.start : place.end]
    if not word:
        raise usage(source, part.word_place, part.word, line)
    for known in PRIORITIES:
        if word == known:
            return known
    raise FormulaProblem(
        "FORM-1064", source, place, line, priority=word, known=", ".join(PRIORITIES)
    )


def wording(source: str, part: Part, line: int) -> Wording:
    """The texts of a clause: ``"..."``, ``"..." zh "..."`` or ``zh "..."``.

    Raises:
        FormulaProblem: FORM-1063, or FORM-1068 for a text that is empty or too long.
    """
    match = _WORDING.fullmatch(source, part.rest.start, part.rest.end)
    if match is None or not (match[1] or match[2]):
        raise usage(source, part.place, part.word, line)
    texts = []
    for group in (1, 2):
        text = unquoted(match[group]) if match[group] else ""
        if match[group] and not 0 < len(text.strip()) <= TEXT_MAX:
            place = Place(match.start(group), match.end(group))
            raise FormulaProblem("FORM-1068", source, place, line, clause=part.word, most=TEXT_MAX)
        texts.append(text)
    return Wording(*texts)


def label(source: str, part: Part, line: int) -> str:
    """The name in quotes after ``group`` or ``class``.

    Raises:
        FormulaProblem: FORM-1063 or FORM-1068.
    """
    place = _trimmed(source, part.rest)
    if not re.fullmatch(_QUOTED, source[place.start : place.end]):
        raise usage(source, part.place, part.word, line)
    text = unquoted(source[place.start : place.end]).strip()
    if not 0 < len(text) <= NAME_MAX:
        raise FormulaProblem("FORM-1068", source, place, line, clause=part.word, most=NAME_MAX)
    return text


def quoted(text: str) -> str:
    """A text as a clause has it.

    Example:
        >>> quoted('the "big" pump')
        '"the ""big"" pump"'
    """
    return '"' + text.replace('"', '""') + '"'


def unquoted(text: str) -> str:
    """What a quoted text says.

    Example:
        >>> unquoted('"the ""big"" pump"')
        'the "big" pump'
    """
    return text[1:-1].replace('""', '"')
