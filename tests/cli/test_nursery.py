"""The nursery with real processes: forks that end as programs do, are told of, and die with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.bus.broker import prepare_address
from headrace.cli.nursery import UNKNOWN_CODE, Forked, Nursery, is_possible
from headrace.cli.run import keep_site
from headrace.model.folder import DataFolder
from waiting import until_sync

pytestmark = pytest.mark.skipif(not is_possible(), reason="this system has no pidfd")


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path, tmp_path / "nursery.log", dict(os.environ))
    yield made
    made.close()


def sleeper(nursery: Nursery, root: Path, name: str) -> Forked:
    """A role that waits for a broker that does not come."""
    folder = DataFolder(root / name)
    prepare_address(folder)
    keep_site(folder, "acme", "mill")
    started = nursery.start(["run", "security", "--data", str(folder.root)], root / f"{name}.log")
    until_sync(lambda: started.poll() is not None or folder.metadata_file.exists(), 30)
    return started


def test_a_command_runs_and_its_code_and_words_come_back(nursery: Nursery, tmp_path: Path) -> None:
    log = tmp_path / "role.log"
    assert nursery.start(["site", "check", str(tmp_path / "none.toml")], log).wait(60) == 2
    assert "none.toml" in log.read_text()
    assert nursery.start(["--help"], log).wait(60) == 0


def test_the_end_of_a_process_is_its_own(nursery: Nursery, tmp_path: Path) -> None:
    held = [sleeper(nursery, tmp_path, name) for name in ("one", "two")]
    try:
        assert all(each.poll() is None for each in held)
        shown = psutil.Process(held[0].pid).cmdline()
        assert shown[:4] == ["headrace", "run", "security", "--data"], (
            "who it is in a list of processes"
        )
        held[0].send_signal(signal.SIGKILL)
        assert held[0].wait(10) == -signal.SIGKILL
        assert held[1].poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            held[1].wait(0.05)
    finally:
        for each in held:
            each.kill()
    assert held[1].wait(10) == -signal.SIGKILL
    held[1].kill()  # what has ended is not signalled, nor who got its number


def test_a_dead_nursery_is_replaced_and_its_own_died_with_it(
    nursery: Nursery, tmp_path: Path
) -> None:
    lost = sleeper(nursery, tmp_path, "lost")
    parent = psutil.Process(lost.pid).parent()
    assert parent is not None
    parent.kill()
    until_sync(lambda: lost.poll() is not None, 30, "it died with the nursery")
    assert lost.poll() == UNKNOWN_CODE
    assert nursery.start(["--help"], tmp_path / "log").wait(60) == 0
