"""``headrace formula``: check formulas, evaluate them on stored history, list the functions."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from headrace.cli.formula_changes import changes
from headrace.cli.formula_history import backfill_formulas, backtest_now
from headrace.cli.reading import open_history
from headrace.cli.run import DATA
from headrace.formula.alarm_check import check_statement
from headrace.formula.cases import run_cases
from headrace.formula.check import Quantity
from headrace.formula.functions import FUNCTIONS
from headrace.formula.grammar import parse_file
from headrace.formula.plan import Plan
from headrace.formula.problems import LANGUAGES, FormulaProblem
from headrace.historian.backfill import backfills, version_of
from headrace.historian.reader import Reader
from headrace.historian.times import parse_time
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.status import name as status_name
from headrace.model.time import SystemClock, to_datetime
from headrace.site.formulas import (
    Ground,
    formula_lines,
    ground_of_equipment,
    ground_of_type,
)
from headrace.site.notes import near
from headrace.site.registry import Registry

SHOWN_ROWS_MAX: Final = 100
ASSET = typer.Option("", help="Equipment path, or a glob over them: 'utilities/*/pump_*'.")
TYPE = typer.Option("", "--type", help="Asset type, instead of --asset: on all its assets.")
LANGUAGE = typer.Option("en", "--language", help="Of messages: en or zh.")


def register(app: typer.Typer) -> None:
    """Add ``formula``."""
    group = typer.Typer(help="Formulas: check, evaluate on history, list the functions.")
    app.add_typer(group, name="formula")
    group.command("check")(check_file)
    group.command("eval")(evaluate_now)
    group.command("test")(test_file)
    group.command("functions")(functions)
    group.command("list")(list_formulas)
    group.command("versions")(versions)
    group.command("backfill")(backfill_formulas)
    group.command("backtest")(backtest_now)
    group.command("changes")(changes)


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
    asset: str = ASSET,
    asset_type: str = TYPE,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Check a file of formulas: names, units and windows."""
    folder, text = DataFolder(data.resolve()), _text(file)
    try:
        plans = asyncio.run(_check(folder, text, asset, asset_type))
    except FormulaProblem as problem:
        _fail(problem, language)
    table = Table("formula", "result", "looks back")
    for name, plan in plans.items():
        kind = plan.unit if plan.kind == "number" else plan.kind
        table.add_row(name, escape(kind), _span(plan.back_us))
    Console().print(table)


async def _check(folder: DataFolder, text: str, pattern: str, kind: str) -> dict[str, Plan]:
    async with AsyncExitStack() as stack:
        _, ground = await _open(stack, folder, pattern, kind)
    known, plans = ground.names(), dict[str, Plan]()
    for statement in parse_file(text):
        plan = check_statement(
            statement,
            known,
            subject=ground.asset_type,
            calendar=ground.calendar,
            calendar_names=ground.calendar.names(),
        )
        plans[statement.name] = plan
        known[statement.name] = Quantity(plan.kind, plan.unit)
    return plans


