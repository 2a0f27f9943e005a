"""``headrace sim world``: seeded worlds around the real code, and scenario files of those that fail."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import typer
from rich.console import Console
from rich.markup import escape

from headrace.model.errors import Misconfigured
from headrace.model.time import SystemClock

if TYPE_CHECKING:
    from headrace.sim.world.plan import Plan, WorldName
    from headrace.sim.world.runner import Outcome

WORLDS: Final[tuple[WorldName, ...]] = ("chain", "sparkplug")
PROGRESS_SEEDS: Final = 100


def world(
    seed: int = typer.Option(1, "--seed", help="The first seed."),
    seeds: int = typer.Option(1, "--seeds", min=1, help="How many, from the first one on."),
    which: str = typer.Option("all", "--world", help="chain, sparkplug or all."),
    scenario: Path | None = typer.Option(
        None, "--scenario", help="Run this scenario file instead."
    ),
    folder: Path = typer.Option(
        Path("scenarios"), "--keep", help="Where scenario files of failing seeds go."
    ),
    lines: int = typer.Option(40, "--lines", help="How much of a trace to show."),
) -> None:
    """Run simulated worlds; a failing seed becomes a small scenario file (exit code 1)."""
    from headrace.sim.world.plan import read_plan
    from headrace.sim.world.runner import run_plan

    logging.disable(logging.CRITICAL)  # what the code under test reports is in the trace
    console = Console()
    if scenario is not None:
        outcome = run_plan(read_plan(scenario), lines=lines)
        _show(console, outcome, scenario.name)
        raise typer.Exit(1 if outcome.violations else 0)
    if which not in (*WORLDS, "all"):
        raise Misconfigured(
            "SIM-5011", f"there is no world {which!r}", f"Give one of {', '.join(WORLDS)}, all."
        )
    chosen = [each for each in WORLDS if which in (each, "all")]
    failed = sum(_run(console, each, seed, seeds, folder, lines) for each in chosen)
    raise typer.Exit(1 if failed else 0)


def _run(
    console: Console, name: WorldName, first: int, seeds: int, folder: Path, lines: int
) -> int:
    from headrace.sim.world.plan import make_plan
    from headrace.sim.world.runner import run_plan

    clock = SystemClock()
    began_s, failed = clock.monotonic_s(), 0
    for number in range(seeds):
        outcome = run_plan(make_plan(first + number, name), lines=lines)
        if outcome.violations:
            failed += 1
            _keep(console, outcome, folder)
        elif seeds == 1:
            _show(console, outcome, f"seed {first}")
        if (number + 1) % PROGRESS_SEEDS == 0:
            took_s = clock.monotonic_s() - began_s
            console.print(
                f"{name}: {number + 1} seeds, {failed} failed, "
                f"{took_s / (number + 1) * 1000:.0f} ms each",
                highlight=False,
            )
    return failed


def _keep(console: Console, outcome: Outcome, folder: Path) -> None:
    from headrace.sim.world.runner import keep, minimise

    _show(console, outcome, f"seed {outcome.plan.seed}")
    small = minimise(outcome)
    path = keep(small, folder)
    console.print(
        f"[bold]{escape(str(path))}[/] fails with {len(small.plan.faults)} of "
        f"{len(outcome.plan.faults)} faults",
        highlight=False,
    )


def _show(console: Console, outcome: Outcome, title: str) -> None:
    for line in outcome.trace:
        console.print(escape(line), highlight=False, soft_wrap=True)
    verdict: Literal["all is well", "broken"] = "broken" if outcome.violations else "all is well"
    colour = "bold red" if outcome.violations else "green"
    console.print(
        f"{title} of the {outcome.plan.world} world: [{colour}]{verdict}[/], trace {outcome.digest}, "
        f"{_faults(outcome.plan)}, {outcome.end_s:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    for violation in outcome.violations:
        console.print(f"  [bold]{violation.checker}[/]: {escape(violation.text)}", highlight=False)


def _faults(plan: Plan) -> str:
    return f"{len(plan.faults)} fault{'s' if len(plan.faults) != 1 else ''}"
