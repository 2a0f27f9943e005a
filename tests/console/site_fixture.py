"""A small real site for console tests: broker, historian and console as processes of their own.

The test publishes the samples and health messages that an edge would; ``running_site`` gives the
address, the password and ``publish``.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from alarm_site import alarm_sections

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress, free_port, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import DESIRED_BUCKET, Subjects
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.health import ConnectionState, EdgeState
from headrace.model.sample import make_batch
from headrace.model.time import US_PER_S, SystemClock
from headrace.security.identity import Identity, ensure_first_admin
from headrace.site.file import SiteFiles, check_site, load_site
from headrace.site.keeper import STATE_KEY, SiteState
from headrace.site.registry import Registry
from headrace.site.writing import site_lock, write_files
from waiting import until_sync

PASSWORD = "a long enough phrase"
SUBJECTS = Subjects("acme", "mill")
CLOCK = SystemClock()
_TITLES = {
    "spindle_load": "主轴负载",
    "spindle_speed": "主轴转速",
    "flow": "流量",
    "head": "扬程",
    "power": "功率",
}
_UNITS: dict[str, dict[str, str]] = {
    "machining/milling/cnc_1": {"spindle_load": "%", "spindle_speed": "1/min", "power": "kW"},
    "machining/milling/cnc_2": {"spindle_load": "%", "spindle_speed": "1/min", "power": "kW"},
    "utilities/pumping/pump_1": {"flow": "m3/h", "head": "m", "power": "kW"},
    "utilities/pumping/pump_2": {"flow": "m3/h", "head": "m", "power": "kW"},
    "environment/hall_a/meter_1": {"power": "kW"},
}
_RUN = """
import asyncio, signal, sys
from importlib import import_module
from pathlib import Path
from headrace.bus.broker import load_address
from headrace.bus.subjects import DESIRED_BUCKET, Subjects
from headrace.model.folder import DataFolder
async def main(role, root, *port):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    folder = DataFolder(Path(root))
    more = {"port": int(port[0])} if port else {}
    module = import_module(f"headrace.{role}.role")
    await module.run(folder, load_address(folder), Subjects("acme", "mill"), stop, **more)
asyncio.run(main(*sys.argv[1:]))
"""


def site_text() -> str:
    """The site file: three areas, five work units, alarms of the pumps and the milling machines."""
    lines = [
        '[site]\nenterprise = "acme"\nname = "mill"',
        'title = { en = "Demo works", zh = "示范工厂" }\ntime_zone = "Europe/Berlin"',
        '[area.machining]\ntitle = { en = "Machining", zh = "机加工" }',
        '[area.utilities]\ntitle = { en = "Utilities", zh = "公用工程" }',
        '[area.environment]\ntitle = { en = "Environment", zh = "环境" }',
        '[connection.plc_1]\nprotocol = "modbus"\nendpoint = "127.0.0.1:1502"',
    ]
    register = 0
    for path, names in _UNITS.items():
        for name, unit in names.items():
            title = f'{{ en = "{name.replace("_", " ").capitalize()}", zh = "{_TITLES[name]}" }}'
            lines.append(
                f'[[tag]]\npath = "{path}/{name}"\nconnection = "plc_1"\n'
                f'address = "holding:{register}:float32"\nunit = "{unit}"\ntitle = {title}'
            )
            register += 2
    return "\n".join([*lines, *alarm_sections()]) + "\n"


class RunningSite:
    """What a test holds of the site.

    Attributes:
        url: of the console. folder: the data folder. tags: path -> tag_id.
    """

    def __init__(self, folder: DataFolder, address: BrokerAddress, url: str) -> None:
        self.folder = folder
        self.address = address
        self.url = url
        self.user, self.password = "mia", PASSWORD
        self.first_password = ""
        registry = Registry.of(folder)
        self.tags = {record.path: record.tag_id for record in registry.find()}
        registry.close()

    def publish(
        self,
        values: dict[str, float],
        *,
        at_us: int | None = None,
        status: int = 0,
    ) -> None:
        """Publish one sample of each tag, as an edge would."""
        now_us = CLOCK.now_us() if at_us is None else at_us
        ids = np.array([self.tags[path] for path in values], np.int64)
        times = np.full(len(ids), now_us, np.int64)
        numbers = np.array(list(values.values()), np.float64)
        self.publish_columns(ids, times, numbers, status=status)

    def publish_columns(self, ids: Any, times: Any, values: Any, *, status: Any = 0) -> None:
        """Publish columns in frames of 10,000."""
        now_us = CLOCK.now_us()
        frames = [
            envelope.encode(
                make_batch(
                    ids[i : i + 10_000],
                    times[i : i + 10_000],
                    values[i : i + 10_000],
                    status=status,
                    received_timestamp_us=now_us,
                )
            )
            for i in range(0, len(ids), 10_000)
        ]

        async def send(bus: Bus) -> None:
            for place, body in enumerate(frames):
                head = {"Nats-Msg-Id": f"local/plc_1/{time.time_ns()}/{place}"}
                await _acknowledged(bus, SUBJECTS.batch("local", "plc_1"), body, head)

        self.with_bus(send)

    def publish_health(self, state: str = "connected", **fields: Any) -> None:
        """Publish an edge's state with its one connection."""
        now_us = CLOCK.now_us()
        connection = ConnectionState(
            connection="plc_1",
            protocol="modbus",
            endpoint="127.0.0.1:1502",
            edge="local",
            state=state,  # type: ignore[arg-type] # tests name them
            since_us=now_us - 600 * US_PER_S,
            tags=len(self.tags),
            **fields,
        )
        edge = EdgeState(
            edge="local",
            config_hash="0" * 64,
            at_us=now_us,
            started_us=now_us,
            connections=[connection],
        )

        async def send(bus: Bus) -> None:
            await bus.publish(SUBJECTS.edge_health("local"), edge)
            await bus.client.flush()

        self.with_bus(send)

    @contextmanager
    def site_file(self, text: str) -> Iterator[None]:
        """Another site file, in force from here; as it was, in force again at the end."""
        before = self.folder.site_file.read_text(encoding="utf-8")
        self._put_site_file(text)
        try:
            yield
        finally:
            self._put_site_file(before)

    def _put_site_file(self, text: str) -> None:
        files = {"site.toml": text.encode()}
        model, problems = check_site(SiteFiles(self.folder.site_file, files))
        assert model is not None and not problems, problems
        with site_lock(self.folder):
            write_files(self.folder, files)

        async def state(bus: Bus) -> bytes | None:
            return await bus.get(DESIRED_BUCKET, STATE_KEY)

        def is_in_force() -> bool:
            found = msgspec.json.decode(self.with_bus(state) or b"{}", type=SiteState)
            return found.content_hash == model.content_hash()

        until_sync(is_in_force, 60, "the site file is in force")

    def with_bus(self, act: Any) -> Any:
        """Run ``act(bus)`` on a connection of its own, in a thread: pages of the sync browser have
        a running loop."""
        result: list[Any] = []

        async def go() -> None:
            async with open_bus(self.address, "test") as bus:
                result.append(await act(bus))

        import threading

        thread = threading.Thread(target=lambda: asyncio.run(go()))
        thread.start()
        thread.join()
        return result[0]


