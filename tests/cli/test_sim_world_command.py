"""``headrace sim world``: what it prints, what it keeps, and its exit codes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.edge.connectors.sparkplug.session import HostSession
from headrace.model.errors import Misconfigured
from headrace.sim.world.plan import read_plan


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command silences what the code under test logs; other tests want it."""
    yield
    logging.disable(logging.NOTSET)


def run(*words: str):
    return CliRunner().invoke(build(("sim",)), ["sim", "world", *words])


def test_a_seed_shows_its_trace_and_is_the_same_twice(tmp_path: Path) -> None:
    words = ("--seed", "3", "--world", "sparkplug", "--keep", str(tmp_path), "--lines", "5")
    first, second = run(*words), run(*words)
    assert first.exit_code == second.exit_code == 0
    assert "seed 3 of the sparkplug world: all is well" in first.stdout
    assert first.stdout == second.stdout
    assert not list(tmp_path.iterdir())


def test_many_seeds_show_progress_alone(tmp_path: Path) -> None:
    done = run("--seeds", "100", "--world", "sparkplug", "--keep", str(tmp_path))
    assert done.exit_code == 0
    assert done.stdout.startswith("sparkplug: 100 seeds, 0 failed")


def test_a_failing_seed_becomes_a_scenario_that_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostSession, "_mark_stale", lambda self, node, tag_ids, at_us: None)
    done = run("--seed", "0", "--seeds", "40", "--world", "sparkplug", "--keep", str(tmp_path))
    assert done.exit_code == 1
    kept = sorted(tmp_path.glob("sparkplug-*-stale.toml"))
    assert kept and kept[0].name in done.stdout.replace("\n", "")
    assert read_plan(kept[0]).note.startswith("stale: ")
    assert run("--scenario", str(kept[0])).exit_code == 1
    monkeypatch.undo()
    assert run("--scenario", str(kept[0])).exit_code == 0


def test_an_unknown_world_is_refused() -> None:
    done = run("--world", "flat")
    assert isinstance(done.exception, Misconfigured)
    assert "SIM-5011 there is no world 'flat'" in str(done.exception)
