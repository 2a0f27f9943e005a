"""The whole simulated works: machines, their couplings, and their paths below the site.

::

    hall air ──► machining centres ──heat──► cooling loop ◄──water── pump_1 (machines), pump_2 (cooler)
                  ▲ air │ power                  ▲ heat
                  └── compressor ────────────────┘            every power ──► four power meters
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from headrace.model.errors import Corrupt, Refused
from headrace.sim.emulators import Value
from headrace.sim.plant.compressor import Compressor
from headrace.sim.plant.cooling import CoolingLoop
from headrace.sim.plant.environment import Hall, Sensor, outdoor_temperature
from headrace.sim.plant.machining import MachiningCentre, Surroundings
from headrace.sim.plant.meter import Meter
from headrace.sim.plant.pump import Pump
from headrace.sim.plant.quantity import Quantity, Shown, generator_for
from headrace.sim.plant.vibration import Waveform

STATE_VERSION: Final = 1
NOMINAL_FLOW_M3_H: Final = 22.5
BASE_AIR_M3_MIN: Final = 1.6
LIGHTS_KW: Final = 4.5
WAVEFORM_PATH: Final = "machining/milling/cnc_1/spindle_vibration_waveform"
WAVEFORM_UNIT: Final = "m/s2"
SAMPLE_INTERVAL_US: Final = 1_000
WAVEFORM_COUNT: Final = 100


class Machine(Protocol):
    """What all machines have in common: own random numbers, and a state of plain data."""

    generator: np.random.Generator
    state: Any


@dataclass(frozen=True)
class Unit:
    """One work unit of the site.

    Attributes:
        path: ``area/work_center/work_unit``. asset_type: name of its type.
        quantities: what it shows.
    """

    path: str
    asset_type: str
    quantities: tuple[Quantity, ...]

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[1]


class Plant:
    """The simulated works. Pure: time goes by in :meth:`step` alone.

    Args:
        seed: same seed and same steps give the same values, to the bit.

    Example:
        >>> a, b = Plant(seed=7), Plant(seed=7)
        >>> a.step(1.0, 0) == b.step(1.0, 0)
        True
    """

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.at_us = 0
        self.machining = {
            f"cnc_{n}": MachiningCentre(n, generator_for(seed, f"cnc_{n}")) for n in (1, 2, 3)
        }
        self.pumps = {f"pump_{n}": Pump(generator_for(seed, f"pump_{n}")) for n in (1, 2)}
        self.compressor = Compressor(generator_for(seed, "compressor_1"))
        self.cooling = CoolingLoop(generator_for(seed, "loop_1"))
        self.hall = Hall(generator_for(seed, "hall_a"))
        self.sensors = {
            f"{kind}_{n}": Sensor(kind, n, generator_for(seed, f"{kind}_{n}"))
            for kind in ("smoke", "gas", "climate")
            for n in (1, 2, 3, 4)
        }
        self.meters = {
            "meter_1": Meter(generator_for(seed, "meter_1"), 0.88, 48_120.0),
            "meter_2": Meter(generator_for(seed, "meter_2"), 0.84, 21_990.0),
            "meter_3": Meter(generator_for(seed, "meter_3"), 0.86, 61_305.0),
            "meter_4": Meter(generator_for(seed, "meter_4"), 0.90, 163_480.0),
        }
        self.spindle_waveform = Waveform(generator_for(seed, "waveform"))
        self._grid = generator_for(seed, "grid")
        self.units = self._make_units()

    def _make_units(self) -> tuple[Unit, ...]:
        places = [
            *(("machining/milling", n, "machining_centre", m) for n, m in self.machining.items()),
            *(("utilities/pumping", n, "pump", p) for n, p in self.pumps.items()),
            ("utilities/compressed_air", "compressor_1", "compressor", self.compressor),
            ("utilities/cooling", "loop_1", "cooling_loop", self.cooling),
            *(("environment/hall_a", n, f"{s.kind}_sensor", s) for n, s in self.sensors.items()),
            *(("environment/energy", n, "power_meter", m) for n, m in self.meters.items()),
        ]
        return tuple(
            Unit(f"{place}/{name}", kind, machine.quantities)  # type: ignore[attr-defined] # a union of machines
            for place, name, kind, machine in places
        )

    @property
    def machines(self) -> dict[str, Machine]:
        """Every machine with a state, by name."""
        return {
            **self.machining,
            **self.pumps,
            "compressor_1": self.compressor,
            "loop_1": self.cooling,
            "hall_a": self.hall,
            **self.sensors,
            **self.meters,
        }

    def step(self, dt_s: float, at_us: int) -> dict[str, Value]:
        """Run for ``dt_s`` seconds up to the moment ``at_us``.

        Args:
            dt_s: above 0, at most 60.
            at_us: UTC microseconds; only the time of day matters.

        Returns:
            path -> value of every quantity except the waveform.
        """
        assert 0.0 < dt_s <= 60.0, f"a step of {dt_s} s"
        self.at_us = at_us
        outdoor = outdoor_temperature(at_us)
        self.hall.step(dt_s, at_us)
        hall = self.hall.state
        shown: dict[str, Shown] = {}
        water = self.cooling.state.tank_temperature
        for name, pump in self.pumps.items():
            shown[name] = pump.step(dt_s, water, hall.temperature)
        flows = (self.pumps["pump_1"].state.flow_m3_h, self.pumps["pump_2"].state.flow_m3_h)
        around = Surroundings(
            hall.temperature,
            water,
            flows[0] / NOMINAL_FLOW_M3_H,
            self.compressor.state.tank_pressure_bar,
        )
        for name, centre in self.machining.items():
            shown[name] = centre.step(dt_s, around)
        air = BASE_AIR_M3_MIN + sum(m.air_demand_m3_min for m in self.machining.values())
        shown["compressor_1"] = self.compressor.step(dt_s, air, hall.temperature, water)
        shown["loop_1"] = self.cooling.step(dt_s, self.heat_load_w(), flows, outdoor)
        shown.update(self._meter(dt_s))
        for name, sensor in self.sensors.items():
            shown[name] = sensor.step(dt_s, hall)
        return {
            f"{unit.path}/{quantity.name}": _plain(shown[unit.name][quantity.name])
            for unit in self.units
            for quantity in unit.quantities
        }

    def heat_load_w(self) -> float:
        """Heat that the cooling loop takes up now, in watts."""
        machines = sum(m.state.heat_to_loop_w for m in self.machining.values())
        pumps = sum(p.state.shaft_kw for p in self.pumps.values()) * 1000.0
        return machines + self.compressor.heat_to_loop_w + pumps

    def feeder_kw(self) -> dict[str, float]:
        """True power behind each meter, in kilowatts; meter_4 has all."""
        feeders = {
            "meter_1": sum(m.state.power_kw for m in self.machining.values()),
            "meter_2": sum(p.state.power_kw for p in self.pumps.values())
            + self.cooling.state.power_kw,
            "meter_3": self.compressor.state.power_kw,
        }
        return {**feeders, "meter_4": sum(feeders.values()) + self.hall.state.hvac_kw + LIGHTS_KW}

    def _meter(self, dt_s: float) -> dict[str, Shown]:
        frequency = 50.0 + 0.008 * float(self._grid.standard_normal())
        return {
            name: self.meters[name].step(dt_s, power, frequency)
            for name, power in self.feeder_kw().items()
        }

    def waveform(self) -> npt.NDArray[np.float64]:
        """The next 100 ms of the spindle's vibration on cnc_1, shape (100,), m/s2."""
        centre = self.machining["cnc_1"]
        state, operation = centre.state, centre.current
        cutting = state.phase == "cut"
        return self.spindle_waveform.take(
            WAVEFORM_COUNT,
            rotation_hz=state.spindle_speed_rpm / 60.0,
            removal_ratio=operation.removal_rate_cm3_min / 400.0 if cutting else 0.0,
            teeth=operation.teeth,
            wear=state.bearing_wear,
        )

    def write(self, path: str, value: Value) -> None:
        """Set a setting, as a client of its device does.

        Raises:
            Refused: SIM-1002 for anything that is no setting, SIM-1003 outside its envelope.
        """
        unit_path, _, name = path.rpartition("/")
        unit = next((unit for unit in self.units if unit.path == unit_path), None)
        quantity = next((q for q in unit.quantities if q.name == name), None) if unit else None
        if unit is None or quantity is None or quantity.kind != "setting":
            raise Refused("SIM-1002", f"{path} of the simulated site is not a setting")
        if isinstance(value, str) or not quantity.minimum <= float(value) <= quantity.maximum:
            raise Refused(
                "SIM-1003",
                f"{path} cannot be {value!r}",
                f"Use {quantity.minimum:g} to {quantity.maximum:g} {quantity.unit}.",
            )
        setattr(self.machines[unit.name].state, name, float(value))

    def save(self) -> dict[str, Any]:
        """The state as plain data; :meth:`restore` of it goes on to the bit."""
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "at_us": self.at_us,
            "machines": {
                name: {
                    "state": asdict(machine.state),
                    "generator": machine.generator.bit_generator.state,
                }
                for name, machine in self.machines.items()
            },
            "grid": self._grid.bit_generator.state,
            "waveform": {
                "generator": self.spindle_waveform.generator.bit_generator.state,
                "rotation_rad": self.spindle_waveform.rotation_rad,
                "defect_rad": self.spindle_waveform.defect_rad,
            },
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            Corrupt: SIM-1001 when it is not one of ours; nothing was changed.
        """
        fresh = Plant(self.seed)
        try:
            if saved["version"] != STATE_VERSION:
                raise KeyError("version")
            for name, machine in fresh.machines.items():
                part = saved["machines"][name]
                names = {field.name for field in fields(machine.state)}
                if names != set(part["state"]):
                    raise KeyError(name)
                machine.state = type(machine.state)(**part["state"])
                machine.generator.bit_generator.state = part["generator"]
            fresh._grid.bit_generator.state = saved["grid"]
            waveform = saved["waveform"]
            fresh.spindle_waveform.generator.bit_generator.state = waveform["generator"]
            fresh.spindle_waveform.rotation_rad = float(waveform["rotation_rad"])
            fresh.spindle_waveform.defect_rad = float(waveform["defect_rad"])
            fresh.at_us = int(saved["at_us"])
            fresh.seed = int(saved["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(
                "SIM-1001",
                f"the saved state of the simulated site does not fit ({error})",
                "Remove run/plant.json to begin with new machines.",
            ) from error
        self.__dict__.update(fresh.__dict__)


def _plain(value: Value) -> Value:
    """numpy scalars as Python's own: protocol libraries look at the exact type."""
    return value.item() if isinstance(value, np.generic) else value
