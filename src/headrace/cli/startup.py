"""What ``headrace up`` does once at its start, in a short-lived process of its own.

The supervisor lives as long as the installation and needs next to nothing; users, the site file and the
bus need a hundred megabytes of libraries. So they are loaded here, and go with this process::

    up ──► python -m headrace.cli.startup prepare DATA   ──► {"password": ..., "connections": 8, ...}
       ──► python -m headrace.cli.startup watch DATA URL EDGE ──► {"connections": 8, "values": 5}

One JSON object a line; an error of ours is ``{"error": {...}}``. What is unexpected goes to ``logs/up.log``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from headrace.bus.broker import load_address
from headrace.bus.driver import load_nats
from headrace.cli.processes import die_with_parent, open_log
from headrace.cli.run import keep_site, named_site, site_subjects
from headrace.model.errors import HeadraceError, Terminal, error_from_dict
from headrace.model.folder import DataFolder
from headrace.security.listener import Listener

POLL_S: Final = 0.2
LINE_BYTES_MAX: Final = 1 << 16


class Startup:
    """The parent's side: one such process, and the objects it says.

    Args:
        folder: the data folder. arguments: what to do.
    """

    def __init__(self, folder: DataFolder, *arguments: str) -> None:
        folder.logs.mkdir(parents=True, exist_ok=True)
        self._log = folder.logs / "up.log"
        command = [sys.executable, "-m", "headrace.cli.startup", arguments[0], str(folder.root)]
        with open_log(self._log) as log:
            self.process = subprocess.Popen(
                [*command, *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._rest = b""

    def said(self, wait_s: float) -> list[dict[str, Any]] | None:
        """What it said since the last call, waiting ``wait_s`` at most; None when it has ended.

        Raises:
            HeadraceError: what the process raised. Terminal: CLI-1004 when it broke.
        """
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], wait_s)[0]:
            return []
        found = os.read(self.process.stdout.fileno(), LINE_BYTES_MAX)
        if not found:
            if self.process.wait():
                raise Terminal(
                    "CLI-1004",
                    f"the start failed: {_last_line(self._log)}",
                    f"See {self._log}",
                )
            return None
        *lines, self._rest = (self._rest + found).split(b"\n")
        objects = [json.loads(line) for line in lines]
        for each in objects:
            if "error" in each:
                raise error_from_dict(each["error"])
        return objects

    def end(self) -> None:
        """Kill it if it still runs; it holds nothing that could break."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def startup(folder: DataFolder, *arguments: str) -> Iterator[Startup]:
    """Such a process, gone at the end of the block."""
    made = Startup(folder, *arguments)
    try:
        yield made
    finally:
        made.end()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    telling = [line for line in lines if line and not line.startswith((" ", "(Background", "[SQL"))]
    return telling[-1] if telling else "no reason was given"


def prepare(folder: DataFolder, demo: bool, hub: list[str]) -> dict[str, Any]:
    """The demo's site file, the first admin, and what is wrong with the site file.

    Args:
        hub: address, port and names under which edges are taken in; empty when they are not.
    """
    from headrace.model.time import SystemClock
    from headrace.security.identity import ensure_first_admin
    from headrace.site.hub import close, prepare

    if hub:
        prepare(folder, hub[0], int(hub[1]), tuple(hub[2:]), SystemClock())
    else:
        close(folder)
    if demo:
        from headrace.sim.demo import write_demo_site

        write_demo_site(folder, load_address(folder))
    said: dict[str, Any] = {"connections": 0}
    try:
        said |= _site(folder)
    except HeadraceError as error:
        site_subjects(folder)  # without a name that was known before, nothing can start
        said["problem"] = f"{error.code} {error.what}. {error.remedy}"
    return said | {"password": ensure_first_admin(folder)}


def _site(folder: DataFolder) -> dict[str, Any]:
    """How many connections the site has; keeps the names of the site.

    Raises:
        Misconfigured: what is wrong with the file; SITE-1103 when it names another site than the
            one whose data are here, which keeps its name.
    """
    from headrace.security.database import has_metadata
    from headrace.site.apply import require_same_site
    from headrace.site.file import load_site
    from headrace.site.registry import Registry

    registry = Registry.of(folder) if has_metadata(folder) else None
    known = registry.site() if registry is not None else None
    keep_site(folder, *((known.enterprise, known.name) if known else named_site(folder)))
    if registry is not None:
        registry.close()
    model = load_site(folder.site_file)
    if known is not None:
        require_same_site(known.enterprise, known.name, model)
    return {"connections": len(model.connections)}


async def watch(
    folder: DataFolder, url: str, edge: str, say: Callable[[dict[str, Any]], None]
) -> None:
    """Say when the console answers, and what the edge has; for ever, the parent ends it.

    Args:
        url: of the console; "" when there is none.
    """
    from headrace.bus.client import open_bus
    from headrace.cli.health import HealthWatch
    from headrace.model.health import EdgeState
    from headrace.model.time import SystemClock

    def tell(state: EdgeState) -> None:
        if state.edge != edge:
            return
        published = sum(connection.published for connection in state.connections)
        say({"connections": len(state.connections), "values": published})

    trusted = Listener(folder).trusted_pem() if url.startswith("https:") else ""

    async def console() -> None:
        while url:
            if await asyncio.to_thread(_answers, url, trusted):
                say({"console": True})
                return
            await asyncio.sleep(POLL_S)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(console())
        async with open_bus(load_address(folder).as_role("cli"), "up", wait_s=3_600) as bus:
            await HealthWatch(SystemClock(), tell).start(bus, site_subjects(folder))
            await asyncio.Event().wait()


def _answers(url: str, trusted: str) -> bool:
    place = urlsplit(url)
    name = place.hostname or ""
    connection: http.client.HTTPConnection
    if trusted:
        context = ssl.create_default_context(cadata=trusted)
        connection = http.client.HTTPSConnection(name, place.port, timeout=1.0, context=context)
    else:
        connection = http.client.HTTPConnection(name, place.port, timeout=1.0)
    try:
        connection.request("GET", "/api/v1/health")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _say(what: dict[str, Any], out: IO[str] = sys.stdout) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


def main(arguments: list[str]) -> None:
    """The child's side."""
    die_with_parent()
    load_nats()
    folder = DataFolder(Path(arguments[1]))
    try:
        if arguments[0] == "prepare":
            hub = arguments[arguments.index("--hub") + 1 :] if "--hub" in arguments else []
            _say(prepare(folder, demo="--demo" in arguments, hub=hub))
        else:
            asyncio.run(watch(folder, arguments[2], arguments[3], _say))
    except HeadraceError as error:
        _say({"error": error.as_dict()})


if __name__ == "__main__":
    main(sys.argv[1:])
