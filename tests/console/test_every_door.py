"""Every route, page, subject and command has a decision of the policy; one without fails here."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import msgspec
import pytest
import typer
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from typer.core import TyperGroup

import headrace
from headrace.bus.subjects import Subjects
from headrace.cli import doors as commands
from headrace.cli.app import build
from headrace.console.app import _PAGES, build_api
from headrace.console.doors import DOORS, OPEN, PAGES
from headrace.console.pages.shell import page_resource
from headrace.console.services import Services
from headrace.console.site_view import SiteView, TagView
from headrace.model.errors import Refused
from headrace.security.policy import Actor, decide

_TAG = TagView(tag_id=7, path="x/x/x/x")
_VIEW = SiteView(tags=(_TAG,), by_id={7: _TAG}, by_path={"x": _TAG})
_WORDS = {"verb": "acknowledge", "verdict": "approve"}


@cache
def services() -> tuple[Any, list[tuple[str, str]]]:
    """Services that remember what was asked first, and refuse it."""
    asked: list[tuple[str, str]] = []
    fake = MagicMock(spec=Services)

    def require(_connection: object, action: str, resource: str, *_more: object) -> Actor:
        asked.append((action, resource))
        raise Refused("SEC-1004", "asked")

    fake.require = fake.decide = require
    fake.actor = lambda _connection: Actor("x", "admin")
    fake.site = lambda _actor: _VIEW
    fake.sources = MagicMock()
    fake.sources.backfills.view = None
    fake.sources.alarms.watchers = fake.sources.live.watchers = 0
    fake.identity = MagicMock()
    return fake, asked


@cache
def the_app() -> FastAPI:
    return build_api(services()[0])


def routes(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(some: list[Any]) -> None:
        for route in some:
            if isinstance(route, APIWebSocketRoute):
                found[f"WS {route.path}"] = route
            elif isinstance(route, APIRoute):
                found.update({f"{method} {route.path}": route for method in route.methods})
            elif hasattr(route, "original_router"):
                walk(route.original_router.routes)
            elif getattr(route, "path", "") == "/api/openapi.json":
                found["GET /api/openapi.json"] = route

    walk(list(app.routes))
    return found


def test_every_route_is_named() -> None:
    found = set(routes(the_app()))
    assert found == set(DOORS) | set(OPEN)
    assert not set(DOORS) & set(OPEN)


async def call(app: FastAPI, door: str, path: str, route: Any) -> Any:
    """The answer's body; a form where the route takes one."""
    wanted = route.dependant.query_params
    query = {one.alias: "1" for one in wanted if one.field_info.is_required()}
    body = {"tag": "x", "value": 1} if path == "/api/v1/write" else {"alarms": ["x/y"]}
    form = {"old": "x", "new": "y", "again": "y"} if path == "/change-password" else None
    sent: dict[str, Any] = {"data": form} if form else {"json": body}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.request(door.split()[0], path, params=query, **sent)
    assert answer.status_code == 403, answer.text
    return answer.json()


async def call_socket(app: FastAPI, path: str) -> Any:
    """The first message of a WebSocket."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [], "subprotocols": [], "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, receive, send)
    return msgspec.json.decode(next(m["text"] for m in sent if m["type"] == "websocket.send"))


@pytest.mark.parametrize("door", sorted(DOORS))
async def test_each_route_asks_the_policy_first(door: str) -> None:
    app, asked = the_app(), services()[1]
    asked.clear()
    route = routes(app)[door]
    path = re.sub(r"{(\w+)}", lambda match: _WORDS.get(match[1], "x"), route.path)
    is_socket = door.startswith("WS")
    answer = await (call_socket(app, path) if is_socket else call(app, door, path, route))
    assert answer["code"] == "SEC-1004"
    assert asked == [DOORS[door]]
    assert not decide(None, *asked[0]).allowed  # type: ignore[arg-type] # words


def test_every_page_is_named_and_decided() -> None:
    found = {path: (action, page_resource(path)) for path, _, action in _PAGES}
    assert found == PAGES
    assert not [path for path, asked in found.items() if decide(None, *asked).allowed]
    source = Path(headrace.__file__).parent / "console"
    makers = [p.name for p in source.rglob("*.py") if re.search(r"\bui\.page\(", p.read_text())]
    assert makers == ["shell.py"], "pages are made in one place, which asks the policy"


def families() -> set[str]:
    """Of every subject that Subjects can build."""
    subjects, found = Subjects("a", "b"), set()
    for name, method in inspect.getmembers(subjects, inspect.ismethod):
        if name.startswith("_"):
            continue
        count = len(
            [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
        )
        built = method(*["c"] * count)
        if isinstance(built, str) and built.startswith(f"{subjects.prefix}."):
            tokens = built.removeprefix(f"{subjects.prefix}.").split(".")
            found.add(".".join(tokens[:2]) if tokens[0] == "call" else tokens[0])
    return found


_SUBJECTS = {
    "batch": "publish",
    "sealed": "publish",
    "event": "publish",
    "ledger": "publish",
    "health": "publish",
    "call.edge": "subscribe",
    "call.historian": "",
    "call.console": "",
    "call.apps": "",
    "call.app": "",
    "app": "",
    "call.sim": "",
    "call.runtime": "",
    "order": "",
}
"""Family -> what an edge may there, and nothing more; our own roles may all."""


def test_every_subject_is_decided() -> None:
    assert families() == set(_SUBJECTS)
    own, edge = Actor("historian", "viewer", kind="system"), Actor("e", "viewer", kind="edge")
    for family, may in _SUBJECTS.items():
        for action in ("publish", "subscribe", "request"):
            asked = (action, f"subject/{family}")
            assert decide(own, *asked).allowed  # type: ignore[arg-type] # words
            assert decide(edge, *asked).allowed == (action == may)  # type: ignore[arg-type]
            for kind in ("device", "partner", "app", "service", "person"):
                assert not decide(Actor("x", "admin", kind=kind), *asked).allowed  # type: ignore[arg-type]


def every_command(command: Any, above: tuple[str, ...] = ()) -> list[str]:
    if isinstance(command, TyperGroup):
        return [
            n for name, one in command.commands.items() for n in every_command(one, (*above, name))
        ]
    return [" ".join(above)]


def test_every_command_is_named_and_asks_the_policy(tmp_path: Path) -> None:
    found = set(every_command(typer.main.get_command(build())))
    assert found == set(commands.DOORS)
    for command in found:
        action, resource = commands.DOORS[command]
        assert decide(Actor("os:x", "admin", kind="system"), action, resource).allowed
        for role in ("admin", "viewer"):  # so that a command that reads needs not ask, see check()
            reads = decide(Actor("os:x", role, kind="system"), "read", resource)  # type: ignore[arg-type] # a role
            assert reads.allowed
    app = build(("user",))
    asked: list[str] = []
    before = commands.check
    commands.check = lambda command, folder: asked.append(command)  # type: ignore[assignment]
    try:
        app(["user", "list", "--data", str(tmp_path)], standalone_mode=False)
    finally:
        commands.check = before
    assert asked == ["user list"]
