"""What is kept of one asset's life so far, and the questions that it gives to a model of remaining life.

Samples of running become rows (means over a fixed time), rows become trends. Only the first and the newest
rows are kept: all that the trends need. The model is one ONNX file that answers two questions about a row::

    columns   operating and other quantities | trends
    results   remaining life, lower, upper, time of a row, time between samples | quantities without conditions

The first question has quantities and no trends, the second trends and no quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from asset_health.features import Matrix, newest_trend_features

LENGTHS = (5, 10, 20, 40)
SEEN_MIN = 20
"""Rows of a life before anything is said of it; the first so many rows are what it was when new."""
TREND = "trend_"
"""How the model's columns of trends begin."""
HEAD = 5
"""Results before those of the quantities."""


class Model(Protocol):
    """As the platform gives it."""

    @property
    def version(self) -> str: ...
    @property
    def inputs(self) -> list[str]: ...
    def run(self, rows: Matrix) -> Matrix: ...


class Lifeline(msgspec.Struct, kw_only=True):
    """Of one asset, plain data.

    Attributes:
        began_us: of this life. model: version that the rows were collected for.
        rows: whole ones so far. first, tail: rows as float64. sum, samples: of the row that is not whole.
        told: state and whether work was proposed, so that each is told once. proposed_us, low: when the
            lower end fell below the lead time, and how low; 0: it has not.
        renewals: what the setting said when this life began.
    """

    began_us: int = 0
    model: str = ""
    rows: int = 0
    first: bytes = b""
    tail: bytes = b""
    sum: bytes = b""
    samples: int = 0
    told: str = "-"
    proposed_us: int = 0
    low: float = 0.0
    renewals: str = ""

    def take(self, samples: Matrix, samples_of_a_row: int) -> bool:
        """Take samples of running, (rows, columns) in the order of time; true when a row became whole."""
        columns = samples.shape[1]
        held = np.frombuffer(self.sum, np.float64) if self.sum else np.zeros(columns)
        whole = []
        for sample in samples:
            held = held + sample
            self.samples += 1
            if self.samples == samples_of_a_row:
                whole.append(held / samples_of_a_row)
                held, self.samples = np.zeros(columns), 0
        self.sum = held.tobytes()
        if not whole:
            return False
        first = _rows(self.first, columns)
        self.first = np.vstack([first, *whole])[:SEEN_MIN].tobytes()
        self.tail = np.vstack([_rows(self.tail, columns), *whole])[-max(LENGTHS) :].tobytes()
        self.rows += len(whole)
        return True


@dataclass(frozen=True)
class Told:
    """What a model says of one asset, in hours of running; ``high`` at its cap means so much or more."""

    hours: float
    low: float
    high: float


class Oracle:
    """A model of remaining life, ready to be asked.

    Args:
        model: of the platform's registry, written by :mod:`asset_health.life_onnx`.

    Attributes:
        columns: quantities that it takes, those first that say how the asset is driven.
        row_s, sample_s: time of running that a row is the mean of, and between its samples, in seconds.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.version = model.version
        self.columns = [name for name in model.inputs if not name.startswith(TREND)]
        self._width = len(model.inputs)
        constants = model.run(np.zeros((1, self._width)))[0]
        self.row_s, self.sample_s = int(constants[3]), int(constants[4])

    @property
    def samples_of_a_row(self) -> int:
        return max(1, self.row_s // self.sample_s)

    def ask(self, lines: Sequence[Lifeline]) -> list[Told]:
        """What is left of some lives with a row at least, all at once."""
        if not lines:
            return []
        columns = len(self.columns)
        parts = [_rows(raw, columns) for line in lines for raw in (line.first, line.tail)]
        rest = self._run(np.vstack(parts), slice(0, columns))[:, HEAD:]
        ends = np.cumsum([0, *(len(part) for part in parts)])
        trends = [
            newest_trend_features(
                rest[ends[at + 1] : ends[at + 2]], rest[ends[at] : ends[at + 1]], line.rows, LENGTHS
            )
            for at, line in zip(range(0, len(parts), 2), lines, strict=True)
        ]
        found = self._run(np.array(trends), slice(columns, self._width))
        return [Told(*(float(each) for each in row[:3])) for row in found]

    def _run(self, rows: Matrix, place: slice) -> Matrix:
        asked = np.zeros((len(rows), self._width))
        asked[:, place] = rows
        return self._model.run(asked)


def _rows(raw: bytes, columns: int) -> Matrix:
    return np.frombuffer(raw, np.float64).reshape(-1, columns)
