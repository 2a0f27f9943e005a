"""The list's filter, order and counts, and what an alarm's text tells about one asset."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.alarms.store import AlarmStore
from headrace.console.alarm_about import AlarmAbout, AlarmTexts
from headrace.console.alarm_lines import (
    SORTS,
    STATES,
    VIEWS,
    WORST_FIRST,
    AlarmFilter,
    badge,
    chosen,
    counts,
    ordered,
    rank,
    view_of,
    waits,
)
from headrace.console.alarms import AlarmBoard
from headrace.model.alarm import AlarmState, Transition, Wording
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.time import US_PER_S

ALARMS = st.lists(
    st.builds(
        AlarmState,
        alarm=st.sampled_from(["a/p/hot", "a/p/dry", "b/q/hot"]),
        key=st.just("pump.hot"),
        asset=st.sampled_from(["a/p", "a/pp", "b/q"]),
        name=st.just("hot"),
        state=st.sampled_from(STATES),
        priority=st.sampled_from(WORST_FIRST),
        since_us=st.integers(0, 5),
        shadow=st.booleans(),
    ),
    max_size=12,
)


@given(ALARMS)
def test_each_alarm_stands_in_one_view_and_the_badge_counts_what_waits(
    alarms: list[AlarmState],
) -> None:
    found = counts(alarms)
    parts = [len(chosen(alarms, AlarmFilter(view=view))) for view in VIEWS]
    assert parts == [found[view] for view in VIEWS] and found["all"] == len(alarms)
    waiting = [alarm for alarm in chosen(alarms, AlarmFilter()) if waits(alarm)]
    number, highest = badge(alarms)
    assert number == len(waiting)
    assert highest == (min((a.priority for a in waiting), key=rank) if waiting else "")


@given(ALARMS, st.sampled_from(SORTS))
def test_an_order_loses_nothing_and_worst_first_is_so(alarms: list[AlarmState], sort: str) -> None:
    found = ordered(alarms, sort)
    assert sorted(map(repr, found)) == sorted(map(repr, alarms))
    if sort == "priority":
        keys = [(not waits(a), rank(a.priority), -a.since_us) for a in found]
        assert keys == sorted(keys)


def test_a_filter_takes_whole_parts_of_a_path() -> None:
    one = AlarmState(alarm="a/pp/hot", asset="a/pp", key="pump.hot", name="hot", state="UNACK")
    assert chosen([one], AlarmFilter(below="a")) == [one]
    assert chosen([one], AlarmFilter(below="a/p")) == []
    assert chosen([one], AlarmFilter(mine="mia")) == []
    assert chosen([msgspec.structs.replace(one, assignee="mia")], AlarmFilter(mine="mia")) != []
    assert view_of(msgspec.structs.replace(one, shadow=True)) == "all"


def config(text: str) -> AppsConfig:
    alarm = FormulaConfig(asset_type="pump", name="hot", kind="alarm", text=text)
    return AppsConfig(
        enterprise="acme",
        site="mill",
        assets=(
            AssetConfig(path="a/p", type="pump", tags={"t": 7}, relations={"up": "a/q"}),
            AssetConfig(path="a/q", type="pump", tags={"t": 8}, outputs={"load": 9}),
        ),
        types=(AssetTypeConfig(name="pump", relations={"up": "pump"}),),
        formulas=(alarm,),
    )


def test_a_text_tells_limit_guidance_and_the_tags_of_this_asset() -> None:
    text = 'alarm hot: t > 25 degC for 5 s, cause "dry" zh "缺油"'
    about = AlarmTexts(config(text)).about("pump.hot", "a/p")
    assert (about.limit, about.tag_ids, about.limit_in("K")) == ("> 25 degC", (7,), 298.15)
    assert about.definition is not None and about.definition.cause == Wording("dry", "缺油")
    assert about.limit_in("kW") is None and AlarmAbout().limit_in("K") is None
    far = AlarmTexts(config("alarm hot: up.t - t > 3 K and up.load > 1")).about("pump.hot", "a/p")
    assert (far.limit, far.tag_ids) == ("", (8, 7, 9))
    assert AlarmTexts(config("alarm hot: t >")).about("pump.hot", "a/p") == AlarmAbout()
    assert AlarmTexts(None).about("pump.hot", "a/p") == AlarmAbout()


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at_us = 1_800_000_000 * US_PER_S

    def now_us(self) -> int:
        return self.at_us


async def no_config() -> bytes | None:
    raise Transient("BUS-1033", "the broker is away")


async def test_a_flood_begins_above_ten_and_ends_below_five(tmp_path: Path) -> None:
    clock, store = Hands(), AlarmStore(DataFolder(tmp_path))
    board = AlarmBoard(store, None, no_config, clock)  # type: ignore[arg-type] # nothing is asked

    def tell(count: int) -> None:
        at_us = clock.now_us()
        state = AlarmState(alarm="a/p/hot", asset="a/p", key="pump.hot", name="hot", state="UNACK")
        lines = [
            Transition(
                id=f"{at_us}-{n}", alarm=state.alarm, key=state.key, asset=state.asset,
                event="alarm", before="NORM", after="UNACK", at_us=at_us - n,
            )
            for n in range(count)
        ]  # fmt: skip
        store.write(lines, [state])

    tell(10)
    await board.refresh()
    assert (board.recent, board.flood_since_us, board.problem) == (10, 0, "")
    version, began_us = board.version, clock.at_us
    clock.at_us += 300 * US_PER_S
    tell(4)
    await board.refresh()
    assert (board.recent, board.flood_since_us) == (14, began_us - 9)
    assert board.version > version and board.badge == (1, "medium")
    clock.at_us += 301 * US_PER_S  # the first ten are older than ten minutes
    await board.refresh()
    assert (board.recent, board.flood_since_us) == (4, 0)
    store.close()
