"""How errors leave by HTTP: always ``{code, what, remedy, class}``, never a traceback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from headrace.model.errors import (
    Corrupt,
    HeadraceError,
    Misconfigured,
    Refused,
    Terminal,
    Transient,
)

_STATUS_BY_CODE: Final = {
    "SEC-1001": 401,
    "SEC-1002": 429,
    "SEC-1003": 401,
    "CONS-1002": 404,
    "CONS-1005": 413,
}
_STATUS_BY_CLASS: Final[tuple[tuple[type[HeadraceError], int], ...]] = (
    (Misconfigured, 422),
    (Refused, 403),
    (Transient, 503),
    (Corrupt, 500),
    (Terminal, 500),
)


def status_of(error: HeadraceError) -> int:
    """The HTTP status for an error of ours."""
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    return next((status for kind, status in _STATUS_BY_CLASS if isinstance(error, kind)), 500)


def install(app: FastAPI) -> None:
    """Answer our errors, and requests that do not fit a route, in the one form."""

    @app.exception_handler(HeadraceError)
    async def ours(_request: Request, error: HeadraceError) -> JSONResponse:
        headers = {}
        if isinstance(error, Transient) and error.retry_after_s:
            headers["Retry-After"] = str(int(error.retry_after_s) + 1)
        if status_of(error) == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(error.as_dict(), status_of(error), headers)

    @app.exception_handler(RequestValidationError)
    async def unfit(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first.get("loc", ()))
        text = f"{field}: {first.get('msg', 'does not fit')}"
        answer = Misconfigured("CONS-1003", text, "See /api/docs for what this route takes.")
        return JSONResponse(answer.as_dict(), 422)

    @app.middleware("http")
    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        answer = await call_next(request)
        for name, value in _SECURITY_HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer


# Vue compiles NiceGUI's templates in the browser, so scripts need unsafe-eval; nothing foreign loads.
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' ws: wss:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}
