"""Where a recording's columns stand in a device, and the part of a site file that reads them there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from headrace.model.errors import Misconfigured
from headrace.model.ids import check_path
from headrace.sim.emulators import Point, Value
from headrace.sim.replay.loader import TIME, Column, Recording

Protocol = Literal["opcua", "modbus", "mqtt", "sparkplug"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("opcua", "modbus", "mqtt", "sparkplug")
MODBUS_TIMESTAMP: Final = "holding:0:uint64@us"
MODBUS_SEQUENCE: Final = "holding:4:uint32"
MODBUS_ACKNOWLEDGE: Final = "holding:6:uint32"
MODBUS_FIRST: Final = 8
MODBUS_REGISTERS_MAX: Final = 125
JSON_TIMESTAMP: Final = "/ts@us"


@dataclass(frozen=True)
class ReplayTag:
    """One tag of a replay.

    Attributes:
        path: tag path. address: in the connector's grammar. key: device token; "" without keys.
        column: of the recording.
    """

    path: str
    address: str
    key: str
    column: Column

    def point(self) -> Point:
        """The point of the emulator."""
        zeros: dict[str, Value] = {"string": "", "bool": False, "int64": 0}
        initial = zeros.get(self.column.data_type, 0.0)
        return Point(self.address, self.column.data_type, initial)


@dataclass(frozen=True)
class Layout:
    """All tags of a replay and their connection.

    Attributes:
        connection: its name in the site file. protocol: of it.
        tags: one a key and column. options: of the connection.
    """

    connection: str
    protocol: Protocol
    tags: tuple[ReplayTag, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def addresses(self, key: str) -> list[tuple[str, str]]:
        """(column name, address) of one device's tags."""
        return [(tag.column.name, tag.address) for tag in self.tags if tag.key == key]

    def points(self) -> list[Point]:
        return [tag.point() for tag in self.tags]


def make_layout(recording: Recording, protocol: Protocol, prefix: str = "") -> Layout:
    """Give every column (of every key) a tag path and an address.

    Args:
        recording: what is replayed. protocol: of the server.
        prefix: path above the tags; "" is ``replay/<recording>``.

    Raises:
        Misconfigured: SIM-1110 when the recording does not fit the protocol; nothing is cut off.
    """
    above = prefix or f"replay/{recording.name}"
    keys = [""] if recording.keys is None else recording.keys.unique(maintain_order=True).to_list()
    check_path(f"{above}/x", "the replay's prefix")
    if protocol == "modbus":
        if len(keys) > 1:
            raise _unfit(
                f"Modbus shows one record at a time, and the recording has {len(keys)} devices",
                "Leave out --key-column, or replay as sparkplug, mqtt or opcua.",
            )
        return _modbus(recording, above, keys[0])
    if protocol == "sparkplug" and _has_microseconds(recording.frame):
        raise _unfit(
            "Sparkplug B tells times in milliseconds, and the recording has finer ones",
            "Replay it as opcua, modbus or mqtt.",
        )
    tags = [
        ReplayTag(
            f"{above}/{key}/{column.token}" if key else f"{above}/{column.token}",
            _address(protocol, recording.name, key, column.token),
            key,
            column,
        )
        for key in keys
        for column in recording.columns
    ]
    options: dict[str, Any] = {"timestamp": JSON_TIMESTAMP} if protocol == "mqtt" else {}
    if protocol == "sparkplug":
        options = {"host_id": f"host_of_{recording.name}"}
    if protocol == "opcua":
        options = {"publishing_interval_ms": 100, "queue_size": 10_000, "history_resume": True}
    return Layout(f"{protocol}_{recording.name}"[:64], protocol, tuple(tags), options)


def _unfit(what: str, remedy: str) -> Misconfigured:
    return Misconfigured("SIM-1110", what, remedy)


def _has_microseconds(frame: pl.DataFrame) -> bool:
    return bool((frame[TIME].dt.microsecond() % 1000 != 0).any())


def _address(protocol: Protocol, name: str, key: str, token: str) -> str:
    if protocol == "opcua":
        return f"ns=2;s={name}.{key}.{token}" if key else f"ns=2;s={name}.{token}"
    where = f"replay/{name}/{key}" if key else f"replay/{name}"
    return f"{where}#/{token}" if protocol == "mqtt" else f"{where}#{token}"


def _modbus(recording: Recording, above: str, key: str) -> Layout:
    register, tags = MODBUS_FIRST, []
    for column in recording.columns:
        text, registers = {
            "float64": ("float64", 4),
            "int64": ("int64", 4),
            "bool": ("bit0", 1),
            "string": ("", 0),
        }[column.data_type]
        if column.data_type == "string":
            longest = recording.frame[column.name].str.len_bytes().max()
            registers = max(1, (int(str(longest or 0)) + 1) // 2)
            text = f"string{2 * registers}"
        address = f"holding:{register}:{text}"
        tags.append(ReplayTag(f"{above}/{column.token}", address, key, column))
        register += registers
    if register > MODBUS_REGISTERS_MAX:
        raise _unfit(
            f"a record takes {register} registers, and one Modbus read takes"
            f" {MODBUS_REGISTERS_MAX}",
            "Take fewer columns with --columns, or replay as opcua, mqtt or sparkplug.",
        )
    options = {
        "unit_id": 1,
        "timestamp": MODBUS_TIMESTAMP,
        "record_sequence": MODBUS_SEQUENCE,
        "record_acknowledge": MODBUS_ACKNOWLEDGE,
    }
    return Layout(f"modbus_{recording.name}"[:64], "modbus", tuple(tags), options)


def site_part(layout: Layout, endpoint: str, scan_interval_ms: int) -> str:
    """The TOML of the connection and its tags, to be put into a site file.

    Args:
        layout: of the replay. endpoint: of the emulator.
        scan_interval_ms: poll period or sampling interval.
    """
    inner = ", ".join(f"{key} = {_literal(value)}" for key, value in layout.options.items())
    parts = [
        f"[connection.{layout.connection}]",
        f'protocol = "{layout.protocol}"',
        f'endpoint = "{endpoint}"',
        *([f"options = {{ {inner} }}"] if inner else []),
    ]
    for tag in layout.tags:
        parts += [
            "",
            "[[tag]]",
            f"path = {_literal(tag.path)}",
            f"connection = {_literal(layout.connection)}",
            f"address = {_literal(tag.address)}",
            f"scan_interval_ms = {scan_interval_ms}",
            f"description = {_literal(tag.column.name)}",
        ]
    return "\n".join(parts) + "\n"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def row_values(addresses: Sequence[tuple[str, str]], row: dict[str, Any]) -> dict[str, Value]:
    """address -> value of what a row has; empty fields have none."""
    return {address: row[name] for name, address in addresses if row[name] is not None}
