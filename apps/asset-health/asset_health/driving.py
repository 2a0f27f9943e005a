"""What says how an asset is driven and whether it runs, by needed type of the manifest."""

from __future__ import annotations

LOADS = {
    "pump": "power", "compressor": "power", "machine": "spindle_power", "engine": "", "point": "",
}  # fmt: skip
"""Needed type -> quantity that is near nothing while the asset is at rest."""
CYCLES = ("machine",)
"""Needed types that rest in between as they work: between parts and tools. Rows of rest are left out of their
windows; of the others a window with rest in it is a standstill: to start and stop is no normal running."""
OPERATING = {
    "pump": ("speed", "flow", "suction_pressure"),
    "compressor": ("loaded", "tank_pressure", "intake_temperature"),
    "machine": ("spindle_speed", "spindle_power", "tool_wear"),
    "engine": ("altitude", "speed_number", "throttle_angle"),
}
"""Needed type -> quantities that say how it is driven, and are no sign of its health."""
