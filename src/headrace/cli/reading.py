"""A reader of history for commands: with the newest samples when the broker runs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from rich.console import Console

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.historian.reader import Reader, open_reader
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.site.registry import Registry, TagRecord

BROKER_WAIT_S: Final = 2.0


async def open_history(stack: AsyncExitStack, folder: DataFolder, name: str) -> Reader:
    """With the log's tail when the broker runs, else the table alone, and say so.

    Args:
        stack: closes it.
        name: of the command, for the broker.
    """
    try:
        address = load_address(folder)
        bus = await stack.enter_async_context(
            open_bus(address.as_role("cli"), name, wait_s=BROKER_WAIT_S)
        )
        return await stack.enter_async_context(open_reader(folder, bus))
    except Transient as error:
        Console(stderr=True).print(
            f"[yellow]{error.code}[/] {error.what}: reading the table alone, without what is not "
            "committed yet"
        )
        return await stack.enter_async_context(open_reader(folder))


def find_tags(folder: DataFolder, pattern: str) -> list[TagRecord]:
    """Tags whose path matches a glob, also those that left the site file.

    Raises:
        Misconfigured: HIST-1090 when there is none.
    """
    registry = Registry.of(folder)
    try:
        found = registry.find(pattern, include_retired=True)
    finally:
        registry.close()
    if not found:
        raise Misconfigured(
            "HIST-1090", f"no tag matches {pattern!r}", "See the tags with: headrace site show"
        )
    return found
