"""Back-test, shadow and live operation decide the same on the same samples."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "historian"))
from store import Store

from headrace.alarms.definition import definitions_of
from headrace.alarms.engine import AlarmEngine
from headrace.formula.binding import bind
from headrace.formula.stream import Stream
from headrace.historian.backtest import Question, backtest
from headrace.historian.reader import Reader
from headrace.model.alarm import Transition
from headrace.model.calendar import PlantCalendar, Stop
from headrace.model.folder import DataFolder
from headrace.model.knowledge import (
    AppsConfig,
    AssetConfig,
    AssetTypeConfig,
    FormulaConfig,
    FormulaState,
)
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

SECOND_US = 1_000_000
START_US = 1_700_000_000_000_000
END_US = START_US + 400 * SECOND_US
ALARMS = (
    "alarm hot: t > 80 degC",
    "alarm hot: t > 80 degC for 7 s, off below 76 degC for 3 s, latched",
    "alarm hot: mean(t, 12 s) > 80 degC for 4 s, off below 78 degC, priority urgent",
    "alarm hot: t > 80 degC and load > 50 %, off when load < 20 %",
    "alarm hot: t > limit, suppressed when load < 10 %",
    "alarm hot: t > 80 degC and not planned_stop()",
    "alarm hot: t > 78 degC for 3 s, suppressed when planned_stop()",
)
STOPS = tuple(
    Stop(start_us=START_US + a * SECOND_US, end_us=START_US + b * SECOND_US)
    for a, b in ((30, 55), (120, 190))
)
Row = tuple[int, float, int]
"""Seconds since the one before, value, and how it is: 0 Bad, 1 Uncertain, else Good."""
SERIES = st.lists(
    st.tuples(st.integers(1, 9), st.floats(70, 90), st.integers(0, 9)), min_size=1, max_size=40
)


def config_of(text: str, state: FormulaState) -> AppsConfig:
    pump = AssetTypeConfig(
        name="pump", quantities={"t": "degC", "load": "%"}, attributes={"limit": "degC"}
    )
    assets = tuple(
        AssetConfig(
            path=f"hall/p{n}", type="pump", tags={"t": n, "load": 10 + n},
            attributes={"limit": 78.0 + n},
        )
        for n in (1, 2)
    )  # fmt: skip
    hot = FormulaConfig(asset_type="pump", name="hot", kind="alarm", text=text, state=state)
    return AppsConfig(
        enterprise="acme",
        site="mill",
        calendar=PlantCalendar(stops=STOPS),
        types=(pump,),
        assets=assets,
        formulas=(hot,),
    )


def batch_of(tag: int, series: list[Row], scale: float, offset: float) -> pl.DataFrame:
    at_us = START_US + SECOND_US * np.cumsum([step for step, _, _ in series])
    quality = np.array([quality for _, _, quality in series])
    status = np.select([quality == 0, quality == 1], [0x80340000, 0x40900000], 0).astype(np.uint32)
    values = np.array([value for _, value, _ in series])
    return make_batch(
        np.full(len(series), tag),
        at_us,
        (values - offset) * scale,
        status=status,
        received_timestamp_us=at_us,
        value_is_null=quality == 0,
    )


def intervals(told: list[Transition]) -> set[tuple[str, int, int | None]]:
    """(asset, from, to) of alarms, by the journal."""
    open_us: dict[str, int] = {}
    found: set[tuple[str, int, int | None]] = set()
    for each in told:
        asset = each.alarm.rpartition("/")[0]
        if each.event == "alarm":
            open_us[asset] = each.at_us
        elif each.event == "return_to_normal":
            found.add((asset, open_us.pop(asset), each.at_us))
    return found | {(asset, start, None) for asset, start in open_us.items()}


def live(
    config: AppsConfig, samples: pl.DataFrame, cuts: list[int]
) -> set[tuple[str, int, int | None]]:
    """Samples as they come, in as many steps as there are cuts."""
    bound = bind(config).bound
    stream, engine = Stream(bound, config.calendar, start_us=START_US), AlarmEngine()
    stream.advance(START_US)
    told = engine.bind(bound, definitions_of(config.formulas), START_US, START_US)
    at = samples["source_timestamp"].to_physical()
    before = START_US
    for end in [*(START_US + SECOND_US * cut for cut in sorted(set(cuts))), END_US]:
        stream.put(samples.filter((at >= before) & (at < end)))
        told += engine.take(stream.advance(end).results, end, end)
        before = end
    return intervals(told)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(ALARMS),
    st.lists(SERIES, min_size=4, max_size=4),
    st.lists(st.integers(1, 399), max_size=8),
)
def test_back_test_shadow_and_live_decide_the_same(
    tmp_path_factory: pytest.TempPathFactory, text: str, series: list[list[Row]], cuts: list[int]
) -> None:
    samples = pl.concat(
        [
            *(batch_of(n, series[n - 1], 1.0, 0.0) for n in (1, 2)),
            *(batch_of(10 + n, series[1 + n], 5.0, 70.0) for n in (1, 2)),
        ]
    ).sort("source_timestamp", "tag_id")
    in_operation = live(config_of(text, "live"), samples, cuts)
    in_shadow = live(config_of(text, "shadow"), samples, [200])
    folder = DataFolder(tmp_path_factory.mktemp("table"))
    Store(folder, ManualClock(END_US)).commit(samples)
    question = Question(text=text, asset_type="pump", start_us=START_US, end_us=END_US)
    found = backtest(Reader(folder.table), config_of(text, "off"), question)
    tried = {(each.asset, each.start_us, each.end_us) for each in found.episodes}
    assert tried == in_operation == in_shadow
