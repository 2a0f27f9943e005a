"""What can be wrong with a formula, told with its place, a caret, the reason and a remedy, in English
and Chinese."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from headrace.formula.tree import Place
from headrace.model.errors import Misconfigured

LANGUAGES = ("en", "zh")


@cache
def _texts() -> dict[str, dict[str, str]]:
    return tomllib.loads(
        resources.files("headrace.formula").joinpath("problems.toml").read_text("utf-8")
    )


class FormulaProblem(Misconfigured):
    """A formula cannot mean anything, found when it is written.

    Args:
        code: its number, as in ``FORM-1010``; the texts are in ``problems.toml``.
        source: the text of the statement.
        place: what in it is wrong.
        line: line of the text's first character in its file, from 1.
        values: what the texts name.

    Attributes:
        line, column: of the first wrong character, from 1.
    """

    def __init__(self, code: str, source: str, place: Place, line: int = 1, **values: Any) -> None:
        before = source[: place.start]
        self.line = line + before.count("\n")
        self.column = place.start - (before.rfind("\n") + 1) + 1
        self.length = max(1, min(place.end, _line_end(source, place.start)) - place.start)
        self.text_line = source[before.rfind("\n") + 1 : _line_end(source, place.start)]
        self.values = values
        self._code = code
        what, remedy = self.said("en")
        super().__init__(code, what, remedy, where=f"line {self.line}, column {self.column}")

    def said(self, language: str) -> tuple[str, str]:
        """What is wrong, and the remedy."""
        texts = _texts()[self._code]
        suffix = "" if language == "en" else f"_{language}"
        values = {key: _worded(value, language) for key, value in self.values.items()}
        return (
            texts[f"what{suffix}"].format(**values),
            texts.get(f"remedy{suffix}", "").format(**values),
        )

    def show(self, language: str = "en") -> str:
        """The line, a caret below what is wrong, the reason and the remedy.

        Args:
            language: ``en`` or ``zh``.
        """
        what, remedy = self.said(language)
        head = (
            f"line {self.line}, column {self.column}"
            if language == "en"
            else f"第 {self.line} 行第 {self.column} 列"
        )
        lead = "".join("\t" if c == "\t" else "　" if _is_wide(c) else " " for c in self._lead())
        caret = lead + "^" * self.length
        return f"{self.code} {head}\n  {self.text_line}\n  {caret}\n{what}\n{remedy}".rstrip()

    def _lead(self) -> str:
        return self.text_line[: self.column - 1]

    def as_dict(self) -> dict[str, Any]:
        what, remedy = self.said("zh")
        return {
            **super().as_dict(),
            "line": self.line,
            "column": self.column,
            "length": self.length,
            "what_zh": what,
            "remedy_zh": remedy,
        }


def _line_end(source: str, at: int) -> int:
    end = source.find("\n", at)
    return len(source) if end < 0 else end


def _is_wide(character: str) -> bool:
    return "\u2e80" <= character <= "\uffef"


_KINDS = {"number": "数值", "text": "文本", "condition": "条件"}


def _worded(value: Any, language: str) -> Any:
    return _KINDS.get(value, value) if language == "zh" and isinstance(value, str) else value
