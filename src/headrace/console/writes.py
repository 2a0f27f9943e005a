"""A write to a device, for the page and for REST: one way in, decided by the policy before it."""

from __future__ import annotations

import math
from typing import Any

from headrace.console.services import Services
from headrace.console.site_view import TagView
from headrace.model.errors import Misconfigured, Refused
from headrace.security.policy import Actor, require

WRITE_TIMEOUT_S = 15.0


async def write_value(services: Services, actor: Actor, view: TagView, text: str) -> float | str:
    """Ask the edge to write ``text`` as a value of ``view``; gives what was read back.

    Args:
        actor: who writes; recorded by the edge and in the audit chain, before and after.
        text: the value in engineering units, a number where it is one.

    Raises:
        Refused: CONS-1006 when the tag is not writable; what the edge or the policy refuses.
        Misconfigured: CONS-1007 when it is no finite number, or lies outside of the envelope.
    """
    # The door has used the signature or the approval, where one was needed.
    given = {"equipment": view.unit_path, "signed": True, "approved": True}
    require(actor, "write", f"tag/{view.tag_id}", given)
    if not view.writable:
        raise Refused(
            "CONS-1006",
            f"{view.path} is not writable",
            "An engineer sets writable = true and an envelope in the site file.",
        )
    value = _value_of(text, view)
    message = {"tag_id": view.tag_id, "value": value, "actor": actor.name}
    about = (actor.name, "write", f"tag/{view.tag_id}")
    async with services.identity.audit.doing(*about, path=view.path, value=value) as told:
        answer: Any = await services.sources.ask_edge(
            view.edge, "write", message, timeout_s=WRITE_TIMEOUT_S
        )
        read_back = answer.get("value", value) if isinstance(answer, dict) else answer
        told["read_back"] = value if read_back is None else read_back
    return value if read_back is None else read_back


def _value_of(text: str, view: TagView) -> float | str:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        if text and view.write_minimum is None and view.write_maximum is None:
            return text
        raise Misconfigured(
            "CONS-1007", f"{text!r} is no number for {view.path}", "Type a number."
        ) from None
    low = -math.inf if view.write_minimum is None else view.write_minimum
    high = math.inf if view.write_maximum is None else view.write_maximum
    if not math.isfinite(number) or not low <= number <= high:
        raise Misconfigured(
            "CONS-1007", f"{text} for {view.path} lies outside of {low} to {high}", "Stay inside."
        )
    return number
