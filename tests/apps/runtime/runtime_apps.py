"""Apps of tests: two pumps with other names and units, and a module of hooks."""

from __future__ import annotations

from types import ModuleType

import msgspec
import numpy as np
import polars as pl

from headrace import app
from headrace.model.app_manifest import (
    AppManifest,
    NeededType,
    Output,
    Permissions,
    Service,
    Setting,
)
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.sample import make_batch

S = 1_000_000
T0 = 1_700_000_040 * S  # a whole minute
LATE_S = 4


class WhatIf(msgspec.Struct):
    """A question of a test."""

    flow: float
    asset: str = ""


class Answer(msgspec.Struct):
    """What it is answered."""

    power: float
    calls: int


def manifest(**changes: object) -> AppManifest:
    told = AppManifest(
        id="load-watch",
        version="1.2.0",
        title={"en": "Load watch"},
        python="load_watch",
        types={
            "pump": NeededType(
                package="pump",
                quantities={"power": "kW", "flow": "m3/h"},
                optional={"mode": "text"},
            )
        },
        outputs=[
            Output(type="pump", name="load", unit="kW"),
            Output(type="pump", name="word", unit="text"),
        ],
        settings={"limit": Setting(default=10.0)},
        services=[Service(name="what_if")],
        permissions=Permissions(writes=["pump.flow"], history=True),
    )
    return msgspec.structs.replace(told, **changes)


def deployment(told: AppManifest, **changes: object) -> AppDeployment:
    first = BoundAsset(
        path="south/p1",
        type="pump",
        tags={"power": 11, "flow": 12, "mode": 13},
        units={"power": "W", "flow": "L/min"},
        outputs={"load": 101, "word": 102},
        writes={"flow": ("local", "plc_1", "p1/flow")},
    )
    second = BoundAsset(
        path="north/p2",
        type="pump",
        tags={"power": 21, "flow": 22},
        units={"power": "kW", "flow": "m3/h"},
        outputs={"load": 201, "word": 202},
    )
    made = AppDeployment(
        enterprise="acme",
        site="mill",
        manifest=told,
        package_sha256="0" * 64,
        assets=(first, second),
        settings={"limit": 10.0},
    )
    return msgspec.structs.replace(made, **changes)


def module() -> ModuleType:
    """Hooks that use all of a window, and a state."""
    made = ModuleType("load_watch")

    @app.on_window("pump", length="20 s", every="5 s", step="1 s", lateness=f"{LATE_S} s")
    def watch(window: app.Window) -> pl.DataFrame:
        seen = window.state.setdefault("seen", [0, 0.0])
        total = window.frame["power"].sum()
        seen[0] += 1
        seen[1] += total
        grouped = window.frame.group_by("asset", maintain_order=True)
        found = grouped.agg(
            pl.col("time").last(),
            load=pl.col("power").mean() + seen[1] / 7,
            word=pl.col("mode").last(),
        )
        limit = float(window.settings["limit"])
        for asset, load in zip(found["asset"], found["load"], strict=True):
            if load is not None and load > limit:
                window.propose(app.WorkRequest(asset=asset, title="look", reason="load"))
        return found

    @app.on_schedule("10 s")
    def sums(context: app.Context) -> None:
        context.state["n"] = context.state.get("n", 0) + 1
        context.value(app.ValueEntry(asset="south/p1", kind="energy", hours=context.state["n"] / 3))

    @app.on_alarm("pump", "hot")
    def told(alarm: app.AlarmChange, context: app.Context) -> None:
        context.state["hot"] = context.state.get("hot", 0) + 1
        if alarm.active:
            context.write(alarm.asset, "flow", 3.5)

    @app.service
    def what_if(request: WhatIf, context: app.Context) -> Answer:
        context.state["calls"] = context.state.get("calls", 0) + 1
        return Answer(power=request.flow * 2, calls=context.state["calls"])

    vars(made).update(watch=watch, sums=sums, told=told, what_if=what_if)
    return made


def samples(rows: list[tuple[int, int, float | None, int, int]]) -> pl.DataFrame:
    """(tag_id, source second after T0 in tenths, value, status, received order)."""
    tags, at, values, status, received = (
        (list(c) for c in zip(*rows, strict=True)) if rows else ([],) * 5
    )
    return make_batch(
        np.array(tags, np.int64),
        T0 + np.array(at, np.int64) * (S // 10),
        np.array([0.0 if v is None else v for v in values], np.float64),
        status=np.array(status, np.uint32),
        received_timestamp_us=T0 + np.array(received, np.int64),
        text=[f"m{v}" if tag == 13 else None for tag, v in zip(tags, values, strict=True)],
        value_is_null=np.array([v is None for v in values], np.bool_),
    )
