"""An actor with a grant on a part of the site sees nothing of the rest, through any door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from alarm_fixture import Alarms, serve_alarms
from alarm_site import CNCS, PUMPS
from site_fixture import CLOCK, PASSWORD, RunningSite, plain_values
from websockets.asyncio.client import connect

from headrace.model.errors import Refused
from headrace.model.time import US_PER_S
from headrace.security.identity import Identity
from headrace.security.policy import Role
from waiting import until_sync

FLOW = "utilities/pumping/pump_1/flow"
LOAD = "machining/milling/cnc_1/spindle_load"
SCOPED = "uma"


@pytest.fixture(scope="module")
def identity(running_site: RunningSite) -> Iterator[Identity]:
    found = Identity(running_site.folder)
    if SCOPED not in [user.name for user in found.users()]:
        found.add_user(SCOPED, "engineer", PASSWORD)
        found.grants.add(SCOPED, "engineer", "utilities", by="test")
    yield found
    found.close()


@pytest.fixture(scope="module")
def uma(running_site: RunningSite, identity: Identity) -> Iterator[httpx.Client]:
    secret = identity.add_token(SCOPED, "test", role="engineer")
    running_site.publish(plain_values(running_site.tags))
    head = {"authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=running_site.url, headers=head, timeout=30) as client:
        until_sync(
            lambda: client.get("/api/v1/last", params={"tags": FLOW}).json().get("samples"),
            30,
            "the flow is there",
        )
        yield client


@pytest.fixture(scope="module")
def alarms(running_site: RunningSite) -> Iterator[Alarms]:
    with serve_alarms(running_site) as found:
        for asset, name in ((PUMPS[0], "low_flow"), (CNCS[0], "spindle_high")):
            found.do(f"{asset}/{name}", "alarm", at_us=CLOCK.now_us() - US_PER_S)
        yield found


def test_lists_hold_only_what_is_theirs(uma: httpx.Client) -> None:
    tags = uma.get("/api/v1/tags", params={"limit": 1000}).json()
    assert tags["total"] > 0
    assert all(tag["path"].startswith("utilities/") for tag in tags["tags"])
    assert uma.get("/api/v1/tags", params={"search": "spindle"}).json()["total"] == 0
    assert uma.get("/api/v1/tags", params={"below": "machining"}).json()["total"] == 0
    tree = uma.get("/api/v1/equipment").json()
    assert [area["path"] for area in tree["children"]] == ["utilities"]
    assert "machining" not in json.dumps(tree)


@pytest.mark.parametrize("by", ["path", "id"])
@pytest.mark.parametrize(
    "route",
    [
        "samples?tags={}",
        "last?tags={}",
        "aggregate?tags={}&every=1min",
        "downsample?tag={}",
        "sparklines?tag_ids={}",
        "trend?tag_ids={}&start_ms=1000&end_ms=2000",
        "why?tag={}",
    ],
)
def test_no_value_by_path_or_id(
    running_site: RunningSite, uma: httpx.Client, route: str, by: str
) -> None:
    def ask(path: str) -> httpx.Response:
        name = path if by == "path" else str(running_site.tags[path])
        return uma.get(f"/api/v1/{route.format(name)}")

    assert ask(FLOW).status_code == 200, ask(FLOW).text
    other = ask(LOAD)
    assert (other.status_code, other.json()["code"]) in ((404, "CONS-1002"), (403, "SEC-1004"))


def test_no_write_by_path_or_id(running_site: RunningSite, uma: httpx.Client) -> None:
    own = uma.post("/api/v1/write", json={"tag": FLOW, "value": 1})
    assert own.json()["code"] == "CONS-1006", "the policy let it pass; the tag is not writable"
    for name in (LOAD, str(running_site.tags[LOAD])):
        other = uma.post("/api/v1/write", json={"tag": name, "value": 1})
        assert (other.status_code, other.json()["code"]) == (404, "CONS-1002")


def test_formulas_read_only_what_is_theirs(uma: httpx.Client) -> None:
    def preview(**asked: Any) -> Any:
        return uma.post("/api/v1/formula/preview", json=asked).json()

    assert preview(formula="flow * 2", equipment=PUMPS[0])["equipment"] == [PUMPS[0]]
    assert "code" in preview(formula="spindle_load * 2", equipment=CNCS[0])
    assert preview(formula="power * 2", equipment="**")["equipment"] == list(PUMPS)
    assert "code" in preview(formula="spindle_load * 2", asset_type="cnc")
    back = {"formula": "spindle_load > 1 %", "asset_type": "cnc", "start": "-1h"}
    assert "code" in uma.post("/api/v1/formula/backtest", json=back).json()
    listed = uma.get("/api/v1/formula").json()["formulas"]
    assert {line["asset_type"] for line in listed} == {"pump"}
    assert uma.get("/api/v1/formula/cnc/idle/versions").status_code == 403


def test_alarms_are_seen_and_worked_only_where_they_are_theirs(
    uma: httpx.Client, alarms: Alarms
) -> None:
    own, other = f"{PUMPS[0]}/low_flow", f"{CNCS[0]}/spindle_high"

    def seen() -> set[str]:
        rows = uma.get("/api/v1/alarms", params={"view": "all"}).json()["alarms"]
        return {row["alarm"] for row in rows}

    until_sync(lambda: own in seen(), 30, "the pump's alarm is listed")
    assert other not in seen()
    assert uma.get("/api/v1/alarms/one", params={"alarm": own}).status_code == 200
    assert uma.get("/api/v1/alarms/one", params={"alarm": other}).json()["code"] == "CONS-1305"
    lines = uma.get("/api/v1/alarms/journal").json()["transitions"]
    assert {line["asset"] for line in lines} <= set(PUMPS) and lines
    assert uma.get("/api/v1/alarms/metrics").status_code == 403
    assert uma.get("/api/v1/alarms/metrics", params={"below": "machining"}).status_code == 403
    assert uma.get("/api/v1/alarms/metrics", params={"below": "utilities"}).status_code == 200
    for named in ([other], [own, other]):
        refused = uma.post("/api/v1/alarms/acknowledge", json={"alarms": named})
        assert (refused.status_code, refused.json()["code"]) == (403, "SEC-1004")
    done = uma.post("/api/v1/alarms/acknowledge", json={"alarms": [own]}).json()
    assert done["done"] == 1
    assert {state.alarm: state.state for state in alarms.store.states()}[other] == "UNACK"


async def test_the_live_stream_gives_nothing_else(
    running_site: RunningSite, uma: httpx.Client
) -> None:
    url = running_site.url.replace("http", "ws") + "/api/v1/live"
    head = {"authorization": uma.headers["authorization"]}
    async with connect(f"{url}?tags={FLOW},{LOAD}", additional_headers=head) as socket:
        first = json.loads(await asyncio.wait_for(socket.recv(), 20))
        assert [tag["path"] for tag in first["tags"]] == [FLOW]
        ids = [str(running_site.tags[LOAD]), str(running_site.tags[FLOW])]
        await socket.send(json.dumps({"tag_ids": ids, "round": 7}))
        while True:
            change = json.loads(await asyncio.wait_for(socket.recv(), 20))
            if change.get("round") == 7:
                break
        assert change["i"] == [1], "place 0 is the machine's, and stays empty"


@pytest.mark.parametrize(
    "route",
    [
        "connections", "edges", "events", "metrics", "ledger", "formula/changes", "formula/live",
        "alarms/sheet", "notifications", "notifications/log", "audit", "site",
    ],
)  # fmt: skip
def test_what_tells_of_the_whole_site_is_closed(uma: httpx.Client, route: str) -> None:
    answer = uma.get(f"/api/v1/{route}")
    assert (answer.status_code, answer.json()["code"]) == (403, "SEC-1004")


@contextmanager
def sign_in(site: RunningSite, name: str) -> Iterator[httpx.Client]:
    form = {"name": name, "password": PASSWORD}
    head = {"origin": site.url}
    with httpx.Client(base_url=site.url, timeout=30) as client:
        assert client.post("/sign-in", data=form, headers=head).status_code == 303
        yield client


@pytest.mark.parametrize(
    "page", ["/", "/equipment", "/equipment/machining", "/trend", "/formulas", "/alarms"]
)
def test_pages_show_nothing_else(
    running_site: RunningSite, identity: Identity, alarms: Alarms, uma: httpx.Client, page: str
) -> None:
    del identity, alarms, uma
    with sign_in(running_site, SCOPED) as client:
        body = client.get(page, params={"tags": LOAD} if page == "/trend" else None).text
    assert "uma" in body, "it is the page of who signed in"
    assert "cnc_1" not in body and "milling" not in body
    assert page == "/equipment/machining" or "achining" not in body, "but for the address asked"
    with sign_in(running_site, "leo") as client:
        whole = client.get(page, params={"tags": LOAD} if page == "/trend" else None).text
    assert page in ("/formulas",) or "achining" in whole or "cnc_1" in whole


@pytest.mark.parametrize(
    "page", ["/connections", "/events", "/ledger", "/users", "/faults", "/zones", "/policy"]
)
def test_pages_of_the_whole_site_are_closed(
    running_site: RunningSite, identity: Identity, page: str
) -> None:
    del identity
    with sign_in(running_site, SCOPED) as client:
        body = client.get(page).text
    assert "plc_1" not in body and "does not allow" in body


def test_the_users_page_shows_grants(running_site: RunningSite, identity: Identity) -> None:
    held = identity.grants.of(SCOPED)
    with sign_in(running_site, running_site.user) as client:
        body = client.get("/users").text
    assert held and all(grant.scope in body for grant in held)


def test_a_change_of_grants_ends_sessions_and_the_last_is_kept(
    running_site: RunningSite, identity: Identity
) -> None:
    if "nia" not in [user.name for user in identity.users()]:
        identity.add_user("nia", "viewer", PASSWORD)
    with sign_in(running_site, "nia") as client:
        assert client.get("/api/v1/tags").status_code == 200
        identity.grants.add("nia", "viewer", "utilities", by="test")
        assert client.get("/api/v1/tags").status_code == 401
    with pytest.raises(Refused, match="SEC-1417"):
        identity.grants.remove("nia", "viewer", "utilities", by="test")
    identity.grants.remove("nia", "viewer", "utilities", by="test", whole_site=True)
    role: Role = "operator"
    with pytest.raises(Refused, match="SEC-1418"):
        identity.grants.add("mia", role, "utilities", by="test")
