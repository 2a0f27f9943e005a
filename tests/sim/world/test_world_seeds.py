"""Thousands of seeds, and the same seed gives the same trace, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from headrace.sim.world.plan import make_plan
from headrace.sim.world.runner import keep, minimise, run_plan

SCENARIOS = Path(__file__).parents[3] / "scenarios"
SHORT = {"chain": (300, 50), "sparkplug": (1_800, 300)}
"""World -> (seeds, seeds in one test)."""
LONG = {"chain": (20_000, 1_000), "sparkplug": (60_000, 5_000)}


def _parts(table: dict[str, tuple[int, int]], first: int) -> list:
    return [
        pytest.param(world, first + start, first + start + part, id=f"{world}-{first + start}")
        for world, (seeds, part) in table.items()
        for start in range(0, seeds, part)
    ]


def _run(world: str, first: int, last: int) -> None:
    for seed in range(first, last):
        outcome = run_plan(make_plan(seed, world))
        if outcome.violations:
            path = keep(minimise(outcome), SCENARIOS)
            tail = "\n".join(outcome.trace)
            pytest.fail(f"seed {seed} of the {world} world; kept as {path.name}\n{tail}")


@pytest.mark.parametrize(("world", "first", "last"), _parts(SHORT, 0))
def test_seeds(world: str, first: int, last: int) -> None:
    _run(world, first, last)


@pytest.mark.soak
@pytest.mark.parametrize(("world", "first", "last"), _parts(LONG, 100_000))
def test_many_seeds(world: str, first: int, last: int) -> None:
    _run(world, first, last)


def _on_a_real_table(first: int, last: int) -> None:
    for seed in range(first, last):
        plan = msgspec.structs.replace(make_plan(seed), real_table=True)
        outcome = run_plan(plan)
        assert outcome.violations == (), (seed, "\n".join(outcome.trace))


def test_seeds_on_a_real_table() -> None:
    _on_a_real_table(50_000, 50_024)


@pytest.mark.soak
def test_many_seeds_on_a_real_table() -> None:
    _on_a_real_table(60_000, 61_000)


_DIGESTS = """
import logging
from headrace.sim.world.plan import make_plan
from headrace.sim.world.runner import run_plan
logging.disable(logging.CRITICAL)
for world in ("chain", "sparkplug"):
    print([run_plan(make_plan(seed, world)).digest for seed in range(6)])
"""


def test_the_same_seed_gives_the_same_trace_in_any_process() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert said[0] == said[1]
    here = [run_plan(make_plan(seed)).digest for seed in range(6)]
    assert said[0].splitlines()[0] == str(here)
    assert len(set(here)) == len(here)
