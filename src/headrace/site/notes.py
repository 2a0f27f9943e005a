"""Collects the problems of a site file, each at its place, with near matches for typing errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from headrace.formula.problems import FormulaProblem
from headrace.model.errors import HeadraceError
from headrace.site.model import Problem
from headrace.site.toml_lines import Key, key_lines

PROBLEMS_MAX: Final = 1_000


def near(word: str, known: Iterable[str]) -> str:
    """``Did you mean pump_1?``, or the known words when none is near and they are few.

    Example:
        >>> near("endpint", ["endpoint", "edge"])
        'Did you mean endpoint?'
    """
    words = list(known)
    found = difflib.get_close_matches(word, words, 1, 0.6)
    if found:
        return f"Did you mean {found[0]}?"
    if 0 < len(words) <= 12:
        return f"Known: {', '.join(sorted(words))}."
    return ""


class Notes:
    """Problems found so far. At most :data:`PROBLEMS_MAX` are kept; ``count`` goes on.

    Args:
        file: name of the site file, for messages.
        text: its text, for line numbers; walked only when there is a problem to place.
    """

    def __init__(self, file: str, text: str = "") -> None:
        self.file = file
        self.text = text
        self.problems: list[Problem] = []
        self.count = 0
        self._lines: dict[Key, int] | None = None

    def line_of(self, key: Key) -> int:
        """Line of a key of the site file, or of the nearest table around it."""
        if self._lines is None:
            self._lines = key_lines(self.text)
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 1)

    def text_line(self, key: Key, line: int) -> int:
        """Line of the file at which a line (from 1) of a key's multi-line text stands."""
        first = self.line_of(key)
        begun = self.text.splitlines()[first - 1 : first]
        opened = re.search(r"=[ \t]*(\"\"\"|''')[ \t]*$", begun[0]) if begun else None
        return first + line - (0 if opened else 1)

    def formula(self, line: int, field: str, problem: FormulaProblem) -> None:
        """Note what is wrong with a formula at a line of the site file, in both languages."""
        self.count += 1
        if len(self.problems) < PROBLEMS_MAX:
            what, remedy = problem.said("en")
            _, text_line, caret, *_ = problem.show().split("\n")
            self.problems.append(
                Problem(
                    self.file, line, field, problem.code, what, remedy,
                    problem.column, f"{text_line}\n{caret}", *problem.said("zh"),
                )
            )  # fmt: skip

    def add(self, file: str, line: int, field: str, code: str, what: str, remedy: str) -> None:
        """Note a problem at a line of a file."""
        self.count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(file, line, field, code, what, remedy))

    def at(self, key: Key, code: str, what: str, remedy: str) -> None:
        """Note a problem at a key of the site file."""
        if len(self.problems) < PROBLEMS_MAX:
            field = ".".join(str(part) for part in key) or "file"
            self.add(self.file, self.line_of(key), field, code, what, remedy)
        else:
            self.count += 1

    def error(self, file: str, line: int, field: str, error: HeadraceError) -> None:
        """Note what a deeper check raised, with its own code."""
        self.add(file, line, field, error.code, error.what, error.remedy)
