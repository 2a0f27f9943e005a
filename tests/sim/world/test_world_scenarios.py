"""Scenarios that once failed, or that somebody wrote down because they should not: golden files."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.model.errors import Misconfigured
from headrace.sim.world.plan import make_plan, read_plan, write_plan
from headrace.sim.world.runner import run_plan

SCENARIOS = sorted((Path(__file__).parents[3] / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    plan = read_plan(path)
    assert plan.note, "say what it is about"
    outcome = run_plan(plan)
    assert outcome.violations == (), "\n".join(outcome.trace)


@pytest.mark.parametrize("world", ["chain", "sparkplug"])
def test_a_plan_comes_back_from_its_file(world, tmp_path: Path) -> None:
    for seed in range(20):
        plan = make_plan(seed, world)
        write_plan(plan, tmp_path / "plan.toml")
        assert read_plan(tmp_path / "plan.toml") == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = 1\nspeed = 2", "unknown field 'speed'"),
        ("seed = 'a'", "Expected `int`"),
        ("", "missing required field `seed`"),
        ("seed = ", "Invalid value"),
        ("seed = 1\n[[faults]]\nkind = 'flood'\nat_s = 1.0", "'flood'"),
        ("seed = 1\n[[faults]]\nkind = 'away'\nat_s = 1.0\ntarget = 'press'", "'press'"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_reason(text, said, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Misconfigured, match="SIM-5010") as caught:
        read_plan(path)
    assert said in str(caught.value) and "wrong.toml" in str(caught.value)
