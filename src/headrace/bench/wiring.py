"""How a scenario's tags stand in real devices: what each device shows where, and how the edge reads it. Pure.

The two are kept apart: the edge's side is the site file's (or ``[wire]``), the device's side is what its
manual says. Where they differ, such as in the order of words, the samples that come out are wrong, as in
a plant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import polars as pl

from headrace.bench.ground import Ground
from headrace.bench.laying import load_files
from headrace.bench.scenario import Scenario, Wire
from headrace.edge.connectors.modbus.address import Grammar
from headrace.edge.connectors.modbus.datatype import STRING_BYTES_MAX, DataType
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured
from headrace.sim.emulators import Point, PointType, Value
from headrace.site.file import connection_config, tag_config

SITE: Final = "site"
"""Each connection by its own protocol, at the addresses of the site file."""
FIRST_REGISTER: Final = 20_000
REGISTERS: Final = 1 << 16
# What of a connection's settings says how its device speaks; the others say who may, and how fast.
_KEPT: Final[dict[str, tuple[str, ...]]] = {
    "modbus": (
        "framing", "unit_id", "addressing", "byte_order", "string_encoding", "registers_max",
        "bits_max", "gap_max", "forbidden", "timestamp", "record_sequence", "record_acknowledge",
    ),
    "opcua": ("reading",),
    "mqtt": ("timestamp", "missing_field"),
    "sparkplug": ("host_id",),
}  # fmt: skip
_OURS: Final[dict[str, dict[str, Any]]] = {
    "modbus": {"timeout_s": 10.0},
    "opcua": {"publishing_interval_ms": 10, "queue_size": 1_000, "timeout_s": 20.0},
    "mqtt": {"timestamp": "/ts@us"},
    "sparkplug": {},
}


@dataclass(frozen=True)
class Shown:
    """One tag in its device.

    Attributes:
        tag: as the edge reads it. address: where the device shows it. data_type: as what.
        scale, offset: the device shows ``(value - offset) / scale``.
        register: of Modbus, what its address makes of a number.
    """

    tag: TagConfig
    address: str
    data_type: PointType
    scale: float = 1.0
    offset: float = 0.0
    register: DataType | None = None

    def point(self) -> Point:
        """The point of its emulator."""
        zeros: dict[str, Value] = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}
        return Point(self.address, self.data_type, zeros.get(self.data_type, 0))

    def raw(self, value: float) -> Value:
        """What the device shows for a number; an integer saturates, as a converter does.

        Example:
            >>> tag = TagConfig(tag_id=1, path="a/b/c", address="x", scale=0.1)
            >>> Shown(tag, "x", "int16", scale=0.1).raw(21.5), Shown(tag, "x", "int16").raw(1e9)
            (215, 32767)
        """
        plain = (value - self.offset) / self.scale if self.scale != 1.0 or self.offset else value
        if self.data_type.startswith("float"):
            return plain
        if self.data_type == "bool":
            return bool(plain)
        low, high = _range(self.data_type, self.register)
        return round(min(max(plain if plain == plain else low, low), high))


@dataclass(frozen=True)
class ServedDevice:
    """A device of the scenario: how the edge is connected to it, and what it shows."""

    connection: ConnectionConfig
    shown: tuple[Shown, ...]


def wire_up(ground: Ground, scenario: Scenario) -> list[ServedDevice]:
    """The devices that a scenario's samples come from, by their connections in its site file.

    Raises:
        Misconfigured: APPS-2461 when a tag cannot be shown so; APPS-2462 when the bench has no server for
            the protocol of a connection.
    """
    protocol = scenario.source.protocol
    model = load_files(ground.files)
    texts = _texts(ground.samples)
    tags: dict[str, list[TagConfig]] = {}
    for tag in model.tags:
        if ground.ids[tag.path] in texts:
            tags.setdefault(tag.connection, []).append(tag_config(tag, ground.ids[tag.path]))
    known = {each.path for of in tags.values() for each in of}
    for path in scenario.wire:
        if path not in known:
            raise _unfit(scenario, path, "the scenario has no samples of it")
    devices = []
    for connection in sorted(model.connections, key=lambda each: each.name):
        own = tags.get(connection.name, [])
        spoken = connection.protocol if protocol == SITE else protocol
        if own and spoken not in _KEPT:
            raise Misconfigured(
                "APPS-2462",
                f"the bench cannot be a device of connection {connection.name}: it speaks {spoken}",
                f"Name a protocol that it can be: {', '.join(_KEPT)}.",
            )
        if own:
            made = connection_config(connection)
            devices.append(_device(made, spoken, own, ground, scenario, texts))
    return devices


def _texts(samples: pl.DataFrame) -> dict[int, int]:
    """tag_id -> bytes of its longest text, 0 where it has numbers; of all tags that have samples."""
    is_text = pl.col("text").is_not_null() & pl.col("value").is_null()
    length = pl.when(is_text).then(pl.col("text").str.len_bytes()).otherwise(0).max()
    rows = samples.group_by("tag_id").agg(length.alias("length"))
    return dict(zip(rows["tag_id"].to_list(), rows["length"].to_list(), strict=True))


def _device(
    connection: ConnectionConfig,
    protocol: str,
    tags: Sequence[TagConfig],
    ground: Ground,
    scenario: Scenario,
    texts: Mapping[int, int],
) -> ServedDevice:
    as_site = scenario.source.protocol == SITE
    told = {n: v for n, v in connection.options.items() if as_site and n in _KEPT[protocol]}
    options = {**({} if as_site and protocol == "mqtt" else _OURS[protocol]), **told}
    shown, register = [], FIRST_REGISTER
    for tag in sorted(tags, key=lambda each: each.tag_id):
        length = texts[tag.tag_id]
        if not as_site:
            address, register = _address(connection.name, protocol, tag, length, register)
            tag = msgspec.structs.replace(tag, address=address, scale=1.0, offset=0.0)
        if tag.sample_interval_us:
            raise _unfit(scenario, tag.path, "it is a waveform, which has many values at once")
        if length > STRING_BYTES_MAX and protocol == "modbus":
            raise _unfit(scenario, tag.path, f"a text of {length} bytes is too long for Modbus")
        kind = ground.kinds.get(tag.path, "float64") if as_site else "float64"
        wire = scenario.wire.get(tag.path, Wire())
        shown.append(_shown(tag, wire, "string" if length else kind, protocol, options))
    if register > REGISTERS:
        raise _unfit(scenario, tags[-1].path, "a Modbus device has no register left for it")
    whole = ConnectionConfig(
        name=connection.name,
        protocol=protocol,
        endpoint="",
        options=options,
        tags=tuple(each.tag for each in shown),
    )
    return ServedDevice(whole, tuple(shown))


def _shown(
    tag: TagConfig, wire: Wire, kind: PointType, protocol: str, options: Mapping[str, Any]
) -> Shown:
    """A tag with what ``[wire]`` says of both sides."""
    given = {"address": wire.address or None, "scale": wire.scale, "offset": wire.offset}
    given["deadband"] = wire.deadband
    tag = msgspec.structs.replace(tag, **{n: v for n, v in given.items() if v is not None})
    address = wire.shown or tag.address
    register = None
    if protocol == "modbus":
        grammar = Grammar(
            options.get("addressing", "zero_based"),
            options.get("unit_id", 1),
            options.get("byte_order", "ABCD"),
        )
        register = grammar.parse(address).data_type
        kind = _kind(register)
    return Shown(
        tag,
        address,
        kind,
        tag.scale if wire.shown_scale is None else wire.shown_scale,
        tag.offset if wire.shown_offset is None else wire.shown_offset,
        register,
    )


def _address(
    connection: str, protocol: str, tag: TagConfig, length: int, register: int
) -> tuple[str, int]:
    """Where a tag stands in a device of ours, and the next free register."""
    if protocol == "modbus":
        count = max(1, (length + 1) // 2) if length else 4
        kind = f"string{2 * count}" if length else "float64:CDAB"
        return f"holding:{register}:{kind}", register + count
    if protocol == "opcua":
        return f"ns=2;s={tag.path.replace('/', '.')}", register
    if protocol == "mqtt":
        return f"bench/{tag.path}#/value", register
    return f"bench/{connection}#{tag.path}", register


def _kind(register: DataType) -> PointType:
    """What a point of a Modbus device is; its address says the rest."""
    if register.kind in ("coil", "bit"):
        return "bool"
    if register.kind in ("float", "string"):
        return "float64" if register.kind == "float" else "string"
    return "int64" if register.kind == "int" else "uint64"


def _range(kind: PointType, register: DataType | None) -> tuple[int, int]:
    if register is not None and register.kind == "bcd":
        return 0, 10 ** (2 * register.size) - 1
    bits = 8 * register.size if register is not None else int(kind.lstrip("uint"))
    signed = kind.startswith("int")
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _unfit(scenario: Scenario, path: str, what: str) -> Misconfigured:
    return Misconfigured(
        "APPS-2461",
        f"scenario {scenario.name} cannot show {path} by {scenario.source.protocol}: {what}",
        "Correct the scenario's [wire], or take another source.protocol.",
    )
