"""Runs plans, makes failing ones small, and keeps them as scenario files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from headrace.sim.world.chain import ChainWorld
from headrace.sim.world.checks import Violation
from headrace.sim.world.loop import Stuck
from headrace.sim.world.plan import Plan, write_plan
from headrace.sim.world.sparkplug import SparkplugWorld

WORLDS: Final[dict[str, type[ChainWorld | SparkplugWorld]]] = {
    "chain": ChainWorld,
    "sparkplug": SparkplugWorld,
}
MINIMISE_RUNS_MAX: Final = 200
_MEMORY: Final = Path("/dev/shm")
_MEMORY_BYTES_MIN: Final = 256 << 20


@dataclass(frozen=True)
class Outcome:
    """What one run showed.

    Attributes:
        digest: of all that happened; equal for equal plans.
        violations: what was broken; none when all is well.
        trace: the newest lines.
        end_s: how long it took, in seconds of the world.
    """

    plan: Plan
    digest: str
    violations: tuple[Violation, ...]
    trace: tuple[str, ...]
    end_s: float

    @property
    def checkers(self) -> set[str]:
        """Names of the checkers that fired."""
        return {violation.checker for violation in self.violations}


def run_plan(plan: Plan, *, lines: int = 60) -> Outcome:
    """Run one world to its end.

    Args:
        lines: of the trace to keep.

    Example:
        >>> from headrace.sim.world.plan import make_plan
        >>> run_plan(make_plan(1, "sparkplug")).violations
        ()
    """
    with tempfile.TemporaryDirectory(prefix="headrace-world-", dir=_fast_folder()) as folder:
        world = WORLDS[plan.world](plan, Path(folder))
        violations = world.violations
        try:
            world.run()
        except Stuck as error:
            violations = [*violations, Violation("progress", str(error))]
        return Outcome(
            plan,
            world.trace.digest(),
            tuple(violations),
            tuple(world.trace.tail(lines)),
            world.loop.time(),
        )


def _fast_folder() -> str | None:
    """A folder in memory where there is one with room; data files are many and small."""
    try:
        return str(_MEMORY) if _free_bytes(_MEMORY) >= _MEMORY_BYTES_MIN else None
    except OSError:
        return None


def _free_bytes(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def minimise(outcome: Outcome, run: Callable[[Plan], Outcome] = run_plan) -> Outcome:
    """The smallest plan found that breaks the same promise: faults and sources are taken away one by one
    for as long as it still fails."""
    best, runs = outcome, 0
    shrinking = True
    while shrinking and runs < MINIMISE_RUNS_MAX:
        shrinking = False
        for smaller in _smaller(best.plan):
            runs += 1
            tried = run(smaller)
            if tried.checkers & outcome.checkers:
                best, shrinking = tried, True
                break
            if runs >= MINIMISE_RUNS_MAX:
                break
    return best


def _smaller(plan: Plan) -> list[Plan]:
    """Plans with one thing less, the largest steps first."""
    found = []
    if len(plan.sources) > 1:
        for source in plan.sources:
            found.append(
                msgspec.structs.replace(
                    plan,
                    sources=tuple(each for each in plan.sources if each != source),
                    faults=tuple(each for each in plan.faults if each.target != source.name),
                )
            )
    for place in range(len(plan.faults)):
        fewer = plan.faults[:place] + plan.faults[place + 1 :]
        found.append(msgspec.structs.replace(plan, faults=fewer))
    return found


def keep(outcome: Outcome, folder: Path) -> Path:
    """Write a failing plan as a scenario file; gives its path."""
    first = outcome.violations[0]
    note = f"{first.checker}: {first.text}"
    path = folder / f"{outcome.plan.world}-{outcome.plan.seed}-{first.checker}.toml"
    write_plan(msgspec.structs.replace(outcome.plan, note=note), path)
    return path
