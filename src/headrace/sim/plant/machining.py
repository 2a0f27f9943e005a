"""Machining centre: a part program, tools that wear, a spindle with bearings, heat and air."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from headrace.sim.plant.quantity import Quantity, Shown, approach, clamp
from headrace.sim.plant.toolpath import SAFE_Z_MM, Operation, program_of

RATED_POWER_KW: Final = 11.0
SPINDLE_EFFICIENCY: Final = 0.88
CUTTING_FORCE_N_MM2: Final = 800.0  # aluminium alloy
TOOL_LIFE_UM: Final = 300.0  # flank wear at which a tool is replaced (ISO 8688-2, 0.3 mm)
WEAR_UM_CM3: Final = 0.03
WEAR_SPEED_M_MIN: Final = 400.0
WEAR_EXPONENT: Final = 2.0
NEW_TOOL_UM: Final = 5.0
TOOL_CHANGE_S: Final = 5.0
PART_CHANGE_S: Final = 16.0
HOLD_EVERY_PARTS: Final = 7
BREAK_SPIKE_S: Final = 3.0
COOLANT_J_K: Final = 250.0 * 4186.0
COOLANT_TRANSFER_W_K: Final = 900.0
ALARM_TOOL_BROKEN: Final = 1042
COOLANT_REFILL_PERCENT: Final = 40.0

QUANTITIES: Final = (
    Quantity("program_state", "", "IDLE, RUN, HOLD or ALARM", "string", "state"),
    Quantity("program_name", "", "Part program and its section", "string", "state"),
    Quantity("program_progress", "%", "Share of the cycle that is done"),
    Quantity("cycle_time", "s", "Time since the cycle's begin"),
    Quantity("last_cycle_time", "s", "Duration of the last whole cycle"),
    Quantity("part_count", "", "Parts made", "uint32", "counter"),
    Quantity("alarm_code", "", "Active alarm; 0 is none", "int32", "state"),
    Quantity("door_closed", "", "Guard door is closed", "bool", "state"),
    Quantity("spindle_speed", "1/min", "Actual spindle speed"),
    Quantity("spindle_speed_setpoint", "1/min", "Programmed spindle speed"),
    Quantity("spindle_override", "%", "Spindle override", "float64", "setting", 50.0, 110.0),
    Quantity("spindle_load", "%", "Spindle power of its rated power"),
    Quantity("spindle_torque", "N.m", "Spindle torque"),
    Quantity("spindle_power", "kW", "Electrical power of the spindle drive"),
    Quantity("spindle_temperature", "Cel", "Spindle housing temperature"),
    Quantity("spindle_bearing_temperature", "Cel", "Front bearing temperature"),
    Quantity("spindle_vibration", "mm/s", "Vibration velocity, RMS (ISO 20816)"),
    Quantity("axis_x_position", "mm", "X in machine coordinates"),
    Quantity("axis_y_position", "mm", "Y in machine coordinates"),
    Quantity("axis_z_position", "mm", "Z in machine coordinates"),
    Quantity("axis_x_load", "%", "X drive load"),
    Quantity("axis_y_load", "%", "Y drive load"),
    Quantity("axis_z_load", "%", "Z drive load"),
    Quantity("axis_x_temperature", "Cel", "X drive temperature"),
    Quantity("axis_y_temperature", "Cel", "Y drive temperature"),
    Quantity("axis_z_temperature", "Cel", "Z drive temperature"),
    Quantity("feed_rate", "mm/min", "Actual path feed"),
    Quantity("feed_override", "%", "Feed override", "float64", "setting", 0.0, 120.0),
    Quantity("material_removal_rate", "cm3/min", "Material removal rate"),
    Quantity("cut_volume", "cm3", "Material removed in all", "float64", "counter"),
    Quantity("tool_number", "", "Tool in the spindle", "int16", "state"),
    Quantity("tool_wear", "um", "Flank wear of the tool in the spindle"),
    Quantity("tool_life_remaining", "%", "Remaining life of the tool in the spindle"),
    Quantity("tool_changes", "", "Tool changes", "uint32", "counter"),
    Quantity("coolant_temperature", "Cel", "Coolant tank temperature"),
    Quantity("coolant_flow", "L/min", "Coolant flow at the nozzles"),
    Quantity("coolant_pressure", "bar", "Coolant pressure"),
    Quantity("coolant_level", "%", "Coolant tank level"),
    Quantity("lubrication_pressure", "bar", "Guideway lubrication pressure"),
    Quantity("hydraulic_pressure", "bar", "Clamping pressure"),
    Quantity("air_pressure", "bar", "Compressed air at the machine, gauge"),
    Quantity("cabinet_temperature", "Cel", "Control cabinet temperature"),
    Quantity("active_power", "kW", "Electrical power of the whole machine"),
    Quantity(
        "active_energy", "kWh", "Electrical energy of the whole machine", "float64", "counter"
    ),
    Quantity("power_on_time", "h", "Time under power", "float64", "counter"),
    Quantity("cutting_time", "h", "Time in cut", "float64", "counter"),
)


@dataclass
class MachiningState:
    """All that changes; plain data, so that it can be saved."""

    phase: str = "part_change"
    phase_left_s: float = 3.0
    operation: int = 0
    operation_s: float = 0.0
    cycle_s: float = 0.0
    last_cycle_s: float = 0.0
    part_count: int = 0
    break_requested: bool = False
    tool_broken: bool = False
    spike_left_s: float = 0.0
    tool_wear_um: list[float] = field(default_factory=list)
    tool_changes: int = 0
    cut_volume_cm3: float = 0.0
    spindle_speed_rpm: float = 0.0
    spindle_temperature: float = 24.0
    bearing_temperature: float = 24.0
    bearing_wear: float = 0.0
    axis_temperature: list[float] = field(default_factory=lambda: [24.0, 24.0, 24.0])
    coolant_temperature: float = 23.0
    coolant_level: float = 82.0
    cabinet_temperature: float = 27.0
    position_mm: list[float] = field(default_factory=lambda: [0.0, 0.0, SAFE_Z_MM])
    power_kw: float = 1.2
    heat_to_loop_w: float = 0.0
    energy_kwh: float = 0.0
    power_on_s: float = 0.0
    cutting_s: float = 0.0
    feed_override: float = 100.0
    spindle_override: float = 100.0


@dataclass(frozen=True)
class Surroundings:
    """What the site gives to a machine.

    Attributes:
        hall_temperature: Celsius. supply_temperature: of the cooling loop, Celsius.
        loop_flow_ratio: flow of the cooling loop of its nominal flow. air_pressure_bar: gauge.
    """

    hall_temperature: float
    supply_temperature: float
    loop_flow_ratio: float
    air_pressure_bar: float


class MachiningCentre:
    """One 3-axis machining centre.

    Args:
        number: 1, 2, 3...; selects the part program.
        generator: its own random numbers.
    """

    quantities = QUANTITIES

    def __init__(self, number: int, generator: np.random.Generator) -> None:
        self.number = number
        self.generator = generator
        self.program = program_of(number)
        self._cycle_s = sum(op.duration_s + TOOL_CHANGE_S for op in self.program)
        wear = [NEW_TOOL_UM + 20.0 * number + 15.0 * i for i in range(len(self.program))]
        self.state = MachiningState(tool_wear_um=wear, phase_left_s=1.0 + 4.0 * number)

    @property
    def current(self) -> Operation:
        return self.program[self.state.operation]

    @property
    def air_demand_m3_min(self) -> float:
        """Free air that it uses now."""
        return {"cut": 0.55, "tool_change": 1.1, "part_change": 0.9}.get(self.state.phase, 0.25)

    def break_tool(self) -> None:
        """The tool in the spindle breaks, at the latest when it next cuts."""
        self.state.break_requested = True
        self.state.phase_left_s = min(self.state.phase_left_s, 2.0)

    def replace_tool(self) -> None:
        """A new tool comes into the spindle, and the alarm is reset."""
        state = self.state
        state.break_requested = False
        if state.tool_broken:
            state.tool_wear_um[state.operation] = NEW_TOOL_UM
            state.tool_broken = False
            state.spike_left_s = 0.0
            state.phase, state.phase_left_s = "tool_change", TOOL_CHANGE_S

    def step(self, dt_s: float, around: Surroundings) -> Shown:
        """Run for ``dt_s`` seconds; gives what its sensors show then."""
        state = self.state
        cut_s = self._run_program(dt_s)
        share = cut_s / dt_s
        spiking = state.spike_left_s > 0.0
        state.spike_left_s = max(0.0, state.spike_left_s - dt_s)
        turning = state.phase == "cut" or spiking
        target_rpm = self.current.spindle_speed_rpm * state.spindle_override / 100.0
        state.spindle_speed_rpm = approach(
            state.spindle_speed_rpm, target_rpm if turning else 0.0, dt_s, 0.6
        )
        removal = self.current.removal_rate_cm3_min * share * state.feed_override / 100.0
        wear_um = state.tool_wear_um[state.operation]
        cutting_kw = CUTTING_FORCE_N_MM2 * removal * 1000.0 / 6e7 * (1.0 + 0.8 * wear_um / 300.0)
        if spiking:
            cutting_kw = RATED_POWER_KW * 1.45
        speed_ratio = state.spindle_speed_rpm / 6000.0
        friction_kw = (0.25 + 0.9 * speed_ratio) * speed_ratio * (1.0 + 0.6 * state.bearing_wear)
        self._balance_heat(dt_s, cutting_kw, friction_kw, around)
        state.power_on_s += dt_s
        state.cutting_s += cut_s
        state.energy_kwh += state.power_kw * dt_s / 3600.0
        return self._show(cutting_kw + friction_kw, removal, spiking, around)

    def _run_program(self, dt_s: float) -> float:
        """Advance the program; gives the seconds of cutting."""
        state, left_s, cut_s = self.state, dt_s, 0.0
        while left_s > 1e-9:
            if state.phase == "alarm":
                break
            if state.phase != "cut":
                spent = min(left_s, state.phase_left_s)
                state.phase_left_s -= spent
                left_s -= spent
                state.cycle_s += spent if state.phase == "tool_change" else 0.0
                if state.phase_left_s <= 1e-9:
                    self._enter_cut()
                continue
            speed = state.feed_override / 100.0
            if speed <= 0.0:
                state.cycle_s += left_s
                break
            spent = min(left_s, (self.current.duration_s - state.operation_s) / speed)
            cut_s += self._cut(spent, speed)
            left_s -= spent
            if state.operation_s >= self.current.duration_s - 1e-9:
                self._finish_operation()
        return cut_s

    def _enter_cut(self) -> None:
        if self.state.phase in ("part_change", "hold"):
            self.state.cycle_s = 0.0
        self.state.phase = "cut"

    def _cut(self, spent_s: float, speed: float) -> float:
        state, operation = self.state, self.current
        end_s = state.operation_s + spent_s * speed
        cut_s = operation.cutting_s(state.operation_s, end_s) / speed
        volume = operation.removal_rate_cm3_min * speed * cut_s / 60.0
        hardness = (operation.cutting_speed_m_min / WEAR_SPEED_M_MIN) ** WEAR_EXPONENT
        state.tool_wear_um[state.operation] += WEAR_UM_CM3 * volume * hardness
        state.cut_volume_cm3 += volume
        state.operation_s = end_s
        state.cycle_s += spent_s
        state.position_mm = list(operation.position(end_s))
        if state.break_requested and cut_s > 0.0:
            state.break_requested, state.tool_broken = False, True
            state.phase, state.spike_left_s = "alarm", BREAK_SPIKE_S
        return cut_s

    def _finish_operation(self) -> None:
        state = self.state
        if state.phase == "alarm":
            return
        if state.tool_wear_um[state.operation] >= TOOL_LIFE_UM:
            state.tool_wear_um[state.operation] = NEW_TOOL_UM
        state.operation = (state.operation + 1) % len(self.program)
        state.operation_s = 0.0
        state.tool_changes += 1
        state.phase, state.phase_left_s = "tool_change", TOOL_CHANGE_S
        if state.operation == 0:
            state.part_count += 1
            state.last_cycle_s = state.cycle_s
            inspect = state.part_count % HOLD_EVERY_PARTS == 0
            state.phase = "hold" if inspect else "part_change"
            state.phase_left_s = PART_CHANGE_S * float(self.generator.uniform(0.8, 1.3))

    def _balance_heat(
        self, dt_s: float, cutting_kw: float, friction_kw: float, around: Surroundings
    ) -> None:
        state = self.state
        running = state.phase in ("cut", "tool_change")
        auxiliary_kw = 2.1 if running else 1.2
        state.power_kw = (cutting_kw + friction_kw) / SPINDLE_EFFICIENCY + auxiliary_kw
        losses_kw = state.power_kw - auxiliary_kw - cutting_kw
        hall = around.hall_temperature
        state.spindle_temperature = approach(
            state.spindle_temperature, hall + 9.0 * losses_kw, dt_s, 240.0
        )
        bearing_target = state.spindle_temperature + friction_kw * (4.0 + 22.0 * state.bearing_wear)
        state.bearing_temperature = approach(state.bearing_temperature, bearing_target, dt_s, 60.0)
        for axis in range(3):
            warm = hall + (6.0 + axis) * (1.0 if running else 0.3)
            state.axis_temperature[axis] = approach(state.axis_temperature[axis], warm, dt_s, 600.0)
        state.cabinet_temperature = approach(
            state.cabinet_temperature, hall + 3.0 + 1.2 * state.power_kw, dt_s, 900.0
        )
        transfer_w_k = COOLANT_TRANSFER_W_K * clamp(around.loop_flow_ratio, 0.0, 1.5)
        state.heat_to_loop_w = transfer_w_k * (
            state.coolant_temperature - around.supply_temperature
        )
        heat_w = 0.85 * cutting_kw * 1000.0 + losses_kw * 700.0
        state.coolant_temperature += (heat_w - state.heat_to_loop_w) * dt_s / COOLANT_J_K
        used = 0.004 * dt_s if state.phase == "cut" else 0.0
        state.coolant_level -= used
        if state.coolant_level < COOLANT_REFILL_PERCENT:
            state.coolant_level = 88.0

    def _show(self, shaft_kw: float, removal: float, spiking: bool, around: Surroundings) -> Shown:
        state, operation = self.state, self.current
        noise = self.generator.standard_normal(24)
        cutting = state.phase == "cut"
        omega = max(state.spindle_speed_rpm, 1.0) * math.pi / 30.0
        pressure = around.air_pressure_bar - 0.15 - 0.1 * self.air_demand_m3_min
        return {
            **self._show_program(),
            **self._show_spindle(shaft_kw, omega, removal, spiking, noise),
            **self._show_axes(cutting, shaft_kw, noise),
            "feed_rate": operation.feed_mm_min * state.feed_override / 100.0 if cutting else 0.0,
            "feed_override": state.feed_override,
            "material_removal_rate": removal,
            "cut_volume": state.cut_volume_cm3,
            "coolant_temperature": state.coolant_temperature + 0.05 * noise[12],
            "coolant_flow": (28.0 + 0.4 * noise[13]) if cutting else 0.0,
            "coolant_pressure": (18.0 + 0.2 * noise[14]) if cutting else 0.3,
            "coolant_level": state.coolant_level,
            "lubrication_pressure": 25.0 + 0.3 * noise[15],
            "hydraulic_pressure": 62.0 + 0.5 * noise[16],
            "air_pressure": pressure + 0.01 * noise[17],
            "cabinet_temperature": state.cabinet_temperature + 0.05 * noise[18],
            "active_power": state.power_kw * (1.0 + 0.003 * noise[19]),
            "active_energy": state.energy_kwh,
            "power_on_time": state.power_on_s / 3600.0,
            "cutting_time": state.cutting_s / 3600.0,
        }

    def _show_program(self) -> Shown:
        state = self.state
        names = {"part_change": "IDLE", "hold": "HOLD", "alarm": "ALARM"}
        return {
            "program_state": names.get(state.phase, "RUN"),
            "program_name": f"O{1000 + self.number} {self.current.name}",
            "program_progress": clamp(100.0 * state.cycle_s / self._cycle_s, 0.0, 100.0),
            "cycle_time": state.cycle_s,
            "last_cycle_time": state.last_cycle_s,
            "part_count": state.part_count,
            "alarm_code": ALARM_TOOL_BROKEN if state.tool_broken else 0,
            "door_closed": state.phase not in ("part_change", "hold"),
            "tool_number": self.current.tool,
            "tool_wear": state.tool_wear_um[state.operation],
            "tool_life_remaining": clamp(
                100.0 * (1.0 - state.tool_wear_um[state.operation] / TOOL_LIFE_UM), 0.0, 100.0
            ),
            "tool_changes": state.tool_changes,
        }

    def _show_spindle(
        self,
        shaft_kw: float,
        omega: float,
        removal: float,
        spiking: bool,
        noise: np.ndarray[tuple[int], np.dtype[np.float64]],
    ) -> Shown:
        state = self.state
        rpm = state.spindle_speed_rpm
        turning = state.phase == "cut"
        setpoint = self.current.spindle_speed_rpm if turning else 0.0
        wear_ratio = state.tool_wear_um[state.operation] / TOOL_LIFE_UM
        vibration = 0.15 + 0.7 * rpm / 6000.0 * (1.0 + 7.0 * state.bearing_wear)
        vibration += 0.0016 * removal * (1.0 + 1.5 * wear_ratio) + (9.0 if spiking else 0.0)
        return {
            "spindle_speed": rpm * (1.0 + 0.0008 * noise[0]),
            "spindle_speed_setpoint": setpoint,
            "spindle_override": state.spindle_override,
            "spindle_load": 100.0 * shaft_kw / RATED_POWER_KW * (1.0 + 0.015 * noise[1]),
            "spindle_torque": shaft_kw * 1000.0 / omega if rpm > 50.0 else 0.0,
            "spindle_power": shaft_kw / SPINDLE_EFFICIENCY,
            "spindle_temperature": state.spindle_temperature + 0.05 * noise[2],
            "spindle_bearing_temperature": state.bearing_temperature + 0.05 * noise[3],
            "spindle_vibration": vibration * abs(1.0 + 0.04 * noise[4]),
        }

    def _show_axes(
        self, cutting: bool, shaft_kw: float, noise: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> Shown:
        state, shown = self.state, Shown()
        for axis, name in enumerate("xyz"):
            load = 6.0 + (9.0 + 3.0 * shaft_kw if cutting else 0.0) + (4.0 if name == "z" else 0.0)
            shown[f"axis_{name}_position"] = state.position_mm[axis] + 0.001 * noise[5 + axis]
            shown[f"axis_{name}_load"] = load * (1.0 + 0.05 * noise[8 + axis])
            shown[f"axis_{name}_temperature"] = state.axis_temperature[axis]
        return shown
