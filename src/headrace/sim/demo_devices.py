"""The demo site: which quantity of the plant is shown by which device, and at which address.

::

    cnc_1, cnc_2, cnc_3   OPC UA servers
    pumping_plc           Modbus: float32 CDAB, uint32 CDAB, float64, bits
    compressor_plc        Modbus: scaled int16, uint32 CDAB, string, status word, coils
    cooling_plc           Modbus: float32 DCBA and BADC, BCD, scaled int16, string
    hall_sensors          MQTT, plain JSON, through the platform's own listener
    hall_gateway          MQTT, Sparkplug B, through the platform's own listener
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from headrace.sim.emulators import Point, PointType, Value
from headrace.sim.plant.plant import (
    SAMPLE_INTERVAL_US,
    WAVEFORM_COUNT,
    WAVEFORM_PATH,
    WAVEFORM_UNIT,
    Plant,
    Unit,
)
from headrace.sim.plant.quantity import Quantity

ENTERPRISE: Final = "acme"
SITE: Final = "mill"
SPARKPLUG_NODE: Final = f"{SITE}/hall_gateway"
WAVEFORM_GROUP: Final = "waveforms"
_UA_FOLDERS: Final = (
    "spindle",
    "axis_x",
    "axis_y",
    "axis_z",
    "program",
    "tool",
    "coolant",
)


@dataclass(frozen=True)
class DemoTag:
    """One tag of the demo site and the point of its device.

    Attributes:
        path: tag path, the same as in :meth:`Plant.step`. address: in the connector's grammar.
        quantity: what it is. data_type: as the device shows it.
        scale: the device shows ``value / scale``.
        scan_interval_ms, sample_interval_us, group: as in a site file.
    """

    path: str
    address: str
    quantity: Quantity
    data_type: PointType
    scale: float = 1.0
    scan_interval_ms: int = 1000
    sample_interval_us: int = 0
    group: str = ""

    @property
    def writable(self) -> bool:
        return self.quantity.kind == "setting"

    def raw(self, value: Value) -> Value:
        """What the device shows for a value of the plant."""
        if isinstance(value, str | bool) or self.data_type in ("float32", "float64"):
            return value
        bits = int(self.data_type.removeprefix("u").removeprefix("int"))
        unsigned = self.data_type.startswith("u")
        low = 0 if unsigned else -(1 << (bits - 1))
        # A converter saturates at the end of its range; it does not wrap.
        return min(max(round(value / self.scale), low), low + (1 << bits) - 1)

    def value(self, raw: Value) -> Value:
        """What a raw value that a client wrote means for the plant."""
        return raw if isinstance(raw, str) else raw * self.scale

    def point(self) -> Point:
        """The point of its emulator."""
        initial: Value | Sequence[float] = "" if self.data_type == "string" else 0
        if self.sample_interval_us:
            initial = [0.0] * WAVEFORM_COUNT
        elif self.data_type == "bool":
            initial = False
        elif self.data_type in ("float32", "float64"):
            initial = 0.0
        return Point(self.address, self.data_type, initial, self.quantity.unit, self.writable)


@dataclass(frozen=True)
class DemoDevice:
    """One device of the demo site.

    Attributes:
        name: of the device, its connection and its port.
        protocol: ``opcua``, ``modbus``, ``mqtt`` or ``sparkplug``.
        tags: what it shows. options: of the connection in the site file.
    """

    name: str
    protocol: str
    tags: tuple[DemoTag, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def has_port(self) -> bool:
        """Whether it listens itself; the others are clients of the broker."""
        return self.protocol in ("opcua", "modbus")

    @cached_property
    def by_address(self) -> dict[str, DemoTag]:
        return {tag.address: tag for tag in self.tags}

    def endpoint(self, port: int) -> str:
        """What stands in the site file."""
        if self.protocol == "opcua":
            return f"opc.tcp://127.0.0.1:{port}"
        return f"127.0.0.1:{port}" if self.protocol == "modbus" else "broker"


def demo_devices(plant: Plant) -> tuple[DemoDevice, ...]:
    """All devices of the demo site.

    Example:
        >>> [device.name for device in demo_devices(Plant(1))][:4]
        ['cnc_1', 'cnc_2', 'cnc_3', 'pumping_plc']
    """
    units = {unit.name: unit for unit in plant.units}
    hall = [unit for unit in plant.units if unit.path.startswith("environment/")]
    gateway = [unit for unit in hall if unit.name.rsplit("_", 1)[1] in ("1", "2")]
    radio = [unit for unit in hall if unit not in gateway]
    return (
        *(
            DemoDevice(name, "opcua", tuple(_opcua_tags(units[name])))
            for name in ("cnc_1", "cnc_2", "cnc_3")
        ),
        DemoDevice(
            "pumping_plc",
            "modbus",
            tuple(_modbus_tags((units["pump_1"], units["pump_2"]), _pump_type)),
            # The pumps' inputs lie 100 apart, and the device has nothing in between.
            {"unit_id": 1, "bits_max": 64},
        ),
        DemoDevice(
            "compressor_plc",
            "modbus",
            tuple(_modbus_tags((units["compressor_1"],), _compressor_type)),
            {"unit_id": 1},
        ),
        DemoDevice(
            "cooling_plc",
            "modbus",
            tuple(_modbus_tags((units["loop_1"],), _cooling_type)),
            {"unit_id": 1},
        ),
        DemoDevice("hall_sensors", "mqtt", tuple(_json_tags(radio)), {"timestamp": "/ts@ms"}),
        DemoDevice("hall_gateway", "sparkplug", tuple(_sparkplug_tags(gateway))),
    )


def _opcua_tags(unit: Unit) -> list[DemoTag]:
    tags = []
    for quantity in unit.quantities:
        folder = next((f for f in _UA_FOLDERS if quantity.name.startswith(f + "_")), "machine")
        name = quantity.name.removeprefix(folder + "_")
        address = f"ns=2;s={unit.name}.{folder}.{name}"
        tags.append(DemoTag(f"{unit.path}/{quantity.name}", address, quantity, quantity.data_type))
    if WAVEFORM_PATH.startswith(unit.path + "/"):
        waveform = Quantity(
            "spindle_vibration_waveform", WAVEFORM_UNIT, "Spindle acceleration at 1 kHz"
        )
        tags.append(
            DemoTag(
                WAVEFORM_PATH,
                f"ns=2;s={unit.name}.spindle.vibration_waveform",
                waveform,
                "float64",
                scan_interval_ms=100,
                sample_interval_us=SAMPLE_INTERVAL_US,
                group=WAVEFORM_GROUP,
            )
        )
    return tags


@dataclass(frozen=True)
class RegisterType:
    """How a Modbus device shows a quantity.

    Attributes:
        table: ``coil``, ``discrete``, ``input`` or ``holding``; ``status`` is a bit of one input
            register. text: type and order as in an address. data_type: of the point.
        registers: how many it takes. scale: of the tag.
    """

    table: str
    text: str
    data_type: PointType
    registers: int = 1
    scale: float = 1.0


_SETTING: Final = RegisterType("holding", "float32:CDAB", "float32", 2)


def _pump_type(quantity: Quantity) -> RegisterType:
    if quantity.data_type == "bool":
        return RegisterType("discrete", "", "bool")
    if quantity.kind == "setting":
        return _SETTING
    if quantity.name == "starts":
        return RegisterType("input", "uint32:CDAB", "uint32", 2)
    if quantity.name == "active_energy":
        return RegisterType("input", "float64", "float64", 4)
    return RegisterType("input", "float32:CDAB", "float32", 2)


def _compressor_type(quantity: Quantity) -> RegisterType:
    if quantity.name == "running":
        return RegisterType("coil", "", "bool")
    if quantity.data_type == "bool":
        return RegisterType("status", "bit", "bool")
    if quantity.kind == "setting":
        return _SETTING
    if quantity.data_type == "string":
        return RegisterType("holding", "string12", "string", 6)
    if quantity.data_type == "uint32":
        return RegisterType("input", "uint32:CDAB", "uint32", 2)
    if quantity.kind == "counter":
        return RegisterType("input", "float32", "float32", 2)
    if quantity.unit == "bar" or quantity.unit.startswith("m3") or quantity.unit == "mm/s":
        return RegisterType("input", "int16", "int16", 1, 0.001)
    return RegisterType("input", "int16", "int16", 1, 0.01 if quantity.unit == "kW" else 0.1)


def _cooling_type(quantity: Quantity) -> RegisterType:
    if quantity.data_type == "bool":
        return RegisterType("discrete", "", "bool")
    if quantity.kind == "setting":
        return RegisterType("holding", "int16", "int16", 1, 0.5)
    if quantity.data_type == "string":
        return RegisterType("holding", "string8:BADC", "string", 4)
    if quantity.name == "operating_days":
        return RegisterType("holding", "bcd16", "uint16", 1)
    if quantity.data_type == "uint32":
        return RegisterType("holding", "uint32", "uint32", 2)
    if quantity.kind == "counter":
        return RegisterType("input", "float64:DCBA", "float64", 4)
    if quantity.unit == "kW":
        return RegisterType("input", "float32:BADC", "float32", 2)
    return RegisterType("input", "float32:DCBA", "float32", 2)


def _modbus_tags(
    units: Sequence[Unit], type_of: Callable[[Quantity], RegisterType]
) -> list[DemoTag]:
    """Tags at consecutive registers; each unit begins at a round number, as PLC programmers do."""
    tags = []
    for index, unit in enumerate(units):
        free = dict.fromkeys(("coil", "discrete", "input", "holding"), 100 * index)
        free["input"] += 1  # register 0 of the block is the status word
        bit = 0
        for quantity in unit.quantities:
            shown = type_of(quantity)
            if shown.table == "status":
                address = f"input:{100 * index}:bit{bit}"
                bit += 1
            else:
                text = f":{shown.text}" if shown.text else ""
                address = f"{shown.table}:{free[shown.table]}{text}"
                free[shown.table] += shown.registers
            path = f"{unit.path}/{quantity.name}"
            tags.append(DemoTag(path, address, quantity, shown.data_type, shown.scale))
    return tags


def _json_tags(units: Sequence[Unit]) -> list[DemoTag]:
    return [
        DemoTag(
            f"{unit.path}/{quantity.name}",
            f"hall_a/{unit.name}#/{quantity.name}",
            quantity,
            quantity.data_type,
        )
        for unit in units
        for quantity in unit.quantities
    ]


def _sparkplug_tags(units: Sequence[Unit]) -> list[DemoTag]:
    return [
        DemoTag(
            f"{unit.path}/{quantity.name}",
            f"{SPARKPLUG_NODE}/{unit.name}#{quantity.name}",
            quantity,
            quantity.data_type,
        )
        for unit in units
        for quantity in unit.quantities
    ]
