"""``headrace query``: history of tags as a table, CSV, JSON, Parquet or a picture."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final, cast

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.audit import person
from headrace.cli.reading import find_tags, open_history
from headrace.cli.run import DATA
from headrace.historian.aggregates import check_name
from headrace.historian.by_calendar import aggregate_windows, is_window, windows_of
from headrace.historian.intervals import AggregateConfiguration
from headrace.historian.plot import Trend, plot
from headrace.historian.times import parse_duration, parse_time
from headrace.model.calendar import PlantCalendar, Window
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.status import name as status_name
from headrace.model.status import severity
from headrace.model.time import SystemClock, to_datetime
from headrace.security.identity import Identity
from headrace.security.receipt_rows import TagSet
from headrace.site.registry import Registry, TagRecord

SHOWN_ROWS_MAX: Final = 100
PLOT_POINTS: Final = 1_200
_COLOURS: Final = {"Good": "", "Uncertain": "yellow", "Bad": "red"}


@dataclass(frozen=True)
class Request:
    """What to read: tags by id, the time, and the aggregate when there is one."""

    tags: dict[int, TagRecord]
    start_us: int
    end_us: int
    aggregate: str
    every_us: int
    windows: tuple[Window, ...] | None
    configuration: AggregateConfiguration
    zone: tzinfo


def register(app: typer.Typer) -> None:
    """Add ``query``."""

    @app.command("query")
    def query(
        pattern: str = typer.Argument(help="Glob over tag paths, for example 'utilities/**/flow'."),
        start: str = typer.Option("-1h", "--from", help="now, -1h, or ISO 8601 with a zone."),
        end: str = typer.Option("now", "--to", help="Same forms as --from."),
        every: str = typer.Option(
            "",
            "--every",
            help="1m, 8h, or of the plant calendar: shift, hour, day, month.",
        ),
        aggregate: str = typer.Option(
            "", "--aggregate", help="OPC UA aggregate; TimeAverage when only --every is given."
        ),
        stepped: bool = typer.Option(False, "--stepped", help="Values hold until the next one."),
        uncertain_is_good: bool = typer.Option(
            False, "--uncertain-is-good", help="Do not treat Uncertain as Bad."
        ),
        limit: int = typer.Option(0, "--limit", help="First so many rows; 0 is all."),
        csv: bool = typer.Option(False, "--csv", help="CSV to standard output."),
        as_json: bool = typer.Option(False, "--json", help="One JSON object a row."),
        parquet: Path | None = typer.Option(None, "--parquet", help="Write a Parquet file."),
        picture: Path | None = typer.Option(None, "--plot", help="Write a PNG picture."),
        data: Path = DATA,
    ) -> None:
        """Read the history of tags, with what arrived a moment ago."""
        folder = DataFolder(data.resolve())
        now_us = SystemClock().now_us()
        configuration = AggregateConfiguration(
            stepped=stepped, treat_uncertain_as_bad=not uncertain_is_good
        )
        span_us = parse_time(start, now_us), parse_time(end, now_us)
        calendar = _calendar(folder) if is_window(every) else None
        request = Request(
            tags={record.tag_id: record for record in find_tags(folder, pattern)},
            start_us=span_us[0],
            end_us=span_us[1],
            aggregate=check_name(aggregate or "TimeAverage") if aggregate or every else "",
            every_us=parse_duration(every) if every and calendar is None else 0,
            windows=tuple(windows_of(calendar, every, *span_us)) if calendar else None,
            configuration=configuration,
            zone=_local_zone() if calendar is None else calendar.zone,
        )
        _check_time(request)
        if picture is not None:
            _tell(folder, list(request.tags), 0, (request.start_us, request.end_us))
            asyncio.run(_draw(folder, request, picture, pattern))
            Console(stderr=True).print(f"wrote {picture}")
            return
        rows = asyncio.run(_read(folder, request, limit))
        _tell(folder, list(request.tags), rows.height, _span_of(request))
        _write(rows, request, csv=csv, as_json=as_json, parquet=parquet)


def _span_of(request: Request) -> tuple[int, int]:
    """The time that is read: windows of the calendar are whole, also beyond what was asked for."""
    if request.windows:
        return request.windows[0].start_us, request.windows[-1].end_us
    return request.start_us, request.end_us


def _tell(folder: DataFolder, tag_ids: list[int], rows: int, span: tuple[int, int]) -> None:
    """Tell in the audit chain what somebody on the command line reads, before it is shown.

    Args:
        span: source times [start, end), UTC microseconds.
    """
    identity = Identity(folder)
    try:
        identity.receipts.note(
            person(),
            "cli/query",
            TagSet.of(tag_ids),
            rule="access to the data folder",
            samples=rows,
            span=span,
        )
        identity.receipts.flush()
    finally:
        identity.close()


def _calendar(folder: DataFolder) -> PlantCalendar:
    """Of the site file that is in force; without one it has no shifts, in UTC."""
    registry = Registry.of(folder)
    try:
        found = registry.apps()
    finally:
        registry.close()
    return found.calendar if found is not None else PlantCalendar()


def _check_time(request: Request) -> None:
    if request.end_us <= request.start_us:
        raise Misconfigured(
            "HIST-1091",
            f"the time from {to_datetime(request.start_us)} to {to_datetime(request.end_us)} is empty",
            "Give a --to after --from.",
        )


def _local_zone() -> tzinfo:
    return cast(tzinfo, to_datetime(SystemClock().now_us()).astimezone().tzinfo)


async def _read(folder: DataFolder, request: Request, limit: int) -> pl.DataFrame:
    async with AsyncExitStack() as stack:
        reader = await open_history(stack, folder, "query")
        ids = list(request.tags)
        if not request.aggregate:
            found = await asyncio.to_thread(
                reader.read, ids, request.start_us, request.end_us, limit or None
            )
            return found.rename({"source_timestamp": "timestamp"})
        if request.windows is not None:
            found = await asyncio.to_thread(
                aggregate_windows,
                reader,
                ids,
                request.aggregate,
                request.windows,
                request.configuration,
            )
            return found.head(limit) if limit else found
        found = await asyncio.to_thread(
            reader.aggregate,
            ids,
            request.aggregate,
            request.start_us,
            request.end_us,
            request.every_us,
            request.configuration,
        )
        return found.head(limit) if limit else found


async def _draw(folder: DataFolder, request: Request, path: Path, title: str) -> None:
    async with AsyncExitStack() as stack:
        reader = await open_history(stack, folder, "query")
        trends = []
        for tag_id, record in request.tags.items():
            buckets = await asyncio.to_thread(
                reader.downsample, tag_id, request.start_us, request.end_us, PLOT_POINTS
            )
            trends.append(Trend(record.path, record.unit, buckets))
        plot(trends, request.start_us, request.end_us, path, request.zone, title)


def _write(
    rows: pl.DataFrame, request: Request, *, csv: bool, as_json: bool, parquet: Path | None
) -> None:
    ids = pl.Series("tag_id", list(request.tags), dtype=pl.Int64)
    paths = pl.Series("path", [record.path for record in request.tags.values()], dtype=pl.String)
    named = pl.DataFrame([ids, paths]).join(rows, on="tag_id", how="right", maintain_order="right")
    if parquet is not None:
        named.write_parquet(parquet)
        Console(stderr=True).print(f"wrote {named.height} rows to {parquet}")
    elif csv:
        sys.stdout.write(named.with_columns(_iso()).write_csv())
    elif as_json:
        for row in named.with_columns(_iso()).iter_rows(named=True):
            sys.stdout.write(json.dumps(row) + "\n")
    else:
        _show(named, request)


def _iso() -> pl.Expr:
    return pl.col(pl.Datetime("us", "UTC")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")


def _show(rows: pl.DataFrame, request: Request) -> None:
    title = f"{request.aggregate}" if request.aggregate else "samples"
    zone = datetime.fromtimestamp(request.end_us / 1e6, tz=request.zone).tzname()
    table = Table(title=title, title_justify="left")
    for column, justify in (("tag", "left"), (f"time ({zone})", "left"), ("value", "right"),
                            ("unit", "left"), ("status", "left")):  # fmt: skip
        table.add_column(column, justify=cast(Any, justify), no_wrap=True)
    by_window = request.windows is not None
    if by_window:
        table.add_column("window", no_wrap=True)
    for row in rows.head(SHOWN_ROWS_MAX).iter_rows(named=True):
        colour = _COLOURS[severity(row["status"])]
        status = status_name(row["status"])
        table.add_row(
            row["path"],
            row["timestamp"].astimezone(request.zone).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
            _number(row),
            request.tags[row["tag_id"]].unit,
            f"[{colour}]{status}[/]" if colour else status,
            *((_window(row),) if by_window else ()),
        )
    out = Console()
    out.print(table)
    if rows.height > SHOWN_ROWS_MAX:
        out.print(f"[dim]{rows.height - SHOWN_ROWS_MAX} more rows; all with --csv or --parquet[/]")


def _window(row: dict[str, Any]) -> str:
    """How long it was, and whose shift: ``9 h night B``."""
    return " ".join(filter(None, (f"{row['duration_h']:g} h", row["shift"], row["team"])))


def _number(row: dict[str, Any]) -> str:
    """The text when there is one (it has the exact digits), else seven significant digits."""
    if row.get("text") is not None:
        return str(row["text"])
    return "" if row["value"] is None else f"{row['value']:.7g}"
