"""What says how an asset is driven and whether it runs, by needed type of the manifest."""

from __future__ import annotations

LOADS = {"pump": "power", "compressor": "power", "machine": "spindle_power", "engine": ""}
"""Needed type -> quantity that is near nothing while the asset is at rest."""
OPERATING = {
    "pump": ("speed", "flow", "suction_pressure"),
    "compressor": ("loaded", "tank_pressure", "intake_temperature"),
    "machine": ("spindle_speed", "spindle_power"),
    "engine": ("altitude", "speed_number", "throttle_angle"),
}
"""Needed type -> quantities that say how it is driven, and are no sign of its health."""
