"""Edits of the text of an asset type's formulas: one statement changed, all else as a person wrote it."""

from __future__ import annotations

from typing import Any

import tomlkit
from tomlkit.items import String, StringType, Trivia

from headrace.formula.grammar import parse_statement, split_statements
from headrace.formula.problems import FormulaProblem
from headrace.model.errors import Misconfigured


def one_statement(name: str, text: str) -> str:
    """The text of one statement that defines ``name``.

    Raises:
        FormulaProblem: when it cannot be read.
        Misconfigured: SITE-1118 when it is none, several, or of another name.

    Example:
        >>> one_statement("double", " double = flow * 2 ")
        'double = flow * 2'
    """
    found = [source for _, source in split_statements(text.strip())]
    if len(found) == 1:
        named = parse_statement(found[0]).name
        if named == name:
            return found[0]
        what = f"the text defines {named}, not {name}"
    else:
        what = f"the text has {len(found) or 'no'} statements, not one"
    raise Misconfigured("SITE-1118", what, f"Write one: {name} = ...")


def with_statement(text: str, name: str, statement: str) -> str:
    """The text with a statement in the place of the one of this name, or at its end.

    Example:
        >>> with_statement("# pumps\\na = flow\\n  * 2\\nb = flow\\n", "a", "a = flow * 3")
        '# pumps\\na = flow * 3\\nb = flow\\n'
    """
    lines, span = text.splitlines(), _span(text, name)
    if span is None:
        return "\n".join([*lines, statement]) + "\n"
    lines[span[0] : span[1]] = statement.splitlines()
    return "\n".join(lines) + "\n"


def without_statement(text: str, name: str) -> str | None:
    """The text without a statement; None when it has none of this name."""
    lines, span = text.splitlines(), _span(text, name)
    if span is None:
        return None
    del lines[span[0] : span[1]]
    return "\n".join(lines) + "\n" if lines else ""


def _span(text: str, name: str) -> tuple[int, int] | None:
    """Numbers of the first line of a statement and of the line after its last."""
    for line, source in split_statements(text):
        try:
            named = parse_statement(source).name
        except FormulaProblem:
            continue
        if named == name:
            return line - 1, line + source.count("\n")
    return None


def multi_line(text: str) -> Any:
    """A text of several lines as TOML: as it stands, where it can stand so."""
    if "'''" in text or any(ord(letter) < 32 and letter not in "\n\t" for letter in text):
        return tomlkit.string(text, multiline=True)
    return String(StringType.MLL, text, f"\n{text}", Trivia())
