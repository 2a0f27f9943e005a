"""``/sso``: to the OpenID provider and back; what must be kept between lies in the browser's own cookie."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from headrace.console.api.gate import drop_cookie, let_in, origin_of, set_cookie
from headrace.console.api.gate_pages import local, sign_in_page
from headrace.console.services import Services, session_cookie
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError
from headrace.security.oidc import Begun

BEGUN_COOKIE: Final = "headrace_sso"
BEGUN_S: Final = 600


def make_router(services: Services) -> APIRouter:
    """Both routes; they are there only when ``headrace.toml`` names a provider.

    Raises:
        Misconfigured: SEC-1031 when the settings cannot be.
    """
    router = APIRouter(include_in_schema=False)
    provider, settings = services.sso, services.identity.settings.oidc
    if provider is None:
        return router

    def own(request: Request, path: str) -> str:
        return f"{(settings.public_url or str(request.base_url)).rstrip('/')}{path}"

    def failed(request: Request, error: HeadraceError) -> Response:
        texts = services.texts(request)
        alert = texts(f"sign_in.{error.code}")
        status = 503 if error.code == "SEC-1032" else 401
        page = sign_in_page(request, texts, "/", alert=alert, status=status, sso=settings.title)
        drop_cookie(request, page, BEGUN_COOKIE)
        return page

    @router.get("/sso/start")
    async def start(request: Request, next: str = "/", again: bool = False) -> Response:
        try:
            url, begun = await provider.begin(
                own(request, "/sso/callback"), local(next), again=again
            )
        except HeadraceError as error:
            return failed(request, error)
        answer = RedirectResponse(url, 303)
        kept = base64.urlsafe_b64encode(msgspec.json.encode(begun)).decode()
        set_cookie(request, answer, BEGUN_COOKIE, kept, BEGUN_S)
        return answer

    @router.get("/sso/callback")
    async def callback(request: Request) -> Response:
        identity, begun = services.identity, _begun(request)
        try:
            person = await provider.finish(
                dict(request.query_params), begun, own(request, "/sso/callback")
            )
            if begun is not None and begun.again:
                # The session stays: the page on which somebody wants to sign goes on with it.
                identity.asked_again(person, request.cookies.get(session_cookie(request), ""))
                answer: Response = RedirectResponse(local(begun.next), 303)
                drop_cookie(request, answer, BEGUN_COOKIE)
                return answer
            secret = identity.sign_in_linked(person, origin_of(request))
        except HeadraceError as error:
            about = {"address": origin_of(request).address, "code": error.code}
            if services.denials.is_new((about["address"], "sign_in")):
                identity.audit.record("nobody", "sign_in", "sso", "denied", **about)
            return failed(request, error)
        answer = await let_in(identity, request, secret, begun.next if begun else "/")
        drop_cookie(request, answer, BEGUN_COOKIE)
        return answer

    @router.get("/sso/end")
    async def end(request: Request) -> Response:
        """Out of the provider's own session too."""
        url = await provider.sign_out_url(own(request, "/sign-in"))
        return RedirectResponse(url or "/sign-in", 303)

    return router


def _begun(request: Request) -> Begun | None:
    try:
        kept = base64.urlsafe_b64decode(request.cookies.get(BEGUN_COOKIE, ""))
        return msgspec.json.decode(kept, type=Begun)
    except (*UNREADABLE, binascii.Error, ValueError):
        return None
