"""``headrace secret``: in by standard input, out only when asked for, and what was done is in the chain."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.identity import Identity
from headrace.security.master_key import read_key

TULIP = "tulip-7731"


def run(folder: DataFolder, *words: str, given: str | None = None) -> str:
    data = () if words[0] == "new-key" else ("--data", str(folder.root))
    result = CliRunner().invoke(build(("secret",)), ["secret", *words, *data], input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_from_set_to_remove(folder: DataFolder) -> None:
    told = run(folder, "set", "plc_1", given=TULIP + "\n")
    told += run(folder, "list") + run(folder, "show", "plc_1") + run(folder, "rotate")
    assert TULIP not in told and "plc_1" in told
    assert run(folder, "show", "plc_1", "--reveal") == TULIP + "\n"
    run(folder, "remove", "plc_1")
    with pytest.raises(Misconfigured, match="SEC-1511"):
        run(folder, "show", "plc_1")
    identity = Identity(folder)
    entries = identity.audit.entries(limit=100)
    done = [entry.action for entry in reversed(entries) if entry.outcome in ("done", "begun")]
    assert done == [
        "set_secret",
        "rotate_key",
        "rotate_key",
        "reveal_secret",
        "remove_secret",
    ]
    assert TULIP not in str(entries)
    assert identity.audit.verify().flaws == ()
    identity.close()


def test_keys_of_edges_and_a_new_master_key(folder: DataFolder, tmp_path: Path) -> None:
    assert read_key(run(folder, "new-key"), "what was printed")
    elsewhere = DataFolder(tmp_path / "elsewhere")
    key = run(elsewhere, "edge-key", "--edge", "north").strip()
    assert run(elsewhere, "edge-key", "--edge", "north").strip() == key
    folder.root.mkdir(parents=True)
    folder.site_file.write_text(
        '[site]\nenterprise = "acme"\nname = "mill"\n[connection.plc]\nprotocol = "modbus"\n'
        'endpoint = "127.0.0.1:502"\nedge = "north"\n'
    )
    assert "not known" in run(folder, "edges")
    told = run(folder, "trust-edge", "north", key).split()[-1]
    assert told in run(folder, "edges")
