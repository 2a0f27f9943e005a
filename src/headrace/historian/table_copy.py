"""What has to be copied of the table, so that the copy is the table at one version.

Files of a Delta table never change, and those that a newer version dropped stay for an hour; so a version
that is named now can be copied while writers go on. Only files from the newest checkpoint on are needed of
the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.historian.index import make_snapshot, open_delta
from headrace.historian.layout import app_id
from headrace.historian.storage import LOG_FOLDER, LocalStorage

_ENTRY: Final = re.compile(r"^(\d{20})\.(json|checkpoint\.parquet)$")


@dataclass(frozen=True)
class TableVersion:
    """One version of a table.

    Attributes:
        version: of the Delta log; -1 when there is no table.
        files: names of its data files, relative to the table.
        log_files: names of the log's entries that it needs.
    """

    version: int
    files: tuple[str, ...] = ()
    log_files: tuple[str, ...] = ()


def newest_version(table: Path) -> int:
    """The newest version of a table; -1 when there is none."""
    return max(_entries(table), default=-1)


def table_version(table: Path, version: int) -> TableVersion:
    """What a version consists of.

    Raises:
        DeltaError: of delta-rs, when that version is gone.
    """
    if version < 0:
        return TableVersion(-1)
    storage = LocalStorage(table)
    snapshot = make_snapshot(open_delta(storage, version), storage)
    entries = _entries(table)
    checkpoints = [at for at, names in entries.items() if at <= version and len(names) > 1]
    first = max(checkpoints, default=0)
    needed = [name for at, names in entries.items() if first <= at <= version for name in names]
    return TableVersion(
        version,
        tuple(sorted(file.path for file in snapshot.files)),
        tuple(f"{LOG_FOLDER}/{name}" for name in sorted(needed)),
    )


def committed_in(table: Path, version: int, stream: str, created_us: int) -> int:
    """Stream sequence up to which a version has everything; 0 when it has nothing of that stream."""
    if version < 0:
        return 0
    storage = LocalStorage(table)
    snapshot = make_snapshot(open_delta(storage, version), storage)
    return snapshot.committed(app_id(stream, created_us)) or 0


def _entries(table: Path) -> dict[int, list[str]]:
    """Version -> names of its entries in the log."""
    found: dict[int, list[str]] = {}
    folder = table / LOG_FOLDER
    if folder.is_dir():
        for path in folder.iterdir():
            named = _ENTRY.match(path.name)
            if named:
                found.setdefault(int(named[1]), []).append(path.name)
    return {at: names for at, names in found.items() if any(n.endswith(".json") for n in names)}
