"""The support bundle: canaries in every place that could leak are in none of its files."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.cli.bundle import Blotter
from headrace.model.folder import DataFolder
from headrace.security.identity import Identity

CANARY = "canary-Tulip7731"
PASSWORD = "k7Vq-canary-broker-2Zx9Qw"
KEY = base64.b64encode(b"canary" * 6).decode()
SITE = f"""\
[site]
enterprise = "acme"
name = "mill"
title = "{CANARY} works"

[connection.plc]
protocol = "mqtt"
endpoint = "ENDPOINT"

[[tag]]
path = "a/b/c/flow"
connection = "plc"
address = "{CANARY}/flow#"
description = "{CANARY}"
"""
LOG = f"""\
2026-11-23 INFO started
2026-11-23 ERROR cannot connect to mqtt://plc:{CANARY}@10.0.0.1:1883
2026-11-23 ERROR refused: password={CANARY} user=plc
2026-11-23 ERROR {{"token": "{CANARY}", "state": "lost"}}
2026-11-23 DEBUG Authorization: Bearer {CANARY}
2026-11-23 DEBUG hr_{CANARY} AGE-SECRET-KEY-1CANARYCANARY
2026-11-23 DEBUG sealed {KEY}
2026-11-23 DEBUG broker said {PASSWORD}
"""


@pytest.mark.parametrize(
    "endpoint", ["mqtt://10.0.0.1:1883", f"mqtt://{CANARY}:{CANARY}@10.0.0.1:1883"]
)
def test_no_canary_leaves(tmp_path: Path, endpoint: str) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.run.mkdir(parents=True)
    folder.logs.mkdir()
    folder.site_file.write_text(SITE.replace("ENDPOINT", endpoint))
    (folder.run / "broker.json").write_text(json.dumps({"port": 1, "platform_password": PASSWORD}))
    (folder.logs / "edge.log").write_text(LOG)
    identity = Identity(folder)
    identity.add_user("mia", "admin", CANARY + CANARY)
    secret = identity.add_token("mia", CANARY)
    identity.close()
    file = tmp_path / "support.zip"
    run = CliRunner().invoke(build(("bundle",)), ["bundle", str(file), "--data", str(folder.root)])
    assert run.exit_code == 0, f"{run.output} {run.exception!r}"
    with zipfile.ZipFile(file) as bundle:
        parts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    whole = "\n".join(parts.values())
    for canary in (CANARY, CANARY.upper(), PASSWORD, KEY, secret, "CANARY"):
        assert canary not in whole, canary
    assert "INFO started" in parts["logs/edge.log"] and "10.0.0.1:1883" in parts["logs/edge.log"]
    config = json.loads(parts["config.json"])
    if "@" in endpoint:
        assert list(config) == ["cannot_be_told"]
    else:
        assert config["connections"] == [{"name": "plc", "protocol": "mqtt"}]
    assert "polars" in json.loads(parts["versions.json"])["distributions"]
    listed = {part["name"] for part in json.loads(parts["index.json"])["parts"]}
    assert listed == set(parts) - {"index.json"}


@given(st.text(alphabet="abcXYZ019-_", min_size=12, max_size=60), st.text(max_size=40))
def test_a_known_secret_is_in_no_text(secret: str, around: str) -> None:
    blot = Blotter({secret})
    assert secret not in blot(f"{around}{secret}{around} {secret}")
