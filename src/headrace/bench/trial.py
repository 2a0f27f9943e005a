"""One scenario from its file to its verdicts."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from headrace.bench.checks import Budget, Verdict, budgets, ceilings, judge
from headrace.bench.ground import Carried, Ground
from headrace.bench.hostile import crashes, suffer
from headrace.bench.laying import Laid
from headrace.bench.learned import Models, learn
from headrace.bench.platform import Platform, Program, Seen, lateness_of
from headrace.bench.recorded import recorded_ground
from headrace.bench.scenario import MustKeep, Scenario
from headrace.bench.scenario_file import Read, file_of
from headrace.bench.sight import Sight, sight_of
from headrace.bench.subject import Subject
from headrace.bench.virtual import virtual_ground
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import microseconds
from headrace.model.time import US_PER_S, Clock

DRAIN_US: Final = 10 * US_PER_S
POINTS: Final = 240
SERIES: Final = 12


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A curve of the report: second and value of at most some hundred points; None is a gap."""

    asset: str
    name: str
    second: list[float]
    value: list[float | None]


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm, a fault or a labelled time of the report, from second to second."""

    what: str
    kind: str
    start_s: float
    end_s: float


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one scenario.

    Attributes:
        scenario: its name. sha256: of what it says. data_sha256: of its recording; empty without one.
        protocol: by which its samples came; empty: straight to the platform.
        outcome: ``passed``, ``failed``, ``error`` (it could not run) or ``skipped`` (no recording here).
        verdicts: of each check. reason: of an error or a skip.
        seconds: of the scenario. samples, results, calls: taken in, given, and of hooks.
        measured: name -> figure of this machine; in no report.
    """

    scenario: str
    title: str
    sha256: str
    outcome: str
    data_sha256: str = ""
    protocol: str = ""
    reason: str = ""
    remedy: str = ""
    verdicts: list[Verdict] = []
    seconds: float = 0.0
    samples: int = 0
    results: int = 0
    calls: int = 0
    assets: int = 0
    restarts: int = 0
    lines: list[Line] = []
    bars: list[Bar] = []
    notes: list[str] = []
    measured: dict[str, str] = {}

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def ground_of(read: Read) -> Ground:
    """The scenario's site with its samples.

    Raises:
        Misconfigured: APPS-2404 to APPS-2406 when it cannot be laid out.
    """
    if read.scenario.source.kind == "virtual":
        return virtual_ground(read.scenario)
    path = file_of(read, os.environ.get("HEADRACE_DATA", ""))
    return recorded_ground(read.scenario, path, read.folder)


def run_trial(
    read: Read,
    subject: Subject | None = None,
    *,
    ground: Ground | None = None,
    carried: Carried | None = None,
    clock: Clock | None = None,
) -> Trial:
    """Run a scenario and judge it; what cannot run is an outcome too.

    Args:
        subject: the app; None benches the formulas and alarms of the site itself.
        ground: where it is laid out already.
        carried: what came through the scenario's protocol: a trial opens no connection itself.
    """
    scenario = read.scenario
    try:
        ground = ground or ground_of(read)
        if scenario.source.protocol:
            ground = _through(scenario, carried).on(ground)
    except HeadraceError as error:
        return stopped(read, error)
    try:
        laid = subject.lay(ground, scenario) if subject is not None else None
        models = _models(read, ground, subject, laid) if subject is not None and laid else None
        program = subject.program(laid, ground, models) if subject is not None and laid else None
        config = laid.config if laid is not None else _own(ground.config, scenario)
        seen = play(scenario, ground, Platform(config, program, clock=clock, **_late(read, ground)))
    except HeadraceError as error:
        return stopped(read, error)
    manifest = subject.manifest if subject is not None else None
    sight = sight_of(
        seen,
        config,
        (ground.start_us, ground.end_us),
        word=manifest.word if manifest is not None else "",
        outputs=laid.outputs if laid is not None else None,
        labels=ground.labels,
    )
    budget = _budget(manifest, program, ground)
    notes = (*ground.notes, *(models.notes if models is not None else ()))
    return _judged(read, ground, sight, seen, budget, len(config.assets), notes)


def _models(read: Read, ground: Ground, subject: Subject, laid: Laid) -> Models | None:
    if not (subject.manifest.models or read.scenario.model):
        return None
    return learn(read.scenario, read.folder, ground, laid.deployment, subject.load)


def _through(scenario: Scenario, carried: Carried | None) -> Carried:
    if carried is None:
        raise Misconfigured(
            "APPS-2465",
            f"the samples of scenario {scenario.name} have not come through {scenario.source.protocol}",
            "Let them: headrace.bench.carrying.carry, or leave source.protocol out.",
        )
    return carried


def _budget(manifest: AppManifest | None, program: Program | None, ground: Ground) -> Budget:
    """What the app may take by its manifest, with the computing that its Python took."""
    if manifest is None or program is None:
        return Budget()
    seconds = max((ground.end_us - ground.start_us) / US_PER_S, 1.0)
    return Budget(
        rows_per_s=manifest.budgets.rows_per_s,
        cpu_percent=manifest.budgets.cpu_percent,
        taken_percent=program.cpu_s / seconds * 100.0,
    )


