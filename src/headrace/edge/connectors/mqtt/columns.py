"""Columns that grow sample by sample and become one batch, without an object per sample."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from headrace.model.sample import (
    EXACT_INTEGER_MAX,
    Float64Array,
    Int64Array,
    empty_batch,
    make_batch,
)


class Columns:
    """Typed columns of samples; 41 bytes a sample, whatever its type.

    Example:
        >>> columns = Columns()
        >>> columns.add(7, 1_000, 2.5, 0, 2_000)
        >>> columns.take()["value"].to_list(), len(columns)
        ([2.5], 0)
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.tag_id = array("q")
        self.source_us = array("q")
        self.value = array("d")
        self.is_null = array("b")
        self.status = array("I")
        self.received_us = array("q")
        self.text: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.tag_id)

    def add(
        self, tag_id: int, source_us: int, value: float | None, status: int, received_us: int
    ) -> None:
        """One sample; None is no number."""
        self.tag_id.append(tag_id)
        self.source_us.append(source_us)
        self.value.append(0.0 if value is None else value)
        self.is_null.append(value is None)
        self.status.append(status)
        self.received_us.append(received_us)

    def add_text(
        self, tag_id: int, source_us: int, text: str, status: int, received_us: int
    ) -> None:
        """One sample whose value is text."""
        self.text[len(self.tag_id)] = text
        self.add(tag_id, source_us, None, status, received_us)

    def add_integer(
        self, tag_id: int, source_us: int, value: int, status: int, received_us: int
    ) -> None:
        """One integer; beyond 2**53 its digits are kept as text beside the nearest float."""
        if -EXACT_INTEGER_MAX <= value <= EXACT_INTEGER_MAX:
            self.add(tag_id, source_us, float(value), status, received_us)
            return
        self.text[len(self.tag_id)] = str(value)
        try:
            number: float | None = float(value)
        except OverflowError:
            number = None
        self.add(tag_id, source_us, number, status, received_us)

    def add_run(
        self,
        tag_id: int,
        first_us: int,
        step_us: int,
        values: Float64Array,
        status: int,
        received_us: int,
    ) -> None:
        """Consecutive samples of one tag, ``step_us`` apart; values have shape (n,)."""
        n = len(values)
        self.tag_id.extend([tag_id] * n)
        self.source_us.extend(range(first_us, first_us + n * step_us, step_us))
        self.value.frombytes(np.ascontiguousarray(values, np.float64).tobytes())
        self.is_null.extend([0] * n)
        self.status.extend([status] * n)
        self.received_us.extend([received_us] * n)

    def settle(self, received_us: int) -> None:
        """Complete the samples whose tag_id, source_us and value were appended directly: Good
        numbers, received now. Before any other call."""
        n = len(self.tag_id) - len(self.is_null)
        if n:
            self.is_null.frombytes(bytes(n))
            self.status.frombytes(bytes(4 * n))
            self.received_us.extend([received_us] * n)

    def add_block(
        self, tag_id: Int64Array, source_us: Int64Array, value: Float64Array, received_us: int
    ) -> None:
        """Good samples of many tags; all arrays have shape (n,)."""
        n = len(tag_id)
        self.tag_id.frombytes(tag_id.tobytes())
        self.source_us.frombytes(source_us.tobytes())
        self.value.frombytes(value.tobytes())
        self.is_null.frombytes(bytes(n))
        self.status.frombytes(bytes(4 * n))
        self.received_us.frombytes(np.full(n, received_us, np.int64).tobytes())

    def add_moment(
        self, tag_id: bytes, source_us: int, values: tuple[float, ...], received_us: int
    ) -> None:
        """Good samples of many tags with one time; ``tag_id`` are the ids as int64."""
        n = len(values)
        self.tag_id.frombytes(tag_id)
        self.source_us.extend(array("q", (source_us,)) * n)
        self.value.extend(values)
        self.is_null.frombytes(bytes(n))
        self.status.frombytes(bytes(4 * n))
        self.received_us.extend(array("q", (received_us,)) * n)

    def take(self) -> pl.DataFrame:
        """All samples as a batch; the columns are empty afterwards."""
        n = len(self.tag_id)
        if n == 0:
            return empty_batch()
        texts: list[str | None] | None = None
        if self.text:
            texts = [None] * n
            for index, text in self.text.items():
                texts[index] = text
        batch = make_batch(
            np.frombuffer(self.tag_id, np.int64),
            np.frombuffer(self.source_us, np.int64),
            np.frombuffer(self.value, np.float64),
            status=np.frombuffer(self.status, np.uint32),
            received_timestamp_us=np.frombuffer(self.received_us, np.int64),
            text=texts,
            value_is_null=np.frombuffer(self.is_null, np.bool_),
        )
        self._clear()
        return batch


@dataclass
class Gathered:
    """What a protocol's session gathered since the last reading was taken.

    Attributes:
        columns: samples.
        expected: how many were due.
        tag_errors: tag_id -> error text.
        stale: tag_ids whose source died after their samples here; in order, each once.
        notices: (code, text) of happenings.
        gaps: messages that are missing by their numbers, or could not be used.
    """

    columns: Columns = field(default_factory=Columns)
    expected: int = 0
    tag_errors: dict[int, str] = field(default_factory=dict)
    stale: dict[int, None] = field(default_factory=dict)
    notices: list[tuple[str, str]] = field(default_factory=list)
    gaps: int = 0

    def die(self, tag_ids: Iterable[int]) -> None:
        """Their source died."""
        self.stale.update(dict.fromkeys(tag_ids))

    def revive(self, tag_id: int) -> None:
        """Its source is back; a death that nobody was told of yet is not told any more."""
        self.stale.pop(tag_id, None)

    def fail(self, tag_id: int, at_us: int, status: int, problem: str, received_us: int) -> None:
        """A tag that has no value: a Bad sample and the reason."""
        self.columns.add(tag_id, at_us, None, status, received_us)
        self.tag_errors[tag_id] = problem
