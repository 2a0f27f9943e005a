"""Back-tests: what a condition would have told, against a reference in plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store import Store

from headrace.formula.problems import FormulaProblem
from headrace.historian import backtest as module
from headrace.historian.backtest import Outcome, Question, backtest
from headrace.historian.marks import Mark, meet, read_marks
from headrace.historian.reader import Reader
from headrace.historian.sweep import Sweep, parse_sweep, swept
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.sample import make_batch
from headrace.model.time import US_PER_S, ManualClock

MINUTE_US = 60 * US_PER_S
START_US = 1_700_000_040_000_000
TYPE = AssetTypeConfig(
    name="pump",
    quantities={"temperature": "degC", "state": "text", "load": "%"},
    attributes={"limit": "degC"},
)
WIDE = FormulaConfig(asset_type="pump", name="wide", text="wide = load > 50 %")


def config_of(pumps: int = 2, formulas: tuple[FormulaConfig, ...] = ()) -> AppsConfig:
    assets = tuple(
        AssetConfig(
            path=f"hall/p{n}",
            type="pump",
            tags={"temperature": n, "load": 100 + n},
            attributes={"limit": 80.0 + n},
            outputs={"wide": 200 + n},
        )
        for n in range(1, pumps + 1)
    )
    return AppsConfig(
        enterprise="acme", site="mill", types=(TYPE,), assets=assets, formulas=formulas
    )


def stored(folder: DataFolder, series: dict[int, list[float | None]]) -> Reader:
    """A table with one sample a minute; None is a Bad one."""
    store = Store(folder, ManualClock(START_US))
    for tag, values in series.items():
        bad = np.array([value is None for value in values])
        store.commit(
            make_batch(
                np.full(len(values), tag),
                START_US + MINUTE_US * np.arange(len(values)),
                np.array([value or 0.0 for value in values]),
                status=np.where(bad, 0x80340000, 0).astype(np.uint32),
                received_timestamp_us=START_US,
                value_is_null=bad,
            )
        )
    return Reader(folder.table)


def ask(
    reader: Reader, text: str, minutes: int, config: AppsConfig | None = None, **more: object
) -> Outcome:
    question = Question(
        text=text,
        asset_type="pump",
        start_us=START_US,
        end_us=START_US + minutes * MINUTE_US,
        **more,  # type: ignore[arg-type] # fields of a question
    )
    return backtest(reader, config or config_of(), question)


def minutes_of(outcome: Outcome) -> list[tuple[str, float, float | None]]:
    return [
        (
            each.asset,
            (each.start_us - START_US) / MINUTE_US,
            None if each.end_us is None else (each.end_us - START_US) / MINUTE_US,
        )
        for each in outcome.episodes
    ]


def test_episodes_of_a_condition_and_of_an_alarm_with_a_dead_zone(folder: DataFolder) -> None:
    reader = stored(
        folder,
        {1: [70, 85, 90, 78, 85, 70, 60, 90], 2: [90, None, 70, 70, 81, 81, 81, 70]},
    )
    bare = ask(reader, "temperature > 80 degC", 8)
    assert minutes_of(bare) == [
        ("hall/p2", 0, 2),  # Bad does not end it
        ("hall/p1", 1, 3),
        ("hall/p1", 4, 5),
        ("hall/p2", 4, 7),
        ("hall/p1", 7, None),
    ]
    assert bare.tally.count == 5
    assert bare.tally.total_s == 60 * (2 + 2 + 1 + 3 + 1)
    assert bare.tally.longest_s == 180
    zone = ask(reader, "alarm hot: temperature > 80 degC, off below 65 degC, priority high", 8)
    assert minutes_of(zone) == [("hall/p2", 0, None), ("hall/p1", 1, 6), ("hall/p1", 7, None)]
    delayed = ask(reader, "hot = temperature > 80 degC for 90 s", 8)
    assert minutes_of(delayed) == [("hall/p1", 2.5, 3), ("hall/p2", 5.5, 7)]
    one = ask(reader, "temperature > limit", 8, assets=frozenset({"hall/p2"}))
    assert one.assets == ("hall/p2",)
    assert minutes_of(one) == [("hall/p2", 0, 2)]
    quiet = ask(
        reader, "alarm hot: temperature > 80 degC, suppressed when temperature > 88 degC", 8
    )
    assert (quiet.tally.count, quiet.tally.suppressed) == (3, 2)


def test_parts_of_the_time_and_of_the_assets_change_nothing(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    values = {n: list(80 + np.cumsum(rng.normal(0, 2, 300))) for n in (1, 2)}
    reader = stored(folder, values)  # type: ignore[arg-type] # floats
    whole = ask(reader, "alarm hot: temperature > 82 degC for 2 min, off below 80 degC", 300)
    monkeypatch.setattr(module, "PART_ROWS", 37)
    told: list[tuple[int, int]] = []
    question = Question(
        text="alarm hot: temperature > 82 degC for 2 min, off below 80 degC",
        asset_type="pump",
        start_us=START_US,
        end_us=START_US + 300 * MINUTE_US,
    )
    parts = backtest(reader, config_of(), question, lambda done, of: told.append((done, of)))
    assert len(told) > 10
    assert parts == whole


def test_a_sweep_counts_for_each_value_and_moves_the_dead_zone_along(folder: DataFolder) -> None:
    reader = stored(folder, {1: [60, 72, 60, 82, 78, 71, 92, 60]})
    marks = (Mark(at_us=START_US + 6 * MINUTE_US, label="seized", asset="hall/p1"),)
    found = ask(
        reader,
        "alarm hot: temperature > 80 degC, off below 75 degC",
        8,
        config=config_of(1),
        sweep=Sweep(low=70, high=95, step=5),
        marks=marks,
        before_us=MINUTE_US,
        after_us=0,
    )
    assert found.swept == "80 degC"
    table = [
        (p.value, p.tally.count, p.tally.total_s / 60, p.tally.met.hits, p.tally.met.false_alarms)
        for p in found.points
        if p.tally.met is not None
    ]
    # 70: off below 65; 75: below 70; 80: below 75; ...
    assert table == [
        (70, 2, 5, 1, 1),
        (75, 1, 4, 1, 0),
        (80, 2, 3, 1, 1),
        (85, 1, 1, 1, 0),
        (90, 1, 1, 1, 0),
        (95, 0, 0, 0, 0),
    ]
    assert found.points[2].tally == found.tally


def test_which_number_is_swept() -> None:
    text = "hot = temperature > 80 degC for 5 min and load > 50 %"
    assert swept(text, Sweep(low=1, high=2, step=1))[0] == "80 degC"
    written, texts = swept(text, Sweep(low=1, high=2, step=1, number=2))
    assert written == "5 min"
    assert [each for _, each in texts] == [
        f"hot = temperature > 80 degC for {n} min and load > 50 %" for n in (1, 2)
    ]
    for wrong in ("70-90", "90..70", "1..1000..1", "a..b", "1..2..-1"):
        with pytest.raises(Misconfigured) as caught:
            parse_sweep(wrong).values()
        assert caught.value.code == "HIST-2203"
    for sweep, source in (
        (Sweep(low=1, high=2, number=9), text),
        (Sweep(low=1, high=2), "a = not b"),
    ):
        with pytest.raises(Misconfigured) as caught:
            swept(source, sweep)
        assert caught.value.code == "HIST-2204"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50), st.integers(1, 9)), max_size=6),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 2)), max_size=5),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_what_meets_what_is_as_in_plain_words(
    episodes: list[tuple[int, int, int]],
    events: list[tuple[int, int, int]],
    before: int,
    after: int,
) -> None:
    assets = ["a", "b"]
    rows = {
        "asset": [each[0] for each in episodes],
        "start_us": [each[1] for each in episodes],
        "end_us": [each[1] + each[2] for each in episodes],
    }
    frame = pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.Int64()))
    marks = [
        Mark(at_us=at, end_us=at + length, asset=["", "a", "b"][whose])
        for at, length, whose in events
    ]
    met = meet(frame, assets, marks, before_us=before, after_us=after, end_us=100)

    def meets(episode: tuple[int, int, int], mark: Mark) -> bool:
        asset, start, length = episode
        mine = mark.asset in ("", assets[asset])
        times = set(range(start, start + length))
        assert mark.end_us is not None
        return mine and bool(times & set(range(mark.at_us - before, mark.end_us + after + 1)))

    assert met.hits == sum(any(meets(e, m) for e in episodes) for m in marks)
    assert met.hits + met.misses == len(marks)
    assert met.false_alarms == sum(not any(meets(e, m) for m in marks) for e in episodes)
    for result in met.events:
        starts = [e[1] for e in episodes if meets(e, result.mark)]
        lead = (result.mark.at_us - min(starts)) / 1e6 if starts else None
        assert result.lead_s == lead


def test_marked_events_are_read_with_their_line_when_one_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("time,label,end,asset\n2026-03-28T21:00:00Z,seized,,hall/p1\n")
    assert read_marks(path)[0].label == "seized"
    path.write_text("time,label\n2026-03-28T21:00:00Z,ok\n2026-03-28 21:00,no zone\n")
    with pytest.raises(Misconfigured, match="line 3") as caught:
        read_marks(path)
    assert caught.value.code == "HIST-2211"
    for text in ("when,label\n1,a\n", "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(Misconfigured) as caught:
            read_marks(path)
        assert caught.value.code == "HIST-2210"


def test_what_is_no_condition_is_refused_with_what_to_write(folder: DataFolder) -> None:
    reader = stored(folder, {1: [1, 2]})
    for text, code in (
        ("temperature", "HIST-2202"),
        ('state = "RUN"', "HIST-2205"),  # a condition, of a quantity that no pump has
        ("alarm hot: temprature > 80 degC", "FORM-1010"),
    ):
        with pytest.raises((Misconfigured, FormulaProblem)) as caught:
            ask(reader, text, 2)
        assert caught.value.code == code
    with pytest.raises(Misconfigured) as caught:
        ask(reader, "temperature > 1 degC", 0)
    assert caught.value.code == "HIST-2201"


def test_it_reads_what_other_formulas_gave(folder: DataFolder) -> None:
    """Their stored samples, as in live operation."""
    reader = stored(folder, {1: [85, 85, 85], 201: [0, 1, 0]})
    config = config_of(1, (WIDE,))
    assert minutes_of(ask(reader, "wide and temperature > 80 degC", 3, config)) == [
        ("hall/p1", 1, 2)
    ]
