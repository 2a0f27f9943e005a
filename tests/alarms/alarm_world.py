"""Alarms of tests: bounds and results made of plain lists."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from headrace.alarms.definition import AlarmDefinition, definition_of
from headrace.formula.binding import bind
from headrace.formula.bound import Bound
from headrace.formula.evaluate import SCHEMA
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.status import BAD

PUMP = AssetTypeConfig(
    name="pump", quantities={"x": "1", "y": "1", "on": "condition", "stopped": "condition"}
)
Result = tuple[int, int, object]
"""(asset, seconds, True, False, or None for Bad)."""
S = 1_000_000


def formulas_of(*texts: str, version: int = 1, state: str = "live") -> list[FormulaConfig]:
    return [
        FormulaConfig(
            asset_type="pump",
            name=text.split(":")[0].removeprefix("alarm "),
            kind="alarm",
            text=text,
            version=version,
            state=state,  # type: ignore[arg-type] # one of the three
        )
        for text in texts
    ]


def bound_of(formulas: Iterable[FormulaConfig], assets: int = 2) -> dict[str, Bound]:
    """Bounds by key, of pumps ``hall/p0``, ``hall/p1``, ..."""
    tags = {name: 10 + n for n, name in enumerate(PUMP.quantities)}
    pumps = [AssetConfig(path=f"hall/p{n}", type="pump", tags=tags) for n in range(assets)]
    config = AppsConfig(
        enterprise="acme",
        site="mill",
        types=(PUMP,),
        assets=tuple(pumps),
        formulas=tuple(formulas),
    )
    return {each.key: each for each in bind(config).bound}


def definitions(formulas: Iterable[FormulaConfig]) -> dict[str, AlarmDefinition]:
    return {f"pump.{each.name}": definition_of(each) for each in formulas}


def frame(
    rows: Iterable[Result], gone: Iterable[tuple[int, int]] = (), uncertain: bool = False
) -> pl.DataFrame:
    """Results of a condition; ``gone`` are (asset, seconds) of rows that took place and are no more."""
    rows, gone = list(rows), list(gone)
    status = [BAD if value is None else 0x4000_0000 * uncertain for _, _, value in rows]
    return pl.DataFrame(
        {
            "asset": [asset for asset, _, _ in rows] + [asset for asset, _ in gone],
            "at_us": [at * S for _, at, _ in rows] + [at * S for _, at in gone],
            "value": [None if v is None else float(bool(v)) for *_, v in rows] + [None] * len(gone),
            "text": pl.Series([None] * (len(rows) + len(gone)), dtype=pl.String),
            "status": np.array(status + [0x80A0_0000] * len(gone), np.uint32),
        },
        schema=SCHEMA,
    )