def evaluate_now(
    formula: str = typer.Argument(help="For example 'mean(flow, 15 min)'."),
    asset: str = ASSET,
    asset_type: str = TYPE,
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
        plan, rows = asyncio.run(_evaluate(folder, formula, (asset, asset_type), span))
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
    folder: DataFolder, formula: str, place: tuple[str, str], span: tuple[int, int]
) -> tuple[Plan, pl.DataFrame]:
    async with AsyncExitStack() as stack:
        reader, ground = await _open(stack, folder, *place)
        plan = ground.compile(formula)
        laid = ground.lay(plan)
        parts = await asyncio.to_thread(lambda: list(laid.on_history(reader, *span)))
    for path, name in laid.lacking:
        Console(stderr=True).print(
            f"not evaluated on {path}: it lacks {name}", highlight=False, soft_wrap=True
        )
    paths = pl.DataFrame(
        {
            "asset": pl.Series(range(len(laid.bound.assets)), dtype=pl.Int64),
            "path": laid.bound.assets,
        }
    )
    at = pl.from_epoch("at_us", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    rows = pl.concat(parts).sort("asset", "at_us").join(paths, on="asset", how="left")
    return plan, rows.select("path", at.alias("timestamp"), "value", "text", "status")


async def _open(
    stack: AsyncExitStack, folder: DataFolder, pattern: str, kind: str
) -> tuple[Reader, Ground]:
    if bool(pattern) == bool(kind):
        raise Misconfigured(
            "CLI-1304",
            "both --asset and --type are given" if kind else "neither --asset nor --type is given",
            "Name equipment with --asset, or an asset type with --type.",
        )
    registry = Registry.of(folder)
    try:
        config = registry.apps()
        tags = [(tag.path, tag.tag_id, tag.unit) for tag in registry.find("**")]
    finally:
        registry.close()
    reader = await open_history(stack, folder, "formula")
    if kind:
        return reader, ground_of_type(config, kind)
    return reader, await asyncio.to_thread(ground_of_equipment, config, pattern, tags, reader)


def list_formulas(
    asset_type: str = TYPE,
    as_json: bool = typer.Option(False, "--json", help="One JSON object a formula."),
    data: Path = DATA,
) -> None:
    """The formulas and alarms of the site file: version, state, and where each is evaluated."""
    registry = Registry.of(DataFolder(data.resolve()))
    try:
        config = registry.apps()
    finally:
        registry.close()
    lines = [line for line in formula_lines(config) if asset_type in ("", line.asset_type)]
    if as_json:
        for line in lines:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        return
    formula = Column("formula", no_wrap=True)
    table = Table(formula, "kind", "version", "state", "runs on", "result", "assets", "not on")
    for line in lines:
        shown = ", ".join(f"{path} (no {name})" for path, name in line.missing[:3])
        places = [*(["platform"] if line.on_platform else []), *(f"edge {e}" for e in line.edges)]
        table.add_row(
            f"{line.asset_type}.{line.name}", line.kind, str(line.version), line.state,
            ", ".join(places), escape(line.unit), str(line.assets), escape(shown),
        )  # fmt: skip
    Console().print(table)


def versions(
    formula: str = typer.Argument(help="Asset type and name, such as pump.efficiency."),
    at: str = typer.Option("", "--at", help="Which one gave the result of this time?"),
    data: Path = DATA,
) -> None:
    """Every text that a formula had, from when each gives results, and what was back-filled."""
    kind, _, name = formula.partition(".")
    folder = DataFolder(data.resolve())
    registry = Registry.of(folder)
    try:
        found = registry.formula_versions(kind, name) if name else []
        known = {f"{each.asset_type}.{each.name}" for each in registry.formula_versions()}
    finally:
        registry.close()
    if not found:
        raise Misconfigured(
            "CLI-1305",
            f"there is no formula {formula!r}",
            near(formula, known) or "See them with: headrace formula list",
        )
    table = Table("version", "results from (UTC)", "accepted (UTC)", "text")
    for each in found:
        start = _date(each.start_us) if each.start_us else "the beginning"
        left = f"\n[dim]left {_date(each.retired_us)}[/]" if each.retired_us else ""
        table.add_row(str(each.version), start, _date(each.accepted_us), escape(each.text) + left)
    out, made = Console(), backfills(folder, formula)
    out.print(table)
    for done in made:
        span = f"{_date(done.start_us)} to {_date(done.end_us)}"
        out.print(f"back-filled by version {done.version}: {span}", highlight=False)
    if at:
        at_us = parse_time(at, SystemClock().now_us())
        live = [(each.version, each.start_us, each.accepted_us) for each in found]
        said = version_of(made, at_us, live)
        told = "no version gave one yet" if said is None else f"given by version {said}"
        out.print(f"the result of {_date(at_us)}: {told}", highlight=False)


def _date(at_us: int) -> str:
    return to_datetime(at_us).isoformat(" ", "seconds").removesuffix("+00:00")


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
