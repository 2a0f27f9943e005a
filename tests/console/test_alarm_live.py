"""An alarm from a sample to the list and back, with the real apps role between log, store and console."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alarm_site import PUMPS
from site_fixture import RunningSite, start_site
from test_rest import token

from headrace.client import Site, connect
from headrace.model.errors import Transient
from waiting import until_sync

OVERLOAD = f"{PUMPS[0]}/overload"
POWER = f"{PUMPS[0]}/power"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    with start_site(tmp_path_factory.mktemp("live"), apps=True) as started:
        yield started


def until_state(site: RunningSite, client: Site, state: str, power: float) -> dict[str, Any]:
    """The alarm once it is in that state, while the device goes on to measure ``power``."""
    found: list[dict[str, Any]] = []

    def is_so() -> bool:
        site.publish({POWER: power})
        rows = client.alarms("all", search="pump_1 overload").rows(named=True)
        found[:] = [row for row in rows if row["state"] == state]
        return bool(found)

    until_sync(is_so, 60, f"{OVERLOAD} is {state}")
    return found[0]


def test_a_sample_raises_an_alarm_that_is_worked_to_its_end(site: RunningSite) -> None:
    client = connect(site.url, token(site, "operator"))

    def is_defined() -> bool:
        try:
            return client.alarms("all").height == 8
        except Transient:
            return False

    until_sync(is_defined, 60, "the alarms are defined")
    raised = until_state(site, client, "UNACK", 52.0)
    assert (raised["priority"], raised["active"], raised["message_zh"]) == (
        "urgent",
        True,
        "电机过载",
    )
    assert client.alarm(OVERLOAD)["limit"] == "> 45 kW"
    assert client.act_on_alarms("acknowledge", OVERLOAD)["code"].to_list() == [""]
    assert until_state(site, client, "ACKED", 52.0)["acknowledged_by"] == "mia"
    until_state(site, client, "LATCH", 30.0)
    assert client.act_on_alarms("reset", OVERLOAD)["code"].to_list() == [""]
    until_state(site, client, "NORM", 30.0)
    events = client.alarm_journal(alarm=OVERLOAD)["event"].to_list()
    assert events == ["reset", "return_to_normal", "acknowledge", "alarm"]
