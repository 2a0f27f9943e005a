"""Two consoles with data folders of their own, two historians, one bus, one metadata database, one table."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from headrace.bus import envelope
from headrace.bus.broker import (
    BrokerAddress,
    free_port,
    prepare_address,
    start_broker,
    stop_broker,
)
from headrace.bus.client import open_bus
from headrace.bus.lease import LEASE_BUCKET
from headrace.bus.subjects import Subjects
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import SystemClock
from headrace.security.identity import Identity, ensure_first_admin
from headrace.site.registry import Registry
from postgres_server import PostgresServer, postgres  # noqa: F401 # a fixture
from waiting import until_sync

pytestmark = [pytest.mark.kill]

PASSWORD = "a long enough phrase"
SUBJECTS = Subjects("acme", "mill")


def site(*tags: str) -> str:
    head = '[site]\nenterprise = "acme"\nname = "mill"\n[connection.plc]\nprotocol = "modbus"\n'
    lines = [head + 'endpoint = "127.0.0.1:1502"\n']
    for number, tag in enumerate(tags):
        lines.append(
            f'[[tag]]\npath = "hall/pump/{tag}"\nconnection = "plc"\n'
            f'address = "holding:{2 * number}:float32"\n'
        )
    return "\n".join(lines)


class Machine:
    """One machine's data folder and the roles that run there."""

    def __init__(self, root: Path, settings: str, environment: dict[str, str]) -> None:
        root.mkdir()
        self.folder = DataFolder(root)
        (root / "headrace.toml").write_text(settings)
        self.folder.site_file.write_text(site("flow"), encoding="utf-8")
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()

    def start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "headrace", "run", *arguments]
        self.folder.logs.mkdir(parents=True, exist_ok=True)
        name = "-".join(arguments).replace("/", "of").replace("--", "")
        with (self.folder.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*command, "--data", str(self.folder.root)],
                env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    def start_console(self) -> None:
        self.start("console", "--port", str(self.port))

    def kill_all(self, number: int = signal.SIGKILL) -> None:
        for process in self._running.values():
            process.send_signal(number)
        for process in self._running.values():
            process.wait(30)
        self._running.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v1/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def logs(self) -> str:
        return "\n".join(f"== {p}\n{p.read_text()[-3000:]}" for p in self.folder.logs.glob("*.log"))


class Plant:
    def __init__(self, root: Path, url: str) -> None:
        self.folder = DataFolder(root / "broker")
        self.address: BrokerAddress = prepare_address(self.folder)
        self._broker = start_broker(self.folder, self.address, sync_interval="2m")
        shared = replace(self.address, servers=(self.address.url,))
        (root / "client.json").write_text(json.dumps(asdict(shared)))
        settings = (
            f'[bus]\naddress = "{root}/client.json"\n[historian]\ntable = "{root}/table"\n'
            f'[metadata]\nurl = "{url}"\n'
        )
        self.machines = [
            Machine(root / name, settings, {**os.environ, "NO_COLOR": "1"})
            for name in ("one", "two")
        ]
        self.url = url

    def make_user(self) -> None:
        folder = self.machines[0].folder
        first = ensure_first_admin(folder)
        assert first is not None
        identity = Identity(folder)
        identity.change_password("admin", first, PASSWORD)
        identity.close()

    def tags(self) -> dict[str, int]:
        registry = Registry(self.url)
        try:
            return registry.ids()
        finally:
            registry.close()

    async def lease_holder(self) -> str:
        async with open_bus(self.address, "test") as bus:
            found = await bus.get(LEASE_BUCKET, "keeper")
        return (found or b"").decode()

    async def publish(self, tag_id: int, value: float) -> None:
        now_us = SystemClock().now_us()
        batch = make_batch(
            np.array([tag_id]), np.array([now_us]), np.array([value]),
            received_timestamp_us=np.array([now_us]),
        )  # fmt: skip
        async with open_bus(self.address, "test") as bus:
            for line in range(4):
                subject = SUBJECTS.batch("local", f"plc_{line}")
                headers = envelope.headers("local", f"plc_{line}", now_us, 1, 1)
                await bus.publish_frame(subject, envelope.encode(batch), headers)

    def stop(self) -> None:
        for machine in self.machines:
            machine.kill_all()
        stop_broker(self._broker)


@pytest.fixture
def plant(tmp_path: Path, postgres: PostgresServer) -> Iterator[Plant]:  # noqa: F811 # the fixture
    made = Plant(tmp_path, postgres.new_database())
    try:
        yield made
    finally:
        made.stop()
        print(*[machine.logs() for machine in made.machines], sep="\n")  # shown when it fails


def put_site(client: httpx.Client, *tags: str) -> None:
    answer = client.put("/api/v1/site", content=site(*tags).encode())
    assert answer.status_code == 200, answer.text


def shown_tags(client: httpx.Client) -> set[str]:
    found = client.get("/api/v1/tags").json()
    return {row["path"].rpartition("/")[2] for row in found.get("tags", [])}


def test_sign_in_edit_and_keeper_go_from_one_to_the_other(plant: Plant) -> None:
    one, two = plant.machines
    plant.make_user()
    for index, machine in enumerate(plant.machines):
        machine.start_console()
        machine.start("historian", "--partition", f"{index}/2")
    until_sync(lambda: one.answers() and two.answers(), 60, "both consoles")
    until_sync(lambda: "hall/pump/flow" in plant.tags(), 30, "the site is accepted")
    here, there = httpx.Client(base_url=one.url), httpx.Client(base_url=two.url)
    form = {"name": "admin", "password": PASSWORD}
    assert here.post("/sign-in", data=form).status_code == 303
    there.cookies.set("headrace_session", here.cookies["headrace_session"], domain="127.0.0.1")
    until_sync(lambda: shown_tags(there) == {"flow"}, 20, "signed in at both")

    put_site(there, "flow", "head")
    until_sync(lambda: shown_tags(here) == {"flow", "head"}, 30, "an edit there is seen here")
    same = [machine.folder.site_file for machine in plant.machines]
    until_sync(lambda: same[0].read_text() == same[1].read_text(), 30, "one file at both")
    put_site(here, "flow", "head", "power")
    until_sync(lambda: shown_tags(there) == {"flow", "head", "power"}, 30, "and the other way")

    # An edit of an older file would be a conflict, which is kept and told, not applied.
    until_sync(lambda: same[0].read_text() == same[1].read_text(), 30, "one file at both")

    asyncio.run(plant.publish(plant.tags()["hall/pump/flow"], 41.5))
    for client in (here, there):
        until_sync(lambda c=client: last_value(c) == 41.5, 30, "the value at both")  # type: ignore[misc]

    holder = asyncio.run(plant.lease_holder())
    leader = next(
        m for m in plant.machines if (m.folder.run / "installation.id").read_text() in holder
    )
    follower = two if leader is one else one
    leader.kill_all()
    client = there if follower is two else here
    put_site(client, "flow", "speed")
    until_sync(lambda: "hall/pump/speed" in plant.tags(), 40, "the keeper moved")
    until_sync(lambda: shown_tags(client) == {"flow", "speed"}, 20)
    leader.start_console()
    until_sync(lambda: leader.answers() and "speed" in leader.folder.site_file.read_text(), 60)
    assert "hall/pump/power" not in plant.tags(), (
        "the old file of the one that was away counts no more"
    )


def last_value(client: httpx.Client) -> float | None:
    found = client.get("/api/v1/last", params={"tags": "hall/pump/flow"}).json()["samples"]
    return found[-1]["value"] if found else None
