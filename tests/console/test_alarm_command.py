"""``headrace alarm`` and the Python client, on alarms of a running site."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest
from alarm_fixture import Alarms, serve_alarms
from alarm_site import CNCS, PUMPS
from site_fixture import CLOCK, RunningSite
from test_rest import token
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.client import connect
from headrace.model.errors import Misconfigured, Refused
from headrace.model.time import to_datetime

FLOW = f"{PUMPS[1]}/low_flow"
OVERLOAD = f"{PUMPS[1]}/overload"
LOAD = f"{CNCS[1]}/spindle_high"


@pytest.fixture
def alarms(running_site: RunningSite) -> Iterator[Alarms]:
    with serve_alarms(running_site) as served:
        yield served


def run(site: RunningSite, *words: str) -> tuple[int, str, BaseException | None]:
    arguments = ["alarm", *words, "--data", str(site.folder.root)]
    result = CliRunner().invoke(build(("alarm",)), arguments, env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.exception


def test_a_list_is_read_and_worked_in_the_terminal(
    running_site: RunningSite, alarms: Alarms
) -> None:
    alarms.do(OVERLOAD, "alarm")
    alarms.do(FLOW, "alarm")
    code, out, _ = run(running_site, "list", "--format", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["alarm"] for row in rows] == [OVERLOAD, FLOW]
    code, out, _ = run(running_site, "list", "--language", "zh", "--priority", "high")
    assert code == 0 and "流量过低" in out and "未确认" in out and "过载" not in out
    code, out, _ = run(running_site, "ack", "--all", "--below", PUMPS[1], "--as", "mia")
    assert (code, out.count("Acknowledged")) == (0, 2)
    code, out, _ = run(running_site, "ack", FLOW, "--as", "mia")
    assert code == 3 and "ALARM-1003" in out
    shelf = ("shelve", FLOW, "--for", "2h", "--reason", "being cleaned", "--as", "mia")
    assert run(running_site, *shelf)[0] == 0
    code, out, _ = run(running_site, "list", "--view", "shelved", "--format", "csv")
    assert pl.read_csv(out.encode())["reason"].to_list() == ["being cleaned"]
    assert run(running_site, "unshelve", FLOW, "--as", "mia")[0] == 0
    assert run(running_site, "comment", FLOW, "--text", "clean again", "--as", "mia")[0] == 0
    code, out, _ = run(running_site, "journal", "--alarm", FLOW, "--format", "json")
    found = [json.loads(line)["event"] for line in out.splitlines()]
    assert found[:5] == ["comment", "unshelve", "shelve", "acknowledge", "alarm"]
    code, out, _ = run(running_site, "show", FLOW, "--language", "en")
    assert code == 0 and "Flow too low" in out and "clean again" in out


def test_figures_are_counted_over_the_journal(running_site: RunningSite, alarms: Alarms) -> None:
    start_us = CLOCK.now_us()
    for number in range(12):
        alarms.do(LOAD, "alarm", at_us=start_us + 2 * number)
        alarms.do(LOAD, "return_to_normal", at_us=start_us + 2 * number + 1)
    alarms.do(OVERLOAD, "alarm", at_us=start_us + 100)
    span = ("--from", str(to_datetime(start_us).isoformat()), "--to", "now")
    code, out, _ = run(running_site, "metrics", *span, "--format", "json")
    found = json.loads(out)
    assert (code, found["told"], found["peak"], len(found["floods"])) == (0, 13, 13, 1)
    assert found["bad_actors"][0]["alarm"] == LOAD and found["standing"] == [OVERLOAD]
    code, out, _ = run(running_site, "metrics", *span, "--depth", "1", "--format", "csv")
    rows = pl.read_csv(out.encode())
    assert rows.select("area", "alarms").rows() == [("machining", 12), ("utilities", 1)]
    code, out, _ = run(running_site, "metrics", *span, "--language", "zh")
    assert code == 0 and "抖动" in out
    site = connect(running_site.url, token(running_site, "viewer"))
    asked = site.alarm_metrics(str(start_us), below="machining")
    assert asked["machining"]["told"] == 12


def test_the_sheet_goes_out_and_comes_back(running_site: RunningSite, tmp_path: Path) -> None:
    before = running_site.folder.site_file.read_text("utf-8")
    for kind in ("csv", "xlsx"):
        assert run(running_site, "export", str(tmp_path / f"alarms.{kind}"))[0] == 0
        code, out, _ = run(running_site, "import", str(tmp_path / f"alarms.{kind}"), "--dry-run")
        assert code == 0 and "0 alarms would change" in out
    sheet = tmp_path / "alarms.csv"
    text = sheet.read_text("utf-8-sig").replace("Check the tool for wear", "Change the tool")
    sheet.write_text(text.replace("检查刀具磨损", "更换刀具"), "utf-8")
    code, out, _ = run(running_site, "import", str(sheet), "--dry-run")
    assert code == 0 and "1 alarms would change" in out and '"Change the tool"' in out
    assert running_site.folder.site_file.read_text("utf-8") == before
    sheet.write_text(text.replace("medium", "loud"), "utf-8")
    code, out, _ = run(running_site, "import", str(sheet))
    assert code == 2 and "ALARM-1205" in out and "loud" in out
    headers = {"Authorization": f"Bearer {token(running_site, 'engineer')}"}
    url = f"{running_site.url}/api/v1/alarms/sheet"
    assert httpx.get(url, params={"format": "xlsx"}, headers=headers).content[:2] == b"PK"
    body = text.replace("检查刀具磨损", "更换刀具").encode()
    answer = httpx.put(url, params={"dry": True}, content=body, headers=headers).json()
    assert answer["changed"] == ["cnc.spindle_high"] and "更换刀具" in answer["diff"]
    viewer = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    assert httpx.put(url, content=body, headers=viewer).json()["code"] == "SEC-1004"
    assert running_site.folder.site_file.read_text("utf-8") == before


def test_the_terminal_asks_the_same_policy(running_site: RunningSite, alarms: Alarms) -> None:
    alarms.do(FLOW, "alarm")
    for words, code in (
        (("ack", FLOW), "CLI-1213"),
        (("ack", FLOW, "--as", "nobody"), "CLI-1214"),
        (("ack", FLOW, "--as", "leo"), "SEC-1004"),
        (("ack", "--as", "mia"), "CLI-1212"),
        (("list", "--view", "hidden"), "CLI-1210"),
        (("show", "no/such/alarm"), "CLI-1211"),
    ):
        _, _, error = run(running_site, *words)
        assert isinstance(error, Refused | Misconfigured) and error.code == code
    state = alarms.store.get(FLOW)
    assert state is not None and state.state == "UNACK"


async def test_the_python_client_gives_frames(running_site: RunningSite, alarms: Alarms) -> None:
    alarms.do(LOAD, "alarm")
    site = connect(running_site.url, token(running_site, "operator"))
    last = site.alarm_journal(alarm=LOAD)["number"].max()
    assert isinstance(last, int)
    frame = site.alarms(below="machining", priority=["medium"])
    assert frame.select("alarm", "state", "message_zh").rows() == [(LOAD, "UNACK", "主轴负载高")]
    assert frame["since"][0] is not None and frame["shelved_until"][0] is None
    assert site.alarm(LOAD)["definition"]["action"]["en"] == "Check the tool for wear"
    done = site.act_on_alarms("assign", [LOAD, "no/such"], assignee="mia")
    assert done.select("alarm", "code").rows()[0] == (LOAD, "")
    assert done["code"][1] != ""
    async with asyncio.timeout(20):
        async for told in site.alarm_transitions(after=last):
            assert told["assignee"].to_list() == ["mia"]
            break
    with pytest.raises(Refused, match="SEC-1004"):
        site.act_on_alarms("out-of-service", LOAD, comment="overhaul")
