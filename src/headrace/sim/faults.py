"""Faults of the simulated site: what can go wrong, where, and how it acts.

Three kinds: a fault of a machine acts through the plant's physics; a fault of a sensor changes what
the sensor shows; a fault of a device acts on the protocol server itself (:class:`Device`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from headrace.model.errors import Misconfigured, Refused
from headrace.sim.emulators import Value
from headrace.sim.plant.plant import Plant

US_PER_S: Final = 1_000_000


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A number that a fault takes.

    Attributes:
        default, minimum, maximum: in ``unit``. title: for people, ``en`` and ``zh``.
    """

    default: float
    minimum: float
    maximum: float
    unit: str
    title: dict[str, str]


class FaultKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of fault.

    Attributes:
        name: how it is called by.
        acts_on: ``machine`` (physics), ``sensor`` (what is shown) or ``device`` (the server).
        title, explanation: for people, ``en`` and ``zh``.
        parameters: name -> what it takes.
    """

    name: str
    acts_on: Literal["machine", "sensor", "device"]
    title: dict[str, str]
    explanation: dict[str, str]
    parameters: dict[str, Parameter] = {}


class Device(Protocol):
    """What a device fault acts on; :mod:`headrace.sim.role` has them."""

    def set_off(self, off: bool) -> None:
        """Take the device's power away, or give it back."""
        ...

    def set_delay(self, delay_s: float) -> None:
        """Every answer waits that long."""
        ...

    def set_clock_offset(self, offset_us: int) -> None:
        """Its clock goes wrong by that much."""
        ...


def _parameter(
    default: float, minimum: float, maximum: float, unit: str, en: str, zh: str
) -> Parameter:
    return Parameter(
        default=default, minimum=minimum, maximum=maximum, unit=unit, title={"en": en, "zh": zh}
    )


KINDS: Final[dict[str, FaultKind]] = {
    kind.name: kind
    for kind in (
        FaultKind(
            name="bearing_wear",
            acts_on="machine",
            title={"en": "Bearing wear", "zh": "轴承磨损"},
            explanation={
                "en": "A bearing wears out: vibration rises at once, its temperature and power follow."
                " On cnc_1 the outer-race frequency grows in the spindle's waveform.",
                "zh": "轴承逐渐磨损：振动立即上升，温度和功率随后升高；cnc_1 主轴波形中外圈故障频率增大。",
            },
            parameters={
                "initial": _parameter(0.3, 0.0, 1.0, "1", "Wear at the start", "初始磨损"),
                "rate_per_min": _parameter(0.1, 0.0, 10.0, "1/min", "Growth", "增长速度"),
            },
        ),
        FaultKind(
            name="cavitation",
            acts_on="machine",
            title={"en": "Cavitation", "zh": "汽蚀"},
            explanation={
                "en": "The suction strainer clogs, the suction pressure falls below what the pump"
                " needs: flow and head fall, noise and vibration rise.",
                "zh": "吸入滤网堵塞，吸入压力低于泵的需要：流量和扬程下降，噪声和振动上升。",
            },
            parameters={
                "pressure_drop_bar": _parameter(
                    0.85, 0.0, 1.0, "bar", "Loss at the strainer", "滤网压降"
                ),
            },
        ),
        FaultKind(
            name="tool_breakage",
            acts_on="machine",
            title={"en": "Tool breakage", "zh": "刀具断裂"},
            explanation={
                "en": "The tool breaks in the cut: a spike of load and vibration, then ALARM with"
                " code 1042 until the fault is stopped, which puts a new tool in.",
                "zh": "刀具在切削中断裂：负载和振动出现尖峰，随后报警 1042，直到停止该故障（换新刀）。",
            },
        ),
        FaultKind(
            name="sensor_stuck",
            acts_on="sensor",
            title={"en": "Sensor stuck", "zh": "传感器卡死"},
            explanation={
                "en": "The sensor shows one value for ever, noise included, with good quality.",
                "zh": "传感器始终显示同一数值（连噪声也不变），质量仍为良好。",
            },
        ),
        FaultKind(
            name="sensor_drift",
            acts_on="sensor",
            title={"en": "Sensor drift", "zh": "传感器漂移"},
            explanation={
                "en": "The sensor's zero moves away steadily, in the tag's own unit.",
                "zh": "传感器零点以恒定速度偏移（以标签自身单位计）。",
            },
            parameters={
                "rate_per_min": _parameter(6.0, -1e6, 1e6, "unit/min", "Drift", "漂移速度"),
            },
        ),
        FaultKind(
            name="device_restart",
            acts_on="device",
            title={"en": "Device restart", "zh": "设备重启"},
            explanation={
                "en": "The device loses power without a goodbye, and comes back with new sessions.",
                "zh": "设备突然断电（不作任何通知），随后以全新会话恢复。",
            },
            parameters={
                "off_s": _parameter(5.0, 0.5, 3600.0, "s", "Time without power", "断电时间")
            },
        ),
        FaultKind(
            name="slow_device",
            acts_on="device",
            title={"en": "Slow device", "zh": "设备响应缓慢"},
            explanation={
                "en": "Every answer of the device comes late.",
                "zh": "设备的每个应答都延迟。",
            },
            parameters={"delay_s": _parameter(0.8, 0.01, 30.0, "s", "Delay", "延迟")},
        ),
        FaultKind(
            name="clock_step",
            acts_on="device",
            title={"en": "Clock step", "zh": "时钟跳变"},
            explanation={
                "en": "The device's clock jumps, so all times that it tells are wrong by the offset.",
                "zh": "设备时钟跳变，其报告的所有时间都带有该偏差。",
            },
            parameters={
                "offset_s": _parameter(90.0, -86_400.0, 86_400.0, "s", "Offset", "偏差"),
            },
        ),
    )
}


