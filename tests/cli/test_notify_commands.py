"""``headrace notify`` against a local robot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.errors import Misconfigured

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "alarms" / "notify"))
from robot_servers import Robot, serving

SITE = """
[site]
enterprise = "acme"
name = "mill"

[notify.channel.ops]
kind = "wecom"
url = "file:secrets/ops.url"
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text(SITE, encoding="utf-8")
    (tmp_path / "secrets").mkdir()
    return tmp_path


def run(*words: str, data: Path):
    return CliRunner().invoke(build(("notify", "why")), ["notify", *words, "--data", str(data)])


def test_a_test_message_goes_out_and_stands_in_log_and_list(data: Path):
    with serving(Robot("wecom")) as robot:
        (data / "secrets" / "ops.url").write_text(robot.url())
        done = run("test", "ops", data=data)
        assert done.exit_code == 0 and "Delivered on ops (errcode 0)" in done.output
        assert "Test message · mill" in robot.got[0]["markdown"]["content"]
        (data / "secrets" / "ops.url").write_text(robot.url() + "x")
        failed = run("test", "ops", data=data)
    assert failed.exit_code == 3 and "errcode 93000" in failed.output
    log = json.loads(run("log", "--format", "json", data=data).stdout)
    assert [each["result"] for each in log] == ["refused", "sent"]
    listed = json.loads(run("list", "--format", "json", data=data).stdout)
    assert listed[0]["last_result"] == "refused" and listed[0]["kind"] == "wecom"
    assert "errcode 0" in run("log", "--limit", "5", data=data).output
    assert "ops" in run("list", data=data).output


def test_what_is_asked_for_wrongly_says_so(data: Path):
    with pytest.raises(Misconfigured, match="Known: ops"):
        raise run("test", "none", data=data).exception
    with pytest.raises(Misconfigured, match="Use table or json"):
        raise run("list", "--format", "xml", data=data).exception
    missing = run("test", "ops", data=data)
    assert missing.exit_code == 3 and "secrets/ops.url" in missing.output


def test_no_channels_and_nothing_sent_are_said(data: Path):
    (data / "site.toml").write_text(SITE.split("[notify")[0], encoding="utf-8")
    assert "No channels" in run("list", data=data).output
    assert "Nothing was sent" in run("log", data=data).output
