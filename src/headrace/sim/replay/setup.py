"""Puts a replay together: recording, layout, emulator and flow for one protocol."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.model.errors import Misconfigured
from headrace.model.time import Clock
from headrace.sim.emulators import Emulator
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator
from headrace.sim.replay.layout import (
    JSON_TIMESTAMP,
    MODBUS_ACKNOWLEDGE,
    MODBUS_SEQUENCE,
    MODBUS_TIMESTAMP,
    Layout,
    site_part,
)
from headrace.sim.replay.loader import Recording
from headrace.sim.replay.player import (
    Flow,
    JsonFlow,
    ModbusFlow,
    OpcUaFlow,
    Player,
    SparkplugFlow,
    load_position,
)

SCAN_INTERVAL_MS: Final = 10
HISTORY_S: Final = 15.0


@dataclass(frozen=True)
class Endpoint:
    """Where a replay is served.

    Attributes:
        url: to listen on (opcua, modbus) or of the broker (mqtt, sparkplug).
        shown: what stands in the site file for it.
        username, password: at the broker.
    """

    url: str
    shown: str
    username: str = ""
    password: str = ""


@dataclass(frozen=True)
class Replay:
    """A replay that is ready to run.

    Attributes:
        player: runs it. emulator: what it is shown by; its owner stops it.
        site_part: TOML of the connection and its tags.
    """

    player: Player
    emulator: Emulator
    site_part: str


def make_replay(
    recording: Recording,
    layout: Layout,
    endpoint: Endpoint,
    clock: Clock,
    *,
    speed: float = 1.0,
    position_file: Path | None = None,
) -> Replay:
    """Put a replay together; nothing is opened yet.

    Args:
        recording: what is replayed. layout: where its columns stand.
        endpoint: where. clock: for the pace. speed: times real time, 0 as fast as it is taken.
        position_file: where it keeps how far it came; it goes on from there.

    Raises:
        Misconfigured: SIM-1120 when the position belongs to another replay; SIM-1121 for a speed
            below 0.
    """
    if speed < 0:
        raise Misconfigured(
            "SIM-1121", f"the speed cannot be {speed:g}", "Use 0 for as fast as it is taken."
        )
    first = load_position(position_file, recording, layout.protocol) if position_file else 0
    emulator, flow = _make_flow(recording, layout, endpoint)
    player = Player(
        recording, layout, flow, clock, speed=speed, first_row=first, position_file=position_file
    )
    return Replay(player, emulator, site_part(layout, endpoint.shown, SCAN_INTERVAL_MS))


def _make_flow(recording: Recording, layout: Layout, endpoint: Endpoint) -> tuple[Emulator, Flow]:
    points = layout.points()
    if layout.protocol == "modbus":
        modbus = ModbusEmulator(
            points,
            endpoint=endpoint.url,
            timestamp=MODBUS_TIMESTAMP,
            record_sequence=MODBUS_SEQUENCE,
            record_acknowledge=MODBUS_ACKNOWLEDGE,
        )
        return modbus, ModbusFlow(modbus)
    if layout.protocol == "opcua":
        opcua = OpcUaEmulator(points, endpoint=endpoint.url, history=True)
        return opcua, OpcUaFlow(opcua, recording, layout)
    identity = re.sub(r"[^A-Za-z0-9_-]", "_", layout.connection)
    if layout.protocol == "mqtt":
        json = MqttJsonEmulator(
            points,
            endpoint=endpoint.url,
            username=endpoint.username,
            password=endpoint.password,
            timestamp=JSON_TIMESTAMP,
            whole_object=False,
            client_id=identity,
            connection_endpoint=endpoint.shown,
        )
        return json, JsonFlow(json)
    sparkplug = SparkplugEmulator(
        points,
        endpoint=endpoint.url,
        username=endpoint.username,
        password=endpoint.password,
        primary_host_id=layout.options["host_id"],
        history_s=HISTORY_S,
        birth="first_update",
        connection_endpoint=endpoint.shown,
    )
    return sparkplug, SparkplugFlow(sparkplug, HISTORY_S)
