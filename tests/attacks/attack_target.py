"""What attacks go against: the console tests' running site, with tokens and a few ways to speak to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from site_fixture import PASSWORD, RunningSite, site_text, start_site
from websockets.asyncio.client import ClientConnection, connect

from headrace.console.services import COOKIE
from headrace.security.identity import Identity
from headrace.security.policy import Role

FLOW = "utilities/pumping/pump_1/flow"
SCRIPT = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
ROLES: tuple[Role, ...] = ("viewer", "operator", "engineer", "admin")


class Target:
    """The site under attack.

    Attributes:
        site: the running site. url: of its console. tokens: role -> bearer token.
    """

    def __init__(self, site: RunningSite) -> None:
        self.site, self.url = site, site.url
        self._secret = ""
        identity = Identity(site.folder)
        try:
            self.tokens = {role: identity.add_token("mia", role, role=role) for role in ROLES}
        finally:
            identity.close()
        self.host = urlsplit(site.url).hostname or ""
        self.port = urlsplit(site.url).port or 0

    def ask(self, path: str, role: Role | None = "viewer", **more: Any) -> httpx.Response:
        """One request; ``method`` is GET unless told, ``role`` None asks as nobody."""
        headers = dict(more.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        method = more.pop("method", "GET")
        return httpx.request(method, self.url + path, headers=headers, timeout=30, **more)

    def refuses(self, path: str, role: Role | None = "viewer", **more: Any) -> httpx.Response:
        """The answer, which must be a refusal in our form: a code and a remedy, no internals."""
        answer = self.ask(path, role, **more)
        assert 400 <= answer.status_code < 500, (path, answer.status_code, answer.text[:300])
        body = answer.json()
        assert body["code"] and "remedy" in body, body
        assert "Traceback" not in answer.text and "/site-packages/" not in answer.text
        return answer

    def post(self, path: str, body: Any, role: Role | None = "viewer") -> httpx.Response:
        """POST of JSON, or of bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(path, role, method="POST", content=content)

    def is_well(self) -> bool:
        """Whether the console still serves, its store included."""
        answer = self.ask(f"/api/v1/last?tags={FLOW}")
        return answer.status_code == 200

    def session(self, *, new: bool = False) -> httpx.Client:
        """A signed-in browser's client, without its origin; ``new`` makes a session of its own."""
        if new or not self._secret:
            form = {"name": "mia", "password": PASSWORD}
            answer = httpx.post(f"{self.url}/sign-in", data=form, timeout=30)
            assert answer.status_code == 303, answer.text[:300]
            secret = answer.cookies[COOKIE]
            self._secret = self._secret or ("" if new else secret)
        else:
            secret = self._secret
        return httpx.Client(base_url=self.url, timeout=30, cookies={COOKIE: secret})

    def raw(self) -> socket.socket:
        """A connection on which nothing was said yet."""
        return socket.create_connection((self.host, self.port), timeout=30)

    def socket(self, path: str, role: Role | None = "viewer", **headers: str) -> Any:
        """A WebSocket; ``async with`` gives the connection."""
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        url = f"ws://{self.host}:{self.port}{path}"
        return connect(url, additional_headers=headers, open_timeout=30)

    def publish_raw(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Put bytes into the log as whoever holds the platform's credentials could."""

        async def send(bus: Any) -> None:
            await bus.client.publish(subject, body, headers=headers)
            await bus.client.flush()

        self.site.with_bus(send)


async def next_json(socket_: ClientConnection) -> dict[str, Any]:
    """The next message, decoded."""
    async with asyncio.timeout(30):
        found: dict[str, Any] = json.loads(await socket_.recv())
    return found


@contextmanager
def start_target(root: Path) -> Iterator[Target]:
    """The site with hostile names in every place that the site file lets one write text."""
    with start_site(root, hostile_site_text()) as site:
        yield Target(site)


def hostile_site_text() -> str:
    """The site of the console tests, with scripts in titles of the site, an area, a tag, and in a unit."""
    text = site_text().replace('en = "Demo works"', f'en = "Demo works {SCRIPT}"')
    text = text.replace('en = "Machining"', f'en = "Machining {SCRIPT}"')
    return text.replace('en = "Flow"', f'en = "Flow {SCRIPT}"')
