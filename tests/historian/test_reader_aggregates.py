"""Aggregates and trends through the reader: from files, whatever their number and order."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from historian_samples import START_US, wave
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import Store

from headrace.historian.aggregates import AGGREGATES, calculate
from headrace.historian.intervals import AggregateConfiguration, Raw, interval_edges
from headrace.historian.reader import Reader
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch

END_US = START_US + 600_000_000


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cuts=st.lists(st.integers(1, 599), max_size=4, unique=True),
    start_s=st.integers(-20, 400),
    length_s=st.integers(1, 300),
    interval_s=st.integers(1, 90),
    configuration=st.builds(
        AggregateConfiguration,
        treat_uncertain_as_bad=st.booleans(),
        use_sloped_extrapolation=st.booleans(),
        stepped=st.booleans(),
    ),
)
def test_bounds_from_files_equal_those_of_the_whole_history(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    start_s: int,
    length_s: int,
    interval_s: int,
    configuration: AggregateConfiguration,
) -> None:
    """A read fetches only what a request needs; results equal those from all samples at once."""
    whole = wave(2, 600)
    status = np.where(np.arange(1200) % 37 == 0, 0x40000000, whole["status"].to_numpy())
    whole = whole.with_columns(pl.Series("status", status.astype(np.uint32)))
    folder = DataFolder(tmp_path_factory.mktemp("table"))
    store = Store(folder)
    edges = [0, *sorted(cuts), 600]
    for low, high in itertools.pairwise(edges):
        store.commit(whole.slice(2 * low, 2 * (high - low)))
    start_us = START_US + start_s * 1_000_000
    end_us = start_us + length_s * 1_000_000
    own = whole.filter(pl.col("tag_id") == 2)
    reader = Reader(folder.table)
    for name in sorted(AGGREGATES):
        found = reader.aggregate([2], name, start_us, end_us, interval_s * 1_000_000, configuration)
        raw = Raw(
            own["source_timestamp"].to_physical().to_numpy(),
            own["value"].fill_null(float("nan")).to_numpy(),
            own["status"].to_numpy(),
            interval_edges(start_us, end_us, interval_s * 1_000_000),
            configuration,
        )
        expected = calculate(name, raw)
        assert found["status"].to_list() == expected.status.tolist(), name
        np.testing.assert_allclose(
            found["value"].fill_null(float("nan")).to_numpy(), expected.value, rtol=1e-9, atol=1e-9
        )


def test_text_counts_by_its_status(folder: DataFolder) -> None:
    at_us = START_US + np.arange(4) * 1_000_000
    batch = make_batch(
        np.full(4, 9),
        at_us,
        np.zeros(4),
        received_timestamp_us=START_US,
        text=["run", "run", "stop", "run"],
        value_is_null=np.ones(4, np.bool_),
    )
    Store(folder).commit(batch)
    reader = Reader(folder.table)
    assert reader.aggregate([9], "Count", START_US, START_US + 4_000_000, 0)["value"][0] == 4
    good = reader.aggregate([9], "DurationGood", START_US, START_US + 3_000_000, 0)
    assert good["value"][0] == 3_000
    assert reader.aggregate([9], "Average", START_US, START_US + 3_000_000, 0)["value"][0] is None


def test_a_trend_equals_the_samples_it_was_made_from(folder: DataFolder) -> None:
    store = Store(folder)
    for n in (2, 0, 1):
        store.commit(wave(3, 200, first=200 * n))
    reader = Reader(folder.table)
    trend = reader.downsample(2, START_US, END_US, 50)
    samples = reader.read([2], START_US, END_US)
    assert trend["count"].sum() == samples.height == 600
    assert trend["minimum"].min() == samples["value"].min()
    assert trend["maximum"].max() == samples["value"].max()
    assert trend["bad"].sum() == (samples["status"] > 0).sum()
    assert trend.height == 50
    assert not reader.downsample(99, START_US, END_US, 50).height


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda reader: reader.downsample(1, 10, 10, 5), "HIST-1042"),
        (lambda reader: reader.downsample(1, 0, 10, 0), "HIST-1042"),
        (lambda reader: reader.aggregate([1], "Average", 10, 10, 5), "HIST-1060"),
        (lambda reader: reader.aggregate([1], "Average", 0, 10**12, 1), "HIST-1060"),
        (lambda reader: reader.aggregate([1], "Typical", 0, 10, 5), "HIST-1061"),
    ],
)
def test_bad_input_is_named(folder: DataFolder, call, code: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Misconfigured) as caught:
        call(Reader(folder.table))
    assert caught.value.code == code
