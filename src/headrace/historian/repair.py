"""What a power cut can break in a table that lies in a folder, and how it is put aside.

Only the very newest log entry can ever be torn (see :mod:`headrace.historian.table`). An object storage
takes an entry whole or not at all and needs nothing of this.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

from headrace.historian.storage import sync_path

LOOK_BACK: Final = 16
_log = logging.getLogger(__name__)


def whole_version(path: Path) -> int | None:
    """The version before the first torn one of the newest log entries; None when all of them are whole, or
    when more is broken than a power cut can break.

    Somebody who only reads goes by this: he repairs nothing.
    """
    whole: int | None = None
    is_torn = False
    removed: set[str] = set()  # by later entries: their files may be gone already
    for entry in reversed(sorted((path / "_delta_log").glob("[0-9]*.json"))[-LOOK_BACK:]):
        try:
            actions = _actions(entry)
        except FileNotFoundError:
            break  # cleaned up at this moment, with all before it
        if not _is_there(path, actions, removed):
            is_torn, whole = True, None
        elif is_torn and whole is None:
            whole = int(entry.stem)
        removed |= {action["remove"]["path"] for action in actions if "remove" in action}
    return whole


def put_aside_torn_entries(path: Path, unsynced_max: int = 0) -> list[Path]:
    """Rename the newest log entry when it is no JSON, or names files that are not there whole.

    Args:
        unsynced_max: where several writers shared the table, so many entries may not have been
            synced; what follows a torn one was not acknowledged either, and goes with it.
    """
    entries = sorted((path / "_delta_log").glob("[0-9]*.json"))
    newest = entries[-unsynced_max:] if unsynced_max else []
    torn_from = next((n for n, entry in enumerate(newest) if not _is_whole(path, entry)), None)
    torn_count = 0 if torn_from is None else len(newest) - torn_from
    moved: list[Path] = []
    while entries and (len(moved) < torn_count or not _is_whole(path, entries[-1])):
        torn = entries.pop()
        aside = torn.with_suffix(".json.torn")
        torn.rename(aside)
        moved.append(aside)
        _log.warning("HIST-1003 put aside the torn log entry %s", torn.name)
        if len(moved) > max(torn_count, 1):
            break  # one power cut tears one entry; more is another fault, and opening it will say so
    if moved:
        sync_path(path / "_delta_log")
    return moved


def _is_whole(path: Path, entry: Path) -> bool:
    return _is_there(path, _actions(entry), set())


def _actions(entry: Path) -> list[dict[str, Any]]:
    """What an entry of the log says; nothing when it is no JSON."""
    try:
        actions = [json.loads(line) for line in entry.read_text().splitlines() if line.strip()]
    except (ValueError, UnicodeDecodeError):
        return []
    return [action for action in actions if isinstance(action, dict)]


def _is_there(path: Path, actions: list[dict[str, Any]], removed: set[str]) -> bool:
    added = [action["add"] for action in actions if "add" in action]
    return bool(actions) and all(
        _has_size(path / add["path"], add["size"]) for add in added if add["path"] not in removed
    )


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def put_aside_checkpoint(path: Path) -> bool:
    """Rename the newest checkpoint so that the table opens from its JSON entries; False if none."""
    folder = path / "_delta_log"
    newest = sorted(folder.glob("*.checkpoint*.parquet"))[-1:]
    for torn in [*newest, *folder.glob("_last_checkpoint")]:
        torn.rename(torn.with_name(torn.name + ".torn"))
        _log.warning("HIST-1004 put aside the checkpoint %s", torn.name)
    return bool(newest)
