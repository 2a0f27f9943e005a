"""The dialogs of dangerous actions: sign (showing again who one is), or ask a second person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from nicegui import ui

from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_done, show_error
from headrace.console.services import session_cookie
from headrace.console.widgets.markup import tag
from headrace.model.errors import HeadraceError
from headrace.security.policy import Needed
from headrace.security.signatures import MEANINGS

T = TypeVar("T")


async def allowed(visit: Visit, ask: Callable[[str], T]) -> T | None:
    """What ``ask`` gives, with a signature when the policy needs one; None when it was not given, or
    another person was asked.

    Args:
        ask: asks the policy, with the id of a signature or "".

    Raises:
        Refused: as the policy says.
    """
    try:
        return ask("")
    except Needed as needed:
        if needed.needs == "second_factor":
            raise
        release = await _open(visit, needed)
    return ask(release) if release else None


async def _open(visit: Visit, needed: Needed) -> str:
    """The dialog; gives a signature's id, or "" when there is none."""
    texts, signs = visit.texts, needed.needs == "signature"
    way = await asyncio.to_thread(visit.services.identity.signing_way, visit.actor.name)
    with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
        html(texts("signing.sign" if signs else "signing.ask"), tag_name="h2")
        html(texts("signing.sign_what" if signs else "signing.ask_what")).classes("hr-dim")
        facts = ", ".join(f"{name} {value}" for name, value in needed.facts.items())
        html(tag("b", f"{needed.action} · {needed.resource}"), tag_name="div")
        html(tag("span.hr-dim", facts))
        choices = {name: texts(f"signing.{name}") for name in MEANINGS}
        meaning = ui.select(choices, value="responsibility", label=texts("signing.meaning"))
        meaning.props("outlined dense options-dense").classes("full-width")
        meaning.set_visibility(signs)
        reason = ui.input(texts("signing.reason")).props("outlined dense autofocus maxlength=500")
        reason.classes("full-width")
        secret = ui.input(texts("sign_in.password"), password=True).props("outlined dense")
        secret.classes("full-width").set_visibility(signs and way != "provider")
        code = ui.input(texts("signing.code")).props(
            "outlined dense maxlength=64 autocomplete=one-time-code"
        )
        code.classes("full-width").set_visibility(signs and way == "code")
        if signs and way == "provider":
            link = ui.link(texts("signing.provider"), "/sso/start?again=1&next=/profile", True)
            link.classes("hr-sign-again")

        async def give() -> None:
            typed = (str(field.value or "") for field in (meaning, reason, secret, code))
            try:
                release = await asyncio.to_thread(_give, visit, needed, *typed)
            except HeadraceError as error:
                show_error(visit, error)
                return
            dialog.submit(release)

        with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
            button(texts("shell.cancel"), dialog.close)
            button(texts("signing.do" if signs else "signing.ask_do"), give, "primary")
    release = await dialog
    if release and not signs:
        show_done(texts("signing.asked"))
    return str(release or "") if signs else ""


def _give(visit: Visit, needed: Needed, meaning: str, reason: str, password: str, code: str) -> str:
    """Keep the signature, or the request of approval; gives its id."""
    identity = visit.services.identity
    what = (visit.actor.name, needed.action, needed.resource, needed.facts)
    if needed.needs == "second_person":
        return identity.releases.ask(*what, reason)
    address = visit.request.client.host if visit.request.client else "unknown"
    session = visit.request.cookies.get(session_cookie(visit.request), "")
    identity.confirm(visit.actor.name, password, address, code=code, session=session)
    return identity.releases.sign(*what, meaning, reason)
