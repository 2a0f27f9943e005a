"""A real PostgreSQL for tests: one server a session, a fresh database a test. Skips where there is none."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.bus.broker import free_port
from waiting import until_sync


class PostgresServer:
    """A server of the session; ``process`` may be stopped and started."""

    def __init__(self, root: Path, binaries: Path, user: str | None) -> None:
        self.root, self._binaries, self._user = root, binaries, user
        self.port = free_port()
        self._made = 0
        self._run("initdb", "-D", str(root / "data"), "-U", "headrace", "-A", "trust", "-N")
        self.process = self.start()

    def _as(self) -> dict[str, object]:
        """PostgreSQL refuses to run as root."""
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid} if self._user else {}

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [str(self._binaries / command[0]), *command[1:]],
            capture_output=True, text=True, cwd=self.root, env={**os.environ, "LC_ALL": "C.UTF-8"},
            **self._as(),  # type: ignore[call-overload] # user and group
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self) -> subprocess.Popen[bytes]:
        command = [str(self._binaries / "postgres"), "-D", str(self.root / "data")]
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.root),
            "fsync": "off",
        }
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.root, **self._as()
            )  # type: ignore[call-overload] # user and group
        until_sync(self._answers, 30, "PostgreSQL")
        return self.process

    def _answers(self) -> bool:
        command = [str(self._binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        assert self.process.poll() is None, (self.root / "log").read_text()
        return subprocess.run(command, capture_output=True).returncode == 0

    def stop(self, kind: int = signal.SIGINT) -> None:
        self.process.send_signal(kind)
        self.process.wait(30)

    def new_database(self) -> str:
        """URL of a new, empty database."""
        self._made += 1
        name = f"metadata_{self._made}"
        place = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "headrace")
        self._run("createdb", *place, name)
        return f"postgresql+psycopg://headrace@127.0.0.1:{self.port}/{name}"


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server."""
    pytest.importorskip("psycopg", reason="headrace[postgres] is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    user = None
    if os.getuid() == 0:
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    root = Path(tempfile.mkdtemp(prefix="headrace-postgres-", dir="/tmp"))
    if user is not None:
        shutil.chown(root, user)
    server = PostgresServer(root, binaries, user)
    try:
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # at once; the folder goes with it
        shutil.rmtree(root, ignore_errors=True)
