"""``headrace formula changes``: results of the past that were worked out again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.apps.changes import CHANGES_MAX, recent_changes
from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.cli.run import DATA, site_subjects
from headrace.cli.status import require_broker
from headrace.model.apps import FormulaChange
from headrace.model.folder import DataFolder
from headrace.model.time import to_datetime

BROKER_WAIT_S: Final = 2.0


def changes(
    key: str = typer.Argument("", help="Of this formula only, for example pump.efficiency."),
    limit: int = typer.Option(50, min=1, max=CHANGES_MAX, help="At most so many, the newest."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a row."),
    data: Path = DATA,
) -> None:
    """Results of the past that changed: which formula and assets, which time, how many, and why."""
    folder = DataFolder(data.resolve())
    require_broker(folder)
    found = asyncio.run(_read(folder, key, limit))
    if as_json:
        for change in found:
            sys.stdout.write(msgspec.json.encode(change).decode() + "\n")
        return
    table = Table("told (UTC)", "formula", "version", "assets", "from", "to", "changed", "why")
    for change in found:
        first = ", ".join(change.assets[:2])
        more = f" and {change.assets_total - 2} more" if change.assets_total > 2 else ""
        table.add_row(
            _time(change.at_us),
            escape(change.key),
            str(change.version),
            escape(first + more),
            _time(change.start_us),
            _time(change.end_us),
            f"{change.changed}" + (f", {change.retracted} no more" if change.retracted else ""),
            change.cause,
        )
    Console().print(table)


async def _read(folder: DataFolder, key: str, limit: int) -> list[FormulaChange]:
    async with open_bus(
        load_address(folder).as_role("cli"), "formula", wait_s=BROKER_WAIT_S
    ) as bus:
        return await recent_changes(bus, site_subjects(folder), limit, key=key)


def _time(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M:%S")
