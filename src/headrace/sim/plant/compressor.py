"""Screw compressor with an air receiver: load and idle between two pressures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.sim.plant.quantity import ATMOSPHERE_BAR, Quantity, Shown, approach, clamp

RECEIVER_M3: Final = 2.0
FREE_AIR_M3_MIN: Final = 5.2
LOADED_KW: Final = 30.0
IDLE_KW: Final = 8.5
HEAT_SHARE_TO_LOOP: Final = 0.72
SERIAL: Final = "SCR-30-2291"

QUANTITIES: Final = (
    Quantity("running", "", "Motor runs", "bool", "state"),
    Quantity("loaded", "", "Inlet valve is open", "bool", "state"),
    Quantity("service_due", "", "Service interval has passed", "bool", "state"),
    Quantity("tank_pressure", "bar", "Receiver pressure, gauge"),
    Quantity("load_pressure", "bar", "Loads below this pressure", "float32", "setting", 5.0, 7.0),
    Quantity("idle_pressure", "bar", "Idles above this pressure", "float32", "setting", 7.2, 8.5),
    Quantity("delivered_flow", "m3/min", "Free air delivered"),
    Quantity("consumed_flow", "m3/min", "Free air consumed by the site"),
    Quantity("intake_temperature", "Cel", "Intake air temperature"),
    Quantity("discharge_temperature", "Cel", "Air-oil discharge temperature"),
    Quantity("oil_temperature", "Cel", "Oil temperature after the cooler"),
    Quantity("oil_pressure", "bar", "Oil injection pressure"),
    Quantity("separator_pressure_drop", "bar", "Pressure drop of the oil separator"),
    Quantity("dew_point", "Cel", "Pressure dew point after the dryer"),
    Quantity("vibration", "mm/s", "Vibration velocity of the air end, RMS"),
    Quantity("motor_current", "A", "Motor current, mean of phases"),
    Quantity("active_power", "kW", "Electrical power"),
    Quantity("active_energy", "kWh", "Electrical energy", "float64", "counter"),
    Quantity("run_time", "h", "Hours run", "uint32", "counter"),
    Quantity("load_time", "h", "Hours under load", "float64", "counter"),
    Quantity("load_cycles", "", "Changes from idle to load", "uint32", "counter"),
    Quantity("serial_number", "", "Serial number of the air end", "string", "state"),
)


@dataclass
class CompressorState:
    """All that changes; plain data, so that it can be saved."""

    loaded: bool = True
    tank_pressure_bar: float = 6.9
    load_pressure: float = 6.8
    idle_pressure: float = 7.6
    delivered_m3: float = 0.0
    consumed_m3: float = 0.0
    discharge_temperature: float = 74.0
    oil_temperature: float = 58.0
    separator_bar: float = 0.18
    bearing_wear: float = 0.0
    power_kw: float = LOADED_KW
    energy_kwh: float = 0.0
    run_s: float = 3_214.0 * 3600.0
    load_s: float = 1_871.0 * 3600.0
    load_cycles: int = 48_211


class Compressor:
    """One fixed-speed screw compressor.

    Args:
        generator: its own random numbers.
    """

    quantities = QUANTITIES

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.state = CompressorState()

    @property
    def heat_to_loop_w(self) -> float:
        """Heat that its oil cooler gives to the cooling loop."""
        return self.state.power_kw * 1000.0 * HEAT_SHARE_TO_LOOP

    def step(
        self, dt_s: float, demand_m3_min: float, intake_temperature: float, supply: float
    ) -> Shown:
        """Run for ``dt_s`` seconds; gives what its sensors show then.

        Args:
            demand_m3_min: free air that the site draws.
            intake_temperature: Celsius. supply: temperature of the cooling water, Celsius.
        """
        state = self.state
        demand = demand_m3_min * clamp(state.tank_pressure_bar / 6.0, 0.0, 1.0)
        if state.tank_pressure_bar <= state.load_pressure and not state.loaded:
            state.loaded = True
            state.load_cycles += 1
        elif state.tank_pressure_bar >= state.idle_pressure:
            state.loaded = False
        delivered = FREE_AIR_M3_MIN if state.loaded else 0.0
        # Ideal gas in a fixed volume: free air in minus free air out.
        change_m3 = (delivered - demand) / 60.0 * dt_s
        state.tank_pressure_bar += change_m3 * ATMOSPHERE_BAR / RECEIVER_M3
        state.delivered_m3 += delivered / 60.0 * dt_s
        state.consumed_m3 += demand / 60.0 * dt_s
        pressure_factor = 1.0 + 0.07 * (state.tank_pressure_bar - 7.0)
        wear_factor = 1.0 + 0.08 * state.bearing_wear
        state.power_kw = (LOADED_KW * pressure_factor if state.loaded else IDLE_KW) * wear_factor
        state.energy_kwh += state.power_kw * dt_s / 3600.0
        state.run_s += dt_s
        state.load_s += dt_s if state.loaded else 0.0
        hot = supply + (52.0 if state.loaded else 34.0) + 25.0 * state.bearing_wear
        state.discharge_temperature = approach(state.discharge_temperature, hot, dt_s, 45.0)
        oil = supply + 0.65 * (state.discharge_temperature - supply)
        state.oil_temperature = approach(state.oil_temperature, oil, dt_s, 120.0)
        state.separator_bar += 1.5e-8 * dt_s
        return self._show(delivered, demand, intake_temperature)

    def _show(self, delivered: float, demand: float, intake_temperature: float) -> Shown:
        state = self.state
        noise = self.generator.standard_normal(12)
        load_ratio = 1.0 if state.loaded else 0.45
        vibration = 1.1 + 1.1 * load_ratio + (3.0 + 7.0 * state.bearing_wear) * state.bearing_wear
        return {
            "running": True,
            "loaded": state.loaded,
            "service_due": state.run_s > 4_000.0 * 3600.0,
            "tank_pressure": state.tank_pressure_bar + 0.006 * noise[0],
            "load_pressure": state.load_pressure,
            "idle_pressure": state.idle_pressure,
            "delivered_flow": delivered * (1.0 + 0.004 * noise[1]),
            "consumed_flow": demand * (1.0 + 0.006 * noise[2]),
            "intake_temperature": intake_temperature + 0.1 * noise[3],
            "discharge_temperature": state.discharge_temperature + 0.1 * noise[4],
            "oil_temperature": state.oil_temperature + 0.05 * noise[5],
            "oil_pressure": (2.4 + 1.6 * load_ratio) + 0.02 * noise[6],
            "separator_pressure_drop": state.separator_bar * load_ratio + 0.002 * noise[7],
            "dew_point": 3.2 + 0.03 * intake_temperature + 0.05 * noise[8],
            "vibration": vibration * abs(1.0 + 0.04 * noise[9]),
            "motor_current": state.power_kw * 1000.0 / (math.sqrt(3.0) * 400.0 * 0.86),
            "active_power": state.power_kw * (1.0 + 0.003 * noise[10]),
            "active_energy": state.energy_kwh,
            "run_time": int(state.run_s // 3600),
            "load_time": state.load_s / 3600.0,
            "load_cycles": state.load_cycles,
            "serial_number": SERIAL,
        }
