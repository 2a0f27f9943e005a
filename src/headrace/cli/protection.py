"""``headrace protection``: what may leave the edge, tenants' keys, and what stayed or left encrypted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from headrace.bus import envelope
from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.bus.log import LogReader, log_info
from headrace.bus.subjects import SEALED_STREAM
from headrace.cli.run import DATA
from headrace.edge.local_log import local_folder, read_local
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.sample import empty_batch
from headrace.security.frames import FrameKey, key_path, load_frame_key, make_frame_key
from headrace.site.file import load_site

KEY: Final = typer.Argument(help="Name of the key, as the site file names it.")
TAG: Final = typer.Option(0, "--tag-id", help="Only this tag; 0 is all.")
READ_WAIT_S: Final = 2.0
PAGE: Final = 500


def register(app: typer.Typer) -> None:
    """Add the group ``protection``."""
    group = typer.Typer(
        help="What may leave the edge, and what stayed or left encrypted.", no_args_is_help=True
    )
    for name, command in (
        ("list", list_protections),
        ("new-key", new_key),
        ("import-key", import_key),
        ("export-key", export_key),
        ("local", local),
        ("read", read),
    ):
        group.command(name)(command)
    app.add_typer(group, name="protection")


def list_protections(data: Path = DATA) -> None:
    """Show the protections of the site file, and how many tags each covers."""
    table = Table("protection", "rule", "what leaves", "tags", box=None, header_style="bold")
    for each in load_site(_folder(data).site_file).protections:
        leaves = {
            "stays": "nothing",
            "aggregated": f"{each.function} of each {each.window_s:g} s",
            "encrypted": f"frames that the key {each.key} opens",
            "leaves": "everything",
        }[each.rule]
        table.add_row(each.name, each.rule, leaves, str(len(each.paths)))
    Console().print(table)


def new_key(name: str = KEY, data: Path = DATA) -> None:
    """Make a tenant's key on this machine: the edge's; its holder gets it by export-key."""
    key = make_frame_key(_folder(data).keys, name)
    _say(f"The key {name} is {key.name.hex()}, on this machine only. Keep a copy: export-key")


def import_key(name: str = KEY, data: Path = DATA) -> None:
    """Put a key down that is read from standard input."""
    key = make_frame_key(_folder(data).keys, name, sys.stdin.read())
    _say(f"The key {name} is {key.name.hex()}")


def export_key(name: str = KEY, data: Path = DATA) -> None:
    """Print a key of this machine."""
    folder = _folder(data)
    load_frame_key(folder.keys, name)
    sys.stdout.write(key_path(folder.keys, name).read_text("ascii").strip() + "\n")


def local(
    connection: str = typer.Argument(help="Name of the connection."),
    tag_id: int = TAG,
    data: Path = DATA,
) -> None:
    """Print what stays on this edge, as CSV."""
    _print(read_local(local_folder(_folder(data).root, connection)), tag_id)


def read(name: str = KEY, tag_id: int = TAG, data: Path = DATA) -> None:
    """Print what left encrypted with a key of this machine, as CSV; frames of other keys are counted."""
    folder = _folder(data)
    key = load_frame_key(folder.keys, name)
    batches, foreign = asyncio.run(_sealed(folder, key))
    _print(batches, tag_id)
    if foreign:
        Console(stderr=True).print(f"{foreign} frames were encrypted with other keys")


async def _sealed(folder: DataFolder, key: FrameKey) -> tuple[list[pl.DataFrame], int]:
    found, foreign = [], 0
    async with open_bus(load_address(folder).as_role("cli"), "protection", wait_s=5) as bus:
        info = await log_info(bus, SEALED_STREAM)
        reader = LogReader(bus, info.first_sequence - 1, SEALED_STREAM)
        last = info.first_sequence - 1 if info.messages else info.last_sequence
        while last < info.last_sequence:
            messages = await reader.next(READ_WAIT_S, PAGE)
            if not messages:
                break
            last = messages[-1].sequence
            for message in messages:
                try:
                    found.append(envelope.decode(key.open(message.body, message.subject)))
                except Refused:
                    foreign += 1
        await reader.close()
    return found, foreign


def _print(batches: Iterable[pl.DataFrame], tag_id: int) -> None:
    kept = [batch.filter(pl.col("tag_id") == tag_id) if tag_id else batch for batch in batches]
    if tag_id and not any(batch.height for batch in kept):
        raise Misconfigured(
            "EDGE-1509", f"there is no sample of tag {tag_id}", "See its id: headrace site tags"
        )
    sys.stdout.write((pl.concat(kept) if kept else empty_batch()).write_csv())


def _folder(data: Path) -> DataFolder:
    return DataFolder(data.resolve())


def _say(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