def _own(site: AppsConfig, scenario: Scenario) -> AppsConfig:
    """The site with those of its own formulas that the scenario wants."""
    if not scenario.types:
        return site
    kept = tuple(each for each in site.formulas if each.asset_type in scenario.types)
    return msgspec.structs.replace(site, formulas=kept)


def _late(read: Read, ground: Ground) -> dict[str, int]:
    late_us = lateness_of(suffer(ground, read.scenario))
    down_us = sum(off_us for _, off_us in crashes(read.scenario))
    return {"lateness_us": late_us + down_us}


def play(scenario: Scenario, ground: Ground, platform: Platform) -> Seen:
    """Let the samples arrive, turn by turn, with the kills of the scenario."""
    samples = suffer(ground, scenario)
    arrival_us = microseconds(samples["received_timestamp"])
    turn_us = round(scenario.turn_s * US_PER_S)
    kills = [(ground.start_us + at_us, off_us) for at_us, off_us in crashes(scenario)]
    last_us = max(ground.end_us, int(arrival_us[-1]) if len(arrival_us) else 0) + DRAIN_US
    taken, up_us = 0, 0
    for now_us in [*range(ground.start_us + turn_us, last_us, turn_us), last_us]:
        while kills and kills[0][0] <= now_us:
            platform.crash(now_us)
            at_us, off_us = kills.pop(0)
            up_us = at_us + off_us
        if now_us < up_us and now_us != last_us:
            continue
        until = int(np.searchsorted(arrival_us, now_us, "right"))
        platform.turn(samples[taken:until], now_us)
        taken = until
    return platform.seen


def stopped(read: Read, error: HeadraceError) -> Trial:
    """What comes of a scenario that cannot run; without its recording it is skipped."""
    scenario = read.scenario
    return Trial(
        scenario=scenario.name,
        title=scenario.title,
        sha256=read.sha256,
        protocol=scenario.source.protocol,
        outcome="skipped" if error.code == "APPS-2405" else "error",
        reason=f"{error.code} {error.what}",
        remedy=error.remedy,
    )


def _judged(
    read: Read,
    ground: Ground,
    sight: Sight,
    seen: Seen,
    budget: Budget,
    assets: int,
    notes: Sequence[str],
) -> Trial:
    scenario = read.scenario
    verdicts = judge(sight, scenario.must, warm_up_s=scenario.warm_up_s)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    measured = {
        "cpu": f"{seen.cpu_ms / 1000.0:.2f} s",
        "turn, 99 %": f"{np.quantile(np.array(seen.turn_ms or [0.0]), 0.99):.1f} ms",
        "memory": f"{memory_mb:.0f} MB",
    }
    kept = [each for each in scenario.must if isinstance(each, MustKeep)]
    figures = [each for must in kept for each in ceilings(must, sight, seen, memory_mb)]
    for verdict, figure in [*figures, *budgets(budget, sight)]:
        verdicts.append(verdict)
        measured[verdict.asked] = figure
    passed = all(each.passed for each in verdicts)
    return Trial(
        scenario=scenario.name,
        title=scenario.title,
        sha256=read.sha256,
        data_sha256=ground.sha256,
        protocol=scenario.source.protocol,
        outcome="passed" if passed else "failed",
        verdicts=verdicts,
        seconds=(ground.end_us - ground.start_us) / US_PER_S,
        samples=sight.samples,
        results=sum(count for _, count in sight.rows),
        calls=sight.calls,
        assets=assets,
        restarts=sight.restarts,
        lines=_lines(scenario, sight),
        bars=_bars(scenario, sight),
        notes=list(notes),
        measured=measured,
    )


def _lines(scenario: Scenario, sight: Sight) -> list[Line]:
    """The curves that checks are of first, then others, some in all."""
    asked = {getattr(must, "name", "") for must in scenario.must}
    names = sorted(sight.series, key=lambda key: (key[1] not in asked, key))
    return [_line(*key, sight) for key in names[:SERIES]]


def _line(asset: str, name: str, sight: Sight) -> Line:
    rows = sight.series[asset, name]
    bucket = max(rows.height // POINTS, 1)
    thin = rows.gather_every(bucket)
    value = thin["value"].fill_null(np.nan).to_numpy()
    return Line(
        asset=asset,
        name=name,
        second=[round(sight.second(at), 3) for at in thin["at_us"]],
        value=[None if not np.isfinite(each) else float(f"{each:.6g}") for each in value],
    )


def _bars(scenario: Scenario, sight: Sight) -> list[Bar]:
    length = sight.second(sight.end_us)
    found = [
        Bar(
            what=f"{each.name} {each.target}",
            kind="fault",
            start_s=each.at_s,
            end_s=min(each.until_s or length, length),
        )
        for each in scenario.fault
    ]
    found += [
        Bar(what=f"labelled {asset}", kind="label", start_s=sight.second(a), end_s=sight.second(b))
        for asset, spans in sight.labels.items()
        for a, b in spans
    ]
    found += [
        Bar(
            what=each.path,
            kind="alarm",
            start_s=round(sight.second(each.start_us), 3),
            end_s=round(min(sight.second(each.end_us), length), 3),
        )
        for each in sight.episodes
    ]
    return found
