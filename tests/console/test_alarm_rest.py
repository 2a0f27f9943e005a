"""Alarms over REST: the list, the journal, commands through the bus, who may, transitions as they come."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest
from alarm_fixture import Alarms, serve_alarms
from alarm_site import CNCS, PUMPS
from site_fixture import CLOCK, RunningSite
from test_rest import token
from websockets.sync.client import connect as connect_socket

from headrace.model.time import US_PER_S
from headrace.security.policy import Role

FLOW = f"{PUMPS[0]}/low_flow"
OVERLOAD = f"{PUMPS[0]}/overload"
LOAD = f"{CNCS[0]}/spindle_high"


@pytest.fixture
def alarms(running_site: RunningSite) -> Iterator[Alarms]:
    with serve_alarms(running_site) as served:
        yield served


class Caller:
    """A program with a token of some role."""

    def __init__(self, site: RunningSite, role: Role) -> None:
        self.url = f"{site.url}/api/v1/alarms"
        self.headers = {"Authorization": f"Bearer {token(site, role)}"}

    def get(self, route: str = "", **query: Any) -> Any:
        answer = httpx.get(f"{self.url}{route}", params=query, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json() if "json" in answer.headers["content-type"] else answer.content

    def post(self, verb: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/{verb}", json=body, headers=self.headers, timeout=20)


def test_the_list_is_filtered_sorted_and_counted(running_site: RunningSite, alarms: Alarms) -> None:
    caller = Caller(running_site, "viewer")
    now_us = CLOCK.now_us()
    alarms.do(FLOW, "alarm", at_us=now_us - 60 * US_PER_S)
    alarms.do(OVERLOAD, "alarm", at_us=now_us - 50 * US_PER_S)
    alarms.do(LOAD, "alarm", at_us=now_us - 40 * US_PER_S)
    alarms.do(LOAD, "acknowledge", at_us=now_us - 30 * US_PER_S, actor="leo")
    found = caller.get()
    assert [each["alarm"] for each in found["alarms"]] == [OVERLOAD, FLOW, LOAD]
    assert found["counts"]["active"] == 3
    assert [each["waits"] for each in found["alarms"]] == [True, True, False]
    assert caller.get(state="waits", below="utilities/pumping")["total"] == 2
    assert [e["alarm"] for e in caller.get(sort="newest")["alarms"]] == [LOAD, OVERLOAD, FLOW]
    assert [e["alarm"] for e in caller.get(search="主轴 cnc_1")["alarms"]] == [LOAD]
    frame = pl.read_csv(io.BytesIO(caller.get(format="csv", priority="urgent,high")))
    assert frame["alarm"].to_list() == [OVERLOAD, FLOW]
    shown = caller.get("/one", alarm=FLOW)
    assert shown["limit"] == "< 20 m3/h"
    assert shown["tag_ids"] == [str(running_site.tags[f"{PUMPS[0]}/flow"])]
    assert shown["definition"]["action"]["zh"].startswith("打开吸入阀")


def test_a_command_is_done_once_and_told(running_site: RunningSite, alarms: Alarms) -> None:
    alarms.do(FLOW, "alarm")
    operator = Caller(running_site, "operator")
    answer = operator.post("acknowledge", alarms=[FLOW, LOAD]).json()
    assert (answer["done"], answer["refused"]) == (1, 1)
    assert next(outcome["state"] for outcome in answer["outcomes"]) == "ACKED"
    line = operator.get("/journal", alarm=FLOW, events="acknowledge")["transitions"][0]
    assert (line["before"], line["after"], line["actor"]) == ("UNACK", "ACKED", "mia")
    shelved = operator.post(
        "shelve", alarms=[FLOW], comment="Strainer is being cleaned", **{"for": "2h"}
    ).json()
    assert shelved["done"] == 1
    found = operator.get(view="shelved")["alarms"][0]
    left_s = (found["shelved_until_us"] - CLOCK.now_us()) / US_PER_S
    assert (found["reason"], 7_100 < left_s <= 7_200) == ("Strainer is being cleaned", True)
    assert operator.post("unshelve", alarms=[FLOW]).json()["done"] == 1
    csv = pl.read_csv(io.BytesIO(operator.get("/journal", alarm=FLOW, format="csv")))
    assert csv["event"].to_list()[:3] == ["unshelve", "shelve", "acknowledge"]


@pytest.mark.parametrize(
    ("role", "verb", "status"),
    [
        ("viewer", "acknowledge", 403),
        ("viewer", "comment", 403),
        ("operator", "comment", 200),
        ("operator", "out-of-service", 403),
        ("operator", "return", 403),
        ("engineer", "out-of-service", 200),
    ],
)
def test_each_role_may_what_the_policy_says(
    running_site: RunningSite, alarms: Alarms, role: Role, verb: str, status: int
) -> None:
    answer = Caller(running_site, role).post(verb, alarms=[FLOW], comment="for the test")
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["code"] == "SEC-1004"


@pytest.mark.parametrize(
    ("verb", "body", "code"),
    [
        ("acknowledge", {"alarms": []}, "ALARM-1011"),
        ("comment", {"alarms": [FLOW], "comment": "  "}, "ALARM-1012"),
        ("shelve", {"alarms": [FLOW], "comment": "why"}, "ALARM-1014"),
        ("shelve", {"alarms": [FLOW], "comment": "why", "for": "30d"}, "ALARM-1014"),
        ("shelve", {"alarms": [FLOW], "comment": "why", "for": "soon"}, "CONS-1004"),
        ("snooze", {"alarms": [FLOW]}, "CONS-1306"),
        ("acknowledge", {"alarm": FLOW}, "CONS-1003"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(
    running_site: RunningSite, verb: str, body: dict[str, Any], code: str
) -> None:
    answer = Caller(running_site, "engineer").post(verb, **body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"] == code and answer.json()["remedy"]


def test_nobody_answers_when_no_apps_role_runs(running_site: RunningSite) -> None:
    answer = Caller(running_site, "operator").post("acknowledge", alarms=[FLOW])
    assert (answer.status_code, answer.json()["code"]) == (503, "BUS-1024")


def test_transitions_come_as_they_happen(running_site: RunningSite, alarms: Alarms) -> None:
    alarms.do(LOAD, "alarm")
    last = alarms.store.last_number()
    url = running_site.url.replace("http", "ws", 1) + "/api/v1/alarms/stream"
    headers = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    with connect_socket(f"{url}?after={last - 1}", additional_headers=headers) as socket:
        first = json.loads(socket.recv(timeout=20))["transitions"]
        assert [line["event"] for line in first] == ["alarm"]
        alarms.do(LOAD, "acknowledge", actor="leo")
        told = json.loads(socket.recv(timeout=20))["transitions"]
        assert [(line["number"], line["event"]) for line in told] == [(last + 1, "acknowledge")]
    with connect_socket(url) as socket:
        assert json.loads(socket.recv(timeout=20))["code"] == "SEC-1003"
