"""Roles that share what they have loaded: forked from one process that did the loading.

::

    headrace up ──► nursery (loads the libraries once, then waits) ──fork──► headrace run edge
                       ▲  {"command", "log"}   │ {"pid"} or {"pid", "code"}  └─► headrace run historian, ...

Each role would load the same 50 MB for itself, and take most of a second of a core for it. Forked, they
share those pages until they change them. The nursery does nothing but load and fork: no sockets, no
work, no lock is held when it forks. It dies with its supervisor and the roles die with it. Where the
system has no pidfd (outside Linux) roles are started one by one, as a program each.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final, NoReturn

from headrace.bus.driver import load_nats
from headrace.cli.processes import die_with_parent, open_log
from headrace.model.errors import Transient

SHARED: Final = (
    "sqlalchemy",
    "headrace.model.sample",
    "headrace.bus.client",
    "headrace.security.identity",
    "headrace.cli.run",
)
"""What most roles load."""
ANSWER_S: Final = 60.0
REPORT_S: Final = 2.0
TITLE_BYTES_MAX: Final = 1_024
UNKNOWN_CODE: Final = -int(signal.SIGKILL)


def is_possible() -> bool:
    """Whether this system can tell of the end of a process that is not one's own child."""
    return hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


class Nursery:
    """The supervisor's side: starts the nursery when it is first needed, and again when it died.

    Args:
        folder: data folder; shown in the list of processes.
        environment: of the nursery and of all that it starts.
    """

    def __init__(self, folder: Path, log: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._rest = b""
        self._codes: dict[int, int] = {}

    def start(self, command: list[str], log: Path) -> Forked:
        """A process that runs ``headrace COMMAND``.

        Raises:
            Transient: CLI-1016 when the nursery does not answer.
        """
        for _ in range(2):
            line = self.open()
            try:
                line.sendall(json.dumps({"command": command, "log": str(log)}).encode() + b"\n")
                deadline_s = time.monotonic() + ANSWER_S
                while (left_s := deadline_s - time.monotonic()) > 0:
                    for told in self._take(left_s):
                        if "code" not in told:
                            return Forked(self, int(told["pid"]))
            except OSError:
                self.close()  # it died; the next one answers
        self.close()
        raise Transient(
            "CLI-1016", f"the nursery starts no process ({command[1]})", f"See {self._log}."
        )

    def close(self) -> None:
        """End it; what it started ends with it."""
        if self._line is not None:
            self._line.close()
            self._line, self._rest = None, b""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def code(self, pid: int, timeout_s: float) -> int:
        """What a process that has ended said; that it was killed when nobody knows any more."""
        deadline_s = time.monotonic() + timeout_s
        while pid not in self._codes and (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._take(left_s)
            except OSError:
                break
        return self._codes.pop(pid, UNKNOWN_CODE)

    def open(self) -> socket.socket:
        """Start it, unless it is there; it loads meanwhile."""
        if self._line is not None:
            return self._line
        ours, theirs = socket.socketpair()
        with theirs, open_log(self._log) as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", __name__, str(theirs.fileno()), str(self._folder)),
                    " " * TITLE_BYTES_MAX,  # room for the names of those that it forks
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=self._environment,
            )
        self._line = ours
        return ours

    def _take(self, timeout_s: float) -> list[dict[str, Any]]:
        """What it tells within the time; codes are kept."""
        if self._line is None:
            raise OSError("closed")
        if not select.select([self._line], [], [], timeout_s)[0]:
            return []
        received = self._line.recv(65_536)
        if not received:
            raise ConnectionResetError("the nursery ended")
        *lines, self._rest = (self._rest + received).split(b"\n")
        told = [json.loads(line) for line in lines]
        self._codes |= {each["pid"]: each["code"] for each in told if "code" in each}
        return told


class Forked:
    """One process of the nursery, with the part of ``subprocess.Popen`` that the supervisor uses."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        self._handle = -1
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The same, when it ended in time.

        Raises:
            subprocess.TimeoutExpired: as of a Popen.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """To this process, never to another one that got its number."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            if self._handle >= 0:
                if not select.select([self._handle], [], [], timeout_s)[0]:
                    return None
                os.close(self._handle)
                self._handle = -1
            self.returncode = self._nursery.code(self.pid, REPORT_S)
        return self.returncode


def main() -> NoReturn:
    """The nursery itself: loads, then forks as it is told until its supervisor is gone."""
    die_with_parent(signal.SIGKILL)
    line = socket.socket(fileno=int(sys.argv[1]))
    # Python warns of forking beside threads. Those here belong to allocator and query engine, idle, and
    # are made anew where they are needed; nothing has been computed yet.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    load_nats()
    for name in SHARED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    rest = b""
    while True:
        ready, _, _ = select.select([line, woken], [], [])
        if woken in ready:
            woken.recv(4_096)
            _tell_ended(line)
        if line in ready:
            received = line.recv(65_536)
            if not received:
                sys.exit(0)
            *lines, rest = (rest + received).split(b"\n")
            for each in lines:
                _fork(line, (line, woken, wake), json.loads(each))


def _tell_ended(line: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):  # none is left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            line.sendall(json.dumps({"pid": ended[0], "code": code}).encode() + b"\n")


def _fork(line: socket.socket, own: tuple[socket.socket, ...], asked: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        line.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in own:
        each.close()
    os.setsid()
    with open_log(Path(asked["log"])) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["headrace", *asked["command"]]
    _show(["headrace", *asked["command"]])
    _run()


def _show(words: list[str]) -> None:
    """What the list of processes says of this one, in the place of what it said of the nursery (proc(5))."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    title = b"\0".join(word.encode() for word in words)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, title, len(title))


def _run() -> NoReturn:
    """As ``headrace`` does, up to its exit code."""
    from headrace.cli import main as command

    code = 0
    try:
        command()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
