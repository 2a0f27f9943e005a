"""The queries of ``query.py`` through our Python client: REST to a running console, Arrow bodies, warm.

The table is that of ``query.py`` (``--keep``), or a small one made here. Broker and console run as processes of
their own; the same reader in this process is the peer, so that the ratio is what REST adds.

    python bench/query_rest.py --tags 2000 --step-s 25.92 --keep ~/.cache/headrace-bench/query-200m
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from headrace.bus.broker import (
    BrokerAddress,
    free_port,
    prepare_address,
    start_broker,
    stop_broker,
)
from headrace.bus.client import ensure_streams, open_bus
from headrace.client import Site, connect
from headrace.historian.reader import Reader
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.site.file import load_site
from headrace.site.registry import Registry
from peers import START_US, rounded, timed
from query import DAY_US, HOUR_US, POINTS, REPEATS, make

WAIT_S = 30.0
LAST_TAGS = 500
CONSOLE = """
import asyncio, json, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.console.role import run
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
asyncio.run(run(DataFolder(pathlib.Path(sys.argv[1])), BrokerAddress(**json.loads(sys.argv[2])),
                Subjects("bench", "query"), asyncio.Event(), port=int(sys.argv[3])))
"""


def site_text(tags: int) -> str:
    lines = [
        '[site]\nenterprise = "bench"\nname = "query"\ntitle = "Query"\ntime_zone = "UTC"',
        '[area.a]\ntitle = "A"',
        '[connection.plc]\nprotocol = "modbus"\nendpoint = "127.0.0.1:1502"',
    ]
    lines += [
        f'[[tag]]\npath = "a/b/c/t{n:05d}"\nconnection = "plc"\naddress = "holding:{2 * n}:float32"'
        for n in range(tags)
    ]
    return "\n".join(lines) + "\n"


async def make_streams(address: BrokerAddress) -> None:
    async with open_bus(address, "bench") as bus:
        await ensure_streams(bus)


@contextmanager
def console(work: Path, table: Path, tags: int) -> Iterator[tuple[Site, list[int]]]:
    """A client of a console over ``table``, and the ids that the registry gave."""
    folder = DataFolder(work)
    folder.table.symlink_to(table, target_is_directory=True)
    folder.site_file.write_text(site_text(tags), encoding="utf-8")
    registry = Registry.of(folder)
    numbers = itertools.count(1)
    with patch("headrace.site.apply.secrets.randbits", lambda _: next(numbers)):
        registry.apply(load_site(folder.site_file), SystemClock().now_us())  # ids of the table
    ids = sorted(registry.ids().values())
    registry.close()
    identity = Identity(folder)
    identity.add_user("bench", "viewer", "a long enough phrase")
    token = identity.add_token("bench", "bench", role="viewer")
    identity.close()
    address = prepare_address(folder)
    broker = start_broker(folder, address)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", CONSOLE, str(work), json.dumps(asdict(address)), str(port)]
    process = None
    try:
        asyncio.run(make_streams(address))
        process = subprocess.Popen(command)
        with connect(url, token) as site:
            wait_for(site, tags)
            yield site, ids
    finally:
        if process is not None:
            process.kill()
            process.wait()
        stop_broker(broker)


def wait_for(site: Site, tags: int) -> None:
    """Until the console serves and knows its tags."""
    end_s = time.monotonic() + WAIT_S
    while True:
        try:
            if site._get("tags", limit=1).json()["total"] == tags:
                return
        except Transient:
            if time.monotonic() > end_s:
                raise
        time.sleep(0.05)


def run(work: Path, tags: int, days: float, step_us: int) -> dict[str, object]:
    samples = int(days * DAY_US / step_us) * tags
    make("headrace", work, tags, samples, step_us)
    end_us = START_US + int(days * DAY_US)
    middle_us = START_US + (end_us - START_US) // 2
    table = (DataFolder(work / "headrace").table).absolute()
    reader = Reader(table)
    with tempfile.TemporaryDirectory() as temporary, console(Path(temporary), table, tags) as made:
        site, ids = made
        tag = ids[tags // 2]
        wanted = ids[:LAST_TAGS]
        names = [str(tag_id) for tag_id in wanted]
        whole = {"start": str(START_US), "end": str(end_us)}
        hour = {"start": str(middle_us), "end": str(middle_us + HOUR_US)}
        ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "hour_raw": (
                lambda: site.read(str(tag), **hour),
                lambda: reader.read([tag], middle_us, middle_us + HOUR_US),
            ),
            "trend_1000_points": (
                lambda: site.downsample(str(tag), **whole, points=POINTS),
                lambda: reader.downsample(tag, START_US, end_us, POINTS),
            ),
            "last_of_tags": (lambda: site.last(names), lambda: reader.last(wanted)),
            "health": (lambda: site._get("health"), lambda: None),
        }
        assert (
            site.read(str(tag), **hour).height
            == reader.read([tag], middle_us, middle_us + HOUR_US).height
            > 0
        ), "REST and reader give the same"
        figures, peers = {}, {}
        for name, (ours, peer) in ways.items():
            ours(), peer()
            figures[name] = timed(ours, REPEATS) * 1e3
            peers[name] = timed(peer, REPEATS) * 1e3
    return {
        "name": "query_rest",
        "unit": "ms",
        "ours": rounded(figures),
        "peer": rounded(peers),
        "peer_name": "the reader in this process; health: an answer without data",
        "ratio": rounded({name: peers[name] / figures[name] for name in figures}),
        "samples": samples,
        "tags": tags,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", type=int, default=100)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--step-s", type=float, default=60)
    parser.add_argument("--keep", type=Path, help="folder of query.py's tables")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        line = run(given.keep or Path(temporary), given.tags, given.days, int(given.step_s * 1e6))
    print(json.dumps(line | {"load_before": round(load, 1)}))
