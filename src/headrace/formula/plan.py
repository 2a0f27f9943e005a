"""What a checked formula does: nodes that turn series into series, for all assets at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np

from headrace.formula.pointwise import Kernel
from headrace.formula.steps import (
    BAD_FROM,
    Constant,
    Grid,
    Series,
    Steps,
    finish,
    sample,
    times_of,
)

US_PER_S: Final = 1_000_000


class Calendar(Protocol):
    """The site's calendar, as far as windows need it."""

    def windows(self, name: str, start_us: int, end_us: int) -> Sequence[tuple[int, int]]:
        """(start, end) in UTC microseconds of each window that ends in ``[start_us, end_us)``."""
        ...

    def longest_us(self, name: str) -> int:
        """No window of this name is longer."""
        ...

    def steps(self, word: str, start_us: int, end_us: int) -> Sequence[tuple[int, str | float]]:
        """(time, value) of each sample of a word of the calendar in ``[start_us, end_us)``."""
        ...

    def values(self, word: str) -> tuple[str, ...]:
        """What a word of texts can be, beside ``""``."""
        ...


@dataclass(slots=True)
class Context:
    """One evaluation.

    Attributes:
        grid: of all keys.
        inputs: quantities and attributes by name.
        start_us, end_us: what is known: from the earliest sample to where time has come.
        calendar: for ``per shift`` and the like.
    """

    grid: Grid
    inputs: Mapping[str, Series]
    start_us: int
    end_us: int
    calendar: Calendar | None = None
    done: dict[int, Series] = field(default_factory=dict)

    def get(self, node: Node) -> Series:
        """What a node gives; each is worked out once."""
        found = self.done.get(id(node))
        if found is None:
            found = self.done[id(node)] = node.evaluate(self)
        return found

    def steps(self, node: Node) -> Steps:
        found = self.get(node)
        assert isinstance(found, Steps), "the check refuses constants here"
        return found


class Node(Protocol):
    """``back_us``: how far before a time the inputs matter to what the node gives at that time."""

    @property
    def back_us(self) -> int: ...

    def evaluate(self, context: Context) -> Series: ...


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    name: str
    back_us: int = 0

    def evaluate(self, context: Context) -> Series:
        return context.inputs[self.name]


@dataclass(frozen=True, slots=True, eq=False)
class Literal_:
    value: float
    words: tuple[str, ...] | None = None
    back_us: int = 0

    def evaluate(self, context: Context) -> Series:
        return Constant(np.array([self.value]), self.words)


@dataclass(frozen=True, slots=True, eq=False)
class Pointwise:
    """A kernel on the values of one time; it gives one whenever an operand changes."""

    kernel: Kernel
    operands: tuple[Node, ...]
    words: tuple[str, ...] | None = None

    @property
    def back_us(self) -> int:
        return int(max(operand.back_us for operand in self.operands))

    def evaluate(self, context: Context) -> Series:
        series = [context.get(operand) for operand in self.operands]
        if not any(isinstance(each, Steps) for each in series):
            return self._constant(series)
        keys = times_of(series)
        values = [sample(each, keys, context.grid) for each in series]
        return finish(keys, *self.kernel(*values), self.words)

    def _constant(self, series: list[Series]) -> Constant:
        size = max(len(each.value) for each in series)
        pairs = [
            (np.broadcast_to(each.value, (size,)), np.where(np.isnan(each.value), BAD_FROM, 0))
            for each in series
        ]
        pairs = [(value, np.broadcast_to(s, (size,)).astype(np.uint32)) for value, s in pairs]
        value, status = self.kernel(*pairs)
        return Constant(np.where(status >= BAD_FROM, np.nan, value), self.words)


@dataclass(frozen=True, slots=True, eq=False)
class Recode:
    """A text in the words of the place where it is used."""

    operand: Node
    words: tuple[str, ...]

    @property
    def back_us(self) -> int:
        return self.operand.back_us

    def evaluate(self, context: Context) -> Series:
        series = context.get(self.operand)
        table = np.array([self._code(word) for word in series.words or ()] or [-1.0])
        codes = np.where(np.isnan(series.value), 0, series.value).astype(np.int64)
        value = np.where(np.isnan(series.value), np.nan, table[codes])
        return series._replace(value=value, words=self.words)

    def _code(self, word: str) -> float:
        return float(self.words.index(word)) if word in self.words else -1.0


@dataclass(frozen=True, slots=True, eq=False)
class SharedWords:
    """A measured text in words that it shares with another one."""

    operand: Node
    other: Node

    @property
    def back_us(self) -> int:
        return max(self.operand.back_us, self.other.back_us)

    def evaluate(self, context: Context) -> Series:
        mine, others = context.get(self.operand).words, context.get(self.other).words
        words = tuple(sorted({*(mine or ()), *(others or ())}))
        return Recode(self.operand, words).evaluate(context)


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked formula.

    Attributes:
        root: what gives the result.
        inputs: names of the quantities and attributes it reads.
        back_us: how far before a time inputs matter; see :func:`headrace.formula.evaluate.evaluate`.
        kind: ``number``, ``condition`` or ``text``.
        unit: of a number; ``1`` for a bare one.
        texts: those of the inputs that are texts.
        calendar_words: those of :data:`headrace.model.calendar_words.WORDS` that it reads; in the tree
            they are inputs by the name of :func:`word_input`.
    """

    root: Node
    inputs: tuple[str, ...]
    back_us: int
    kind: Literal["number", "condition", "text"]
    unit: str
    texts: frozenset[str] = frozenset()
    calendar_words: tuple[str, ...] = ()


def word_input(word: str) -> str:
    """The input that a word of the calendar is; no quantity can have this name.

    Example:
        >>> word_input("shift")
        'shift()'
    """
    return f"{word}()"
