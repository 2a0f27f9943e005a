"""Formula tests as text: those of the documentation and those beside this file; and the runner itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.formula.cases import run_cases
from headrace.formula.problems import FormulaProblem
from headrace.model.errors import Misconfigured

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"```formula\n(.*?)```", (ROOT / "docs" / "formula.md").read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_documentation_says_what_is(block: str) -> None:
    evaluations, failures = run_cases(block)
    assert evaluations and not failures, "\n".join(f"{f.line}: {f.text}" for f in failures)


@pytest.mark.parametrize(
    "wrong",
    [
        "eval x at 0 s = 3",
        "eval x\n  0 s: 2\n  1 s: 1",
        "eval x\n  0 s: 1",
        "eval x\n  0 s: 1\n  1 s: 2\n  2 s: 3",
        "eval x\n  0 s: 1\n  1 s: 2 uncertain",
        "eval x at 1 s = none",
        'eval x at 1 s = "2"',
        "eval x > 1 m at 1 s = false",
        "eval x fails FORM-1012",
        "eval x + 1 s fails FORM-1013",
        "eval nothing at 1 s = 2",
    ],
)
def test_what_does_not_hold_is_found(wrong: str) -> None:
    evaluations, failures = run_cases(f"quantity x in m\nload x every 1 s: 1 2\n{wrong}")
    assert evaluations == 1 and len(failures) == 1 and failures[0].line == 3


@pytest.mark.parametrize(
    "unreadable",
    [
        "eval",
        "load y every 1 s: 1",
        "load x every soon: 1",
        "quantity 3x",
        "shift a b",
        "load x at 1 s: ?",
    ],
)
def test_what_cannot_be_read_is_said(unreadable: str) -> None:
    with pytest.raises((Misconfigured, FormulaProblem)):
        run_cases(f"quantity x in m\n{unreadable}")
