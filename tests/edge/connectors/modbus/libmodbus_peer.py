"""Builds and runs the libmodbus server of the tests, or skips with the reason."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("libmodbus_server.c")


def build(folder: Path) -> Path | str:
    """The compiled server, or why there is none."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return "no C compiler; install gcc"
    program = folder / "libmodbus_server"
    flags = ["-O2", "-I/usr/include/modbus", "-o", str(program), str(SOURCE), "-lmodbus"]
    made = subprocess.run([compiler, *flags], capture_output=True, text=True)
    if made.returncode:
        return f"libmodbus is missing; install libmodbus-dev ({made.stderr.splitlines()[:1]})"
    return program


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The endpoint of a running libmodbus server; skips the test where it cannot be built."""
    program = build(folder)
    if isinstance(program, str):
        pytest.skip(program)
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
