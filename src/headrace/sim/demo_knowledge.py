"""What engineers know of the demo's machines: attributes, relations, the plant calendar, and the formulas
and alarms of each asset type, which lie as texts in ``knowledge/``."""

from __future__ import annotations

from importlib import resources
from typing import Final

from headrace.sim.plant.plant import WAVEFORM_PATH, WAVEFORM_UNIT, Unit
from headrace.sim.plant.quantity import Quantity

ATTRIBUTES: Final[dict[str, dict[str, tuple[str, float]]]] = {
    # Of the pumps' data sheet: at rated speed on their closed loop.
    "pump": {
        "rated_speed": ("1/min", 2900.0),
        "rated_flow": ("m3/h", 25.82),
        "rated_head": ("m", 20.0),
    },
}
"""Asset type -> attribute -> unit and value, the same on all assets of the type."""
RELATIONS: Final[dict[str, dict[str, str]]] = {
    "machining_centre": {"supply": "compressor"},
    "cooling_loop": {"to_machines": "pump", "to_cooler": "pump"},
    **{
        kind: {"next": kind, "previous": kind}
        for kind in ("smoke_sensor", "gas_sensor", "climate_sensor")
    },
}
"""Asset type -> relation -> type that it leads to."""
_LEADS_TO: Final = {
    "supply": "utilities/compressed_air/compressor_1",
    "to_machines": "utilities/pumping/pump_1",
    "to_cooler": "utilities/pumping/pump_2",
}
RING: Final = 4
CALENDAR: Final = (
    "[calendar]",
    'rotation_start = "2026-01-05"',
    'holidays = { 2026-12-25 = "Christmas", 2026-12-26 = "Christmas", 2027-01-01 = "New Year" }',
    *(
        line
        for name, start, end, teams in (
            ("early", "06:00", "14:00", '["A", "B", "C"]'),
            ("late", "14:00", "22:00", '["B", "C", "A"]'),
            ("night", "22:00", "06:00", '["C", "A", "B"]'),
        )
        for line in (
            "[[calendar.shift]]",
            f'name = "{name}"',
            f'start = "{start}"',
            f'end = "{end}"',
            f"teams = {teams}",
        )
    ),
)
"""Three shifts a day with three teams, and the holidays of a winter."""


def statements(kind: str) -> str:
    """Formulas and alarms of an asset type.

    Example:
        >>> statements("pump").splitlines()[1]
        'hydraulic_power = 998 kg/m3 * 9.80665 m/s2 * flow * head -> kW'
    """
    file = resources.files("headrace.sim").joinpath("knowledge", f"{kind}.formula")
    return file.read_text("utf-8")


def unit_of(quantity: Quantity) -> str:
    """The unit in the asset type: texts and conditions are said as what they are."""
    return {"bool": "condition", "string": "text"}.get(quantity.data_type, quantity.unit)


def quantities_of(unit: Unit) -> dict[str, str]:
    """Name -> unit of what an asset's type has; the accelerometer is on one machine alone."""
    units = {quantity.name: unit_of(quantity) for quantity in unit.quantities}
    if WAVEFORM_PATH.startswith(f"{unit.path}/"):
        units[WAVEFORM_PATH.rpartition("/")[2]] = WAVEFORM_UNIT
    return units


def relations_of(unit: Unit) -> dict[str, str]:
    """Relation -> path of the asset that it leads to; sensors hang in a ring."""
    found = {}
    for name in RELATIONS.get(unit.asset_type, {}):
        if name in _LEADS_TO:
            found[name] = _LEADS_TO[name]
        else:
            base, _, number = unit.path.rpartition("_")
            step = 1 if name == "next" else -1
            found[name] = f"{base}_{(int(number) - 1 + step) % RING + 1}"
    return found
