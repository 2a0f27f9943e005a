"""What 10,000 connections that hold on cost the plant: the edge's books with and without them.

``python bench/flood.py [--connections N]``: the whole demo as ``headrace up --demo`` starts it; one
minute in peace, one with half of the connections at the console (each with half a request) and half
at the broker (nothing said), all opened again as soon as they are closed. Prints one JSON line a
minute: what the loss ledger says of all connections, and how long the console took for a page. The
flood comes from this machine, so its own work counts too. Needs ``ulimit -n`` above N here and for
what it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from headrace.bus.broker import load_address
from headrace.model.folder import DataFolder

MINUTE_S = 60
HALF_A_REQUEST = b"GET /sign-in HTTP/1.1\r\nHost: x\r\nX-Slow: "
SHOWN = ("expected", "read", "published", "stored", "duplicate", "late", "lost", "unexplained")


@contextlib.contextmanager
def demo(root: Path) -> Iterator[str]:
    """The demo, running; gives the console's address."""
    log = root / "up.log"
    command = [sys.executable, "-m", "headrace", "up", "--demo", "--data", str(root / "data")]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            found = re.findall(r"Console\s+(http://\S+)", log.read_text())
            if found and "Headrace runs" in log.read_text():
                break
            time.sleep(0.2)
        else:
            raise SystemExit(log.read_text())
        yield found[-1].rstrip("/")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


class Flood:
    """So many connections to some places, opened again when they are closed."""

    def __init__(self, places: list[tuple[tuple[str, int], bytes]], count: int) -> None:
        self._places = places
        self._count = count
        self._open: dict[socket.socket, int] = {}
        self.opened = 0

    def hold(self) -> None:
        """Open what is missing, and drop what was closed; one round."""
        for connection in list(self._open):
            try:
                if connection.recv(4096) == b"":
                    self._drop(connection)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(connection)
        for number in range(self._count - len(self._open)):
            address, says = self._places[number % len(self._places)]
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(address)
            self._open[connection] = self.opened
            self.opened += 1
            with contextlib.suppress(OSError):
                connection.sendall(says)

    def end(self) -> None:
        for connection in list(self._open):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        connection.close()
        del self._open[connection]


def minute(url: str, flood: Flood | None) -> tuple[float, float, list[float]]:
    """One whole minute of the ledger's; gives its start and end (UTC, s) and the times of pages (s)."""
    start_s = (time.time() // MINUTE_S + 1) * MINUTE_S
    while time.time() < start_s - 5:
        time.sleep(0.1)
    took: list[float] = []
    asked_s = 0.0
    while time.time() < start_s + MINUTE_S:
        if flood is not None:
            flood.hold()
        if time.time() > start_s and time.monotonic() - asked_s > 2:
            asked_s = time.monotonic()
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{url}/sign-in", timeout=10).raise_for_status()
                took.append(time.monotonic() - asked_s)
        time.sleep(0.05)
    if flood is not None:
        flood.end()
    return start_s, start_s + MINUTE_S, took


def books(root: Path, start_s: float, end_s: float) -> dict[str, Any]:
    """What the ledger says of a minute, once it is closed."""
    span = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (start_s, end_s)]
    command = [sys.executable, "-m", "headrace", "ledger", "--data", str(root / "data")]
    done = subprocess.run(
        [*command, "--format", "json", "--from", span[0], "--to", span[1]],
        capture_output=True,
        text=True,
        check=False,
    )
    counts = json.loads(done.stdout)["total"]
    missed = sum(n for name, n in counts.items() if name.startswith(("missed_", "dropped_")))
    return {name: counts[name] for name in SHOWN} | {"missed_or_dropped": missed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name, demo(Path(name)) as url:
        root = Path(name)
        broker = load_address(DataFolder(root / "data")).port
        console = int(url.rpartition(":")[2])
        places = [
            (("127.0.0.1", console), HALF_A_REQUEST),
            (("127.0.0.1", broker), b""),
        ]
        minutes = {}
        for label, flood in (("peace", None), ("flood", Flood(places, asked.connections))):
            start_s, end_s, took = minute(url, flood)
            minutes[label] = start_s, end_s, took, flood.opened if flood else 0
        time.sleep(20)  # what was read late is stored, and the minute is closed
        for label, (start_s, end_s, took, opened) in minutes.items():
            told = books(root, start_s, end_s)
            sys.stdout.write(
                json.dumps(
                    {
                        "minute": label,
                        "connections_opened": opened,
                        "pages": len(took),
                        "page_median_ms": round(sorted(took)[len(took) // 2] * 1e3)
                        if took
                        else None,
                        "page_worst_ms": round(max(took) * 1e3) if took else None,
                        "books": told,
                    }
                )
                + "\n"
            )


if __name__ == "__main__":
    main()