class ActiveFault(msgspec.Struct, kw_only=True):
    """A fault that acts now; plain data, so that it can be saved.

    Attributes:
        elapsed_s: simulated seconds since its start.
        held: of ``sensor_stuck``: the value that is shown.
    """

    name: str
    target: str
    parameters: dict[str, float]
    elapsed_s: float = 0.0
    held: float | str | bool | None = None


class Faults:
    """The faults of one site: which are possible, which act, and their effect at each step.

    Args:
        plant: what they act on.
        devices: device name -> its server; empty where there are only physics.

    Example:
        >>> faults = Faults(Plant(1), {})
        >>> faults.start("cavitation", "pump_1").parameters
        {'pressure_drop_bar': 0.85}
    """

    def __init__(self, plant: Plant, devices: Mapping[str, Device]) -> None:
        self.plant = plant
        self.devices = devices
        self.active: list[ActiveFault] = []
        rotating = [*plant.machining, *plant.pumps, "compressor_1"]
        self.targets: dict[str, list[str]] = {
            "bearing_wear": rotating,
            "cavitation": list(plant.pumps),
            "tool_breakage": list(plant.machining),
            "sensor_stuck": self._sensor_targets(),
            "sensor_drift": self._sensor_targets(),
            "device_restart": list(devices),
            "slow_device": list(devices),
            "clock_step": list(devices),
        }

    def _sensor_targets(self) -> list[str]:
        return [
            f"{unit.path}/{quantity.name}"
            for unit in self.plant.units
            for quantity in unit.quantities
            if quantity.kind == "measurement" and quantity.unit
        ]

    def start(
        self, name: str, target: str, parameters: Mapping[str, Any] | None = None
    ) -> ActiveFault:
        """Let a fault act.

        Args:
            name: of a kind. target: one of its targets. parameters: those that are not default.

        Raises:
            Misconfigured: SIM-1010 unknown fault, SIM-1011 wrong target, SIM-1012 wrong parameter.
            Refused: SIM-1013 when it acts there already.
        """
        kind = self._kind(name)
        self._check_target(name, target)
        if self._find(name, target) is not None:
            raise Refused(
                "SIM-1013",
                f"{name} already acts on {target}",
                f"Stop it first: headrace sim fault stop {name} {target}",
            )
        fault = ActiveFault(
            name=name, target=target, parameters=self._complete(kind, parameters or {})
        )
        self.active.append(fault)
        self._begin(fault)
        return fault

    def stop(self, name: str, target: str) -> ActiveFault:
        """End a fault, with the repair that belongs to it (new bearing, new tool...).

        Raises:
            Misconfigured: SIM-1010, SIM-1011 as in :meth:`start`.
            Refused: SIM-1014 when it does not act there.
        """
        self._kind(name)
        self._check_target(name, target)
        fault = self._find(name, target)
        if fault is None:
            raise Refused(
                "SIM-1014",
                f"{name} does not act on {target}",
                "See what acts: headrace sim fault list",
            )
        self.active.remove(fault)
        self._end(fault)
        return fault

    def before_step(self, dt_s: float) -> None:
        """Let machine and device faults act for the next ``dt_s`` seconds of the plant."""
        for fault in list(self.active):
            fault.elapsed_s += dt_s
            if fault.name == "bearing_wear":
                state = self.plant.machines[fault.target].state
                growth = fault.parameters["rate_per_min"] * dt_s / 60.0
                state.bearing_wear = min(1.0, state.bearing_wear + growth)
            elif fault.name == "device_restart" and fault.elapsed_s >= fault.parameters["off_s"]:
                self.stop(fault.name, fault.target)

    def after_step(self, values: dict[str, Value]) -> dict[str, Value]:
        """What the sensors show, given what they would show without faults; same keys."""
        shown = dict(values)
        for fault in self.active:
            value = shown.get(fault.target)
            if fault.name == "sensor_stuck" and value is not None:
                if fault.held is None:
                    fault.held = value
                shown[fault.target] = fault.held
            elif fault.name == "sensor_drift" and isinstance(value, float | int):
                shown[fault.target] = (
                    value + fault.parameters["rate_per_min"] * fault.elapsed_s / 60.0
                )
        return shown

    def list_all(self) -> list[dict[str, Any]]:
        """Every kind with its targets and what acts now, as plain data for CLI and console."""
        return [
            {
                "name": kind.name,
                "acts_on": kind.acts_on,
                "title": kind.title,
                "explanation": kind.explanation,
                "targets": self.targets[kind.name],
                "active": [fault.target for fault in self.active if fault.name == kind.name],
                "parameters": {
                    name: msgspec.to_builtins(parameter)
                    for name, parameter in kind.parameters.items()
                },
            }
            for kind in KINDS.values()
        ]

    def save(self) -> list[dict[str, Any]]:
        """The active faults as plain data."""
        return [msgspec.to_builtins(fault) for fault in self.active]

    def restore(self, saved: list[dict[str, Any]]) -> None:
        """Go on with saved faults; those whose target is no more are left out."""
        for fields in saved:
            fault = msgspec.convert(fields, ActiveFault)
            if fault.target in self.targets.get(fault.name, ()):
                self.active.append(fault)
                if KINDS[fault.name].acts_on == "device":
                    self._begin(fault)

    def _kind(self, name: str) -> FaultKind:
        if name not in KINDS:
            raise Misconfigured(
                "SIM-1010", f"there is no fault {name!r}", f"Use one of {', '.join(KINDS)}."
            )
        return KINDS[name]

    def _check_target(self, name: str, target: str) -> None:
        targets = self.targets[name]
        if target not in targets:
            shown = ", ".join(targets[:8]) + (" ..." if len(targets) > 8 else "")
            raise Misconfigured(
                "SIM-1011", f"{name} cannot act on {target!r}", f"Use one of {shown}"
            )

    def _complete(self, kind: FaultKind, given: Mapping[str, Any]) -> dict[str, float]:
        complete = {name: parameter.default for name, parameter in kind.parameters.items()}
        for name, value in given.items():
            parameter = kind.parameters.get(name)
            if parameter is None:
                known = ", ".join(kind.parameters) or "none"
                raise Misconfigured(
                    "SIM-1012",
                    f"{kind.name} has no parameter {name!r}",
                    f"Its parameters: {known}.",
                )
            number = isinstance(value, float | int) and not isinstance(value, bool)
            if not number or not parameter.minimum <= value <= parameter.maximum:
                raise Misconfigured(
                    "SIM-1012",
                    f"{name} of {kind.name} cannot be {value!r}",
                    f"Use {parameter.minimum:g} to {parameter.maximum:g} {parameter.unit}.",
                )
            complete[name] = float(value)
        return complete

    def _find(self, name: str, target: str) -> ActiveFault | None:
        same = [f for f in self.active if f.name == name and f.target == target]
        return same[0] if same else None

    def _begin(self, fault: ActiveFault) -> None:
        name, target, parameters = fault.name, fault.target, fault.parameters
        # By the fault's name, never by the target's: a machine and its device share a name.
        if name == "bearing_wear":
            state = self.plant.machines[target].state
            state.bearing_wear = max(state.bearing_wear, parameters["initial"])
        elif name == "cavitation":
            self.plant.pumps[target].state.suction_loss_bar = parameters["pressure_drop_bar"]
        elif name == "tool_breakage":
            self.plant.machining[target].break_tool()
        elif name == "device_restart":
            self.devices[target].set_off(True)
        elif name == "slow_device":
            self.devices[target].set_delay(parameters["delay_s"])
        elif name == "clock_step":
            self.devices[target].set_clock_offset(round(parameters["offset_s"] * US_PER_S))

    def _end(self, fault: ActiveFault) -> None:
        name, target = fault.name, fault.target
        if name == "bearing_wear":
            self.plant.machines[target].state.bearing_wear = 0.0
        elif name == "cavitation":
            self.plant.pumps[target].state.suction_loss_bar = 0.0
        elif name == "tool_breakage":
            self.plant.machining[target].replace_tool()
        elif name == "device_restart":
            self.devices[target].set_off(False)
        elif name == "slow_device":
            self.devices[target].set_delay(0.0)
        elif name == "clock_step":
            self.devices[target].set_clock_offset(0)
