"""The audit chain behind the doors: what a request leaves in it, and who may read it."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import httpx
import msgspec
from site_fixture import PASSWORD, RunningSite
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.security.audit import AuditEntry
from headrace.security.identity import Identity
from waiting import until_sync


def token(site: RunningSite, role: str) -> dict[str, str]:
    identity = Identity(site.folder)
    try:
        secret = identity.add_token("mia", "test", role=role)  # type: ignore[arg-type] # a role
        return {"Authorization": f"Bearer {secret}"}
    finally:
        identity.close()


def test_a_write_a_denial_and_a_sign_in_are_told(running_site: RunningSite) -> None:
    url = f"{running_site.url}/api/v1"
    viewer, admin = token(running_site, "viewer"), token(running_site, "admin")
    tag = "utilities/pumping/pump_1/flow"
    body = {"tag": tag, "value": 1.5}
    assert httpx.post(f"{url}/write", json=body, headers=viewer).status_code == 403
    assert httpx.post(f"{url}/write", json=body, headers=admin).status_code >= 400  # not writable
    httpx.post(f"{running_site.url}/sign-in", data={"name": "mia", "password": PASSWORD})
    assert httpx.get(f"{url}/audit", headers=viewer).status_code == 403
    found = httpx.get(f"{url}/audit", params={"actor": "mia"}, headers=admin).json()["entries"]
    told = [(e["action"], e["outcome"], e["resource"]) for e in found]
    resource = f"tag/{running_site.tags[tag]}"
    assert ("write", "denied", resource) in told and ("write", "allowed", resource) in told
    assert ("sign_in", "done", "user/mia") in told
    assert httpx.get(f"{url}/audit/verify", headers=admin).json()["flaws"] == []
    place = httpx.get(f"{url}/audit/checkpoint", headers=admin).text
    kept = running_site.folder.root / "kept.txt"
    kept.write_text(place + "\n")
    run = CliRunner().invoke(
        build(("audit",)),
        ["audit", "verify", "--data", str(running_site.folder.root), "--checkpoint", str(kept)],
    )
    assert run.exit_code == 0 and "1 of 1 checkpoints met" in run.output
    words = ["audit", "list", "--action", "write", "--format", "json"]
    shown = CliRunner().invoke(build(("audit",)), [*words, "--data", str(running_site.folder.root)])
    lines = [msgspec.json.decode(line, type=AuditEntry) for line in shown.output.splitlines()]
    assert [(e.outcome, e.resource) for e in lines if e.resource == resource][:2] == [
        ("denied", resource),
        ("allowed", resource),
    ]


def test_a_change_of_the_site_is_told_with_who_asked_and_what_came_into_force(
    running_site: RunningSite,
) -> None:
    url, admin = f"{running_site.url}/api/v1", token(running_site, "admin")
    text = httpx.get(f"{url}/site", headers=admin).text
    changed = text.replace('title = { en = "Utilities"', 'title = { en = "Media"')
    assert changed != text

    def accepted() -> list[str]:
        found = httpx.get(f"{url}/audit", params={"action": "site.accept"}, headers=admin).json()
        return [entry["detail"] for entry in found["entries"]]

    before = len(accepted())
    for n, body in enumerate((changed, text), 1):
        assert httpx.put(f"{url}/site", content=body, headers=admin).status_code == 200
        deadline_s = time.monotonic() + 30
        while len(accepted()) < before + n:
            assert time.monotonic() < deadline_s
    assert "hash" in accepted()[0]
    asked = httpx.get(f"{url}/audit", params={"action": "edit"}, headers=admin).json()["entries"]
    assert {(e["actor"], e["resource"]) for e in asked} >= {("mia", "site")}


def test_who_read_a_tag_is_answered_at_every_door(running_site: RunningSite) -> None:
    url, admin = f"{running_site.url}/api/v1", token(running_site, "admin")
    tag, other = "utilities/pumping/pump_1/flow", "utilities/pumping/pump_2/head"
    running_site.publish({tag: 5.0, other: 6.0})
    viewer = token(running_site, "viewer")
    asked = {"tags": f"{tag},{other}", "start": "-1h"}
    until_sync(
        lambda: httpx.get(f"{url}/samples", params=asked, headers=viewer).json()["samples"],
        60,
        "the samples can be read",
    )
    file = httpx.get(f"{url}/samples", params={**asked, "format": "csv"}, headers=viewer).content
    httpx.get(f"{url}/last", params={"tags": tag}, headers=viewer)
    now_ms = time.time() * 1000
    trend = {"tag_ids": tag, "start_ms": now_ms - 60_000, "end_ms": now_ms}
    assert httpx.get(f"{url}/trend", params=trend, headers=viewer).status_code == 200
    formula = {"formula": "flow + 1 m3/h", "equipment": "utilities/pumping/*", "start": "-1h"}
    told = httpx.post(f"{url}/formula/preview", json=formula, headers=viewer)
    assert told.status_code == 200, told.text

    def readings(name: str) -> list[dict[str, Any]]:
        found = httpx.get(f"{url}/audit/who-read", params={"tags": name}, headers=admin)
        lines: list[dict[str, Any]] = found.json()["readings"]
        return lines

    found = readings(tag)
    doors = {each["door"] for each in found if each["actor"] == "mia"}
    assert doors >= {"rest/samples", "rest/last", "screen/trend", "rest/formula"}
    (export,) = [each for each in found if each["kind"] == "export"]
    assert export["sha256"] == hashlib.sha256(file).hexdigest()
    assert export["samples"] == len(file.splitlines()) - 1
    assert "viewer" in export["rule"]
    assert "rest/last" not in {each["door"] for each in readings(other)}
    assert (
        httpx.get(f"{url}/audit/who-read", params={"tags": tag}, headers=viewer).status_code == 403
    )
    run = CliRunner().invoke(
        build(("audit", "query")),
        ["query", other, "--from", "-1h", "--data", str(running_site.folder.root)],
    )
    assert run.exit_code == 0, run.output
    words = ["audit", "who-read", other, "--format", "json"]
    run = CliRunner().invoke(build(("audit",)), [*words, "--data", str(running_site.folder.root)])
    lines = [msgspec.json.decode(line) for line in run.stdout.splitlines()]
    assert [each["door"] for each in lines if each["actor"].startswith("os:")] == ["cli/query"]
    assert httpx.get(f"{url}/audit/verify", headers=admin).json()["flaws"] == []
