"""Back-tests over REST, on samples that came by the bus."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from site_fixture import CLOCK, RunningSite
from test_rest import token

from headrace.model.time import US_PER_S
from waiting import until_sync

PUMP = "utilities/pumping/pump_2"
COUNT = 600


@pytest.fixture(scope="module")
def start_us(running_site: RunningSite) -> int:
    """When ten minutes of pump 2 began: its flow is 50 for the second half of each minute, else 10."""
    start = CLOCK.now_us() - 50_000 * US_PER_S
    second = np.arange(COUNT, dtype=np.int64)
    tag_id = running_site.tags[f"{PUMP}/flow"]
    values = np.where(second % 60 >= 30, 50.0, 10.0)
    running_site.publish_columns(np.full(COUNT, tag_id), start + second * US_PER_S, values)

    def there() -> bool:
        return len(ask(running_site, "flow > 40 m3/h", start)["episodes"]) == 10

    until_sync(there, 30, "the samples are in the historian")
    return start


def ask(site: RunningSite, formula: str, start: int, **more: Any) -> dict[str, Any]:
    body = {
        "formula": formula,
        "equipment": PUMP,
        "start": str(start),
        "end": str(start + COUNT * US_PER_S),
    }
    answer = httpx.post(
        f"{site.url}/api/v1/formula/backtest",
        json=body | more,
        headers={"Authorization": f"Bearer {token(site, 'viewer')}"},
        timeout=30,
    )
    return {"http": answer.status_code, "episodes": [], **answer.json()}


def test_an_alarm_is_tried_against_events_and_limits(
    running_site: RunningSite, start_us: int
) -> None:
    found = ask(
        running_site,
        "alarm high: flow > 40 m3/h for 10 s, off below 20 m3/h",
        start_us,
        sweep={"low": 0, "high": 60, "step": 20},
        events=[
            {"time": str(start_us + 100 * US_PER_S), "label": "surge", "asset": PUMP},
            {"time": str(start_us + 20 * US_PER_S), "label": "leak"},
        ],
        before_s=5,
        after_s=0,
    )
    assert (found["http"], found["assets"]) == (200, [PUMP])
    assert found["tally"]["count"] == 10
    assert found["tally"]["total_s"] == 200
    assert found["episodes"][0] == {
        "asset": PUMP,
        "start_us": start_us + 40 * US_PER_S,
        "end_us": start_us + 60 * US_PER_S,
        "suppressed": False,
    }
    met = found["tally"]["met"]
    assert [(each["mark"]["label"], each["lead_s"]) for each in met["events"]] == [
        ("leak", None),
        ("surge", 0),
    ]
    assert (met["hits"], met["misses"], met["false_alarms"]) == (1, 1, 9)
    counts = [(point["value"], point["tally"]["count"]) for point in found["points"]]
    # At 0 it would end below -20, at 20 below 0: it never would.
    assert counts == [(0, 1), (20, 1), (40, 10), (60, 0)]


def test_what_is_wrong_is_refused_with_its_reason(running_site: RunningSite, start_us: int) -> None:
    for text, more, code in (
        ("flwo > 40 m3/h", {}, "FORM-1010"),
        ("flow", {}, "HIST-2202"),
        ("flow > 40 m3/h", {"colour": "red"}, "CONS-1003"),
        ("flow > 40 m3/h", {"equipment": "no/such"}, "SITE-2001"),
        ("flow > 40 m3/h", {"sweep": {"low": 9, "high": 1}}, "HIST-2203"),
        ("flow > 40 m3/h", {"end": str(start_us)}, "HIST-2201"),
    ):
        answer = ask(running_site, text, start_us, **more)
        assert (answer["http"] >= 400, answer["code"]) == (True, code)
    url = f"{running_site.url}/api/v1/formula/backtest"
    assert httpx.post(url, json={}).status_code == 401
