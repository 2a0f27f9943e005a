"""``headrace replay`` as a process, and the comparison of a recording with the historian."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
from installation import Installation

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder
from headrace.site.registry import Registry
from waiting import until_sync

SITE_PART_WRITTEN = "Connection and tags for a site file"
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
        self.site_part = root / f"{protocol}.part.toml"
        self._log = root / f"{protocol}.replay.log"
        self._command = [sys.executable, "-m", "headrace", "replay", str(file), "--as", protocol]
        self._command += [
            "--site-file",
            str(self.site_part),
            "--data",
            str(installation.folder.root),
        ]
        self._command += ["--resume", str(root / f"{protocol}.position"), *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> Replay:
        said = self.output.count(SITE_PART_WRITTEN) + 1
        with self._log.open("a") as out:
            self.process = subprocess.Popen(
                self._command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            )
        until_sync(
            lambda: self.output.count(SITE_PART_WRITTEN) >= said or self.ended, 30, "the site part"
        )
        assert not self.ended or "All rows" in self.output, self.output
        return self

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
