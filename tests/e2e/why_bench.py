"""A whole installation with two devices of the test's own, for faults that are put into one hop each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
from installation import Installation
from nats.js.api import StreamConfig
from silent_proxy import SilentProxy
from typer.testing import CliRunner

from headrace.bus.broker import load_address
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import DESIRED_BUCKET, SAMPLES_STREAM
from headrace.cli.app import build
from headrace.client import Site, connect
from headrace.model.desired import HistorianConfig
from headrace.model.time import US_PER_S, SystemClock
from headrace.security.identity import Identity
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from waiting import until_sync

FLOW = "utilities/pumping/pump_1/flow"
LEVEL = "utilities/pumping/pump_1/level"
SPEED = "machining/milling/cnc_1/speed"
SECRET = "a long enough secret"
CLOCK = SystemClock()
NEVER_US = 2**62
_SITE = """\
[site]
enterprise = "acme"
name = "why"

[connection.plc]
protocol = "modbus"
endpoint = "{plc}"
enabled = true

[connection.cnc]
protocol = "opcua"
endpoint = "{cnc}"
options = {{ username = "anna", password = "{password}", plain_password = true }}

[[tag]]
path = "{flow}"
connection = "plc"
address = "holding:0:float32"
scan_interval_ms = 250

[[tag]]
path = "{level}"
connection = "plc"
address = "holding:2:float32"
scan_interval_ms = 250
deadband = 1000.0

