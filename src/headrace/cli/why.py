"""``headrace why``: why a tag's value is as old as it is, hop by hop from the device to the screen."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from datetime import tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.bus.subjects import Subjects
from headrace.cli.health import HealthWatch
from headrace.cli.run import DATA, site_subjects
from headrace.console.texts import Texts
from headrace.console.why_text import COLUMNS, WhyText, as_plain
from headrace.historian.facts import table_facts
from headrace.historian.reader import open_reader
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock, to_datetime
from headrace.model.why import Diagnosis, Hop, diagnose
from headrace.model.why_facts import ScreenFacts, TableFacts, WhyTag
from headrace.site.registry import Registry
from headrace.site.why import Sources, ask_console, collect, find_tag

NOT_FRESH: Final = 3
BROKER_WAIT_S: Final = 2.0
HEALTH_WAIT_S: Final = 2.5
_COLOURS: Final = {"proven": "green", "waiting": "yellow", "broken": "red", "unknown": "dim"}
_SIGNS: Final = {"proven": "●", "waiting": "◐", "broken": "✖", "unknown": "○"}


class Format(StrEnum):
    """How the answer is written."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add ``why``."""

    @app.command("why")
    def why(
        tag: str = typer.Argument(help="Path of the tag, an earlier path, or its id."),
        format: Format = typer.Option(Format.text, "--format", help="text, or json for programs."),
        language: str = typer.Option("", "--language", help="en or zh [as the terminal's]."),
        data: Path = DATA,
    ) -> None:
        """Say why a tag's value is as old as it is. Ends with 0 when it is proven fresh, else with 3."""
        folder = DataFolder(data.resolve())
        diagnosis = asyncio.run(ask(folder, find(folder, tag)))
        zone = cast(tzinfo, to_datetime(diagnosis.at_us).astimezone().tzinfo)
        if format is Format.json:
            sys.stdout.write(json.dumps(as_plain(diagnosis, zone), ensure_ascii=False) + "\n")
        else:
            chosen = language or os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
            _show(diagnosis, Texts("zh" if chosen.lower().startswith("zh") else "en"), zone)
        if not diagnosis.fresh:
            raise typer.Exit(NOT_FRESH)


def find(folder: DataFolder, name: str) -> WhyTag:
    """The tag of a path, an earlier path or an id.

    Raises:
        Misconfigured: SITE-1801 when there is none, or several.
    """
    registry = Registry.of(folder)
    try:
        return find_tag(registry, name)
    finally:
        registry.close()


async def ask(folder: DataFolder, tag: WhyTag) -> Diagnosis:
    """Why a tag's value is as old as it is; also when the broker does not run."""
    clock, subjects = SystemClock(), site_subjects(folder)
    async with AsyncExitStack() as stack:
        try:
            address = load_address(folder)
            bus = await stack.enter_async_context(
                open_bus(address.as_role("cli"), "why", wait_s=BROKER_WAIT_S)
            )
        except Transient as error:
            return diagnose(await collect(tag, _offline(folder, subjects, error), clock))
        watch = HealthWatch(clock)
        await watch.start(bus, subjects)
        reader = await stack.enter_async_context(open_reader(folder, bus, catch_up=False))

        async def table(tag_id: int, live: bool) -> TableFacts:
            return await table_facts(reader, tag_id, live=live)

        async def found(tag_id: int) -> WhyTag | None:
            return await asyncio.to_thread(find, folder, str(tag_id))

        async def screen(tag_id: int, live: bool) -> ScreenFacts | None:
            return await ask_console(bus, subjects, tag_id) if live else None

        own = tag.retired or tag.paused or tag.derived
        await watch.until("" if own else tag.edge, HEALTH_WAIT_S)
        heard = watch.edges.get(tag.edge)
        sources = Sources(
            bus=bus,
            subjects=subjects,
            table=table,
            screen=screen,
            edge_seen_us=heard[1] if heard else 0,
            historian=watch.historian,
            find=found,
        )
        return diagnose(await collect(tag, sources, clock))


def _offline(folder: DataFolder, subjects: Subjects, error: Transient) -> Sources:
    """What can be known without a broker: the table as it stands."""

    async def table(tag_id: int, live: bool) -> TableFacts:
        async with open_reader(folder) as reader:
            return await table_facts(reader, tag_id, live=live)

    async def screen(_: int, __: bool) -> None:
        return None

    return Sources(bus=None, subjects=subjects, table=table, screen=screen, bus_error=error)


def _show(diagnosis: Diagnosis, texts: Texts, zone: tzinfo) -> None:
    out = Console(highlight=False)
    words = WhyText(texts, diagnosis, zone)
    tag = diagnosis.tag
    place = texts("why.connection_of", path=tag.path, connection=tag.connection)
    out.print(f"[bold]{escape(place if tag.connection else tag.path)}[/]")
    chain = [f"[{_COLOURS[h.state]}]{_SIGNS[h.state]} {words.name(h)}[/]" for h in diagnosis.hops]
    out.print(" → ".join(chain))
    state = "proven" if diagnosis.fresh else diagnosis.hop(diagnosis.culprit).state
    out.print(f"[bold {_COLOURS[state]}]{escape(words.headline())}[/]")
    table = Table(show_edge=False, pad_edge=False)
    for key in COLUMNS:
        table.add_column(texts(key), overflow="fold")
    for hop in diagnosis.hops:
        table.add_row(*_row(words, hop), style="" if hop.state != "unknown" else "dim")
    out.print(table)
    for note in words.notes():
        out.print(f"[dim]{escape(texts('why.note', text=note))}[/]")


def _row(words: WhyText, hop: Hop) -> tuple[str, ...]:
    age = f" ({words.error_age(hop)})" if words.error_age(hop) else ""
    error = f"{hop.code} {hop.error}{age}".strip()
    return (
        words.name(hop),
        f"[{_COLOURS[hop.state]}]{words.state(hop)}[/]",
        escape(words.reason(hop)),
        words.age(hop),
        words.offset(hop),
        f"[dim]{escape(error)}[/]" if hop.state == "proven" else escape(error),
    )
