"""Services of apps over REST: decided, bound by a signature where they are dangerous, and described."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from headrace.console.api import app_services, errors
from headrace.console.app_calls import call_facts, open_api
from headrace.model.app_manifest import AppManifest, Service
from headrace.model.deployment import AppDeployment
from headrace.security.policy import Actor, decide

MANIFEST = AppManifest(
    id="load-watch",
    version="1.0.0",
    title={"en": "Load"},
    python="load_watch",
    services=[Service(name="ask", title={"en": "Ask"}), Service(name="reset", dangerous=True)],
)
SCHEMA = {
    "$ref": "#/$defs/Q",
    "$defs": {"Q": {"type": "object", "properties": {"x": {"type": "number"}}}},
}
DESCRIBED = {"services": {"ask": {"request": SCHEMA, "answer": SCHEMA, "help": "A question."}}}


class FakeServices:
    """A broker that knows one app, and remembers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any] | None]] = []
        self.called: list[tuple[str, bytes]] = []
        self.audited: list[tuple[Any, ...]] = []
        self.sources = SimpleNamespace(
            bus=self,
            subjects=SimpleNamespace(app_call=lambda word, name, edge: f"{word}.{name}{edge}"),
        )
        self.identity = SimpleNamespace(audit=self)

    async def get(self, bucket: str, key: str) -> bytes | None:
        told = AppDeployment(enterprise="a", site="b", manifest=MANIFEST, package_sha256="0" * 64)
        return msgspec.json.encode(told) if key == "app.load_watch" else None

    async def request(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        assert timeout_s > 10
        self.called.append((subject, body))
        return b'{"y": 1}'

    def require(self, _request, action, resource, context=None) -> Actor:
        self.asked.append((action, resource, context))
        return Actor("mia", "operator")

    def doing(self, *about: str, **told: str):
        self.audited.append((about, told))
        return self

    async def __aenter__(self) -> dict[str, Any]:
        return {}

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.fixture
def fake() -> FakeServices:
    return FakeServices()


async def ask(fake: FakeServices, path: str, body: dict[str, Any]) -> httpx.Response:
    app = FastAPI()
    errors.install(app)
    app.include_router(app_services.make_router(fake))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.post(path, json=body)


async def test_a_call_reaches_the_app_after_the_policy(fake):
    answer = await ask(fake, "/api/v1/apps/load-watch/services/ask", {"x": 2})
    assert answer.json() == {"y": 1}
    assert fake.called == [("load_watch.ask", b'{"x":2}')] and not fake.audited
    assert fake.asked[-1][:2] == ("operate", "app/load-watch")


async def test_a_dangerous_call_is_signed_for_and_stands_in_the_chain(fake):
    await ask(fake, "/api/v1/apps/load-watch/services/reset", {})
    assert fake.audited[0][0] == ("mia", "operate", "app/load-watch")
    action, resource, facts = fake.asked[-1]
    operator = Actor("leo", "operator")
    assert decide(operator, action, resource, facts).needs == "signature"
    assert decide(operator, action, resource, {**facts, "signed": True}).allowed
    harmless = call_facts(MANIFEST.services[0], b"{}")
    assert decide(operator, "operate", "app/load-watch", harmless).allowed
    assert not decide(Actor("eva", "viewer"), "operate", "app/load-watch", harmless).allowed


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("nothing/services/ask", "CONS-2303"),
        ("no%20app/services/ask", "CONS-2303"),
        ("load-watch/services/nothing", "CONS-2302"),
        ("load-watch/services/ask?edge=east", "APPS-2273"),
    ],
)
async def test_what_is_not_there_is_said(fake, path, code):
    answer = await ask(fake, f"/api/v1/apps/{path}", {})
    assert answer.status_code >= 400 and answer.json()["code"] == code


async def test_services_are_described_as_open_api(fake, monkeypatch):
    package = SimpleNamespace(
        names=("described.json",), file=lambda name: msgspec.json.encode(DESCRIBED)
    )
    monkeypatch.setattr("headrace.console.app_calls.read_package", lambda path, trust: package)
    fake.sources.folder = SimpleNamespace(packages=__import__("pathlib").Path("x"))
    told = AppDeployment(enterprise="a", site="b", manifest=MANIFEST, package_sha256="0" * 64)
    document = await open_api(fake, told)
    assert list(document["paths"]) == ["/api/v1/apps/load-watch/services/ask"]
    post = document["paths"]["/api/v1/apps/load-watch/services/ask"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ask.Q"}
    assert document["components"]["schemas"]["ask.Q"]["properties"] == {"x": {"type": "number"}}
