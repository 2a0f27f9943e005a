"""The formula tests in ``cases``: expected values are worked out by hand, never taken from the evaluator."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.formula.cases import run_cases
from headrace.formula.functions import FUNCTIONS

FILES = sorted((Path(__file__).parent / "cases").glob("*.formula"))
LEAST = 300


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_formulas_mean_what_was_worked_out(file: Path) -> None:
    evaluations, failures = run_cases(file.read_text("utf-8"))
    assert evaluations and not failures, "\n".join(f"{f.line}: {f.text}" for f in failures)


def test_there_are_enough_and_every_function_has_one() -> None:
    text = "\n".join(file.read_text("utf-8") for file in FILES)
    assert sum(line.startswith("eval ") for line in text.splitlines()) >= LEAST
    assert not [name for name in FUNCTIONS if f"{name}(" not in text]
