"""``headrace trust``."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli import trust
from headrace.model.errors import Misconfigured
from headrace.security import certificates

NOW_US = 1_763_800_000_000_000


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    trust.register(made)
    made.command("other")(lambda: None)
    return made


def test_from_a_knock_to_trust_and_back(app: typer.Typer, tmp_path: Path) -> None:
    run = CliRunner()
    data = ["--data", str(tmp_path)]
    empty = run.invoke(app, ["trust", "list", *data])
    assert empty.exit_code == 0
    assert "No certificates" in empty.stdout
    folder = tmp_path / "certificates"
    path, _ = certificates.own_certificate(tmp_path / "peer", "peer", "urn:press", NOW_US)
    entry = certificates.reject(folder, path.read_bytes())
    listed = run.invoke(app, ["trust", "list", *data], env={"COLUMNS": "200"}).stdout
    assert "rejected" in listed
    assert entry.thumbprint in listed
    assert "urn:press" in listed
    shown = run.invoke(app, ["trust", "show", entry.thumbprint[:8], *data]).stdout
    assert entry.thumbprint in shown
    added = run.invoke(app, ["trust", "add", entry.thumbprint, *data])
    assert added.exit_code == 0
    assert certificates.is_trusted(folder, path.read_bytes())
    run.invoke(app, ["trust", "remove", entry.thumbprint, *data])
    assert not certificates.is_trusted(folder, path.read_bytes())
    assert run.invoke(app, ["trust", "add", str(path), *data]).exit_code == 0
    assert certificates.is_trusted(folder, path.read_bytes())


def test_an_unknown_thumbprint_is_our_error(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["trust", "add", "ABCD", "--data", str(tmp_path)])
    assert isinstance(result.exception, Misconfigured)
    assert result.exception.code == "EDGE-2030"
