"""The forgetful disk as tests use it: built once a run, mounted, cut, and lit again."""

from __future__ import annotations

import functools
import os
import select
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from waiting import until_sync

SOURCE = Path(__file__).parent / "forgetful_disk.c"
ANSWER_S = 30.0
DIE_S = 30.0


@functools.cache
def _program() -> str:
    """Path of the built program; skips, with the reason, where it cannot be built."""
    try:
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True
        )
        if flags.returncode:
            pytest.skip("the headers of FUSE are not installed (libfuse3-dev)")
        folder = Path(tempfile.mkdtemp(prefix="forgetful-"))
        words = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", str(SOURCE)]
        subprocess.run([*words, "-o", f"{folder}/disk", *flags.stdout.split()], check=True)
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not installed")
    return f"{folder}/disk"


def sync(path: Path) -> None:
    """fsync of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class ForgetfulDisk:
    """One mounted disk that forgets at a power cut what was not synced.

    Args:
        at: an empty folder to mount it on.
        names: ``strict``: names are durable after fsync of their folder, as POSIX promises;
            ``journal``: after any fsync, as ext4 and XFS do.
    """

    def __init__(self, at: Path, names: str = "strict") -> None:
        self.root = at
        at.mkdir(parents=True, exist_ok=True)
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("/dev/fuse is not for this user")
        self._process = subprocess.Popen(
            [_program(), str(at)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if self._answer() != "mounted":
            assert self._process.stderr is not None
            self._process.wait(ANSWER_S)
            reason = self._process.stderr.read().decode().strip()
            pytest.skip(f"FUSE may not be mounted here: {reason}")
        self._order(f"names {names}")

    def power_cut(self, pids: Iterable[int], how: str = "lost", seed: int = 1) -> tuple[int, int]:
        """Cut the power in this moment, kill every process of ``pids``, and switch it on again.

        Args:
            how: ``lost``: nothing unsynced is left; ``torn``: a random part of it, by ``seed``.

        Returns:
            How many unsynced blocks of 4 KiB and changes of names there were.
        """
        processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        self._order("dark")
        for process in processes:
            process.kill()
        # Only now can they end: a dying process waits for the answer to its last close.
        _, blocks, changes = self._order(f"light {how} {seed}").split()
        _, alive = psutil.wait_procs(processes, timeout=DIE_S)
        assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive), alive
        return int(blocks), int(changes)

    def close(self) -> None:
        """Unmount it; everything on it is gone."""
        self._process.communicate(timeout=ANSWER_S)
        until_sync(lambda: not os.path.ismount(self.root), 5, f"unmounting {self.root}")

    def _order(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        out = self._process.stdout
        assert out is not None
        assert select.select([out], [], [], ANSWER_S)[0], "the forgetful disk does not answer"
        return os.read(out.fileno(), 4096).decode().strip()
