"""The supervisor with real processes: restarts what dies, stops all, holds its folder alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from headrace.bus.broker import prepare_address
from headrace.cli.nursery import Nursery, is_possible
from headrace.cli.supervisor import Child, Supervisor, installation_lock
from headrace.model.folder import DataFolder
from waiting import until_sync


def sleeper(stubborn: bool = False) -> subprocess.Popen[bytes]:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    code = f"{ignore}print('up', flush=True)\nimport time\nwhile True: time.sleep(1)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    return process


@pytest.fixture
def supervisor(folder: DataFolder):
    notices: list[str] = []
    address = prepare_address(folder)
    made = Supervisor(folder, address, {}, notify=notices.append)
    made.start()
    made.notices = notices
    yield made
    made.stop()


def add(supervisor: Supervisor, child: Child) -> Child:
    supervisor.children.append(child)
    supervisor._launch(child)
    return child


def test_what_dies_is_started_again_and_said(supervisor: Supervisor):
    child = add(supervisor, Child("worker", sleeper))
    first = child.process.pid
    os.kill(first, signal.SIGKILL)

    def again() -> bool:
        supervisor.tend()
        return child.process is not None and child.process.pid != first

    until_sync(again)
    assert child.restarts == 1
    assert any("worker ended with -9" in text for text in supervisor.notices)
    assert (supervisor.folder.run / "worker.pid").read_text() == str(child.process.pid)


@pytest.mark.skipif(not is_possible(), reason="this system has no pidfd")
def test_a_role_runs_without_a_nursery_when_none_can_start(supervisor: Supervisor):
    log = supervisor.folder.logs / "nursery.log"
    broken = {**os.environ, "PYTHONHOME": "/nowhere"}
    supervisor._nursery = Nursery(supervisor.folder.root, log, broken)
    supervisor.add("security", [])
    role = supervisor.children[-1].process
    assert isinstance(role, subprocess.Popen) and role.args[3:5] == ["run", "security"]
    assert any("CLI-1016" in text for text in supervisor.notices)


def test_a_broker_that_dies_comes_back_on_its_port(supervisor: Supervisor):
    broker = supervisor.children[0]
    port = supervisor.address.port

    def listens() -> bool:
        supervisor.tend()
        if broker.process is None:
            return False
        connections = psutil.Process(broker.process.pid).net_connections()
        return any(c.laddr.port == port and c.status == "LISTEN" for c in connections)

    until_sync(listens)
    first = broker.process.pid
    broker.process.kill()
    broker.process.wait()
    until_sync(listens)
    assert broker.process.pid != first


def test_stop_leaves_none_behind_even_a_stubborn_one(supervisor: Supervisor):
    children = [
        add(supervisor, Child("meek", sleeper)),
        add(supervisor, Child("stubborn", lambda: sleeper(stubborn=True))),
    ]
    processes = [child.process for child in [*supervisor.children]]
    start_s = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - start_s < 5.0
    assert all(process.poll() is not None for process in processes)
    assert children[1].process.returncode == -signal.SIGKILL


def test_a_folder_has_one_supervisor(folder: DataFolder):
    with installation_lock(folder):
        code = (
            "import sys; from pathlib import Path\n"
            "from headrace.cli.supervisor import installation_lock\n"
            "from headrace.model.folder import DataFolder\n"
            "with installation_lock(DataFolder(Path(sys.argv[1]))): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(folder.root)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "CLI-1001" in other.stderr
    with installation_lock(folder):
        pass


def test_the_supervisor_holds_no_library_of_the_data_path():
    """It only starts and watches; these cost 50 MB for as long as the installation runs."""
    code = "import sys, headrace.cli.up; print({'polars', 'numpy', 'nats'} & set(sys.modules))"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "set()"
