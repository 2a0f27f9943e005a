"""``headrace why`` without anything that runs: what is known is said, what is not is not green."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.site.file import load_site
from headrace.site.registry import Registry

FLOW = "utilities/pumping/pump_1/flow"
SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"
enabled = {enabled}

[[tag]]
path = "utilities/pumping/pump_1/{name}"
connection = "plc"
address = "holding:0:float32"
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path)
    apply(made)
    return made


def apply(folder: DataFolder, name: str = "flow", enabled: str = "true") -> None:
    folder.site_file.write_text(SITE.format(name=name, enabled=enabled), encoding="utf-8")
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), SystemClock().now_us())
    registry.close()


def run(folder: DataFolder, *arguments: str, language: str = "C"):
    command = ["why", *arguments, "--data", str(folder.root)]
    environment = {"LC_ALL": language, "COLUMNS": "160", "NO_COLOR": "1"}
    return CliRunner().invoke(build(("why",)), command, env=environment)


def test_without_a_broker_the_bus_is_named_and_hides_what_is_before_it(folder: DataFolder):
    done = run(folder, FLOW, "--format", "json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["fresh"], answer["culprit"]) == (3, False, "bus")
    states = {hop["name"]: (hop["state"], hop["hidden_by"]) for hop in answer["hops"]}
    for name in ("device", "connector", "pipeline", "writer", "screen"):
        assert states[name] == ("unknown", "bus")
    assert states["table"] == ("proven", ""), "it was read, and it is empty"
    code = next(hop["code"] for hop in answer["hops"] if hop["name"] == "bus")
    assert code == "BUS-1010" and "BUS-1010" in answer["headline"]["en"]


def test_the_answer_is_a_row_of_hops_and_a_table_in_the_terminals_language(folder: DataFolder):
    done = run(folder, FLOW)
    assert done.exit_code == 3
    assert "Device → " in done.stdout and "✖ Bus" in done.stdout
    assert "Bus: the broker does not answer" in done.stdout
    assert "headrace up" in done.stdout, "what to do now"
    done = run(folder, FLOW, language="zh_CN.UTF-8")
    assert "消息总线：消息代理没有应答" in done.stdout
    assert "消息总线" in run(folder, FLOW, "--language", "zh").stdout


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"name": "other"}, "tag_retired"), ({"enabled": "false"}, "connection_paused")],
)
def test_what_the_site_file_says_needs_no_broker(
    folder: DataFolder, change: dict[str, str], reason: str
):
    apply(folder, **change)
    answer = json.loads(run(folder, FLOW, "--format", "json").stdout)
    assert answer["culprit"] == "connector"
    hops = {hop["name"]: hop for hop in answer["hops"]}
    assert hops["connector"]["reason"] == reason and hops["device"]["hidden_by"] == "connector"


def test_a_tag_is_found_by_its_id_and_a_wrong_name_proposes_right_ones(folder: DataFolder):
    answer = json.loads(run(folder, FLOW, "--format", "json").stdout)
    assert json.loads(run(folder, answer["tag_id"], "--format", "json").stdout)["path"] == FLOW
    for name in ("utilities/pumping/pump_2/flow", "utilities/pumping/pump_1/flwo"):
        failed = run(folder, name).exception
        assert isinstance(failed, Misconfigured) and failed.code == "SITE-1801"
        assert FLOW in failed.remedy
    failed = run(folder, "12345").exception
    assert isinstance(failed, Misconfigured) and "headrace site show" in failed.remedy
    done = run(folder, "utilities/**", "--format", "json")
    assert json.loads(done.stdout)["path"] == FLOW, "a pattern that one tag matches is that tag"
