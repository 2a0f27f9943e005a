"""A replay that starts before its broker waits for it, as a device would."""

from __future__ import annotations

import asyncio

from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.model.folder import DataFolder
from headrace.sim.emulators import Point
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.replay.player import _connect


async def test_a_publisher_waits_for_a_broker_that_comes_late(folder: DataFolder):
    address = prepare_address(folder)
    device = MqttJsonEmulator(
        [Point("replay/x#/a")],
        endpoint=address.mqtt_endpoint,
        username=address.device_user,
        password=address.device_password,
    )
    connecting = asyncio.create_task(_connect(device))
    await asyncio.wait({connecting}, timeout=1.0)
    assert not connecting.done(), "there is no broker yet"
    process = start_broker(folder, address)
    try:
        await asyncio.wait_for(connecting, 20)
        await device.update({"replay/x#/a": 1.0}, 1)
    finally:
        await device.stop()
        stop_broker(process)
