"""The gate: sign-in, forced change of the one-time password, sign-out, preferences.

Plain forms without a script, so that the gate works whatever the rest does.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from headrace.console import theme
from headrace.console.api.guard import nonce_of
from headrace.console.services import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    Services,
    check_origin,
    session_cookie,
)
from headrace.console.texts import Texts
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.model.errors import HeadraceError
from headrace.security.identity import LANGUAGES, SESSION_S, THEMES

_YEAR_S = 365 * 86_400


def make_router(services: Services) -> APIRouter:
    """Routes of the gate."""
    router = APIRouter(include_in_schema=False)
    identity = services.identity

    @router.get("/sign-in")
    async def sign_in_form(request: Request, next: str = "/", changed: int = 0) -> Response:
        texts = services.texts(request)
        notice = texts("sign_in.changed") if changed else ""
        return _sign_in_page(request, texts, next, notice=notice)

    @router.post("/sign-in")
    async def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=1000)] = "",
        next: Annotated[str, Form(max_length=2000)] = "/",
    ) -> Response:
        check_origin(request)
        texts = services.texts(request)
        address = request.client.host if request.client else "unknown"
        try:
            secret = await asyncio.to_thread(identity.sign_in, name, password, address)
        except HeadraceError as error:
            status = 429 if error.code == "SEC-1002" else 401
            alert = texts(f"sign_in.{error.code}")
            return _sign_in_page(request, texts, next, alert=alert, name=name, status=status)
        actor = identity.actor_of_session(secret)
        target = "/change-password" if actor and actor.must_change else _local(next)
        answer = RedirectResponse(target, 303)
        _set_cookie(request, answer, session_cookie(request), secret, SESSION_S)
        return answer

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        check_origin(request)
        identity.sign_out(request.cookies.get(session_cookie(request), ""))
        answer = RedirectResponse("/sign-in", 303)
        secure = request.url.scheme == "https"
        answer.delete_cookie(session_cookie(request), secure=secure, httponly=True, samesite="lax")
        return answer

    @router.get("/change-password")
    async def change_form(request: Request) -> Response:
        actor = services.actor(request)
        if actor is None:
            return RedirectResponse("/sign-in", 303)
        return _change_page(request, services.texts(request, actor))

    @router.post("/change-password")
    async def change(
        request: Request,
        old: Annotated[str, Form(max_length=1000)] = "",
        new: Annotated[str, Form(max_length=1000)] = "",
        again: Annotated[str, Form(max_length=1000)] = "",
    ) -> Response:
        actor = services.require(request, "change_own", "user")
        texts = services.texts(request, actor)
        if new != again:
            return _change_page(request, texts, texts("sign_in.differ"))
        try:
            await asyncio.to_thread(identity.change_password, actor.name, old, new)
        except HeadraceError as error:
            key = "sign_in.old_wrong" if error.code == "SEC-1001" else f"sign_in.{error.code}"
            return _change_page(request, texts, texts(key))
        return RedirectResponse("/sign-in?changed=1", 303)

    _add_preferences(router, services)
    return router


def _add_preferences(router: APIRouter, services: Services) -> None:
    @router.post("/preferences")
    async def prefer(request: Request, fields: dict[str, str]) -> Response:
        """Language and theme; kept in the user's record and, for the gate, in cookies."""
        check_origin(request)
        language, chosen = fields.get("language", ""), fields.get("theme", "")
        answer = Response(status_code=204)
        if language in LANGUAGES:
            _set_cookie(request, answer, LANGUAGE_COOKIE, language, _YEAR_S)
        if chosen in THEMES:
            _set_cookie(request, answer, THEME_COOKIE, chosen, _YEAR_S)
        actor = services.actor(request)
        if actor is not None:
            services.identity.set_preferences(actor.name, language=language, theme=chosen)
        return answer


def _set_cookie(request: Request, answer: Response, name: str, value: str, age_s: int) -> None:
    secure = request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=age_s, httponly=True, samesite="lax", secure=secure)


def _local(target: str) -> str:
    """Only a path of our own: no open redirect."""
    fine = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if fine and target.isprintable() else "/"


