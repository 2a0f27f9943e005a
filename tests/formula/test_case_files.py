"""The formula tests in ``cases``: expected values are worked out by hand, never taken from the evaluator.
All are run on history, and once more as samples come: in pieces, and some of them late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headrace.formula.bound import Bound
from headrace.formula.cases import run_cases
from headrace.formula.evaluate import SCHEMA, History
from headrace.formula.functions import FUNCTIONS
from headrace.formula.plan import Calendar, Plan
from headrace.formula.steps import Constant
from headrace.formula.stream import Stream
from headrace.model import status as codes
from headrace.model.sample import make_batch

FILES = sorted((Path(__file__).parent / "cases").glob("*.formula"))
LEAST = 300
FOR_EVER_US = 2_000 * 86_400 * 1_000_000


def named(file: Path) -> str:
    return file.stem


def as_samples_come(
    plan: Plan,
    histories: Mapping[str, History],
    start_us: int,
    end_us: int,
    *,
    assets: int,
    attributes: Mapping[str, Constant] | None = None,
    calendar: Calendar | None = None,
) -> pl.DataFrame:
    """The same by a stream, in three goes; each sample comes in its own go or in a later one."""
    names = list(histories)
    tags = {name: np.array([place + 1]) for place, name in enumerate(names)}
    constants = {n: each for n, each in (attributes or {}).items() if n in plan.inputs}
    bound = Bound("case.x", "formula", plan, ("case",), tags, np.zeros(1, np.int64), constants)
    stream = Stream([bound], calendar, lateness_us=FOR_EVER_US)
    generator, edges = np.random.default_rng(7), np.linspace(start_us, end_us, 4).astype(int)
    found = pl.DataFrame(schema=SCHEMA)
    goes = {
        name: np.maximum(
            np.searchsorted(edges[1:-1], each.at_us, "right"),
            generator.integers(0, 3, len(each.at_us)) * (generator.random(len(each.at_us)) < 0.3),
        )
        for name, each in histories.items()
    }
    for go in range(3):
        for name, each in histories.items():
            now = np.flatnonzero((goes[name] == go) & (each.at_us < end_us))
            text = None if each.text is None else each.text[now].to_list()
            stream.put(
                make_batch(
                    np.full(len(now), tags[name][0]), each.at_us[now], each.value[now],
                    status=each.status[now], received_timestamp_us=each.at_us[now],
                    text=text, value_is_null=np.isnan(each.value[now]),
                )
            )  # fmt: skip
        done = stream.advance(int(edges[go + 1]))
        assert not done.behind
        found = pl.concat([found, *(rows for _, rows in done.results)])
    found = found.unique(["asset", "at_us"], keep="last", maintain_order=True)
    return found.filter(
        pl.col("status") != codes.RETRACTED, pl.col("at_us").is_between(start_us, end_us, "left")
    ).sort("asset", "at_us")


@pytest.mark.parametrize("file", FILES, ids=named)
def test_formulas_mean_what_was_worked_out(file: Path) -> None:
    evaluations, failures = run_cases(file.read_text("utf-8"))
    assert evaluations and not failures, "\n".join(f"{f.line}: {f.text}" for f in failures)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_they_mean_the_same_as_samples_come(file: Path) -> None:
    _, failures = run_cases(file.read_text("utf-8"), as_samples_come)
    assert not failures, "\n".join(f"{f.line}: {f.text}" for f in failures)


def test_there_are_enough_and_every_function_has_one() -> None:
    text = "\n".join(file.read_text("utf-8") for file in FILES)
    assert sum(line.startswith("eval ") for line in text.splitlines()) >= LEAST
    assert not [name for name in FUNCTIONS if f"{name}(" not in text]
