"""What the gate shows: plain forms without a script, so that it works whatever the rest does."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse

from headrace.console import theme
from headrace.console.api.guard import nonce_of
from headrace.console.services import THEME_COOKIE
from headrace.console.texts import Texts
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.security.factors import Enrolment


def local(target: str) -> str:
    """A path of our own, or the start page: no open redirect.

    Example:
        >>> local("/trend?x=1"), local("//evil.example"), local("https://evil.example")
        ('/trend?x=1', '/', '/')
    """
    fine = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if fine and target.isprintable() else "/"


def sign_in_page(
    request: Request,
    texts: Texts,
    target: str,
    *,
    alert: str = "",
    notice: str = "",
    name: str = "",
    status: int = 200,
    sso: str = "",
    end: bool = False,
) -> HTMLResponse:
    """Name and password, and the other ways in.

    Args:
        sso: title of the provider, "" for none. end: offer to leave the provider too.
    """
    other = tag(
        "a.hr-btn", icon("users", 16), sso,
        href=f"/sso/start?{urlencode({'next': local(target)})}", data_sso=True,
    ) if sso else None  # fmt: skip
    form = tag(
        "form",
        _brand(),
        tag("p", texts("sign_in.lead")),
        _alert(alert),
        tag(".hr-alert.ok", notice, role="status") if notice else None,
        _leave(texts, sso) if end else None,
        _field(texts("sign_in.name"), "name", "username", value=name, autofocus=not name),
        _field(
            texts("sign_in.password"), "password", "current-password", kind="password",
            autofocus=bool(name),
        ),
        tag("input", type="hidden", name="next", value=local(target)),
        tag("button.hr-btn.primary", texts("sign_in.submit"), type="submit"),
        other,
        tag("p.hr-dim", texts("sign_in.first")),
        _preferences(texts),
        method="post",
        action="/sign-in",
    )  # fmt: skip
    return _page(request, texts, texts("sign_in.title"), form, status)


def code_page(
    request: Request, texts: Texts, target: str, *, alert: str = "", status: int = 200
) -> HTMLResponse:
    """The code of the second factor."""
    form = tag(
        "form",
        _brand(),
        tag("h1", texts("factor.code_title")),
        tag("p", texts("factor.code_lead")),
        _alert(alert),
        _field(texts("factor.code"), "code", "one-time-code", autofocus=True),
        tag("input", type="hidden", name="next", value=local(target)),
        tag("button.hr-btn.primary", texts("factor.go_on"), type="submit"),
        tag("p.hr-dim", texts("factor.code_lost")),
        _preferences(texts),
        method="post",
        action="/sign-in/code",
    )
    return _page(request, texts, texts("factor.code_title"), form, status)


def enrol_page(
    request: Request, texts: Texts, enrolment: Enrolment, *, alert: str = "", must: bool = False
) -> HTMLResponse:
    """The picture to scan, and the field for the first code."""
    picture = tag(
        ".hr-qr", Markup(enrolment.svg), role="img", aria_label=texts("factor.qr"),
        style="background:#fff;border-radius:8px;display:grid;place-items:center",
    )  # fmt: skip
    form = tag(
        "form",
        _brand(),
        tag("h1", texts("factor.enrol_title")),
        tag("p", texts("factor.must_lead" if must else "factor.enrol_lead")),
        _alert(alert),
        picture,
        tag(
            "details",
            tag("summary", texts("factor.no_camera")),
            tag("pre.hr-toml", enrolment.seed, data_seed=True, style="white-space:pre-wrap"),
        ),
        _field(texts("factor.code"), "code", "one-time-code", autofocus=True),
        tag("button.hr-btn.primary", texts("factor.confirm"), type="submit"),
        None if must else tag("a.hr-btn", texts("shell.cancel"), href="/profile"),
        _preferences(texts),
        method="post",
        action="/second-factor",
    )
    return _page(request, texts, texts("factor.enrol_title"), form, 422 if alert else 200)


def recovery_page(request: Request, texts: Texts, codes: list[str]) -> HTMLResponse:
    """The recovery codes, shown only now."""
    body = tag(
        "form",
        _brand(),
        tag("h1", texts("factor.recovery_title")),
        tag("p", texts("factor.recovery_lead")),
        tag("pre.hr-toml", "\n".join(codes), data_recovery=True),
        tag("a.hr-btn.primary", texts("factor.kept"), href="/profile"),
    )
    return _page(request, texts, texts("factor.recovery_title"), body, 200)


def remove_page(
    request: Request, texts: Texts, *, alert: str = "", status: int = 200
) -> HTMLResponse:
    """Password and code again, before the second factor goes."""
    form = tag(
        "form",
        _brand(),
        tag("h1", texts("factor.remove_title")),
        tag("p", texts("factor.remove_lead")),
        _alert(alert),
        _field(
            texts("sign_in.password"), "password", "current-password", kind="password",
            autofocus=True,
        ),
        _field(texts("factor.code"), "code", "one-time-code"),
        tag("button.hr-btn.danger", texts("factor.remove"), type="submit"),
        tag("a.hr-btn", texts("shell.cancel"), href="/profile"),
        method="post",
        action="/second-factor/remove",
    )  # fmt: skip
    return _page(request, texts, texts("factor.remove_title"), form, status)


def change_page(
    request: Request, texts: Texts, alert: str = "", *, first: bool = True
) -> HTMLResponse:
    """Present and new password. ``first``: the one-time password is to be replaced."""
    form = tag(
        "form",
        _brand(),
        tag("h1", texts("sign_in.change_title")),
        tag("p", texts("sign_in.change_lead" if first else "sign_in.change_own")),
        _alert(alert),
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


def _leave(texts: Texts, sso: str) -> Markup:
    link = tag("a", texts("sign_in.leave", name=sso), href="/sso/end")
    return tag(".hr-alert.ok", texts("sign_in.left"), " ", link, role="status")


def _alert(text: str) -> Markup | None:
    return tag(".hr-alert", text, role="alert") if text else None


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
