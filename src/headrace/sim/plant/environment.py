"""The hall's air: temperature and humidity over the day, carbon monoxide, smoke; its sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.sim.plant.quantity import Quantity, Shown, approach

DAY_US: Final = 86_400_000_000
HOUR_OF_MINIMUM: Final = 4.0

BATTERY: Final = Quantity("battery", "%", "Battery charge")
SIGNAL: Final = Quantity("signal_strength", "dB", "Radio signal, relative to 1 mW")
SMOKE_QUANTITIES: Final = (
    Quantity("density", "%/m", "Obscuration by smoke"),
    Quantity("alarm", "", "Smoke alarm of the sensor itself", "bool", "state"),
    Quantity("temperature", "Cel", "Air temperature at the ceiling"),
    BATTERY,
    SIGNAL,
)
GAS_QUANTITIES: Final = (
    Quantity("carbon_monoxide", "ppm", "Carbon monoxide"),
    Quantity("carbon_dioxide", "ppm", "Carbon dioxide"),
    Quantity("alarm", "", "Gas alarm of the sensor itself", "bool", "state"),
    BATTERY,
    SIGNAL,
)
CLIMATE_QUANTITIES: Final = (
    Quantity("temperature", "Cel", "Air temperature"),
    Quantity("humidity", "%", "Relative humidity"),
    Quantity("dew_point", "Cel", "Dew point"),
    BATTERY,
    SIGNAL,
)
SENSOR_QUANTITIES: Final = {
    "smoke": SMOKE_QUANTITIES,
    "gas": GAS_QUANTITIES,
    "climate": CLIMATE_QUANTITIES,
}


def outdoor_temperature(at_us: int) -> float:
    """Air temperature outside, Celsius: a day's wave, coldest at 4 h UTC.

    Example:
        >>> outdoor_temperature(4 * 3_600_000_000), outdoor_temperature(16 * 3_600_000_000)
        (5.0, 15.0)
    """
    hour = (at_us % DAY_US) / 3.6e9
    return 10.0 - 5.0 * math.cos((hour - HOUR_OF_MINIMUM) * math.pi / 12.0)


def dew_point(temperature: float, humidity: float) -> float:
    """Dew point by the Magnus formula; Celsius and percent.

    Example:
        >>> round(dew_point(20.0, 100.0), 6)
        20.0
    """
    gamma = math.log(max(humidity, 0.1) / 100.0) + 17.62 * temperature / (243.12 + temperature)
    return 243.12 * gamma / (17.62 - gamma)


@dataclass
class HallState:
    """All that changes; plain data, so that it can be saved."""

    temperature: float = 22.5
    humidity: float = 46.0
    carbon_monoxide: float = 1.2
    carbon_dioxide: float = 620.0
    truck_left_s: float = 0.0
    hvac_kw: float = 6.0
    hvac_energy_kwh: float = 0.0


class Hall:
    """The air of one hall, with heating, ventilation and a fork-lift truck that passes.

    Args:
        generator: its own random numbers.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.state = HallState()

    def step(self, dt_s: float, at_us: int) -> None:
        """Run for ``dt_s`` seconds up to the moment ``at_us``."""
        state, outdoor = self.state, outdoor_temperature(at_us)
        state.hvac_kw = 3.0 + 0.55 * abs(22.0 - outdoor)
        state.hvac_energy_kwh += state.hvac_kw * dt_s / 3600.0
        balance = 22.0 + 0.12 * (outdoor - 10.0)
        state.temperature = approach(state.temperature, balance, dt_s, 1_800.0)
        dampness = 45.0 - 0.9 * (outdoor - 10.0)
        state.humidity = approach(state.humidity, dampness, dt_s, 2_400.0)
        if state.truck_left_s <= 0.0 and self.generator.random() < dt_s / 180.0:
            state.truck_left_s = 25.0
        state.truck_left_s = max(0.0, state.truck_left_s - dt_s)
        monoxide = 9.0 if state.truck_left_s > 0.0 else 1.0
        state.carbon_monoxide = approach(state.carbon_monoxide, monoxide, dt_s, 40.0)
        dioxide = 780.0 if state.truck_left_s > 0.0 else 600.0
        state.carbon_dioxide = approach(state.carbon_dioxide, dioxide, dt_s, 120.0)


@dataclass
class SensorState:
    """All that changes; plain data, so that it can be saved."""

    battery: float = 96.0


class Sensor:
    """One battery sensor.

    Args:
        kind: ``smoke``, ``gas`` or ``climate``.
        number: 1, 2...; sensors of a kind hang at different places.
        generator: its own random numbers.
    """

    def __init__(self, kind: str, number: int, generator: np.random.Generator) -> None:
        self.kind = kind
        self.number = number
        self.generator = generator
        self.quantities = SENSOR_QUANTITIES[kind]
        self.state = SensorState(battery=97.0 - 3.0 * number)

    def step(self, dt_s: float, hall: HallState) -> Shown:
        """Run for ``dt_s`` seconds; gives what the sensor shows then."""
        noise = self.generator.standard_normal(4)
        self.state.battery = max(0.0, self.state.battery - 1.2e-6 * dt_s)
        measured = {"smoke": self._smoke, "gas": self._gas, "climate": self._climate}
        return {
            **measured[self.kind](hall, noise),
            "battery": self.state.battery,
            "signal_strength": -58.0 - 4.0 * self.number + 1.5 * noise[3],
        }

    def _smoke(self, hall: HallState, noise: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Shown:
        density = abs(0.02 + 0.002 * hall.carbon_monoxide + 0.004 * noise[0])
        ceiling = hall.temperature + 2.5 + 0.2 * self.number + 0.05 * noise[1]
        return {"density": density, "alarm": density > 2.0, "temperature": ceiling}

    def _gas(self, hall: HallState, noise: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Shown:
        near = 1.25 - 0.2 * self.number
        monoxide = abs(hall.carbon_monoxide * near + 0.12 * noise[0])
        dioxide = hall.carbon_dioxide * (1.02 - 0.02 * self.number) + 4.0 * noise[1]
        return {"carbon_monoxide": monoxide, "carbon_dioxide": dioxide, "alarm": monoxide > 30.0}

    def _climate(
        self, hall: HallState, noise: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> Shown:
        temperature = hall.temperature + 0.4 * (self.number - 2) + 0.04 * noise[0]
        humidity = hall.humidity + 0.8 * (2 - self.number) + 0.15 * noise[1]
        return {
            "temperature": temperature,
            "humidity": humidity,
            "dew_point": dew_point(temperature, humidity),
        }
