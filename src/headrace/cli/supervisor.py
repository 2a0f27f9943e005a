"""Starts, watches and stops the processes of one installation.

::

    headrace up ──┬── nats-server            restarted when it dies
                  ├── nursery                (forks the roles below: cli/nursery.py)
                  ├── headrace run security  (who else may connect to the broker)
                  ├── headrace run sim       (demo only)
                  ├── headrace run historian
                  ├── headrace run edge      (alone with the broker, on a machine of its own)
                  ├── headrace run apps      (formulas and alarms)
                  ├── headrace run runtime   (only when an app with Python is in the site file)
                  ├── headrace run hub       (only with --hub-listen: takes edges in)
                  └── headrace run console   (API, web pages, keeper of the desired state)

A process that dies is started again after 0.2 s, doubling to 10 s while it keeps dying. On stop, each
gets SIGTERM in the order above from edge to broker, and SIGKILL when five seconds are over. A child
whose supervisor is killed dies with it (Linux: PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from headrace.bus.broker import BrokerAddress, BrokerOptions, start_broker, write_private
from headrace.cli.nursery import Forked, Nursery, is_possible
from headrace.cli.processes import ROLE_ENVIRONMENT, open_log
from headrace.model.errors import Refused, Transient
from headrace.model.folder import DataFolder
from headrace.security.files import hold_lock, make_folder

RESTART_FIRST_S: Final = 0.2
RESTART_MAX_S: Final = 10.0
STEADY_S: Final = 20.0
STOP_S: Final = 4.5


@contextlib.contextmanager
def installation_lock(folder: DataFolder) -> Iterator[None]:
    """Hold the data folder for this supervisor.

    Raises:
        Refused: CLI-1001 when another one holds it.
    """
    make_folder(folder.run, 0o700)
    refused = Refused(
        "CLI-1001",
        f"another 'headrace up' runs on {folder.root}",
        "Stop that one, or give another folder with --data.",
    )
    with hold_lock(folder.run / "up.lock", refused) as descriptor:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield


@dataclass
class Child:
    """One supervised process."""

    name: str
    start: Callable[[], subprocess.Popen[bytes] | Forked]
    process: subprocess.Popen[bytes] | Forked | None = None
    started_s: float = 0.0
    wait_s: float = RESTART_FIRST_S
    next_start_s: float = 0.0
    restarts: int = 0


@dataclass
class Supervisor:
    """The processes of one installation.

    Args:
        folder: its data folder.
        address: its broker.
        roles: role name -> extra arguments of ``headrace run ROLE``; ``historian-0`` and
            ``historian-1`` are two of one role.
        notify: told in one line what happens.
        broker_options: gives what is special about this broker, at each of its starts.
    """

    folder: DataFolder
    address: BrokerAddress
    roles: dict[str, list[str]]
    notify: Callable[[str], None]
    broker_options: Callable[[], BrokerOptions] = BrokerOptions
    children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment = {**ROLE_ENVIRONMENT, **os.environ}
        self._nursery = Nursery(self.folder.root, self.folder.logs / "nursery.log", environment)

    def start(self) -> None:
        """Start everything; returns at once."""
        self.folder.logs.mkdir(parents=True, exist_ok=True)
        if self.roles and is_possible():
            self._nursery.open()  # it loads while the broker starts
        broker = Child("broker", self._start_broker)
        self.children = [] if self.address.is_cluster else [broker]
        for role, arguments in self.roles.items():
            self.children.append(Child(role, lambda r=role, a=arguments: self._start_role(r, a)))  # type: ignore[misc]
        for child in self.children:
            self._launch(child)

    def tend(self) -> None:
        """Restart what has died and is due; call it a few times a second."""
        now_s = time.monotonic()
        for child in self.children:
            if child.process is None:
                if now_s >= child.next_start_s:
                    child.restarts += 1
                    self._launch(child)
            elif (code := child.process.poll()) is not None:
                if now_s - child.started_s > STEADY_S:
                    child.wait_s = RESTART_FIRST_S
                self.notify(
                    f"{child.name} ended with {code}; starting it again (logs/{child.name}.log)"
                )
                child.process = None
                child.next_start_s = now_s + child.wait_s
                child.wait_s = min(child.wait_s * 2, RESTART_MAX_S)

    def add(self, role: str, arguments: list[str]) -> None:
        """Start one more role, once; from then on it is as the others."""
        if all(child.name != role for child in self.children):
            child = Child(role, lambda: self._start_role(role, arguments))
            self.children.append(child)
            self._launch(child)

    def stop(self) -> None:
        """Stop everything, the broker last; returns within five seconds with none left."""
        deadline_s = time.monotonic() + STOP_S
        brokers = [child for child in self.children if child.name == "broker"]
        roles = [child for child in self.children if child.name != "broker"]
        for child in roles:
            self._signal(child, signal.SIGTERM)
        self._wait(roles, deadline_s - 1.0)
        for child in brokers:
            self._signal(child, signal.SIGTERM)
        self._wait(brokers, deadline_s)
        self._nursery.close()

    def _launch(self, child: Child) -> None:
        child.process = child.start()
        child.started_s = time.monotonic()
        write_private(self.folder.run / f"{child.name}.pid", str(child.process.pid))

    def _start_broker(self) -> subprocess.Popen[bytes]:
        return start_broker(self.folder, self.address, **self.broker_options())

    def _start_role(self, role: str, arguments: list[str]) -> subprocess.Popen[bytes] | Forked:
        kind = role.partition("-")[0]
        command = ["run", kind, "--data", str(self.folder.root), *arguments]
        path = self.folder.logs / f"{role}.log"
        if is_possible():
            try:
                return self._nursery.start(command, path)
            except Transient as error:  # it costs memory to do without, and nothing else
                self.notify(f"{error.code} {error.what}; {role} runs as a program of its own")
        with open_log(path) as log:
            return subprocess.Popen(
                [sys.executable, "-m", "headrace", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**ROLE_ENVIRONMENT, **os.environ},
            )

    @staticmethod
    def _signal(child: Child, number: int) -> None:
        if child.process is not None and child.process.poll() is None:
            child.process.send_signal(number)

    def _wait(self, children: list[Child], deadline_s: float) -> None:
        for child in children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.05, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.notify(f"{child.name} did not stop in time; killed")
                child.process.kill()
                child.process.wait()
