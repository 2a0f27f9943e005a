"""Own policies, signatures and approvals over REST, on the running site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pyotp
import pytest
from site_fixture import CLOCK, PASSWORD, RunningSite

from headrace.security.identity import Identity
from headrace.security.policy import Role
from headrace.security.sign_in import Origin

FLOW = "utilities/pumping/pump_1/flow"
FILE = "/api/v1/policy/files/two.cedar"
TWO = """
@id("pia_asks")
@needs("second_person")
@says("pia does not write alone")
forbid (principal == Person::"pia", action == Action::"write", resource)
unless { context.approved };
"""
PEOPLE: dict[str, Role] = {"ida": "security_officer", "pia": "operator", "sue": "supervisor"}


@pytest.fixture(scope="module")
def people(running_site: RunningSite) -> Iterator[dict[str, httpx.Client]]:
    identity = Identity(running_site.folder)
    clients = {}
    for name, role in PEOPLE.items():
        identity.add_user(name, role, PASSWORD)
        head = {"authorization": f"Bearer {identity.add_token(name, 'test', role=role)}"}
        clients[name] = httpx.Client(base_url=running_site.url, headers=head, timeout=30)
    yield clients
    identity.close()
    for client in clients.values():
        client.close()


def sign(client: httpx.Client, wanted: Any, **more: str) -> httpx.Response:
    given = {"meaning": "responsibility", "reason": "night shift", "password": PASSWORD} | more
    return client.post("/api/v1/signatures", json={**wanted, **given})


def put(client: httpx.Client, text: str, release: str = "") -> httpx.Response:
    return client.put(FILE, content=text, headers={"x-headrace-release": release})


def put_signed(client: httpx.Client, text: str) -> httpx.Response:
    refused = put(client, text).json()
    assert (refused["code"], refused["needs"]) == ("SEC-1410", "signature")
    return put(client, text, sign(client, refused["for"]).json()["release"])


def write(client: httpx.Client, value: float = 3.5) -> Any:
    return client.post("/api/v1/write", json={"tag": FLOW, "value": value}).json()


@pytest.fixture
def two(people: dict[str, httpx.Client]) -> Iterator[None]:
    done = put_signed(people["ida"], TWO)
    assert done.status_code == 200, done.text
    yield
    assert put_signed(people["ida"], "").json()["own"] == 0


def test_a_policy_is_changed_only_with_a_signature_of_exactly_that(
    people: dict[str, httpx.Client], running_site: RunningSite
) -> None:
    ida = people["ida"]
    wanted = put(ida, TWO).json()["for"]
    assert sign(ida, wanted, password="a wrong password").json()["code"] == "SEC-1001"
    assert sign(ida, wanted, reason=" ").json()["code"] == "SEC-1415"
    assert sign(ida, wanted, meaning="mood").json()["code"] == "SEC-1415"
    assert sign(people["pia"], wanted).json()["code"] == "SEC-1415", "no right, so no signature"
    release = sign(ida, wanted).json()["release"]
    assert put(ida, TWO + "// more", release).json()["code"] == "SEC-1413", "another text"
    assert put(people["sue"], TWO, release).json()["code"] == "SEC-1004"
    assert put(ida, TWO, release).status_code == 200
    assert put(ida, TWO, release).json()["code"] == "SEC-1413", "once"
    broken = put_signed(ida, "forbid all;").json()
    assert broken["code"] == "SEC-1401" and "two.cedar:1" in broken["what"]
    assert put_signed(ida, "").status_code == 200
    told = Identity(running_site.folder)
    entries = told.audit.entries(actor="ida", action="sign")
    used = told.audit.entries(actor="ida", action="signed.administer")
    told.close()
    detail = msgspec.json.decode(entries[0].detail)
    assert (detail["meaning"], detail["reason"]) == ("responsibility", "night shift")
    assert len(detail["binding"]) == 64 and used


def test_a_second_person_lets_one_write_pass(people: dict[str, httpx.Client], two: None) -> None:
    pia, sue = people["pia"], people["sue"]
    refused = write(pia)
    assert (refused["code"], refused["needs"]) == ("SEC-1411", "second_person")
    assert write(sue)["code"] == "CONS-1006", "others write as before; this tag is not writable"
    asked = pia.post("/api/v1/approvals", json={**refused["for"], "reason": "valve test"})
    path = f"/api/v1/approvals/{asked.json()['release']}"
    assert write(pia)["code"] == "SEC-1411", "not yet"
    assert pia.post(f"{path}/approve").json()["code"] == "SEC-1004"
    [waiting] = sue.get("/api/v1/approvals").json()["approvals"]
    assert (waiting["actor"], waiting["reason"]) == ("pia", "valve test")
    assert sue.post(f"{path}/approve", json={"note": "seen"}).json()["decided_by"] == "sue"
    assert sue.post(f"{path}/reject").json()["code"] == "SEC-1413", "decided"
    assert write(pia, 4.0)["code"] == "SEC-1411", "another value was not approved"
    assert write(pia)["code"] == "CONS-1006", "the policy let it pass"
    assert write(pia)["code"] == "SEC-1411", "once"


def test_nobody_approves_the_own_request_and_a_rejected_one_is_worth_nothing(
    people: dict[str, httpx.Client], running_site: RunningSite
) -> None:
    identity = Identity(running_site.folder)
    facts = {"equipment": "utilities/pumping/pump_1"}
    release = identity.releases.ask("sue", "write", "tag/1", facts, "mine")
    path = f"/api/v1/approvals/{release}"
    assert people["sue"].post(f"{path}/approve").json()["code"] == "SEC-1414"
    assert people["ida"].post(f"{path}/reject").json()["state"] == "rejected"
    assert identity.releases.ready("sue", "write", "tag/1", facts) == ""
    identity.close()


def test_the_policy_says_why(people: dict[str, httpx.Client], two: None) -> None:
    def why(client: httpx.Client, **asked: str) -> Any:
        return client.get("/api/v1/policy/explain", params=asked).json()

    found = why(people["ida"], actor="pia", action="write", resource="pump_1")
    assert (found["allowed"], found["needs"]) == (False, "second_person")
    assert found["equipment"] == "utilities/pumping/pump_1"
    assert [(one["id"], one["line"]) for one in found["policies"]] == [("pia_asks", 2)]
    own = why(people["pia"], action="read", resource=FLOW)
    assert own["allowed"] and own["policies"][0]["id"] == "role.operator"
    other = why(people["pia"], actor="ida", action="read", resource="site")
    assert other["code"] == "SEC-1004", "who asks about others must be allowed to"
    listed = people["pia"].get("/api/v1/policy").json()
    assert "pia_asks" in [one["id"] for one in listed["policies"]] and listed["problem"] is None


def test_the_page_shows_what_is_in_force(running_site: RunningSite, two: None) -> None:
    with httpx.Client(base_url=running_site.url, timeout=30) as client:
        client.post("/sign-in", data={"name": "ida", "password": PASSWORD})
        page = client.get("/policy").text
    assert "pia does not write alone" in page and "role.viewer" in page


def test_who_has_a_second_factor_signs_with_its_code_too(running_site: RunningSite) -> None:
    identity = Identity(running_site.folder)
    try:
        identity.add_user("kim", "security_officer", PASSWORD)
        token = identity.add_token("kim", "test", role="security_officer")
        session = identity.sign_in("kim", PASSWORD, "here")
        totp = pyotp.TOTP(identity.ways.begin_enrolment(session).seed)
        now_s = CLOCK.now_us() // 1_000_000
        identity.ways.confirm_enrolment(session, totp.at(now_s), Origin("here"))
    finally:
        identity.close()
    head = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=running_site.url, headers=head, timeout=30) as kim:
        wanted = put(kim, TWO).json()["for"]
        assert sign(kim, wanted).json()["code"] == "SEC-1036"
        assert sign(kim, wanted, code="abc").json()["code"] == "SEC-1024"
        assert sign(kim, wanted, code=totp.at(now_s)).json()["code"] in ("SEC-1025", "SEC-1002")
        fresh = sign(kim, wanted, code=totp.at(now_s + 30))
        assert fresh.status_code == 201, fresh.text
