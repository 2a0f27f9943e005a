"""Clauses of an alarm's text changed, all else as a person wrote it."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.formula.clauses import quoted, split
from headrace.formula.grammar import parse_statement
from headrace.formula.tree import AlarmStatement
from headrace.model.alarm import Wording


def wording_clause(word: str, wording: Wording) -> str:
    """A clause with texts; "" when there are none.

    Example:
        >>> wording_clause("message", Wording("Too hot", "过热"))
        'message "Too hot" zh "过热"'
    """
    english = f" {quoted(wording.en)}" if wording.en else ""
    chinese = f" zh {quoted(wording.zh)}" if wording.zh else ""
    return f"{word}{english}{chinese}" if english or chinese else ""


def with_clauses(statement: AlarmStatement, changes: Mapping[str, str]) -> str:
    """The text of an alarm with other clauses.

    Args:
        changes: first word of a clause, such as ``priority``, -> the whole clause; "" takes it out. One
            that the text does not have is added at its end.

    Raises:
        FormulaProblem: when the text cannot be read any more.

    Example:
        >>> hot = parse_statement("alarm hot: t > 80 degC, priority high,  # why\\n  latched")
        >>> print(with_clauses(hot, {"priority": "priority low", "cause": 'cause "Dry"'}))
        alarm hot: t > 80 degC, priority low,  # why
          latched, cause "Dry"
    """
    source, missing = statement.source, dict(changes)
    parts = split(source, statement.line)
    text = source
    for part in reversed(parts.clauses):
        word = part.word.split()[0]
        if word not in changes:
            continue
        del missing[word]
        start, end = part.place.start, part.place.end
        if changes[word]:
            text = text[:start] + changes[word] + text[end:]
        else:
            between = source[part.comma + 1 : start]
            text = text[: part.comma] + (between.rstrip() if "#" in between else "") + text[end:]
    added = "".join(f", {clause}" for clause in missing.values() if clause)
    if added:
        parts = split(text, statement.line)
        end = parts.clauses[-1].place.end if parts.clauses else parts.condition.end
        text = text[:end] + added + text[end:]
    parse_statement(text, line=statement.line)
    return text
