"""Operations requests as the console sends them: for a work request that was accepted, or by themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.bus.orders import SHOWN_MAX, recent_orders, send_order
from headrace.console.app_records import KeptRecord
from headrace.console.scope import may_see
from headrace.console.services import Services
from headrace.model.errors import Misconfigured, Refused
from headrace.model.operations_request import OperationsRequest, OperationsType
from headrace.model.time import SystemClock
from headrace.security.policy import Actor

PRIORITIES = {"high": 1, "medium": 5, "low": 8}
Require = Callable[[str, Mapping[str, Any]], Actor]


class WantedOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants to be done; see :class:`headrace.model.operations_request.OperationsRequest`.

    Attributes:
        id: empty: one is made, of the work request or of what is wanted and when.
        work_request: id of an accepted one: what is not said here is taken of it.
    """

    id: str = ""
    operations_type: OperationsType = "maintenance"
    description: str = ""
    equipment: str = ""
    operations_definition_id: str = ""
    priority: int | None = None
    start_us: int = 0
    end_us: int = 0
    parameters: dict[str, float | str | bool] = {}
    work_request: str = ""


async def send(services: Services, wanted: WantedOrder, require: Require) -> OperationsRequest:
    """Send a request, when the policy lets the actor operate its equipment; it stands in the audit chain.

    Args:
        require: asks the policy to operate a resource, with facts; gives who asks.

    Raises:
        Misconfigured: APPS-2285 when a field is wrong, CONS-2311 when there is no such work request.
        Refused: APPS-2286 when it was sent before, APPS-2287 when the work request is not accepted.
        HeadraceError: what the policy and the broker refuse.
    """
    record = (
        await services.sources.records.one(wanted.work_request) if wanted.work_request else None
    )
    order = _filled(wanted, record)
    order.check()
    actor = require(f"operations_request/{order.id}", {"equipment": order.equipment})
    if order.equipment and not services.site(actor).below(order.equipment):
        raise Misconfigured(
            "APPS-2285",
            f"the operations request is wrong in equipment {order.equipment!r}: there is none",
            "Correct that field.",
        )
    if record is not None and record.state != "accepted":
        raise Refused(
            "APPS-2287",
            f"the work request {record.text('title') or record.id!r} is {record.state}",
            "Accept it first.",
        )
    order = msgspec.structs.replace(order, asked_by=actor.name)
    told = {"type": order.operations_type, "equipment": order.equipment}
    about = (actor.name, "order", f"operations_request/{order.id}")
    async with services.identity.audit.doing(*about, **told):
        await send_order(services.sources.bus, services.sources.subjects, order)
    return order


async def seen(services: Services, actor: Actor, limit: int = 100) -> list[OperationsRequest]:
    """The newest requests for equipment that the actor may see, newest first."""
    found = await recent_orders(services.sources.bus, SHOWN_MAX)
    return [each for each in found if may_see(actor, each.equipment)][:limit]


def order_id(record: KeptRecord) -> str:
    """The id of the request that a work request leads to: there is one at most."""
    return f"wr-{hashlib.sha256(record.id.encode()).hexdigest()[:24]}"


def _filled(wanted: WantedOrder, record: KeptRecord | None) -> OperationsRequest:
    now_us = SystemClock().now_us()
    told = msgspec.to_builtins(wanted)
    told["at_us"] = now_us
    if record is not None:
        told["id"] = order_id(record)
        told["description"] = wanted.description or record.text("title")
        told["equipment"] = record.asset
        if wanted.priority is None:
            told["priority"] = PRIORITIES.get(record.text("priority"), 5)
    if told["priority"] is None:
        told["priority"] = 5
    if not told["id"]:
        made = hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:24]
        told["id"] = f"or-{made}"
    try:
        return msgspec.convert(told, OperationsRequest)
    except msgspec.ValidationError as error:
        raise Misconfigured(
            "APPS-2285", f"the operations request is wrong: {error}", "Correct that field."
        ) from error
