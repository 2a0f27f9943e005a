"""How errors leave by HTTP: always ``{code, what, remedy, class}``, never a traceback."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

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
    "CONS-1008": 408,
    "CONS-1009": 404,
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

    @app.exception_handler(StarletteHTTPException)
    async def unknown(request: Request, error: StarletteHTTPException) -> JSONResponse:
        if error.status_code == 404:
            return not_found(request.method)
        text = f"the request does not fit: {error.detail}"
        ours = Misconfigured("CONS-1003", text, "See /api/openapi.json for what a route takes.")
        return JSONResponse(ours.as_dict(), error.status_code, error.headers)


def not_found(method: str) -> JSONResponse:
    """The answer to an address that nothing is at; it does not repeat the address."""
    what = f"there is nothing to {method} at this address"
    error = Refused("CONS-1009", what, "See /api/openapi.json, or begin at /.")
    return JSONResponse(error.as_dict(), 404)
