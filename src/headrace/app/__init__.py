"""The kit for industrial apps: ``from headrace import app``.

An app declares what it does on windows of samples, alarms, schedules and orders, and which questions it
answers. It never sees tags: its manifest (:mod:`headrace.model.app_manifest`) names types of assets and
their quantities. See ``docs/apps.md``.

Example:
    >>> from headrace import app
    >>> @app.on_window("pump", length="1 min", every="1 min")
    ... def mean_power(window: app.Window):
    ...     import polars as pl
    ...     grouped = window.frame.group_by("asset", maintain_order=True)
    ...     return grouped.agg(pl.col("time").last(), mean_power=pl.col("power").mean())
"""

from __future__ import annotations

from headrace.app.context import Context, Window
from headrace.app.hooks import (
    on_alarm,
    on_order,
    on_schedule,
    on_window,
    score,
    service,
    train,
)
from headrace.app.records import (
    AlarmChange,
    Asset,
    Model,
    Order,
    Trained,
    Unit,
    ValueEntry,
    WorkRequest,
)

__all__ = [
    "AlarmChange",
    "Asset",
    "Context",
    "Model",
    "Order",
    "Trained",
    "Unit",
    "ValueEntry",
    "Window",
    "WorkRequest",
    "on_alarm",
    "on_order",
    "on_schedule",
    "on_window",
    "score",
    "service",
    "train",
]
