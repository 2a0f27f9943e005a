"""Centrifugal pump: head curve, affinity laws, efficiency, suction head, bearings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.sim.plant.quantity import (
    ATMOSPHERE_BAR,
    GRAVITY_M_S2,
    WATER_DENSITY_KG_M3,
    Quantity,
    Shown,
    approach,
    clamp,
)

RATED_SPEED_RPM: Final = 2900.0
SHUTOFF_HEAD_M: Final = 32.0
HEAD_COEFFICIENT: Final = 0.018  # m per (m3/h)2
SYSTEM_COEFFICIENT: Final = 0.030  # m per (m3/h)2, closed loop: no static head
BEST_FLOW_M3_H: Final = 26.0
BEST_EFFICIENCY: Final = 0.74
MOTOR_EFFICIENCY: Final = 0.90
PASCAL_PER_BAR: Final = 1e5

QUANTITIES: Final = (
    Quantity("running", "", "Motor runs", "bool", "state"),
    Quantity("ready", "", "No fault, remote control", "bool", "state"),
    Quantity("speed", "1/min", "Shaft speed"),
    Quantity("speed_setpoint", "%", "Speed of rated speed", "float32", "setting", 30.0, 105.0),
    Quantity("flow", "m3/h", "Volume flow"),
    Quantity("head", "m", "Total head"),
    Quantity("suction_pressure", "bar", "Suction pressure, gauge"),
    Quantity("discharge_pressure", "bar", "Discharge pressure, gauge"),
    Quantity("efficiency", "%", "Hydraulic efficiency"),
    Quantity("npsh_margin", "m", "Net positive suction head: available minus required"),
    Quantity("noise_level", "dB", "Sound pressure level at 1 m"),
    Quantity("vibration_drive_end", "mm/s", "Vibration velocity, RMS, drive end"),
    Quantity("vibration_other_end", "mm/s", "Vibration velocity, RMS, non-drive end"),
    Quantity("bearing_temperature_drive_end", "Cel", "Bearing temperature, drive end"),
    Quantity("bearing_temperature_other_end", "Cel", "Bearing temperature, non-drive end"),
    Quantity("motor_temperature", "Cel", "Winding temperature"),
    Quantity("motor_current", "A", "Motor current, mean of phases"),
    Quantity("active_power", "kW", "Electrical power"),
    Quantity("active_energy", "kWh", "Electrical energy", "float64", "counter"),
    Quantity("run_time", "h", "Hours run", "float64", "counter"),
    Quantity("starts", "", "Motor starts", "uint32", "counter"),
)


@dataclass(frozen=True)
class OperatingPoint:
    """Where the pump's curve meets the system's.

    Attributes:
        flow_m3_h: volume flow. head_m: total head. efficiency: 0 to 1. shaft_kw: shaft power.
    """

    flow_m3_h: float
    head_m: float
    efficiency: float
    shaft_kw: float


def operating_point(speed_ratio: float, system_coefficient: float) -> OperatingPoint:
    """Operating point on a closed loop; it obeys the affinity laws exactly.

    Args:
        speed_ratio: speed of rated speed, above 0.
        system_coefficient: head loss of the loop, m per (m3/h)2.

    Example:
        >>> half, full = operating_point(0.5, 0.03), operating_point(1.0, 0.03)
        >>> round(full.flow_m3_h / half.flow_m3_h, 6), round(full.shaft_kw / half.shaft_kw, 6)
        (2.0, 8.0)
    """
    head_0 = SHUTOFF_HEAD_M * speed_ratio**2
    flow = math.sqrt(head_0 / (HEAD_COEFFICIENT + system_coefficient))
    head = head_0 - HEAD_COEFFICIENT * flow**2
    relative = flow / (BEST_FLOW_M3_H * speed_ratio)
    efficiency = max(0.1, BEST_EFFICIENCY * (1.0 - (relative - 1.0) ** 2))
    hydraulic_kw = WATER_DENSITY_KG_M3 * GRAVITY_M_S2 * flow / 3600.0 * head / 1000.0
    return OperatingPoint(flow, head, efficiency, hydraulic_kw / efficiency)


def vapour_pressure_bar(temperature: float) -> float:
    """Vapour pressure of water (Antoine equation, 1 to 100 Celsius), absolute.

    Example:
        >>> round(vapour_pressure_bar(100.0), 2)
        1.01
    """
    return float(10.0 ** (8.07131 - 1730.63 / (233.426 + temperature)) / 750.062)


@dataclass
class PumpState:
    """All that changes; plain data, so that it can be saved."""

    running: bool = True
    speed_setpoint: float = 88.0
    speed_ratio: float = 0.88
    suction_loss_bar: float = 0.0
    cavitation: float = 0.0
    bearing_wear: float = 0.0
    bearing_temperature: float = 35.0
    other_temperature: float = 34.0
    motor_temperature: float = 38.0
    flow_m3_h: float = 0.0
    shaft_kw: float = 0.0
    power_kw: float = 0.0
    energy_kwh: float = 0.0
    run_s: float = 0.0
    starts: int = 1


class Pump:
    """One pump with a frequency converter.

    Args:
        generator: its own random numbers.
        suction_bar: gauge pressure that the tank gives at the suction flange.
    """

    quantities = QUANTITIES

    def __init__(self, generator: np.random.Generator, suction_bar: float = 0.25) -> None:
        self.generator = generator
        self.suction_bar = suction_bar
        self.state = PumpState()

    def step(self, dt_s: float, water_temperature: float, hall_temperature: float) -> Shown:
        """Run for ``dt_s`` seconds; gives what its sensors show then."""
        state = self.state
        target = state.speed_setpoint / 100.0 if state.running else 0.0
        state.speed_ratio = approach(state.speed_ratio, target, dt_s, 1.5)
        ratio = max(state.speed_ratio, 0.01)
        point = operating_point(ratio, SYSTEM_COEFFICIENT)
        suction_bar = self.suction_bar - 0.00012 * point.flow_m3_h**2 - state.suction_loss_bar
        margin_m = self._npsh_margin(point, suction_bar, water_temperature)
        wanted = clamp((0.9 - margin_m) / 1.5, 0.0, 1.0)
        state.cavitation = approach(state.cavitation, wanted, dt_s, 1.0)
        flow = point.flow_m3_h * (1.0 - 0.25 * state.cavitation)
        head = point.head_m * (1.0 - 0.30 * state.cavitation)
        efficiency = point.efficiency * (1.0 - 0.35 * state.cavitation)
        hydraulic_kw = WATER_DENSITY_KG_M3 * GRAVITY_M_S2 * flow / 3600.0 * head / 1000.0
        state.flow_m3_h = flow
        state.shaft_kw = hydraulic_kw / efficiency * (1.0 + 0.06 * state.bearing_wear)
        state.power_kw = state.shaft_kw / MOTOR_EFFICIENCY
        state.energy_kwh += state.power_kw * dt_s / 3600.0
        state.run_s += dt_s if state.running else 0.0
        self._warm(dt_s, hall_temperature)
        return self._show(flow, head, efficiency, suction_bar, margin_m)

    def _npsh_margin(
        self, point: OperatingPoint, suction_bar: float, water_temperature: float
    ) -> float:
        absolute = suction_bar + ATMOSPHERE_BAR - vapour_pressure_bar(water_temperature)
        available = absolute * PASCAL_PER_BAR / (WATER_DENSITY_KG_M3 * GRAVITY_M_S2)
        return available - (1.8 + 0.004 * point.flow_m3_h**2)

    def _warm(self, dt_s: float, hall_temperature: float) -> None:
        state, load = self.state, self.state.shaft_kw
        drive = hall_temperature + 14.0 * state.speed_ratio + 3.0 * load + 45.0 * state.bearing_wear
        state.bearing_temperature = approach(state.bearing_temperature, drive, dt_s, 90.0)
        other = hall_temperature + 11.0 * state.speed_ratio + 2.5 * load
        state.other_temperature = approach(state.other_temperature, other, dt_s, 90.0)
        winding = hall_temperature + 12.0 * load
        state.motor_temperature = approach(state.motor_temperature, winding, dt_s, 400.0)

    def _show(
        self, flow: float, head: float, efficiency: float, suction_bar: float, margin_m: float
    ) -> Shown:
        state = self.state
        noise = self.generator.standard_normal(14)
        ratio = state.speed_ratio
        lift_bar = head * WATER_DENSITY_KG_M3 * GRAVITY_M_S2 / PASCAL_PER_BAR
        rough = 1.0 + 0.5 * state.cavitation
        vibration = 0.3 + 1.3 * ratio + 3.5 * state.cavitation
        driven = vibration + (2.5 + 6.0 * state.bearing_wear) * state.bearing_wear * ratio
        return {
            "running": state.running,
            "ready": True,
            "speed": RATED_SPEED_RPM * ratio * (1.0 + 0.0005 * noise[0]),
            "speed_setpoint": state.speed_setpoint,
            "flow": flow * (1.0 + 0.006 * rough**4 * noise[1]),
            "head": head * (1.0 + 0.004 * rough**4 * noise[2]),
            "suction_pressure": suction_bar + 0.004 * rough * noise[3],
            "discharge_pressure": suction_bar + lift_bar + 0.008 * rough**3 * noise[4],
            "efficiency": 100.0 * efficiency,
            "npsh_margin": margin_m,
            "noise_level": 68.0 + 8.0 * ratio + 14.0 * state.cavitation + 0.3 * noise[5],
            "vibration_drive_end": driven * abs(1.0 + 0.05 * noise[6]),
            "vibration_other_end": (0.8 * vibration + 0.2 * driven) * abs(1.0 + 0.05 * noise[7]),
            "bearing_temperature_drive_end": state.bearing_temperature + 0.05 * noise[8],
            "bearing_temperature_other_end": state.other_temperature + 0.05 * noise[9],
            "motor_temperature": state.motor_temperature + 0.05 * noise[10],
            "motor_current": state.power_kw * 1000.0 / (math.sqrt(3.0) * 400.0 * 0.84),
            "active_power": state.power_kw * (1.0 + 0.003 * noise[11]),
            "active_energy": state.energy_kwh,
            "run_time": state.run_s / 3600.0,
            "starts": state.starts,
        }
