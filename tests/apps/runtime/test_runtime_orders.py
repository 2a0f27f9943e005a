"""Operations requests through a real broker: kept, one an id, told once to each app that asked for them."""

from __future__ import annotations

import asyncio
import os
import signal
from types import ModuleType

import pytest
from runtime_apps import manifest
from site_runtime import SUBJECTS, WAIT_S, runtime, site

from headrace import app
from headrace.app.hooks import hooks_of
from headrace.apps.runtime.executor import check_hooks
from headrace.bus.orders import recent_orders, send_order
from headrace.model.app_manifest import Permissions
from headrace.model.errors import Misconfigured, Refused
from headrace.model.operations_request import OperationsRequest

HEARS = """
from headrace import app

@app.on_order
def order(order, context):
    context.state["n"] = context.state.get("n", 0) + 1
    context.value(app.ValueEntry(asset="south/p1", kind=f"{order.id} {order.body['description']}",
                                 hours=context.state["n"]))

@app.on_schedule("1 s")
def tick(context):
    context.state["n"] = context.state.get("n", 0) + 1
"""
MAY_HEAR = "[permissions]\norders = true\n"


def order(order_id: str, equipment: str = "south/p1", **more: object) -> OperationsRequest:
    told = {"operations_type": "maintenance", "description": "clean", "at_us": 5, **more}
    return OperationsRequest(id=order_id, equipment=equipment, **told)


@pytest.fixture
async def plant(folder, broker):
    async with site(folder, broker) as made:
        yield made


async def told(plant, word: str, count: int) -> list[str]:
    """What an app heard, once it is so much."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = [
                each.record["body"]["kind"] for each in await plant.events(word) if each.record
            ]
            if len(found) >= count:
                return found


async def test_an_order_is_told_once_to_each_app_that_asked(plant):
    """Two hear; one was not there yet when the first was sent; one is killed; orders of other equipment and
    what is no order pass by."""
    await send_order(plant.bus, SUBJECTS, order("before"))
    async with runtime(plant):
        await plant.install(HEARS, MAY_HEAR, "hears-one")
        state = await plant.state(lambda s: s.position_us > 0, "hears_one")
        await plant.bus.stream.publish(SUBJECTS.order("noise"), b"no order")
        await send_order(plant.bus, SUBJECTS, order("far", "north/p2"))
        await send_order(plant.bus, SUBJECTS, order("r-1", parameters={"speed": 3.5}))
        assert await told(plant, "hears_one", 1) == ["r-1 clean"]
        await plant.install(HEARS, MAY_HEAR, "hears-two")
        await plant.state(lambda s: s.position_us > 0, "hears_two")
        os.kill(state.pid, signal.SIGKILL)
        await send_order(plant.bus, SUBJECTS, order("r-2", "", description="stop"))
        await plant.state(
            lambda s: s.pid not in (0, state.pid) and s.samples == 0 and s.position_us > 0,
            "hears_one",
        )
        await send_order(plant.bus, SUBJECTS, order("r-3", "south"))
        two, three = "r-2 stop", "r-3 clean"
        assert await told(plant, "hears_one", 3) == ["r-1 clean", two, three]
        assert await told(plant, "hears_two", 2) == [two, three]


async def test_an_id_is_sent_once_and_what_is_wrong_is_not_sent(bus):
    """The stream itself refuses the second one, however much later."""
    await send_order(bus, SUBJECTS, order("r-1"))
    with pytest.raises(Refused, match=r"r-1.*one with this id") as said:
        await send_order(bus, SUBJECTS, order("r-1", description="another"))
    assert said.value.code == "APPS-2286"
    for wrong in (
        order("r 2"),
        order("r-2", "a//b"),
        order("r-2", start_us=5, end_us=3),
        order("r-2", description=" "),
        order("r-2", parameters={"x": "y" * 70_000}),
    ):
        with pytest.raises(Misconfigured) as refused:
            await send_order(bus, SUBJECTS, wrong)
        assert refused.value.code == "APPS-2285"
    await send_order(bus, SUBJECTS, order("r-2"))
    assert [each.id for each in await recent_orders(bus)] == ["r-2", "r-1"]
    assert [each.id for each in await recent_orders(bus, 1)] == ["r-2"]


def test_an_app_that_hears_orders_asks_for_it_in_its_manifest():
    """Else people would not see it before they install."""
    module = ModuleType("m")
    module.order = app.on_order(lambda order, context: None)
    with pytest.raises(Misconfigured, match="orders = true"):
        check_hooks(manifest(services=[]), hooks_of(module))
    check_hooks(manifest(services=[], permissions=Permissions(orders=True)), hooks_of(module))
