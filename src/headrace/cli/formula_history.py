"""``headrace formula backfill`` and ``backtest``: formulas on years of stored history."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.cli.reading import open_history
from headrace.cli.run import DATA
from headrace.formula.binding import check_all
from headrace.formula.problems import FormulaProblem
from headrace.historian.backfill import Backfill, Made
from headrace.historian.backfill import Progress as Told
from headrace.historian.backtest import Outcome, Question, Tally, backtest
from headrace.historian.backtest_plot import plot_backtest
from headrace.historian.marks import read_marks
from headrace.historian.pools import LocalPool, Pool, RayPool
from headrace.historian.reader import open_reader
from headrace.historian.sweep import parse_sweep
from headrace.historian.times import parse_duration, parse_time
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.model.time import SystemClock, to_datetime
from headrace.site.formulas import Ground, ground_of_equipment, ground_of_type
from headrace.site.registry import Registry

EPISODES_SHOWN: Final = 20
EVENTS_SHOWN: Final = 20
BAR: Final = 30


def backfill_formulas(
    formulas: list[str] = typer.Argument(help="pump.load_15; several in their order."),
    start: str = typer.Option("", "--from", help="Of the results; all history when left out."),
    end: str = typer.Option("", "--to", help="now, -1h, or ISO 8601 with a zone."),
    version: int = typer.Option(0, "--version", help="An older text; 0 is the newest."),
    cores: int = typer.Option(0, "--cores", help="Processes; 0 is one a core."),
    ray: str = typer.Option("", "--ray", help="Address of a Ray cluster, or auto."),
    data: Path = DATA,
) -> None:
    """Make all results of formulas on stored history; one that was stopped goes on where it was."""
    folder, now_us = DataFolder(data.resolve()), SystemClock().now_us()
    span = None
    if start or end:
        if not start:
            raise Misconfigured(
                "CLI-1310", "--to is given without --from", "Give both, or none of them."
            )
        span = parse_time(start, now_us), parse_time(end or "now", now_us)
    for formula in formulas:
        config = _config(folder, formula, version)
        pool: Pool = RayPool(ray) if ray else LocalPool(cores)
        try:
            made = asyncio.run(_backfill(folder, config, formula, span, pool))
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; the same command goes on where it was")
            raise typer.Exit(130) from None
        finally:
            pool.close()
        _show_made(made, config)


def _config(folder: DataFolder, formula: str, version: int) -> AppsConfig:
    """What the site has, with the text of that version."""
    kind, _, name = formula.partition(".")
    registry = Registry.of(folder)
    try:
        config = registry.apps()
        versions = registry.formula_versions(kind, name) if name else []
    finally:
        registry.close()
    wanted = next((each for each in versions if each.version == version), None)
    if config is None or (version and wanted is None):
        raise Misconfigured(
            "CLI-1311",
            f"the site has no {formula} of version {version}"
            if version
            else "there is no site yet",
            f"See them with: headrace formula versions {formula}"
            if version
            else "Begin with: headrace site apply FILE",
        )
    if wanted is None:
        return config
    changed = tuple(
        msgspec.structs.replace(each, text=wanted.text, version=version)
        if (each.asset_type, each.name) == (kind, name)
        else each
        for each in config.formulas
    )
    return msgspec.structs.replace(config, formulas=changed)


async def _backfill(
    folder: DataFolder, config: AppsConfig, key: str, span: tuple[int, int] | None, pool: Pool
) -> Made:
    bar = Progress(
        TextColumn(key),
        BarColumn(BAR),
        TextColumn("{task.completed}/{task.total} parts  {task.fields[rate]}  {task.fields[left]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    task = TaskID(0)

    def tell(told: Told) -> None:
        left = "" if told.left_s is None else f"{told.left_s:,.0f} s left"
        rate = f"{told.samples_per_s / 1e6:.2f} M samples/s"
        bar.update(task, total=told.parts, completed=told.parts_done, rate=rate, left=left)

    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(
            open_bus(load_address(folder).as_role("cli"), "backfill")
        )
        reader = await stack.enter_async_context(open_reader(folder, bus))
        with bar:
            task = bar.add_task(key, total=None, rate="", left="")
            work = Backfill(folder, bus, config, SystemClock())
            return await work.run(reader, key, pool, span=span, tell=tell)


def _show_made(made: Made, config: AppsConfig) -> None:
    out = Console()
    out.print(
        f"{made.key} version {made.version}, {_time(made.start_us)} to {_time(made.end_us)}: "
        f"{made.results:,} results of {made.samples:,} samples; {made.changed:,} written, "
        f"{made.retracted:,} taken back",
        highlight=False,
        soft_wrap=True,
    )
    readers = _readers(config, made.key)
    if readers and made.changed + made.retracted:
        out.print(f"read by {', '.join(readers)}: back-fill these next", highlight=False)


def _readers(config: AppsConfig, key: str) -> list[str]:
    """Formulas that read this one, on the same asset or by a relation."""
    kind, _, name = key.partition(".")
    relations = {each.name: each.relations for each in config.types}
    found = []
    for each in check_all(config)[0]:
        names = {
            f"{relation}.{name}"
            for relation, leads_to in relations.get(each.key[0], {}).items()
            if leads_to == kind
        }
        if each.key[0] == kind:
            names.add(name)
        if names.intersection(each.inputs):
            found.append(".".join(each.key))
    return found


def backtest_now(
    condition: str = typer.Argument(help="'temperature > 80 degC for 5 min', or pump.hot."),
    asset: str = typer.Option("", help="Equipment path, or a glob: 'utilities/*/pump_*'."),
    asset_type: str = typer.Option("", "--type", help="Asset type: on all its assets."),
    start: str = typer.Option("-30d", "--from", help="now, -1h, or ISO 8601 with a zone."),
    end: str = typer.Option("now", "--to", help="Same forms as --from."),
    sweep: str = typer.Option("", "--sweep", help="Other limits: 70..90, or 70..90..0.5."),
    number: int = typer.Option(0, "--number", help="Which number of the text is swept, from 1."),
    events: Path | None = typer.Option(None, help="CSV of marked events: time,label,end,asset."),
    before: str = typer.Option("1h", help="An event is met by what holds so long before it."),
    after: str = typer.Option("10min", help="Or so long after it."),
    picture: Path | None = typer.Option(None, "--plot", help="Write a PNG picture."),
    as_json: bool = typer.Option(False, "--json", help="All of it as one JSON object."),
    language: str = typer.Option("en", "--language", help="Of messages: en or zh."),
    data: Path = DATA,
) -> None:
    """Try a condition or an alarm on stored history before it is enabled."""
    folder, now_us = DataFolder(data.resolve()), SystemClock().now_us()
    condition, asset_type = _named(folder, condition, asset, asset_type)
    if bool(asset) == bool(asset_type):
        raise Misconfigured(
            "CLI-1312",
            "both --asset and --type are given" if asset else "neither --asset nor --type is given",
            "Name equipment with --asset, or an asset type with --type.",
        )
    question = Question(
        text=condition,
        asset_type=asset_type,
        start_us=parse_time(start, now_us),
        end_us=parse_time(end, now_us),
        marks=tuple(read_marks(events)) if events is not None else (),
        before_us=parse_duration(before),
        after_us=parse_duration(after),
        sweep=parse_sweep(sweep, number) if sweep else None,
    )
    try:
        outcome = asyncio.run(_backtest(folder, question, asset))
    except FormulaProblem as problem:
        Console(stderr=True).print(escape(problem.show(language)), highlight=False)
        raise typer.Exit(2) from problem
    if picture is not None:
        zone = to_datetime(now_us).astimezone().tzinfo
        assert zone is not None, "this machine has a zone"
        plot_backtest(outcome, picture, zone)
        Console(stderr=True).print(f"wrote {picture}")
    if as_json:
        sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
    else:
        _show(outcome)


def _named(folder: DataFolder, condition: str, asset: str, asset_type: str) -> tuple[str, str]:
    """The text and type of a formula of the site file, when the condition is its name."""
    if asset or asset_type:
        return condition, asset_type
    registry = Registry.of(folder)
    try:
        config = registry.apps()
    finally:
        registry.close()
    for each in config.formulas if config is not None else ():
        if condition == f"{each.asset_type}.{each.name}":
            return each.text, each.asset_type
    return condition, asset_type


async def _backtest(folder: DataFolder, question: Question, pattern: str) -> Outcome:
    registry = Registry.of(folder)
    try:
        config = registry.apps()
        tags = [(tag.path, tag.tag_id, tag.unit) for tag in registry.find("**")]
    finally:
        registry.close()
    async with AsyncExitStack() as stack:
        reader = await open_history(stack, folder, "backtest")

        def work() -> Outcome:
            ground: Ground = (
                ground_of_type(config, question.asset_type)
                if question.asset_type
                else ground_of_equipment(config, pattern, tags, reader)
            )
            asked = msgspec.structs.replace(question, asset_type=ground.asset_type)
            return backtest(reader, ground.config, asked)

        return await asyncio.to_thread(work)


def _show(outcome: Outcome) -> None:
    out = Console()
    out.print(f"[bold]{escape(outcome.text)}[/]", highlight=False)
    span = f"{_time(outcome.start_us)} to {_time(outcome.end_us)}"
    out.print(f"on {len(outcome.assets)} assets, {span} (UTC)", highlight=False)
    for path, lacks in outcome.lacking:
        out.print(f"[dim]not on {path}: it lacks {lacks}[/]", highlight=False)
    out.print(_told(outcome.tally), highlight=False)
    if outcome.episodes:
        out.print(_episodes(outcome))
    if outcome.tally.met is not None:
        out.print(_events(outcome))
    if outcome.points:
        out.print(_sweep(outcome))


def _told(tally: Tally) -> str:
    said = f"{tally.count:,} times, {_span(tally.total_s)} in all"
    said += f", the longest {_span(tally.longest_s)}" if tally.count else ""
    said += f"; {tally.suppressed:,} more while suppressed" if tally.suppressed else ""
    if tally.met is not None:
        met = tally.met
        said += (
            f"\n{met.hits} of {met.hits + met.misses} events met, {met.false_alarms} false alarms"
        )
    return said


def _episodes(outcome: Outcome) -> Table:
    table = Table("from (UTC)", "for", "asset")
    for each in outcome.episodes[:EPISODES_SHOWN]:
        end_us = outcome.end_us if each.end_us is None else each.end_us
        length = _span((end_us - each.start_us) / 1e6) + (" +" if each.end_us is None else "")
        table.add_row(_time(each.start_us), length, each.asset)
    if outcome.tally.count > EPISODES_SHOWN:
        table.caption = f"and {outcome.tally.count - EPISODES_SHOWN} more: --json"
    return table


def _events(outcome: Outcome) -> Table:
    table = Table("event (UTC)", "label", "asset", "met")
    assert outcome.tally.met is not None, "events were marked"
    for each in outcome.tally.met.events[:EVENTS_SHOWN]:
        lead_s = each.lead_s
        met = "[red]no[/]" if lead_s is None else f"{_span(abs(lead_s))} "
        met += "" if lead_s is None else "before" if lead_s >= 0 else "after it began"
        table.add_row(_time(each.mark.at_us), escape(each.mark.label), escape(each.mark.asset), met)
    return table


def _sweep(outcome: Outcome) -> Table:
    marked = outcome.tally.met is not None
    table = Table(
        f"in place of {escape(outcome.swept)}",
        "times",
        "",
        "in all",
        *(("events met", "false") if marked else ()),
    )
    most = max(point.tally.count for point in outcome.points) or 1
    for point in outcome.points:
        tally = point.tally
        bar = "█" * round(BAR * tally.count / most)
        told = (str(tally.met.hits), str(tally.met.false_alarms)) if tally.met is not None else ()
        table.add_row(f"{point.value:g}", f"{tally.count:,}", bar, _span(tally.total_s), *told)
    return table


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _time(at_us: int) -> str:
    return to_datetime(at_us).isoformat(" ", "seconds").removesuffix("+00:00")
