"""``headrace formula``: check formulas, evaluate them on stored history, list the functions."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.cli.run import DATA
from headrace.formula.alarm_check import check_statement
from headrace.formula.cases import run_cases
from headrace.formula.check import Quantity, compile_formula
from headrace.formula.functions import FUNCTIONS
from headrace.formula.grammar import parse_file
from headrace.formula.plan import Plan
from headrace.formula.problems import LANGUAGES, FormulaProblem
from headrace.historian.formulas import AssetTags, evaluate_history
from headrace.historian.reader import Reader, open_reader
from headrace.historian.times import parse_time
from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.status import name as status_name
from headrace.model.time import SystemClock
from headrace.site.formulas import equipment_of, quantities_of
from headrace.site.registry import Registry

SHOWN_ROWS_MAX: Final = 100
BROKER_WAIT_S: Final = 2.0
LANGUAGE = typer.Option("en", "--language", help="Of messages: en or zh.")


def register(app: typer.Typer) -> None:
    """Add ``formula``."""
    group = typer.Typer(help="Formulas: check, evaluate on history, list the functions.")
    app.add_typer(group, name="formula")
    group.command("check")(check_file)
    group.command("eval")(evaluate_now)
    group.command("test")(test_file)
    group.command("functions")(functions)


def test_file(
    files: list[Path] = typer.Argument(help="Tests of formulas; docs/formula.md says how."),
    language: str = LANGUAGE,
) -> None:
    """Run tests of formulas: load series, evaluate, compare. Exit code 3 when one fails."""
    out, failed, total = Console(), 0, 0
    for file in files:
        try:
            evaluations, failures = run_cases(_text(file))
        except FormulaProblem as problem:
            out.print(f"[bold]{escape(str(file))}[/]")
            _fail(problem, language)
        for failure in failures:
            out.print(f"[red]{escape(str(file))}:{failure.line}[/] {escape(failure.text)}")
        failed, total = failed + len(failures), total + evaluations
    out.print(f"{total - failed} of {total} evaluations hold")
    if failed:
        raise typer.Exit(3)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            "CLI-1301", f"cannot read {file}: {error}", "Give a text file in UTF-8."
        ) from error


def check_file(
    file: Path = typer.Argument(help="Formulas, one `name = expression` a line."),
    asset: str = typer.Option(help="Equipment whose quantities they name; may be a glob."),
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Check a file of formulas: names, units and windows."""
    folder, text = DataFolder(data.resolve()), _text(file)
    try:
        plans = asyncio.run(_check(folder, text, asset))
    except FormulaProblem as problem:
        _fail(problem, language)
    table = Table("formula", "result", "looks back")
    for name, plan in plans.items():
        kind = plan.unit if plan.kind == "number" else plan.kind
        table.add_row(name, escape(kind), _span(plan.back_us))
    Console().print(table)


async def _check(folder: DataFolder, text: str, pattern: str) -> dict[str, Plan]:
    async with AsyncExitStack() as stack:
        _, _, names, calendar = await _open(stack, folder, pattern)
        known: dict[str, Quantity] = dict(names)
        plans = {}
        for statement in parse_file(text):
            plan = check_statement(
                statement,
                known,
                subject=pattern,
                calendar=calendar,
                calendar_names=calendar.names(),
            )
            plans[statement.name] = plan
            known[statement.name] = Quantity(plan.kind, plan.unit)
        return plans


