"""How samples came: the figures, and that they do not depend on how the samples were cut."""

from __future__ import annotations

import random
from types import ModuleType

import msgspec
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_apps import LATE_S, T0, S, deployment, manifest

from headrace import app
from headrace.apps.runtime.arrivals import Arrivals
from headrace.apps.runtime.executor import Executor
from headrace.model.app_manifest import Output
from headrace.model.sample import make_batch

MS = 1000
TOLD = manifest(services=[], outputs=[Output(type="pump", name="word", unit="text")])
BOUND = deployment(TOLD)
TAGS = np.array([11, 12, 13, 21, 22], np.int64)
Row = tuple[int, int, int, int]


def batch(rows: list[Row]) -> pl.DataFrame:
    """(tag_id, received ms after T0, delay in ms, status)."""
    tag, received, delay, status = (np.array(each, np.int64) for each in zip(*rows, strict=True))
    return make_batch(
        tag,
        T0 + (received - delay) * MS,
        np.ones(len(tag)),
        status=status.astype(np.uint32),
        received_timestamp_us=T0 + received * MS,
    )


def table(arrivals: Arrivals, start_s: int, end_s: int) -> dict[tuple[str, str], dict[str, object]]:
    rows = arrivals.table(BOUND.assets, T0 + start_s * S, T0 + end_s * S)
    return {(row["asset"], row["quantity"]): row for row in rows.iter_rows(named=True)}


def test_figures_are_of_what_was_received_in_the_window_whatever_its_source_time() -> None:
    arrivals = Arrivals(TAGS)
    arrivals.put(
        batch(
            [
                (11, -2000, 0, 0),
                (11, 1000, 10, 0),
                (11, 2000, 30, 0x8005_0000),
                (11, 7000, 20, 0),
                (12, -500, 0, 0),
                (21, 5000, 600_000, 0),
                (99, 5000, 0, 0),
            ]
        )
    )
    told = table(arrivals, 0, 10)
    first = told["south/p1", "power"]
    assert (first["samples"], first["bad"]) == (3, 1)
    assert (first["gap_ms"], first["silent_ms"]) == (5000.0, 3000.0)
    assert (first["delay_ms"], first["delay_span_ms"]) == (20.0, 20.0)
    silent = told["south/p1", "flow"]
    assert (silent["samples"], silent["gap_ms"], silent["delay_ms"]) == (0, 10_500.0, None)
    assert told["south/p1", "mode"]["gap_ms"] is None
    assert told["north/p2", "power"]["delay_ms"] == 600_000.0


def test_the_gap_before_the_first_sample_of_a_window_is_told_after_all_else_is_forgotten() -> None:
    arrivals = Arrivals(TAGS)
    arrivals.put(batch([(11, 1000, 0, 0), (11, 2000, 0, 0), (11, 31_000, 0, 0)]))
    arrivals.forget(T0 + 30 * S)
    again = Arrivals(TAGS, arrivals.held(T0 + 30 * S))
    again.put(batch([(11, 31_000, 0, 0)]))
    for each in (arrivals, again):
        assert table(each, 30, 40)["south/p1", "power"]["gap_ms"] == 29_000.0


def hooks() -> ModuleType:
    made = ModuleType("load_watch")

    @app.on_window(
        "pump", length="10 s", every="5 s", step="5 s", lateness=f"{LATE_S} s", arrivals=True
    )
    def watch(window: app.Window) -> pl.DataFrame:
        told = window.arrivals.group_by("asset", maintain_order=True).agg(
            word=pl.concat_str(
                "samples", "gap_ms", "silent_ms", "delay_ms", "delay_span_ms", ignore_nulls=True
            ).str.join(";")
        )
        return told.with_columns(time=pl.lit(window.frame["time"][-1]))

    @app.on_window("pump", length="10 s", every="5 s", step="5 s")
    def plain(window: app.Window) -> None:
        assert window.arrivals.is_empty()

    vars(made).update(watch=watch, plain=plain)
    return made


HOOKS = hooks()
END_S = 40


def body(parts: list) -> bytes:
    assert not [problem for part in parts for problem in part.problems]
    return msgspec.msgpack.encode(
        pl.concat([part.samples for part in parts]).to_dict(as_series=False)
    )


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([11, 12, 21, 22, 99]),
            st.integers(-5000, END_S * 1000),
            st.sampled_from([0, 15, 800, 600_000, -90_000]),
            st.sampled_from([0, 0, 0x8005_0000]),
        ),
        min_size=1,
        max_size=40,
        unique_by=lambda row: (row[0], row[1]),
    ),
    seed=st.integers(0, 2**32),
    kills=st.sets(st.integers(0, END_S)),
)
@settings(max_examples=8, deadline=None)
def test_kills_and_order_change_nothing(rows: list[Row], seed: int, kills: set[int]) -> None:
    whole = Executor(TOLD, HOOKS, BOUND, start_us=T0)
    whole.feed(batch(rows))
    expected = body([whole.advance(T0 + END_S * S)])
    dice = random.Random(seed)
    log = sorted((row[1] / 1000 + dice.random() * (LATE_S - 0.2), row) for row in rows)
    one, fed, parts = Executor(TOLD, HOOKS, BOUND, start_us=T0), 0, []
    for second in range(END_S + 1):
        while fed < len(log) and log[fed][0] <= second:
            fed += 1
            one.feed(batch([log[fed - 1][1]]), fed)
        parts.append(one.advance(T0 + second * S))
        if second in kills:
            one = Executor(TOLD, HOOKS, BOUND, one.save())
            for sequence in range(one.replay_after + 1, fed + 1):
                one.feed(batch([log[sequence - 1][1]]), sequence)
    assert body(parts) == expected


def test_samples_of_a_clock_that_went_back_are_seen_again_after_a_kill() -> None:
    one = Executor(TOLD, HOOKS, BOUND, start_us=T0)
    one.feed(batch([(11, 26_000, 600_000, 0)]), 1)
    one.advance(T0 + 26 * S)
    assert one.replay_after == 0, "its source time is long gone, its arrival is not"
