"""What a machine shows, and the small mathematics that all machines share."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from headrace.sim.emulators import PointType, Value

Kind = Literal["measurement", "counter", "state", "setting"]
Shown = dict[str, Value]

WATER_DENSITY_KG_M3: Final = 998.0
WATER_HEAT_J_KG_K: Final = 4186.0
GRAVITY_M_S2: Final = 9.80665
ATMOSPHERE_BAR: Final = 1.01325


@dataclass(frozen=True)
class Quantity:
    """One quantity of a machine.

    Attributes:
        name: last token of its tag's path.
        unit: UCUM-like text; "" when it has none.
        description: what it is, in one line.
        data_type: as the device declares it.
        kind: a ``counter`` never runs backwards; a ``setting`` may be written.
        minimum, maximum: envelope of writes of a setting, in its unit.

    Example:
        >>> Quantity("flow", "m3/h", "Volume flow").kind
        'measurement'
    """

    name: str
    unit: str
    description: str
    data_type: PointType = "float64"
    kind: Kind = "measurement"
    minimum: float = 0.0
    maximum: float = 0.0


def generator_for(seed: int, name: str) -> np.random.Generator:
    """A machine's own random numbers: they do not depend on which other machines there are.

    Example:
        >>> a, b = generator_for(1, "pump_1"), generator_for(1, "pump_1")
        >>> bool(a.random() == b.random())
        True
    """
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


def approach(value: float, target: float, dt_s: float, time_constant_s: float) -> float:
    """First-order lag, exact for any step.

    Example:
        >>> round(approach(0.0, 1.0, 60.0, 60.0), 4)
        0.6321
    """
    return target + (value - target) * math.exp(-dt_s / time_constant_s)


def clamp(value: float, minimum: float, maximum: float) -> float:
    """The value within the bounds."""
    return min(max(value, minimum), maximum)