def evaluate_now(
    formula: str = typer.Argument(help="For example 'mean(flow, 15 min)'."),
    asset: str = typer.Option(help="Equipment path, or a glob over them: 'utilities/*/pump_*'."),
    start: str = typer.Option("-1h", "--from", help="now, -1h, or ISO 8601 with a zone."),
    end: str = typer.Option("now", "--to", help="Same forms as --from."),
    csv: bool = typer.Option(False, "--csv", help="CSV to standard output."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a row."),
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Evaluate a formula on stored history."""
    folder, now_us = DataFolder(data.resolve()), SystemClock().now_us()
    span = (parse_time(start, now_us), parse_time(end, now_us))
    if span[1] <= span[0]:
        raise Misconfigured(
            "CLI-1302", f"the time from {start} to {end} is empty", "Give a --to after --from."
        )
    try:
        plan, rows = asyncio.run(_evaluate(folder, formula, asset, span))
    except FormulaProblem as problem:
        _fail(problem, language)
    if csv:
        sys.stdout.write(rows.write_csv())
    elif as_json:
        for row in rows.iter_rows(named=True):
            sys.stdout.write(json.dumps(row) + "\n")
    else:
        _show(rows, plan, formula)


async def _evaluate(
    folder: DataFolder, formula: str, pattern: str, span: tuple[int, int]
) -> tuple[Plan, pl.DataFrame]:
    async with AsyncExitStack() as stack:
        reader, assets, names, calendar = await _open(stack, folder, pattern)
        plan = compile_formula(
            formula, names, subject=pattern, calendar=calendar, calendar_names=calendar.names()
        )
        parts = await asyncio.to_thread(
            lambda: list(evaluate_history(reader, plan, assets, *span, calendar=calendar))
        )
    paths = pl.DataFrame(
        {"asset": pl.Series(range(len(assets)), dtype=pl.Int64), "path": [a.path for a in assets]}
    )
    at = pl.from_epoch("at_us", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    rows = pl.concat(parts).sort("asset", "at_us").join(paths, on="asset", how="left")
    return plan, rows.select("path", at.alias("timestamp"), "value", "text", "status")


async def _open(
    stack: AsyncExitStack, folder: DataFolder, pattern: str
) -> tuple[Reader, list[AssetTags], dict[str, Quantity], PlantCalendar]:
    registry = Registry.of(folder)
    try:
        tags = registry.find("**")
        site = registry.site()
    finally:
        registry.close()
    assets = equipment_of(((tag.path, tag.tag_id) for tag in tags), pattern)
    try:
        address = load_address(folder)
        bus = await stack.enter_async_context(open_bus(address, "formula", wait_s=BROKER_WAIT_S))
        reader = await stack.enter_async_context(open_reader(folder, bus))
    except Transient as error:
        Console(stderr=True).print(
            f"[yellow]{error.code}[/] {error.what}: reading the table alone, without what is not "
            "committed yet"
        )
        reader = await stack.enter_async_context(open_reader(folder))
    units = {tag.tag_id: tag.unit for tag in tags}
    names = await asyncio.to_thread(quantities_of, assets, units, reader)
    return reader, assets, names, PlantCalendar(time_zone=site.time_zone if site else "UTC")


def _show(rows: pl.DataFrame, plan: Plan, formula: str) -> None:
    unit = plan.unit if plan.kind == "number" else plan.kind
    table = Table("equipment", "time (UTC)", f"value [{unit}]".replace("[", r"\["), "status")
    table.title, table.title_justify = escape(formula), "left"
    for row in rows.head(SHOWN_ROWS_MAX).iter_rows(named=True):
        value = row["text"] or ("" if row["value"] is None else f"{row['value']:.7g}")
        table.add_row(row["path"], row["timestamp"], value, status_name(row["status"]))
    out = Console()
    out.print(table)
    if rows.height > SHOWN_ROWS_MAX:
        out.print(f"[dim]{rows.height - SHOWN_ROWS_MAX} more rows; all with --csv[/]")


def functions(language: str = LANGUAGE) -> None:
    """The functions of the language, with how each is written."""
    table = Table("function", "meaning" if language == "en" else "含义")
    for name, each in FUNCTIONS.items():
        if name != "status":
            table.add_row(escape(each.usage), each.help_zh if language == "zh" else each.help)
    Console().print(table)


def _fail(problem: FormulaProblem, language: str) -> Any:
    if language not in LANGUAGES:
        raise Misconfigured("CLI-1303", f"there is no language {language!r}", "Write en or zh.")
    Console(stderr=True).print(escape(problem.show(language)), highlight=False)
    raise typer.Exit(2) from problem


def _span(length_us: int) -> str:
    for size, unit in ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min")):
        if length_us >= size:
            return f"{length_us / size:g} {unit}"
    return f"{length_us / 1e6:g} s"