[[tag]]
path = "{speed}"
connection = "cnc"
address = "ns=2;s=cnc.speed"
"""


class Bench:
    """The installation, its devices, and ways to break each hop.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.installation = Installation(root / "data")
        self.folder = self.installation.folder
        self.folder.root.mkdir(parents=True)
        self.plc = ModbusEmulator([Point("holding:0:float32"), Point("holding:2:float32")])
        self.cnc = OpcUaEmulator([Point("ns=2;s=cnc.speed")], users={"anna": SECRET})
        self.sensor_status = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for device in (self.plc, self.cnc):
            self.do(device.start())
        self.proxy = SilentProxy(int(self.plc.endpoint.rpartition(":")[2]))
        self._driving = asyncio.run_coroutine_threadsafe(self._drive(), self._loop)
        self._cli = build(("why",))
        self.set_site()

    def start(self) -> Bench:
        self.installation.start()
        identity = Identity(self.folder)
        identity.add_user("mia", "viewer", SECRET)
        self.rest: Site = connect(self.installation.url, identity.add_token("mia", "test"))
        identity.close()
        return self

    def stop(self) -> None:
        self.installation.stop()
        self._driving.cancel()
        self.proxy.stop()
        for device in (self.plc, self.cnc):
            self.do(device.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    async def _drive(self) -> None:
        """Values that change twice a second."""
        value = 0.0
        while True:
            value += 1.0
            now_us = CLOCK.now_us()
            await self.plc.update({"holding:0:float32": value, "holding:2:float32": value}, now_us)
            bad = {"ns=2;s=cnc.speed": self.sensor_status} if self.sensor_status else None
            await self.cnc.update({"ns=2;s=cnc.speed": value}, now_us, bad)
            await asyncio.sleep(0.5)

    # -- asking -------------------------------------------------------------------------------

    def ask(self, path: str) -> dict[str, Any]:
        """``headrace why`` in this process; its exit code says the same as its answer."""
        arguments = ["why", path, "--format", "json", "--data", str(self.folder.root)]
        done = CliRunner().invoke(self._cli, arguments)
        assert done.exit_code in (0, 3), (done.output, done.exception)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == (0 if answer["fresh"] else 3)
        return answer

    def until_fresh(self, path: str, timeout_s: float = 75) -> None:
        last: dict[str, Any] = {}

        def fresh() -> bool:
            last.update(self.ask(path))
            return bool(last["fresh"])

        try:
            until_sync(fresh, timeout_s, "fresh")
        except AssertionError as error:
            raise AssertionError(f"{last}\n{self.installation.logs()}") from error

    def until_culprit(
        self, path: str, hop: str, reasons: set[str], timeout_s: float = 60
    ) -> dict[str, Any]:
        """The answer that names the hop for one of the reasons."""
        seen: list[tuple[str, str]] = []
        last: dict[str, Any] = {}

        def named() -> bool:
            last.update(self.ask(path))
            seen.append((last["culprit"], reason_of(last, last["culprit"])))
            return last["culprit"] == hop and seen[-1][1] in reasons

        try:
            until_sync(named, timeout_s, hop)
        except AssertionError as error:
            raise AssertionError(
                f"wanted {hop} {reasons}, got {seen}: {last}\n{self.installation.logs()}"
            ) from error
        return last

    # -- breaking -----------------------------------------------------------------------------

    def set_site(
        self, old: str = "", new: str = "", *, password: str = SECRET, endpoint: str = ""
    ) -> None:
        """Write the site file, with one text replaced."""
        text = _SITE.format(
            plc=endpoint or f"127.0.0.1:{self.proxy.port}",
            cnc=self.cnc.endpoint,
            password=password,
            flow=FLOW,
            level=LEVEL,
            speed=SPEED,
        )
        assert old in text, old
        temporary = self.folder.site_file.with_suffix(".new")
        temporary.write_text(text.replace(old, new, 1) if old else text)
        temporary.replace(self.folder.site_file)

    @contextmanager
    def site(self, old: str = "", new: str = "", **fields: str) -> Iterator[None]:
        self.set_site(old, new, **fields)
        try:
            yield
        finally:
            self.set_site()

    @contextmanager
    def frozen(self, role: str) -> Iterator[None]:
        """The process stands still."""
        pid = self.installation.pid(role)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def killed(self, role: str) -> Iterator[None]:
        """The process is gone, and its supervisor cannot start another before the end."""
        assert self.installation.process is not None
        supervisor = self.installation.process.pid
        os.kill(supervisor, signal.SIGSTOP)
        try:
            os.kill(self.installation.pid(role), signal.SIGKILL)
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)

    @contextmanager
    def device_off(self) -> Iterator[None]:
        self.do(self.plc.stop())
        try:
            yield
        finally:
            self.do(self.plc.start())

    @contextmanager
    def device_mute(self) -> Iterator[None]:
        """Half-open TCP: connections stand, nothing passes."""
        self.proxy.set_silent(True)
        try:
            yield
        finally:
            self.proxy.set_silent(False)

    @contextmanager
    def device_slow(self) -> Iterator[None]:
        self.plc.delay_s = 0.8
        try:
            yield
        finally:
            self.plc.delay_s = 0.0

    @contextmanager
    def clock_off(self, offset_s: int) -> Iterator[None]:
        self.cnc.clock_offset_us = offset_s * US_PER_S
        try:
            yield
        finally:
            self.cnc.clock_offset_us = 0

    @contextmanager
    def sensor_bad(self, status: int) -> Iterator[None]:
        self.sensor_status = status
        try:
            yield
        finally:
            self.sensor_status = 0

    @contextmanager
    def log_refuses(self) -> Iterator[None]:
        """The log takes no message of a frame's size, as a full one would."""

        async def narrow(bus: Bus) -> None:
            config: StreamConfig = (await bus.stream.stream_info(SAMPLES_STREAM)).config
            config.max_msg_size = 64
            await bus.stream.update_stream(config)

        self._on_bus(narrow)
        try:
            yield
        finally:
            self._on_bus(ensure_streams)

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """The historian is told to leave more space free than any disk has."""

        def want(free_bytes: int) -> None:
            config = msgspec.json.encode(HistorianConfig(stop_free_bytes_min=free_bytes))
            self._on_bus(lambda bus: bus.put(DESIRED_BUCKET, "historian", config))

        want(1 << 60)
        try:
            yield
        finally:
            want(1)

    @contextmanager
    def table_refuses(self) -> Iterator[None]:
        """The historian's process may write no more than a few bytes to any file."""
        process = psutil.Process(self.installation.pid("historian"))
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (64, hard))
        try:
            yield
        finally:
            process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))

    def _on_bus(self, act: Any) -> None:
        async def go() -> None:
            async with open_bus(load_address(self.folder), "test") as bus:
                await act(bus)

        asyncio.run(go())


def hop_of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(hop for hop in answer["hops"] if hop["name"] == name)


def reason_of(answer: dict[str, Any], name: str) -> str:
    return hop_of(answer, name)["reason"] if name else ""
