"""``headrace notify``: the channels on which people are told of alarms, a test of each, and the log."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.alarms.notify.notifier import send_test
from headrace.alarms.notify.sending import Sender
from headrace.alarms.notify.store import Attempt, NotifyStore
from headrace.cli.run import DATA
from headrace.historian.times import parse_time
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.notify import ChannelConfig
from headrace.model.time import SystemClock, to_datetime
from headrace.site.file import load_site

FAILED_EXIT: Final = 3
FORM = typer.Option("table", "--format", help="table or json.")
_COLOURS: Final = {"sent": "green", "limited": "yellow", "retry": "yellow", "open": "dim"}


def register(app: typer.Typer) -> None:
    """Add the group ``notify``."""
    group = typer.Typer(help="Who is told of alarms: channels, tests, log.", no_args_is_help=True)

    @group.command("list")
    def list_channels(form: str = FORM, data: Path = DATA) -> None:
        """Show the channels of the site file, what waits on them and their last result."""
        _check_form(form)
        folder = DataFolder(data.resolve())
        channels = load_site(folder.site_file).notify.channels
        with _store(folder) as store:
            counts = store.counts()
            last = {each.name: store.log(channel=each.name, limit=1) for each in channels}
        rows = [_channel_row(each, counts.get(each.name, {}), last[each.name]) for each in channels]
        if form == "json":
            sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        else:
            _print_channels(rows)

    @group.command("test")
    def test(channel: str = typer.Argument(help="Name of the channel."), data: Path = DATA) -> None:
        """Send a test message on a channel. Ends with 3 when it was not delivered."""
        folder, clock = DataFolder(data.resolve()), SystemClock()
        site = load_site(folder.site_file)
        sender = Sender(folder.root, clock.now_us)
        with _store(folder) as store:
            outcome = asyncio.run(
                send_test(channel, site.notify, site.calendar, store, clock, sender.send)
            )
        out = Console()
        said = escape(f"{outcome.code} {outcome.text}".strip())
        if outcome.result == "sent":
            out.print(f"[green]Delivered[/] on {escape(channel)} ({said})", highlight=False)
            return
        out.print(f"[red]Not delivered[/] on {escape(channel)}: {said}", highlight=False)
        raise typer.Exit(FAILED_EXIT)

    @group.command("log")
    def log(
        channel: str = typer.Option("", "--channel", help="Only this channel."),
        start: str = typer.Option("-7d", "--from", help="now, -1h, or ISO 8601 with a zone."),
        limit: int = typer.Option(50, "--limit", min=1, max=10_000, help="At most so many."),
        form: str = FORM,
        data: Path = DATA,
    ) -> None:
        """Show every attempt, newest first."""
        _check_form(form)
        folder, now_us = DataFolder(data.resolve()), SystemClock().now_us()
        with _store(folder) as store:
            start_us = parse_time(start, now_us)
            found = store.log(channel=channel, start_us=start_us, limit=limit)
        if form == "json":
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        else:
            _print_log(found)

    app.add_typer(group, name="notify")


def _check_form(form: str) -> None:
    if form not in ("table", "json"):
        raise Misconfigured("CLI-1702", f"--format {form!r} is unknown", "Use table or json.")


@contextmanager
def _store(folder: DataFolder) -> Iterator[NotifyStore]:
    store = NotifyStore(folder)
    try:
        yield store
    finally:
        store.close()


def _channel_row(
    channel: ChannelConfig, counts: dict[str, int], last: list[Attempt]
) -> dict[str, Any]:
    return {
        "channel": channel.name,
        "kind": channel.kind,
        "waiting": counts.get("waiting", 0),
        "sent": counts.get("sent", 0),
        "failed": counts.get("failed", 0) + counts.get("expired", 0),
        "last_at_us": last[0].at_us if last else 0,
        "last_result": last[0].result if last else "",
        "last_text": f"{last[0].code} {last[0].text}".strip() if last else "",
    }


def _print_channels(rows: list[dict[str, Any]]) -> None:
    names = ("channel", "kind", "waiting", "sent", "failed", "last (UTC)", "result")
    table = Table(*names, box=None, header_style="bold")
    for row in rows:
        result = str(row["last_result"])
        said = f"[{_COLOURS.get(result, 'red')}]{result}[/] {escape(str(row['last_text']))}"
        counts = [str(row[name]) for name in ("waiting", "sent", "failed")]
        table.add_row(row["channel"], row["kind"], *counts, _moment(row["last_at_us"]), said)
    Console().print(table if rows else "No channels: add [notify.channel.NAME] to the site file.",
                    markup=bool(rows))  # fmt: skip


def _print_log(found: list[Attempt]) -> None:
    names = ("at (UTC)", "channel", "kind", "alarms", "result", "answer", "message")
    table = Table(*names, box=None, header_style="bold")
    for each in found:
        table.add_row(
            _moment(each.at_us),
            each.channel,
            each.kind,
            str(each.count) if each.count else "",
            f"[{_COLOURS.get(each.result, 'red')}]{each.result}[/]",
            escape(f"{each.code} {each.text}".strip()),
            escape(each.title),
        )
    Console().print(table if found else "Nothing was sent in that time.")


def _moment(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M:%S") if at_us else ""
