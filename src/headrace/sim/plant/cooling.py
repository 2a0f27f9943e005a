"""Cooling loop: a tank that takes up the machines' heat and a cooler that gives it to the air."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.sim.plant.quantity import (
    WATER_DENSITY_KG_M3,
    WATER_HEAT_J_KG_K,
    Quantity,
    Shown,
    approach,
    clamp,
)

TANK_M3: Final = 3.0
TANK_J_K: Final = TANK_M3 * WATER_DENSITY_KG_M3 * WATER_HEAT_J_KG_K
FAN_KW: Final = 4.0
EFFECTIVENESS: Final = 0.55
JOULE_PER_KWH: Final = 3.6e6
TANK_INITIAL: Final = 24.0

QUANTITIES: Final = (
    Quantity("tank_temperature", "Cel", "Tank temperature"),
    Quantity("tank_level", "%", "Tank level"),
    Quantity("level_low", "", "Level is below its limit", "bool", "state"),
    Quantity("makeup_valve_open", "", "Make-up water flows", "bool", "state"),
    Quantity("temperature_setpoint", "Cel", "Wanted temperature", "int16", "setting", 18.0, 30.0),
    Quantity("supply_temperature", "Cel", "Temperature to the machines"),
    Quantity("return_temperature", "Cel", "Temperature from the machines"),
    Quantity("primary_flow", "m3/h", "Flow through the machines"),
    Quantity("secondary_flow", "m3/h", "Flow through the cooler"),
    Quantity("heat_load", "kW", "Heat taken up from the machines"),
    Quantity("heat_rejected", "kW", "Heat given to the air"),
    Quantity("heat_load_total", "kWh", "Heat taken up in all", "float64", "counter"),
    Quantity("heat_rejected_total", "kWh", "Heat given to the air in all", "float64", "counter"),
    Quantity("fan_speed", "%", "Cooler fan speed"),
    Quantity("outdoor_temperature", "Cel", "Air temperature at the cooler"),
    Quantity("conductivity", "uS/cm", "Conductivity of the water"),
    Quantity("ph", "pH", "pH of the water"),
    Quantity("makeup_volume", "L", "Make-up water in all", "uint32", "counter"),
    Quantity("active_power", "kW", "Electrical power of fan and controls"),
    Quantity("active_energy", "kWh", "Electrical energy", "float64", "counter"),
    Quantity("firmware", "", "Controller firmware", "string", "state"),
    Quantity("operating_days", "d", "Days in operation (BCD)", "uint16", "counter"),
)


@dataclass
class CoolingState:
    """All that changes; plain data, so that it can be saved."""

    tank_temperature: float = TANK_INITIAL
    level_percent: float = 74.0
    makeup_open: bool = False
    makeup_l: float = 18_240.0
    temperature_setpoint: float = 24.0
    fan_ratio: float = 0.3
    heat_in_j: float = 0.0
    heat_out_j: float = 0.0
    primary_flow_m3_h: float = 20.0
    power_kw: float = 0.5
    energy_kwh: float = 0.0
    run_s: float = 812.0 * 86_400.0


class CoolingLoop:
    """One loop: tank, cooler with fan, make-up water.

    Args:
        generator: its own random numbers.
    """

    quantities = QUANTITIES

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.state = CoolingState()

    def step(
        self,
        dt_s: float,
        heat_load_w: float,
        flows_m3_h: tuple[float, float],
        outdoor_temperature: float,
    ) -> Shown:
        """Run for ``dt_s`` seconds; gives what its sensors show then.

        The tank's energy changes by exactly heat in minus heat out.

        Args:
            heat_load_w: heat from the machines.
            flows_m3_h: through the machines, through the cooler.
            outdoor_temperature: Celsius.
        """
        state = self.state
        excess = state.tank_temperature - state.temperature_setpoint
        state.fan_ratio = approach(state.fan_ratio, clamp(0.4 + excess / 4.0, 0, 1), dt_s, 8.0)
        carried_w_k = flows_m3_h[1] / 3600.0 * WATER_DENSITY_KG_M3 * WATER_HEAT_J_KG_K
        lift = max(0.0, state.tank_temperature - outdoor_temperature)
        rejected_w = EFFECTIVENESS * state.fan_ratio * carried_w_k * lift
        # A cooler cannot take out more than what brings the water to air temperature.
        rejected_w = min(rejected_w, 0.5 * lift * TANK_J_K / dt_s)
        state.heat_in_j += heat_load_w * dt_s
        state.heat_out_j += rejected_w * dt_s
        state.tank_temperature += (heat_load_w - rejected_w) * dt_s / TANK_J_K
        state.primary_flow_m3_h = flows_m3_h[0]
        state.power_kw = 0.35 + FAN_KW * state.fan_ratio**3
        state.energy_kwh += state.power_kw * dt_s / 3600.0
        state.run_s += dt_s
        self._balance_water(dt_s, rejected_w)
        return self._show(heat_load_w, rejected_w, flows_m3_h, outdoor_temperature)

    def _balance_water(self, dt_s: float, rejected_w: float) -> None:
        state = self.state
        evaporated_l = rejected_w * dt_s / 2.45e6 * 0.3
        state.level_percent -= 100.0 * evaporated_l / (TANK_M3 * 1000.0)
        if state.level_percent < 60.0:
            state.makeup_open = True
        elif state.level_percent > 80.0:
            state.makeup_open = False
        if state.makeup_open:
            state.makeup_l += 0.25 * dt_s
            state.level_percent += 100.0 * 0.25 * dt_s / (TANK_M3 * 1000.0)

    def _show(
        self,
        heat_load_w: float,
        rejected_w: float,
        flows_m3_h: tuple[float, float],
        outdoor_temperature: float,
    ) -> Shown:
        state = self.state
        noise = self.generator.standard_normal(10)
        carried = max(flows_m3_h[0], 0.5) / 3600.0 * WATER_DENSITY_KG_M3 * WATER_HEAT_J_KG_K
        supply = state.tank_temperature + 0.03 * noise[0]
        return {
            "tank_temperature": state.tank_temperature + 0.03 * noise[1],
            "tank_level": state.level_percent + 0.05 * noise[2],
            "level_low": state.level_percent < 55.0,
            "makeup_valve_open": state.makeup_open,
            "temperature_setpoint": state.temperature_setpoint,
            "supply_temperature": supply,
            "return_temperature": supply + heat_load_w / carried + 0.03 * noise[3],
            "primary_flow": flows_m3_h[0] * (1.0 + 0.005 * noise[4]),
            "secondary_flow": flows_m3_h[1] * (1.0 + 0.005 * noise[5]),
            "heat_load": heat_load_w / 1000.0,
            "heat_rejected": rejected_w / 1000.0,
            "heat_load_total": state.heat_in_j / JOULE_PER_KWH,
            "heat_rejected_total": state.heat_out_j / JOULE_PER_KWH,
            "fan_speed": 100.0 * state.fan_ratio,
            "outdoor_temperature": outdoor_temperature + 0.05 * noise[6],
            "conductivity": 820.0 + 2.0 * noise[7],
            "ph": 7.9 + 0.01 * noise[8],
            "makeup_volume": int(state.makeup_l),
            "active_power": state.power_kw * (1.0 + 0.003 * noise[9]),
            "active_energy": state.energy_kwh,
            "firmware": "CL2.7.1",
            "operating_days": int(state.run_s // 86_400),
        }
