"""What every request passes before any route: bounds of its body, its origin, and who may hold a socket.

And what every answer leaves with: the headers that keep foreign pages, frames and scripts out. Plain ASGI:
an answer that streams, or a browser that leaves early, is none of its business.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.console.api.errors import status_of
from headrace.console.services import Services, check_origin
from headrace.model.errors import HeadraceError, Refused, Transient

BODY_BYTES_MAX: Final = 5 << 20
FORM_BYTES_MAX: Final = 64 << 10
BODY_S: Final = 30.0
SOCKET: Final = "/_nicegui_ws"
NONCE: Final = "headrace.nonce"
"""Key of the scope under which this answer's nonce stands."""
_FORMS: Final = frozenset(
    {
        "/sign-in",
        "/sign-in/code",
        "/second-factor",
        "/second-factor/remove",
        "/sign-out",
        "/change-password",
        "/preferences",
    }
)
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Refuses what no route should see.

    Args:
        app: what comes after. services: who asks; of the pages' socket, which NiceGUI opens to everybody.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except HeadraceError as error:
            await _refuse(error, scope, receive, send)
            return
        bounded = _Body(scope, receive).receive if scope["type"] == "http" else receive
        try:
            await self._app(scope, bounded, send)
        except ClientDisconnect:
            return  # who left in the middle of a body gets no answer, and fills no log

    def _check(self, scope: Scope) -> None:
        connection = HTTPConnection(scope)
        said = connection.headers.get("content-length", "0")
        size = int(said) if said.isascii() and said.isdigit() and len(said) < 19 else 0
        if size > _body_bytes_max(scope):
            raise _too_large(size, _body_bytes_max(scope))
        pages = scope["path"].startswith(SOCKET)
        changes = scope["type"] == "http" and scope["method"] not in _SAFE
        if pages or (changes and "authorization" not in connection.headers):
            check_origin(connection)
        if pages and self._services.actor(connection) is None:
            raise Refused("SEC-1003", "nobody is signed in", "Sign in.")


class _Body:
    """A request's body, up to a size and a time."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._most = _body_bytes_max(scope)
        self._size = 0
        self._whole = False
        self._until_s = asyncio.get_running_loop().time() + BODY_S

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError as error:
            raise Transient(
                "CONS-1008", f"the body did not come within {BODY_S:g} s", "Send it at once."
            ) from error
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._size > self._most:
            raise _too_large(self._size, self._most)
        return message


def _body_bytes_max(scope: Scope) -> int:
    return FORM_BYTES_MAX if scope["path"] in _FORMS else BODY_BYTES_MAX


def _too_large(size: int, most: int) -> Refused:
    return Refused(
        "CONS-1005",
        f"the body has {size:,} bytes or more; at most {most:,} are taken here",
        "Send less at once; keep tags in tag files.",
    )


async def _refuse(error: HeadraceError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4401, "reason": error.code})
        return
    # What is still on its way is not read: the connection ends with the answer.
    headers = {"Connection": "close"}
    await JSONResponse(error.as_dict(), status_of(error), headers)(scope, receive, send)


class SecurityHeaders:
    """Adds the headers to every HTTP answer, and gives each request a nonce for the scripts of its page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[NONCE] = secrets.token_urlsafe(16)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message), scope)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def nonce_of(request: Request) -> str:
    """The nonce of this answer: a script of ours without it does not run."""
    nonce: str = request.scope[NONCE]
    return nonce


def _add_headers(headers: MutableHeaders, scope: MutableMapping[str, Any]) -> None:
    is_page = headers.get("content-type", "").startswith("text/html")
    policy = PAGE_POLICY.format(nonce=scope[NONCE]) if is_page else OTHER_POLICY
    headers.setdefault("Content-Security-Policy", policy)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if not scope["path"].startswith(("/static/", "/_nicegui/")):
        headers["Cache-Control"] = "no-store"
    if scope["scheme"] == "https":
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")


# Vue compiles NiceGUI's templates in the browser, so scripts need unsafe-eval; Quasar, ECharts and NiceGUI
# write style attributes and elements, so styles need unsafe-inline. Scripts run from our own files or with
# the answer's nonce only.
PAGE_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; script-src-attr 'none'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-src 'none'; worker-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
OTHER_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
        "magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
