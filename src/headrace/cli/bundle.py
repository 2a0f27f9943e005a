"""``headrace bundle``: what somebody who helps needs to see, and nothing that is a secret.

What is not named here is not in it: configuration by a list of fields that may leave, texts of logs only after
known secrets, and whatever looks like one, were blotted out.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import platform
import re
import zipfile
from collections import Counter, deque
from pathlib import Path
from typing import Any, Final

import msgspec
import typer
from rich.console import Console

from headrace import __version__
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.model.ledger import MINUTE_US
from headrace.model.time import SystemClock, to_datetime
from headrace.security.redaction import BLOT

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
LOG_LINES: Final = 400
LINE_CHARS: Final = 500
WORST_TAGS: Final = 5
_DAY_MINUTES: Final = 1_440
_OF_CONNECTIONS: Final = ("connection", "protocol", "state", "since_us", "tags")
_SECRET_TEXT: Final = re.compile(
    r"""(?ix)
    -----BEGIN[^-]*-----.*?(?:-----END[^-]*-----|$)      # keys and certificates
    | \b(?:hr|hrs|age)[_-][\w-]{8,}                        # tokens
    | AGE-SECRET-KEY-\w+
    | (?<=://)[^/\s@]+@                                    # user and password of a URL
    | (?:pass(?:word|phrase|wd)?|secret|token|api[_-]?key|authorization|cookie|credential)s?
      ["']?\s*[:=]\s*(?:bearer\s+)?["']?[^\s"',;}\])]+
    | \b[A-Za-z0-9+/_=-]{24,}                              # whatever is long and has no words in it
    """
)


def register(app: typer.Typer) -> None:
    """Add ``bundle``."""

    @app.command("bundle")
    def bundle(
        file: Path = typer.Argument(Path("headrace-support.zip"), help="Zip file to write."),
        data: Path = DATA,
    ) -> None:
        """Write a support bundle: versions, configuration, health, books, ends of the logs; no secrets."""
        folder = DataFolder(data.resolve())
        parts = _parts(folder)
        names = sorted(parts)
        index = {
            "made_at": to_datetime(SystemClock().now_us()).isoformat(),
            "parts": [
                {"name": n, "bytes": len(parts[n]), "sha256": hashlib.sha256(parts[n]).hexdigest()}
                for n in names
            ],
        }
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("index.json", json.dumps(index, indent=1))
            for name in names:
                out.writestr(name, parts[name])
        Console(stderr=True).print(f"Wrote {file}: {', '.join(names)}. Read it before you send it.")


def _parts(folder: DataFolder) -> dict[str, bytes]:
    """Name -> content of each file of the bundle; what cannot be had says why."""
    blot = Blotter(known_secrets(folder))
    parts = {
        "versions.json": _json(versions()),
        "config.json": _json(_tried(lambda: configuration(folder))),
        "ledger.json": _json(_tried(lambda: _ledger(folder))),
        "storage.json": _json(_tried(lambda: _storage(folder))),
    }
    live = _tried(lambda: asyncio.run(_live(folder)))
    parts["live.json"] = blot(_json(live).decode()).encode()
    for log in sorted(folder.logs.glob("*.log")):
        with log.open(encoding="utf-8", errors="replace") as lines:
            tail = deque((line.rstrip("\n")[:LINE_CHARS] for line in lines), maxlen=LOG_LINES)
        parts[f"logs/{log.name}"] = blot("\n".join(tail)).encode()
    return parts


class Blotter:
    """Blots known secrets, and what looks like one, out of texts."""

    def __init__(self, known: set[str]) -> None:
        self._known = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, BLOT)
        return _SECRET_TEXT.sub(BLOT, text)


def known_secrets(folder: DataFolder) -> set[str]:
    """Texts of the private files of a data folder that are long enough to be secrets."""
    found: set[str] = set()
    for path in [
        *folder.run.glob("*.json"),
        *folder.edge.glob("*.json"),
        *folder.hub.glob("*.json"),
    ]:
        try:
            found |= set(_texts(json.loads(path.read_text())))
        except (OSError, ValueError):
            continue  # not one of ours; the logs are searched for what looks like a secret all the same
    return {text for text in found if len(text) >= 12 and "://" not in text and "/" not in text}


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def versions() -> dict[str, Any]:
    """Of Headrace, Python, the system and every distribution."""
    every = sorted((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())
    return {
        "headrace": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distributions": dict(every),
    }


def configuration(folder: DataFolder) -> dict[str, Any]:
    """What of the site file and the settings may leave; nothing else does."""
    from headrace.security.settings import load_settings
    from headrace.site.file import load_site

    settings, site = load_settings(folder), load_site(folder.site_file)
    return {
        "connections": [
            {"name": connection.name, "protocol": connection.protocol}
            for connection in site.connections
        ],
        "tags": dict(Counter(tag.connection for tag in site.tags)),
        "table_elsewhere": bool(settings.historian.table),
        "writers": settings.historian.writers,
        "metadata_elsewhere": bool(settings.metadata.url),
        "cluster": bool(settings.bus.address),
    }


def _ledger(folder: DataFolder) -> dict[str, Any]:
    from headrace.historian.ledger_store import Wanted, read_ledger
    from headrace.model.ledger_view import total

    clock = SystemClock()
    since_us = clock.now_us() - _DAY_MINUTES * MINUTE_US
    with read_ledger(folder.ledger_file, clock) as store:
        return dict(total(store.accounts(Wanted(since_us, clock.now_us()))))


def _storage(folder: DataFolder) -> dict[str, Any]:
    from headrace.historian.table_copy import newest_version

    files = list(folder.table.glob("*.parquet"))
    return {
        "table_version": newest_version(folder.table),
        "table_files": len(files),
        "table_bytes": sum(path.stat().st_size for path in files),
        "databases": {path.name: path.stat().st_size for path in folder.root.glob("*.db")},
    }


async def _live(folder: DataFolder) -> dict[str, Any]:
    """What the roles say of themselves, the streams, and why the tags of bad connections are old."""
    from headrace.bus.broker import load_address
    from headrace.bus.client import open_bus
    from headrace.bus.log import log_info
    from headrace.cli.status import listen
    from headrace.cli.why import ask, find

    edges, historian, apps = await listen(folder, 2.5)
    async with open_bus(load_address(folder), "bundle", wait_s=2.0) as bus:
        streams = {
            name: msgspec.to_builtins(vars(await log_info(bus, name)))
            for name in ("SAMPLES", "EVENTS", "LEDGER")
        }
    bad = {
        line.connection
        for state in edges.values()
        for line in state.connections
        if line.state != "connected"
    }
    worst = _tags_of(folder, bad)[:WORST_TAGS]
    why = {path: msgspec.to_builtins(await ask(folder, find(folder, path))) for path in worst}
    told = {
        name: [
            {field: getattr(line, field) for field in _OF_CONNECTIONS} for line in state.connections
        ]
        for name, state in edges.items()
    }
    kept = {"historian": historian is not None, "apps": apps is not None}
    return {"edges": told, "answering": kept, "streams": streams, "why": why}


def _tags_of(folder: DataFolder, connections: set[str]) -> list[str]:
    from headrace.site.file import load_site

    site = load_site(folder.site_file)
    first: dict[str, str] = {}
    for tag in site.tags:
        if tag.connection in connections:
            first.setdefault(tag.connection, tag.path)
    return list(first.values())


def _tried(make: Any) -> Any:
    try:
        return make()
    except HeadraceError as error:
        return {"cannot_be_told": error.code}  # its text may quote what is wrong in the site file


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str).encode()