def _sign_in_page(
    request: Request,
    texts: Texts,
    target: str,
    *,
    alert: str = "",
    notice: str = "",
    name: str = "",
    status: int = 200,
) -> HTMLResponse:
    form = tag(
        "form",
        _brand(),
        tag("p", texts("sign_in.lead")),
        tag(".hr-alert", alert, role="alert") if alert else None,
        tag(".hr-alert.ok", notice, role="status") if notice else None,
        _field(texts("sign_in.name"), "name", "username", value=name, autofocus=not name),
        _field(
            texts("sign_in.password"), "password", "current-password", kind="password",
            autofocus=bool(name),
        ),
        tag("input", type="hidden", name="next", value=_local(target)),
        tag("button.hr-btn.primary", texts("sign_in.submit"), type="submit"),
        tag("p.hr-dim", texts("sign_in.first")),
        _preferences(texts),
        method="post",
        action="/sign-in",
    )  # fmt: skip
    return _page(request, texts, texts("sign_in.title"), form, status)


def _change_page(request: Request, texts: Texts, alert: str = "") -> HTMLResponse:
    form = tag(
        "form",
        _brand(),
        tag("h1", texts("sign_in.change_title")),
        tag("p", texts("sign_in.change_lead")),
        tag(".hr-alert", alert, role="alert") if alert else None,
        _field(
            texts("sign_in.old"), "old", "current-password", kind="password", autofocus=True
        ),
        _field(
            texts("sign_in.new"), "new", "new-password", kind="password",
            hint=texts("sign_in.rule"),
        ),
        _field(texts("sign_in.again"), "again", "new-password", kind="password"),
        tag("button.hr-btn.primary", texts("sign_in.change_submit"), type="submit"),
        _preferences(texts),
        method="post",
        action="/change-password",
    )  # fmt: skip
    return _page(request, texts, texts("sign_in.change_title"), form, 422 if alert else 200)


def _brand() -> Markup:
    return tag(".hr-brand", icon("logo", 28), tag("span", "Headrace"))


def _field(
    label: str,
    name: str,
    complete: str,
    *,
    kind: str = "text",
    value: str = "",
    hint: str = "",
    autofocus: bool = False,
) -> Markup:
    box = tag(
        "input.hr-input",
        id=name,
        name=name,
        type=kind,
        value=value or None,
        autocomplete=complete,
        required=True,
        autofocus=autofocus,
    )
    return tag(
        ".hr-field", tag("label", label, for_=name), box, tag("small", hint) if hint else None
    )


def _preferences(texts: Texts) -> Markup:
    other = "en" if texts.language == "zh" else "zh"
    return tag(
        "footer",
        tag("button.hr-textbtn", texts("shell.language"), type="button", data_prefer=f"language={other}"),
        tag("button.hr-textbtn", texts("shell.theme"), type="button", data_prefer="theme="),
    )  # fmt: skip


_GATE_SCRIPT = (
    "for(const b of document.querySelectorAll('[data-prefer]'))b.onclick=async()=>{"
    "let [k,v]=b.dataset.prefer.split('=');if(k==='theme')v=document.documentElement.classList."
    "contains('hr-dark')?'light':'dark';await fetch('/preferences',{method:'POST',headers:"
    "{'Content-Type':'application/json'},body:JSON.stringify({[k]:v})});location.reload()}"
)


def _page(request: Request, texts: Texts, title: str, form: Markup, status: int) -> HTMLResponse:
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    head = join(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{title} · Headrace"),
        Markup('<link rel="icon" href="/static/favicon.svg">'),
        Markup(f"<style>{theme.css()}</style>"),
        Markup('<link rel="stylesheet" href="/static/headrace.css">'),
        tag("script", Markup(theme.early_script(chosen)), nonce=nonce_of(request)),
    )
    script = tag("script", Markup(_GATE_SCRIPT), nonce=nonce_of(request))
    body = tag("body.hr-body", tag("main.hr-gate", form), script)
    page = tag("html", tag("head", head), body, lang=texts.language)
    return HTMLResponse(f"<!doctype html>{page}", status, {"Cache-Control": "no-store"})
