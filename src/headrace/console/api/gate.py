"""The gate: sign-in with its second step, second factors, passwords, sign-out, preferences.

Plain forms (``gate_pages.py``). Each step that proves something gives a new cookie; what hashes a
password runs in lanes with bounds (``security/lanes.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from headrace.console.api.gate_pages import (
    change_page,
    code_page,
    enrol_page,
    local,
    recovery_page,
    remove_page,
    sign_in_page,
)
from headrace.console.services import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    Services,
    check_origin,
    session_cookie,
)
from headrace.model.errors import HeadraceError
from headrace.security.identity import LANGUAGES, THEMES, Identity
from headrace.security.lanes import network_of
from headrace.security.sign_in import DEVICE_S, Origin

STAGE_COOKIE: Final = "headrace_stage"
DEVICE_COOKIE: Final = "headrace_device"
_BUSY: Final = ("SEC-1002", "SEC-1027")
_YEAR_S: Final = 365 * 86_400
_Text = Annotated[str, Form(max_length=1000)]
T = TypeVar("T")


def make_router(services: Services) -> APIRouter:
    """Routes of the gate."""
    router = APIRouter(include_in_schema=False)
    _add_sign_in(router, services)
    _add_second_step(router, services)
    _add_factor(router, services)
    _add_password(router, services)
    _add_preferences(router, services)
    return router


def _add_sign_in(router: APIRouter, services: Services) -> None:
    identity = services.identity
    sso = identity.settings.oidc.title if identity.settings.oidc.issuer else ""

    @router.get("/sign-in")
    async def sign_in_form(request: Request, next: str = "/", changed: int = 0) -> Response:
        texts = services.texts(request)
        notice = {1: texts("sign_in.changed"), 2: texts("factor.removed")}.get(changed, "")
        end = bool(sso) and changed == 3
        return sign_in_page(request, texts, next, notice=notice, sso=sso, end=end)

    @router.post("/sign-in")
    async def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: _Text = "",
        next: Annotated[str, Form(max_length=2000)] = "/",
    ) -> Response:
        check_origin(request)
        texts = services.texts(request)
        origin = origin_of(request)
        try:
            secret, stage = await _in_lane(
                identity, name, origin, identity.ways.by_password, name, password, origin
            )
        except HeadraceError as error:
            status = 429 if error.code in _BUSY else 401
            alert = texts(f"sign_in.{error.code}")
            return sign_in_page(
                request, texts, next, alert=alert, name=name, status=status, sso=sso
            )
        if stage:
            step = "/sign-in/code" if stage == "code" else "/second-factor"
            answer = RedirectResponse(f"{step}?{urlencode({'next': local(next)})}", 303)
            drop_cookie(request, answer, session_cookie(request))
            set_cookie(request, answer, STAGE_COOKIE, secret, 600)
            return answer
        return await let_in(identity, request, secret, next)

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        check_origin(request)
        actor = services.actor(request)
        held = request.cookies.get(session_cookie(request), "")
        await asyncio.to_thread(identity.sign_out, held)
        is_linked = actor is not None and "oidc" in actor.factors
        answer = RedirectResponse("/sign-in?changed=3" if is_linked and sso else "/sign-in", 303)
        drop_cookie(request, answer, session_cookie(request))
        return answer


def _add_second_step(router: APIRouter, services: Services) -> None:
    identity = services.identity

    @router.get("/sign-in/code")
    async def code_form(request: Request, next: str = "/") -> Response:
        return code_page(request, services.texts(request), next)

    @router.post("/sign-in/code")
    async def take_code(
        request: Request,
        code: Annotated[str, Form(max_length=64)] = "",
        next: Annotated[str, Form(max_length=2000)] = "/",
    ) -> Response:
        check_origin(request)
        texts = services.texts(request)
        stage = request.cookies.get(STAGE_COOKIE, "")
        try:
            origin = origin_of(request)
            secret = await asyncio.to_thread(identity.ways.by_code, stage, code, origin)
        except HeadraceError as error:
            alert = texts(f"sign_in.{error.code}")
            if error.code == "SEC-1026":
                return sign_in_page(request, texts, next, alert=alert, status=401)
            status = 429 if error.code in _BUSY else 401
            return code_page(request, texts, next, alert=alert, status=status)
        return await let_in(identity, request, secret, next)


def _add_factor(router: APIRouter, services: Services) -> None:
    identity = services.identity

    @router.get("/second-factor")
    async def enrol_form(request: Request) -> Response:
        return await _enrol(services, request, "")

    @router.post("/second-factor")
    async def enrol(request: Request, code: Annotated[str, Form(max_length=64)] = "") -> Response:
        check_origin(request)
        secret, texts = _session_or_stage(request), services.texts(request, services.actor(request))
        try:
            origin = origin_of(request)
            fresh, codes = await asyncio.to_thread(
                identity.ways.confirm_enrolment, secret, code, origin
            )
        except HeadraceError as error:
            return await _enrol(services, request, texts(f"sign_in.{error.code}"))
        answer = recovery_page(request, texts, codes)
        _give_session(identity, request, answer, fresh)
        return answer

    @router.get("/second-factor/remove")
    async def remove_form(request: Request) -> Response:
        actor = services.actor(request)
        if actor is None:
            return RedirectResponse("/sign-in?next=/second-factor/remove", 303)
        return remove_page(request, services.texts(request, actor))

    @router.post("/second-factor/remove")
    async def remove(
        request: Request,
        password: _Text = "",
        code: Annotated[str, Form(max_length=64)] = "",
    ) -> Response:
        actor = services.require(request, "change_own", "user")
        texts = services.texts(request, actor)
        origin = origin_of(request)
        again = (actor.name, password, code, origin.address)
        try:
            await _in_lane(identity, actor.name, origin, identity.check_again, *again)
        except HeadraceError as error:
            status = 429 if error.code in _BUSY else 401
            return remove_page(request, texts, alert=texts(f"sign_in.{error.code}"), status=status)
        await asyncio.to_thread(identity.remove_second_factor, actor.name, by=actor.name)
        return RedirectResponse("/sign-in?changed=2", 303)


async def _enrol(services: Services, request: Request, alert: str) -> Response:
    secret = _session_or_stage(request)
    try:
        enrolment = await asyncio.to_thread(services.identity.ways.begin_enrolment, secret)
    except HeadraceError as error:
        target = "/profile" if error.code == "SEC-1028" else "/sign-in?next=/second-factor"
        return RedirectResponse(target, 303)
    texts = services.texts(request, services.actor(request))
    must = session_cookie(request) not in request.cookies
    return enrol_page(request, texts, enrolment, alert=alert, must=must)


def _add_password(router: APIRouter, services: Services) -> None:
    identity = services.identity

    @router.get("/change-password")
    async def change_form(request: Request) -> Response:
        actor = services.actor(request)
        if actor is None:
            return RedirectResponse("/sign-in", 303)
        return change_page(request, services.texts(request, actor), first=actor.must_change)

    @router.post("/change-password")
    async def change(
        request: Request, old: _Text = "", new: _Text = "", again: _Text = ""
    ) -> Response:
        actor = services.require(request, "change_own", "user")
        texts, first = services.texts(request, actor), actor.must_change
        if new != again:
            return change_page(request, texts, texts("sign_in.differ"), first=first)
        origin = origin_of(request)
        try:
            await _in_lane(
                identity, actor.name, origin, identity.change_password, actor.name, old, new
            )
        except HeadraceError as error:
            key = "sign_in.old_wrong" if error.code == "SEC-1001" else f"sign_in.{error.code}"
            return change_page(request, texts, texts(key), first=first)
        return RedirectResponse("/sign-in?changed=1", 303)


def _add_preferences(router: APIRouter, services: Services) -> None:
    @router.post("/preferences")
    async def prefer(request: Request, fields: dict[str, str]) -> Response:
        """Language and theme; kept in the user's record and, for the gate, in cookies."""
        check_origin(request)
        language, chosen = fields.get("language", ""), fields.get("theme", "")
        answer = Response(status_code=204)
        if language in LANGUAGES:
            set_cookie(request, answer, LANGUAGE_COOKIE, language, _YEAR_S)
        if chosen in THEMES:
            set_cookie(request, answer, THEME_COOKIE, chosen, _YEAR_S)
        actor = services.actor(request)
        if actor is not None and actor.kind == "person":
            services.identity.set_preferences(actor.name, language=language, theme=chosen)
        return answer


