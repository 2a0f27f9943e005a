"""The demo as a newcomer meets it: one command, real devices, a clean stop, a second start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from bookkeeping import check_closed
from installation import Installation

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.site.registry import Registry
from waiting import until_sync

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]


def tag_ids(folder: DataFolder) -> dict[str, int]:
    registry = Registry(f"sqlite:///{folder.metadata_file}")
    return {each.path: each.tag_id for each in registry.find("**") if not each.derived}


def last_statuses(folder: DataFolder) -> dict[int, int]:
    """Status of the newest sample of every tag, from table and tail."""

    async def ask() -> dict[int, int]:
        async with (
            open_bus(load_address(folder), "test") as bus,
            open_reader(folder, bus) as reader,
        ):
            ids = list(tag_ids(folder).values())
            last = await asyncio.to_thread(reader.last, ids)
            return dict(last.select("tag_id", "status").rows())

    return asyncio.run(ask())


def test_every_tag_of_the_demo_site_gets_good_values(demo: Installation):
    ids = tag_ids(demo.folder)
    assert len(ids) > 200

    def all_good() -> bool:
        statuses = last_statuses(demo.folder)
        return set(statuses) == set(ids.values()) and all(s >> 30 == 0 for s in statuses.values())

    def missing() -> list[str]:
        statuses = last_statuses(demo.folder)
        return [path for path, tag in ids.items() if statuses.get(tag, 1 << 31) >> 30]

    try:
        until_sync(all_good, 40, "all tags Good")
    except AssertionError as error:
        raise AssertionError(f"not Good: {missing()}\n{demo.logs()}") from error


def test_nothing_listens_off_loopback(demo: Installation):
    for process in demo.family():
        for connection in process.net_connections():
            if connection.status == "LISTEN":
                assert connection.laddr.ip in ("127.0.0.1", "::1"), (process.cmdline(), connection)


def test_secrets_are_for_this_user_only(demo: Installation):
    for path in [demo.folder.run / "broker.json", demo.folder.broker / "nats.conf"]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_ctrl_c_stops_all_and_a_second_start_goes_on(demo: Installation):
    before = len(last_statuses(demo.folder))
    first_url = demo.url
    demo.stop()
    stopped_us = SystemClock().now_us()
    assert "All processes stopped" in demo.output
    demo.start()
    assert demo.url == first_url, "devices and people find the same ports again"
    assert "one-time password" not in demo.output
    assert len(last_statuses(demo.folder)) >= before
    assert httpx.get(f"{demo.url}/api/v1/health").status_code == 200
    sums = check_closed(demo.folder, stopped_us)
    assert sums["dropped_edge_killed"] == sums["read_untold"] == 0, "an orderly end is no kill"


def test_a_killed_supervisor_leaves_nothing_that_blocks_the_next_start(demo: Installation):
    assert demo.process is not None
    family = demo.family()
    os.kill(demo.process.pid, signal.SIGKILL)
    demo.process.wait()
    killed_us = SystemClock().now_us()
    demo.start()
    until_sync(
        lambda: not [p for p in family if p.is_running() and p.status() != "zombie"],
        15,
        "processes of the killed supervisor",
    )
    check_closed(demo.folder, killed_us)


def test_a_broken_site_file_stops_nothing_and_is_said(demo: Installation, tmp_path: Path):
    file = demo.folder.site_file
    good = file.read_text()
    until_sync(lambda: all(s >> 30 == 0 for s in last_statuses(demo.folder).values()), 40, "Good")
    try:
        file.write_text(good + "\n[[tag]]\npath = 'only_one'\nconnection = 'nowhere'\n")
        until_sync(lambda: site_errors(demo.folder) != [], 10, "errors of the site file")
        assert all(s >> 30 == 0 for s in last_statuses(demo.folder).values())
    finally:
        file.write_text(good)
    until_sync(lambda: site_errors(demo.folder) == [], 10, "no errors")


def site_errors(folder: DataFolder) -> list[object]:

    async def ask() -> list[object]:
        async with open_bus(load_address(folder), "test") as bus:
            return json.loads(await bus.get("desired", "site_errors") or b"[]")

    return asyncio.run(ask())
