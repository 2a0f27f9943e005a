"""What an early find saved, against the baseline that the plant has declared."""

from __future__ import annotations

from asset_health.texts import say
from headrace import app


def avoided_stop(
    asset: app.Asset, hours: float, evidence: dict[str, float | int]
) -> app.ValueEntry:
    """An entry of the value ledger for a stop that did not come unplanned; hours are what it saved."""
    settings = asset.settings
    stop_h, planned_h = float(settings["stop_hours"]), float(settings["planned_hours"])
    return app.ValueEntry(
        asset=asset.path,
        kind="avoided_stop",
        hours=hours,
        money=hours * float(settings["cost_per_hour"]),
        currency=str(settings["currency"]),
        baseline=say(settings["language"], "baseline", stop=stop_h, planned=planned_h),
        evidence=dict(evidence),
    )