async def let_in(identity: Identity, request: Request, secret: str, target: str) -> Response:
    """The answer of a sign-in that is complete: cookies, and on to where the person wanted to go."""
    actor = await asyncio.to_thread(identity.actor_of_session, secret)
    way = "/change-password" if actor and actor.must_change else local(target)
    answer = RedirectResponse(way, 303)
    _give_session(identity, request, answer, secret)
    device = request.cookies.get(DEVICE_COOKIE, "")
    if actor is not None and not identity.ways.is_known(actor.name, device):
        device = await asyncio.to_thread(identity.ways.remember_device, actor.name)
        set_cookie(request, answer, DEVICE_COOKIE, device, DEVICE_S)
    return answer


def _give_session(identity: Identity, request: Request, answer: Response, secret: str) -> None:
    set_cookie(request, answer, session_cookie(request), secret, identity.settings.session_h * 3600)
    drop_cookie(request, answer, STAGE_COOKIE)


def origin_of(request: Request) -> Origin:
    """Where a request comes from, as the brake and the list of sessions need it."""
    return Origin(
        request.client.host if request.client else "unknown",
        request.headers.get("user-agent", "")[:200],
        request.cookies.get(DEVICE_COOKIE, "")[:200],
    )


async def _in_lane(
    identity: Identity, name: str, origin: Origin, call: Callable[..., T], *args: Any
) -> T:
    """Run what hashes a password in the lane of who asks."""
    is_known = await asyncio.to_thread(identity.ways.is_known, name, origin.device)
    lane = identity.lanes.known if is_known else identity.lanes.strangers
    place = origin.device if is_known else network_of(origin.address)
    return await lane.run(place, call, *args)


def _session_or_stage(request: Request) -> str:
    return request.cookies.get(session_cookie(request)) or request.cookies.get(STAGE_COOKIE, "")


def set_cookie(request: Request, answer: Response, name: str, value: str, age_s: int) -> None:
    """A cookie for this site only, that no script reads."""
    secure = request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=age_s, httponly=True, samesite="lax", secure=secure)


def drop_cookie(request: Request, answer: Response, name: str) -> None:
    """Let the browser forget a cookie; the flags must be those it was set with."""
    secure = request.url.scheme == "https"
    answer.delete_cookie(name, secure=secure, httponly=True, samesite="lax")