async def _acknowledged(bus: Bus, subject: str, body: bytes, head: dict[str, str]) -> None:
    """As a lane does: again, under the same id, while a busy broker does not answer in time."""
    for _ in range(24):
        try:
            await bus.publish_frame(subject, body, head)
        except Transient:
            continue
        return
    raise AssertionError(f"no acknowledgement on {subject}")


@contextmanager
def start_site(
    root: Path, text: str = "", *, edge: bool = False, apps: bool = False
) -> Iterator[RunningSite]:
    """Start everything on an empty folder, with an edge and apps when asked to; stop it all at the end."""
    folder = DataFolder(root)
    root.mkdir(parents=True, exist_ok=True)
    folder.site_file.write_text(text or site_text(), encoding="utf-8")
    address = prepare_address(folder)
    with ExitStack() as stack:
        broker = start_broker(folder, address, sync_interval="2m")
        stack.callback(stop_broker, broker)
        asyncio.run(_prepare(folder, address))
        first = ensure_first_admin(folder)
        identity = Identity(folder)
        identity.add_user("mia", "admin", PASSWORD)
        identity.add_user("leo", "viewer", PASSWORD)
        identity.close()
        port = free_port()
        roles = [("historian", []), ("console", [str(port)]), *([("edge", [])] if edge else [])]
        roles += [("apps", [])] if apps else []
        for role, more in roles:
            stack.enter_context(_process(role, folder, more))
        site = RunningSite(folder, address, f"http://127.0.0.1:{port}")
        site.first_password = first or ""
        _wait_answer(site.url)
        yield site


async def _prepare(folder: DataFolder, address: BrokerAddress) -> None:
    async with open_bus(address, "test") as bus:
        await ensure_streams(bus)
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), CLOCK.now_us())
    registry.close()


@contextmanager
def _process(role: str, folder: DataFolder, more: list[str]) -> Iterator[None]:
    folder.logs.mkdir(exist_ok=True)
    with (folder.logs / f"{role}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, role, str(folder.root), *more], stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            finally:
                process.kill()


def _wait_answer(url: str) -> None:
    deadline_s = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/sign-in", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline_s, "the console does not answer"
        time.sleep(0.05)


EMPTY_SITE = (
    '[site]\nenterprise = "acme"\nname = "mill"\ntitle = "Empty works"\n# a comment that stays\n'
)


def plain_values(folder_tags: dict[str, int]) -> dict[str, float]:
    """A believable value for each tag."""
    return {path: 10.0 + 7.3 * i for i, path in enumerate(folder_tags)}


__all__ = [
    "EMPTY_SITE",
    "PASSWORD",
    "SUBJECTS",
    "RunningSite",
    "msgspec",
    "plain_values",
    "start_site",
]
