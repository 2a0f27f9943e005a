"""Where each key of a TOML text stands. The text is known to be valid: ``tomllib`` read it first.

``tomllib`` gives values without positions, and an error that names no line is of no use to the person
who typed the file. So this walks the text once more, only when there is an error to place.
"""

from __future__ import annotations

import re
from typing import Final

Key = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL: Final = re.compile(r"'([^'\n]*)'")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_SCALAR: Final = re.compile(r"[^,\]}\n#]+")


def key_lines(text: str) -> dict[Key, int]:
    """Line (from 1) of each table, element and key, by its full path.

    Elements of an array of tables are counted from 0: the key ``unit`` of the second ``[[tag]]`` is
    ``("tag", 1, "unit")``.

    Example:
        >>> key_lines("[site]\\nname = 'mill'\\n")[("site", "name")]
        2
    """
    walk = _Walk(text)
    walk.run()
    return walk.lines


def header_lines(text: str) -> list[tuple[int, Key]]:
    """(line, key) of each ``[table]`` and ``[[element]]`` header, in the order of the text.

    Example:
        >>> header_lines("[site]\\n[[tag]]\\n[[tag]]\\n")
        [(1, ('site',)), (2, ('tag', 0)), (3, ('tag', 1))]
    """
    walk = _Walk(text)
    walk.run()
    return walk.headers


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self.headers: list[tuple[int, Key]] = []
        self._counts: dict[Key, int] = {}
        self._counted_to, self._line = 0, 1

    def run(self) -> None:
        table: Key = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return self.at

    def _mark(self, key: Key) -> None:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        self.lines.setdefault(key, self._line)

    def _header(self) -> Key:
        many = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 2 if many else 1
        names = self._dotted()
        end = self.at + (2 if many else 1)
        self.at = start
        key: Key = ()
        for position, name in enumerate(names):
            key = (*key, name)
            if many and position == len(names) - 1:
                self._counts[key] = self._counts.get(key, -1) + 1
            self._mark(key)
            if key in self._counts:
                key = (*key, self._counts[key])
            self._mark(key)
        self.headers.append((self._line, key))
        self.at = end
        return key

    def _dotted(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACE)
            names.append(self._name())
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _name(self) -> str:
        for pattern in (_BARE, _BASIC, _LITERAL):
            match = pattern.match(self.text, self.at)
            if match is not None:
                self.at = match.end()
                return match[match.lastindex or 0]
        raise AssertionError(f"no key at offset {self.at} of a TOML text that was read before")

    def _pair(self, table: Key) -> None:
        start = self.at
        names = self._dotted()
        end = self.at
        self.at = start
        key = table
        for name in names:
            key = (*key, name)
            self._mark(key)
        self.at = end + 1  # the equals sign
        self._skip(_SPACE)
        self._value(key)

    def _value(self, key: Key) -> None:
        first = self.text[self.at]
        if first == "{":
            self._items(key, "}")
        elif first == "[":
            self._items(key, "]")
        elif first in "\"'":
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _items(self, key: Key, closing: str) -> None:
        self.at += 1
        index = 0
        while self._skip(_BLANK) < len(self.text):
            if self.text[self.at] == closing:
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
            elif closing == "}":
                self._pair(key)
            else:
                self._mark((*key, index))
                self._value((*key, index))
                index += 1
