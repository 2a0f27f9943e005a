"""``headrace replay`` as a process, and the comparison of a recording with the historian."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from installation import Installation

from headrace.bus.broker import free_port, load_address
from headrace.bus.client import open_bus
from headrace.bus.subjects import Subjects
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeState
from headrace.site.registry import Registry
from waiting import until_sync

SITE = """\
[site]
enterprise = "acme"
name = "replay"

"""


class Replay:
    """One replay process; it can be killed and started again on the same endpoint.

    Args:
        installation: what receives. file: the recording. protocol: of ``--as``.
        arguments: more of ``headrace replay``.
    """

    def __init__(
        self, installation: Installation, file: Path, protocol: str, *arguments: str
    ) -> None:
        root = installation.folder.root.parent
        self.protocol = protocol
        self.site_part = root / f"{protocol}.part.toml"
        self._log = root / f"{protocol}.replay.log"
        self._command = [
            *installation.prefix,
            sys.executable,
            "-m",
            "headrace",
            "replay",
            str(file),
        ]
        self._command += ["--as", protocol]
        self._command += [
            "--site-file",
            str(self.site_part),
            "--data",
            str(installation.folder.root),
        ]
        self._command += ["--resume", str(root / f"{protocol}.position"), *arguments]
        if protocol in ("modbus", "opcua"):
            scheme = "opc.tcp://" if protocol == "opcua" else ""
            self._command += ["--endpoint", f"{scheme}127.0.0.1:{free_port()}"]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def write_site_part(self) -> None:
        """Only write the site file's part; nothing is served."""
        subprocess.run([*self._command, "--check"], check=True, capture_output=True)

    def start(self) -> None:
        with self._log.open("a") as out:
            self.process = subprocess.Popen(
                self._command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            )

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill_and_restart(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> None:
        if self.process is not None and not self.ended:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)


def start_all(installation: Installation, replays: list[Replay]) -> None:
    """Let the site take in the replays' tags, and start them.

    A publisher of plain MQTT cannot know of its receivers: its replay starts when the edge has
    subscribed. The others wait for theirs by themselves.
    """
    for replay in replays:
        replay.write_site_part()
    write_site(installation.folder, [replay.site_part for replay in replays])
    plain = [replay for replay in replays if replay.protocol == "mqtt"]
    if plain:
        until_sync(lambda: "mqtt" in connected(installation.folder), 30, "the edge's subscription")
    for replay in replays:
        replay.start()


def connected(folder: DataFolder) -> set[str]:
    """Protocols of the local edge's connections that are connected."""

    async def ask() -> set[str]:
        state: asyncio.Future[EdgeState] = asyncio.get_running_loop().create_future()

        async def take(message: Any) -> None:
            if not state.done():
                state.set_result(msgspec.json.decode(message.data, type=EdgeState))

        async with open_bus(load_address(folder), "test") as bus:
            await bus.subscribe(Subjects("acme", "replay").every_edge_health(), take)
            edge = await asyncio.wait_for(state, 5)
        return {c.protocol for c in edge.connections if c.state == "connected"}

    return asyncio.run(ask())


def write_site(folder: DataFolder, parts: list[Path]) -> None:
    """A site file out of the replays' parts."""
    text = SITE + "\n".join(part.read_text() for part in parts)
    temporary = folder.site_file.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(folder.site_file)


def stored(folder: DataFolder, pattern: str) -> pl.DataFrame:
    """Columns path, source_timestamp, value, text, status of every stored sample with a value."""

    async def ask() -> pl.DataFrame:
        registry = Registry(f"sqlite:///{folder.metadata_file}")
        paths = {record.tag_id: record.path for record in registry.find(pattern)}
        registry.close()
        async with (
            open_bus(load_address(folder), "test") as bus,
            open_reader(folder, bus) as reader,
        ):
            batch = await asyncio.to_thread(reader.read, list(paths), -(2**62), 2**62)
        return batch.filter(pl.col("value").is_not_null() | pl.col("text").is_not_null()).select(
            pl.col("tag_id").replace_strict(paths, return_dtype=pl.String).alias("path"),
            "source_timestamp",
            "value",
            "text",
            "status",
        )

    return asyncio.run(ask())
