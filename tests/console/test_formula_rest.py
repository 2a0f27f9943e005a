"""Formulas over REST and on the command line, on samples that came by the bus."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from site_fixture import CLOCK, RunningSite
from test_rest import token
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.time import US_PER_S
from waiting import until_sync

PUMP = "utilities/pumping/pump_1"
COUNT = 900


@pytest.fixture(scope="module")
def start_us(running_site: RunningSite) -> int:
    """When 900 s of a ramp began: 1 a second for the flow of pump 1."""
    start = CLOCK.now_us() - 20_000 * US_PER_S
    times = start + np.arange(COUNT, dtype=np.int64) * US_PER_S
    tag_id = running_site.tags[f"{PUMP}/flow"]
    running_site.publish_columns(np.full(COUNT, tag_id), times, np.arange(COUNT) / 1.0)

    def there() -> bool:
        answer = ask(running_site, "flow", start, COUNT)
        return len(answer["columns"]["value"]) == COUNT

    until_sync(there, 30, "the ramp is in the historian")
    return start


def ask(site: RunningSite, formula: str, start: int, seconds: int, **more: Any) -> dict[str, Any]:
    body = {
        "formula": formula,
        "equipment": PUMP,
        "start": str(start),
        "end": str(start + seconds * US_PER_S),
    }
    answer = httpx.post(
        f"{site.url}/api/v1/formula/preview",
        json=body | more,
        headers={"Authorization": f"Bearer {token(site, 'viewer')}"},
        timeout=30,
    )
    return {"http": answer.status_code, **answer.json()}


def test_a_formula_gives_its_samples_with_unit(running_site: RunningSite, start_us: int) -> None:
    answer = ask(running_site, "mean(flow, 10 s) * 2 -> L/min", start_us, COUNT)
    assert (answer["http"], answer["unit"], answer["equipment"]) == (200, "L/min", [PUMP])
    assert answer["columns"]["value"][20] == pytest.approx(2 * 15.5 / 0.06)
    assert answer["columns"]["status"] == [0] * COUNT


def test_what_lies_before_the_time_counts(running_site: RunningSite, start_us: int) -> None:
    whole = ask(running_site, "mean(flow, 5 min)", start_us, COUNT)["columns"]
    part = ask(running_site, "mean(flow, 5 min)", start_us + 400 * US_PER_S, 100)["columns"]
    assert part["value"] == whole["value"][400:500]


def test_tumbling_windows_lie_on_the_plants_clock(running_site: RunningSite, start_us: int) -> None:
    columns = ask(running_site, "count(flow) per minute", start_us, COUNT)["columns"]
    assert all(at % (60 * US_PER_S) == 0 for at in columns["at_us"])
    assert columns["value"][1:-1] == [60.0] * (len(columns["value"]) - 2)


def test_a_wrong_formula_says_where_and_why_in_both_languages(
    running_site: RunningSite, start_us: int
) -> None:
    answer = ask(running_site, "flow > 80", start_us, 1)
    assert (answer["http"], answer["code"]) == (422, "FORM-1013")
    assert (answer["line"], answer["column"], answer["length"]) == (1, 8, 2)
    assert "80" in answer["what"] and "单位" in answer["what_zh"]
    assert ask(running_site, "flow", start_us, 1, equipment="no/such")["code"] == "SITE-2001"
    assert ask(running_site, "flow", start_us, 0)["code"] == "CONS-1004"
    assert ask(running_site, "flow", start_us, 1, colour="red")["code"] == "CONS-1003"


def test_formulas_need_a_sign_in_and_the_functions_are_listed(running_site: RunningSite) -> None:
    url = f"{running_site.url}/api/v1/formula"
    assert httpx.post(f"{url}/preview", json={}).status_code == 401
    headers = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    listed = httpx.get(f"{url}/functions", headers=headers).json()["functions"]
    assert {"integral", "percentile", "hold"} <= {each["name"] for each in listed}
    assert all(each["help_zh"] and each["usage"] for each in listed)


def test_the_command_line_evaluates_checks_and_lists(
    running_site: RunningSite, start_us: int, tmp_path: Any
) -> None:
    runner, app = CliRunner(), build(("formula",))
    where = ["--asset", PUMP, "--data", str(running_site.folder.root)]
    file = tmp_path / "pump.formulas"
    file.write_text("double = flow * 2\nbig = double > 80 m3/h for 5 s\n", encoding="utf-8")
    checked = runner.invoke(app, ["formula", "check", str(file), *where])
    assert checked.exit_code == 0 and "condition" in checked.output
    file.write_text("double = flow * 2\nbig = dubble > 80 m3/h\n", encoding="utf-8")
    wrong = runner.invoke(app, ["formula", "check", str(file), "--language", "zh", *where])
    assert wrong.exit_code == 2 and "double" in wrong.output and "第 2 行" in wrong.output
    listed = runner.invoke(app, ["formula", "functions", "--language", "zh"])
    assert listed.exit_code == 0 and "时间加权均值" in listed.output
    test = tmp_path / "pump.formula"
    test.write_text("quantity x in m\nload x every 1 s: 1 2\neval x * 2 at 1 s = 4\n")
    assert runner.invoke(app, ["formula", "test", str(test)]).exit_code == 0
    test.write_text("quantity x in m\nload x every 1 s: 1 2\neval x * 2 at 1 s = 5\n")
    told = runner.invoke(app, ["formula", "test", str(test)])
    assert told.exit_code == 3 and "0 of 1" in told.output
    span = ["--from", "-7h", "--json"]
    found = runner.invoke(app, ["formula", "eval", "max(flow, 10 s)", *where, *span])
    rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    assert found.exit_code == 0
    assert max(row["value"] or 0 for row in rows) >= COUNT - 1
