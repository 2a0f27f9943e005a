"""``headrace ledger``: every sample accounted for, from the poll that was due to the table."""

from __future__ import annotations

import csv as csv_format
import json
import sys
from pathlib import Path
from typing import Any, Final

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.cli.run import DATA
from headrace.historian.ledger_store import Wanted, read_ledger
from headrace.historian.times import parse_time
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.ledger import COUNTS
from headrace.model.ledger_view import BYS, summed, total, ways
from headrace.model.time import SystemClock, to_datetime

SHOWN_ROWS_MAX: Final = 200
UNEXPLAINED_EXIT: Final = 3
_SHOWN: Final = ("expected", "read", "bad", "published", "stored", "late", "unexplained")
_COLOURS: Final = {"fine": "dim", "odd": "yellow", "loss": "red"}


def register(app: typer.Typer) -> None:
    """Add ``ledger``."""

    @app.command("ledger")
    def ledger(
        connection: str = typer.Option("", "--connection", help="Only this connection."),
        group: str = typer.Option("", "--group", help="Only this tag group, such as 1000ms."),
        start: str = typer.Option("-1h", "--from", help="now, -1h, or ISO 8601 with a zone."),
        end: str = typer.Option("now", "--to", help="Same forms as --from."),
        by: str = typer.Option("connection", "--by", help="minute, hour or connection."),
        form: str = typer.Option("table", "--format", help="table, csv or json."),
        data: Path = DATA,
    ) -> None:
        """Show where every sample went: what was expected, read, published and stored.

        Ends with 3 when a difference has no cause.
        """
        if by not in BYS:
            raise Misconfigured(
                "CLI-1701", f"--by {by!r} is unknown", f"Use one of {', '.join(BYS)}."
            )
        if form not in ("table", "csv", "json"):
            raise Misconfigured(
                "CLI-1702", f"--format {form!r} is unknown", "Use table, csv or json."
            )
        folder, clock = DataFolder(data.resolve()), SystemClock()
        now_us = clock.now_us()
        span = parse_time(start, now_us), parse_time(end, now_us)
        with read_ledger(folder.ledger_file, clock) as store:
            rows = summed(store.accounts(Wanted(*span, connection, group)), by)
        {"table": _print_table, "csv": _print_csv, "json": _print_json}[form](rows)
        if rows["unexplained"].sum():
            raise typer.Exit(UNEXPLAINED_EXIT)


def _print_table(rows: pl.DataFrame) -> None:
    out = Console()
    table = Table(title="Where every sample went", show_footer=True)
    sums = total(rows)
    table.add_column("from (UTC)", "total")
    table.add_column("connection")
    table.add_column("group")
    for name in _SHOWN:
        table.add_column(name, _number(name, sums[name]), justify="right")
    table.add_column("what separates expected from stored", _words(sums))
    for row in rows.tail(SHOWN_ROWS_MAX).iter_rows(named=True):
        at = to_datetime(row["minute_us"]).strftime("%Y-%m-%d %H:%M")
        numbers = [_number(name, row[name]) for name in _SHOWN]
        table.add_row(at, escape(row["connection"]), row["group"], *numbers, _words(row))
    out.print(table)
    if rows.height > SHOWN_ROWS_MAX:
        out.print(f"The last {SHOWN_ROWS_MAX} of {rows.height} rows; --format csv has all.")
    _print_verdict(out, sums)


def _print_verdict(out: Console, sums: dict[str, int]) -> None:
    if sums["unexplained"]:
        out.print(f"[bold red]{sums['unexplained']} samples are unexplained[/]")
    elif sums["open"] or sums["in_log"] or sums["buffered"]:
        moving = sums["open"] + sums["in_log"] + sums["buffered"]
        out.print(f"The books close; {moving} samples are on their way.")
    else:
        out.print("[green]The books close: every sample is accounted for.[/]")
    for way in ways(sums):
        if way.cause.remedy[0]:
            out.print(f"[dim]{way.cause.title[0]}: {escape(way.cause.text[0])}[/]")
            out.print(f"[dim]→ {escape(way.cause.remedy[0])}[/]")


def _number(name: str, samples: int) -> str:
    return f"[bold red]{samples}[/]" if name == "unexplained" and samples else str(samples)


def _words(row: dict[str, Any]) -> str:
    words = [
        f"[{_COLOURS[way.cause.weight]}]{way.samples} {way.cause.title[0]}[/]"
        for way in ways(row)
        if way.cause.name != "unexplained"
    ]
    if row["marked"]:
        words.insert(0, f"[dim]+{row['marked']} marks of the edge itself[/]")
    return ", ".join(words)


def _print_csv(rows: pl.DataFrame) -> None:
    sheet = csv_format.writer(sys.stdout)
    sheet.writerow(["from", "edge", "connection", "group", *COUNTS])
    for row in rows.iter_rows(named=True):
        at = to_datetime(row["minute_us"]).isoformat()
        names = [row[name] for name in ("edge", "connection", "group")]
        sheet.writerow([at, *names, *(row[name] for name in COUNTS)])


def _print_json(rows: pl.DataFrame) -> None:
    made = [
        {**row, "causes": {way.cause.name: way.samples for way in ways(row)}}
        for row in rows.iter_rows(named=True)
    ]
    sums = total(rows)
    sys.stdout.write(
        json.dumps({"rows": made, "total": sums, "unexplained": sums["unexplained"]}) + "\n"
    )
