"""``headrace bench``: apps, site files and connectors on the virtual-real bench."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.bench.bench import bench_app, bench_own, write_certificate, write_report
from headrace.bench.report import Report, timing_of
from headrace.bench.runner import LIMIT_S, Runner
from headrace.bench.scenario_file import Read, read_shared, shared_names, with_protocol
from headrace.bench.subject import open_app, scenarios_of
from headrace.bench.trial import Trial
from headrace.cli.bench_device import connector, device, record
from headrace.cli.private_key import read_key
from headrace.model.errors import Misconfigured

SCENARIO: Final = typer.Option(
    [], "--scenario", help="A file, a folder, or such as demo/cavitation; several."
)
OUT: Final = typer.Option(None, "--out", help="Folder for bench.json, bench.xml, bench.html.")
JOBS: Final = typer.Option(0, "--jobs", help="Scenarios at a time; 0 is one a core.")
LIMIT: Final = typer.Option(LIMIT_S, "--limit", help="Seconds that one scenario may take here.")
PROTOCOL: Final = typer.Option(
    "", "--protocol", help="opcua, modbus, mqtt, sparkplug or site: through real servers."
)
KEY: Final = typer.Option(
    None, "--key", help="Private key of this bench, which signs the certificate: headrace app key."
)
ONLY: Final = typer.Option([], "--only", help="Names of scenarios; several.")


def bench_an_app(
    path: Path = typer.Argument(help="Folder of the app, or its package."),
    scenario: list[str] = SCENARIO,
    only: list[str] = ONLY,
    protocol: str = PROTOCOL,
    out: Path | None = OUT,
    jobs: int = JOBS,
    limit: float = LIMIT,
    key: Path | None = KEY,
) -> None:
    """Try an app against its scenarios; a passing one gets its certificate."""
    secret = read_key(key)
    with TemporaryDirectory() as folder:
        subject = open_app(path, Path(folder))
        scenarios = _by(_chosen(scenarios_of(subject.folder, scenario), only), protocol)
        report = bench_app(subject, scenarios, _runner(jobs, limit))
    _show(report)
    # Hidden, so that it is no part of the app's package.
    _write(report, out or (path if path.is_dir() else path.parent) / ".bench")
    if path.is_dir() and not only and not scenario and not protocol:
        typer.echo(f"certificate: {write_certificate(report, path, secret)}")
    raise typer.Exit(0 if report.passed else 1)


def bench_scenarios(
    scenario: list[str] = typer.Argument(
        None, help="Files, folders, or such as demo/cavitation; all of the demo when left out."
    ),
    protocol: str = PROTOCOL,
    out: Path | None = OUT,
    jobs: int = JOBS,
    limit: float = LIMIT,
) -> None:
    """Try the formulas and alarms of the scenarios' own site, such as the demo's."""
    named = scenario or shared_names()
    report = bench_own(_by(scenarios_of(Path(), named), protocol), _runner(jobs, limit))
    _show(report)
    if out is not None:
        _write(report, out)
    raise typer.Exit(0 if report.passed else 1)


def bench_site(
    file: Path = typer.Argument(help="The site file."),
    scenario: list[str] = SCENARIO,
    protocol: str = PROTOCOL,
    out: Path | None = OUT,
    jobs: int = JOBS,
    limit: float = LIMIT,
) -> None:
    """Try the formulas and alarms of a site file on recordings of its tags."""
    found = scenarios_of(file.parent, scenario)
    for each in found:
        if not each.scenario.source.columns:
            raise Misconfigured(
                "APPS-2408",
                f"scenario {each.scenario.name} does not say which tags its recording is of",
                'Name them below [source]: columns = { "path/of/tag" = "column" }.',
            )
    reads = _by([_on_site(each, file) for each in found], protocol)
    report = bench_own(reads, _runner(jobs, limit), name=file.stem)
    _show(report)
    if out is not None:
        _write(report, out)
    raise typer.Exit(0 if report.passed else 1)


def _on_site(read: Read, file: Path) -> Read:
    source = msgspec.structs.replace(read.scenario.source, site=str(file.resolve()))
    return Read(msgspec.structs.replace(read.scenario, source=source), read.folder)


def _by(found: list[Read], protocol: str) -> list[Read]:
    """The scenarios with their samples through a protocol; as they are where none is named."""
    if not protocol:
        return found
    return [with_protocol(each, protocol) for each in found]


def list_scenarios() -> None:
    """The scenarios that come with the platform."""
    table = Table("scenario", "what it tries", box=None)
    for name in shared_names():
        table.add_row(name, read_shared(name).scenario.title)
    Console().print(table)


def _chosen(found: list[Read], only: list[str]) -> list[Read]:
    names = [each.scenario.name for each in found]
    for name in only:
        if name not in names:
            raise Misconfigured(
                "APPS-2401", f"there is no scenario {name}", f"There are {', '.join(names)}."
            )
    return [each for each in found if not only or each.scenario.name in only]


def _runner(jobs: int, limit: float) -> Runner:
    console = Console(stderr=True)

    def tell(name: str, trial: Trial | None) -> None:
        if trial is None:
            console.print(f"[dim]{escape(name)} ...[/]", highlight=False)
        else:
            console.print(f"{escape(name)} {_coloured(trial.outcome)}", highlight=False)

    return Runner(jobs or os.cpu_count() or 1, limit_s=limit, tell=tell)


def _coloured(outcome: str) -> str:
    colour = {"passed": "green", "skipped": "dim"}.get(outcome, "red")
    return f"[{colour}]{outcome}[/]"


def _show(report: Report) -> None:
    console = Console()
    for trial in report.trials:
        console.print(f"{_coloured(trial.outcome)}  {escape(trial.scenario)}", highlight=False)
        if trial.reason:
            console.print(f"    {escape(trial.reason)}. {escape(trial.remedy)}", highlight=False)
        for each in trial.verdicts:
            if not each.passed:
                console.print(f"    [red]must[/] {escape(each.asked)}", highlight=False)
                console.print(f"    [red]seen[/] {escape(each.seen)}", highlight=False)
    for name, figures in timing_of(report.trials).items():
        told = ", ".join(f"{what} {figure}" for what, figure in figures.items())
        console.print(f"[dim]{escape(name)}: {escape(told)}[/]", highlight=False)
    count = {word: report.count(word) for word in ("passed", "failed", "error", "skipped")}
    console.print(", ".join(f"{n} {word}" for word, n in count.items() if n), highlight=False)


def _write(report: Report, folder: Path) -> None:
    for path in write_report(report, folder):
        typer.echo(path)


def register(app: typer.Typer) -> None:
    """Put the group into the command line."""
    group = typer.Typer(help="Try apps, site files and connectors before they touch a plant.")
    group.command("app")(bench_an_app)
    group.command("site")(bench_site)
    group.command("run")(bench_scenarios)
    group.command("scenarios")(list_scenarios)
    group.command("record")(record)
    group.command("device")(device)
    group.command("connector")(connector)
    app.add_typer(group, name="bench", no_args_is_help=True)
