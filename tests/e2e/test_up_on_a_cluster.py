"""The whole demo on a cluster of three brokers with two historians: a node and a writer are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_nodes import Cluster, running_cluster
from installation import Installation

from headrace.historian.index import TableIndex
from waiting import until_sync

pytestmark = [pytest.mark.kill, pytest.mark.soak]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster") as started:
        yield started


def test_the_demo_goes_on_when_a_node_and_a_writer_are_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    made = Installation(
        tmp_path / "plant", "--demo", "--bus", str(cluster.client_file), "--historians", "2"
    )
    # commands on that folder find the cluster as the roles do
    made.folder.root.mkdir()
    (made.folder.root / "headrace.toml").write_text(f'[bus]\naddress = "{cluster.client_file}"\n')
    made.start()
    try:
        assert not (made.folder.run / "broker.pid").exists(), "no broker of its own"
        index = TableIndex(made.folder.table)
        until_sync(lambda: index.refresh().rows > 0, 120, "samples are stored")
        cluster.kill("a")
        made.kill("historian-1")
        before = index.refresh().rows
        until_sync(lambda: index.refresh().rows > before + 1_000, 120, "storing goes on")
        told = subprocess.run(
            [sys.executable, "-m", "headrace", "status", "--data", str(made.folder.root)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout
        assert "historian running" in told.stdout
    finally:
        print(made.logs())
        made.stop()
