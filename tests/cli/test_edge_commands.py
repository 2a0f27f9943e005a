"""``headrace edge`` and ``up --hub-listen``: what a person types wrong changes nothing and says what now."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.bus import leaf
from headrace.bus.broker import free_port
from headrace.bus.leaf import Joined
from headrace.cli import edge, up
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.site import hub


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    edge.register(made)
    up.register(made)
    return made


def refused(app: typer.Typer, *arguments: str) -> str:
    """The code of our error; the command may not have ended in any other way."""
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, HeadraceError), result.output
    assert result.exception.remedy
    return result.exception.code


def test_invite_needs_a_hub_that_listens(app: typer.Typer, tmp_path: Path) -> None:
    data = ["--data", str(tmp_path)]
    assert refused(app, "edge", "invite", "north", *data) == "SITE-1902"
    hub.prepare(DataFolder(tmp_path), "127.0.0.1", 7421, ("hub.example",), SystemClock())
    assert refused(app, "edge", "invite", "no.rth", *data) == "MODEL-1002"
    assert refused(app, "edge", "invite", "north", "--expires", "soon", *data) == "CLI-1906"
    result = CliRunner().invoke(app, ["edge", "invite", "north", *data])
    assert result.exit_code == 0
    assert "headrace edge join hub.example:7421 --token hre_" in result.stdout
    assert refused(app, "edge", "remove", "south", *data) == "SITE-1907"
    assert CliRunner().invoke(app, ["edge", "remove", "north", *data]).exit_code == 0
    hub.close(DataFolder(tmp_path))
    assert refused(app, "edge", "invite", "north", *data) == "SITE-1902"


def test_what_is_wrong_with_a_join_is_said_before_anything_is_done(
    app: typer.Typer, tmp_path: Path
) -> None:
    data = ["--data", str(tmp_path / "edge")]
    assert refused(app, "edge", "join", "hub:7421", "--token", "x", *data) == "SITE-1901"
    bad = ["edge", "join", "hub:7421", "--token", "x", "--on-full", "panic", *data]
    assert refused(app, *bad) == "CLI-1905"
    assert not (tmp_path / "edge").exists()
    (tmp_path / "site.toml").touch()
    own = ["edge", "join", "hub:7421", "--token", "x", "--data", str(tmp_path)]
    assert refused(app, *own) == "CLI-1903"
    assert refused(app, "edge", "set", "--log-gib", "1", *data) == "CLI-1904"


def test_set_changes_the_bound(app: typer.Typer, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    own = Joined(
        edge="north",
        enterprise="acme",
        site="mill",
        domain="north-1",
        password="p",
        hub="hub",
        leaf_port=1,
    )
    leaf.save(folder.edge / "joined.json", own)
    options = ["--log-gib", "0.5", "--on-full", "drop_oldest", "--data", str(tmp_path)]
    assert CliRunner().invoke(app, ["edge", "set", *options]).exit_code == 0
    changed = leaf.joined(folder)
    assert changed is not None
    assert (changed.log_bytes_max, changed.on_full) == (1 << 29, "drop_oldest")
    (folder.edge / "joined.json").write_text("{")
    assert refused(app, "edge", "set", "--data", str(tmp_path)) == "BUS-1101"


def test_up_wants_an_address_and_two_free_ports(app: typer.Typer, tmp_path: Path) -> None:
    data = ["--data", str(tmp_path)]
    for nonsense in ("7421", "0.0.0.0:", ":7421", "host:port", "0.0.0.0:65535"):
        assert refused(app, "up", "--hub-listen", nonsense, *data) == "CLI-1901"
    port = free_port()
    with socket.create_server(("127.0.0.1", port + 1)):
        assert refused(app, "up", "--hub-listen", f"127.0.0.1:{port}", *data) == "CLI-1005"
    assert refused(app, "up", "--hub-listen", f"192.0.2.1:{port}", *data) == "CLI-1006"
