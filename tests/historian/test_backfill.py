"""Back-fill: history has exactly the results of the formula, whatever was there before, however it is cut."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pytest
from historian_samples import SUBJECTS
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from store import Store

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.formula.bound import Bound
from headrace.historian import role
from headrace.historian.backfill import Backfill, Made, Progress, backfills, version_of
from headrace.historian.backfill_parts import (
    Part,
    changes,
    evaluate_part,
    formula_of,
    make_parts,
)
from headrace.historian.pools import LocalPool
from headrace.historian.reader import Reader, open_reader
from headrace.historian.writer import WriterSettings
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.sample import empty_batch, make_batch
from headrace.model.status import RETRACTED
from headrace.model.time import US_PER_S, ManualClock, SystemClock
from waiting import until

START_US = 1_700_000_000_000_000
STEP_US = 10 * US_PER_S
COUNT = 600
END_US = START_US + COUNT * STEP_US
OUTPUTS = [101, 102, 103]


def config_of(text: str = "load = mean(flow, 10 min)", version: int = 1) -> AppsConfig:
    pump = AssetTypeConfig(name="pump", quantities={"flow": "m3/h"}, attributes={"rated": "m3/h"})
    assets = tuple(
        AssetConfig(
            path=f"hall/p{n}",
            type="pump",
            tags={"flow": n},
            attributes={"rated": 10.0 * n},
            outputs={"load": 100 + n},
        )
        for n in (1, 2, 3)
    )
    formula = FormulaConfig(asset_type="pump", name="load", text=text, version=version)
    return AppsConfig(
        enterprise="acme", site="mill", types=(pump,), assets=assets, formulas=(formula,)
    )


def flow(count: int = COUNT) -> pl.DataFrame:
    """Three pumps of different pace, now and then Bad."""
    rng = np.random.default_rng(5)
    parts = []
    for tag in (1, 2, 3):
        at_us = START_US + np.arange(0, count, tag) * STEP_US + tag
        status = np.where(rng.random(len(at_us)) < 0.05, 0x80340000, 0).astype(np.uint32)
        parts.append(
            make_batch(
                np.full(len(at_us), tag),
                at_us,
                rng.normal(20, 3, len(at_us)),
                status=status,
                received_timestamp_us=at_us + 1_000,
                value_is_null=status > 0,
            )
        )
    return pl.concat(parts)


class InlinePool:
    """Threads of this process; ``fail_after`` so many calls the rest fail."""

    size = 2

    def __init__(self, fail_after: int = 10**9) -> None:
        self.calls = 0
        self._left = fail_after
        self._executor = ThreadPoolExecutor(2)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.calls += 1
        self._left -= 1
        if self._left < 0:
            failed: Future[Any] = Future()
            failed.set_exception(Refused("HIST-2104", "the power went"))
            return failed
        return self._executor.submit(work, *arguments)

    def close(self) -> None:
        self._executor.shutdown()


def wanted(folder: DataFolder, config: AppsConfig) -> pl.DataFrame:
    """The formula's samples, evaluated in one go on inputs alone, without times of receipt."""
    folder = DataFolder(folder.root.parent / "reference")
    if not folder.root.exists():
        Store(folder, ManualClock(END_US)).commit(flow())
    bound = formula_of(config, "pump.load")
    assert bound is not None
    whole = Part(0, 3, START_US, END_US)
    done = evaluate_part(Reader(folder.table), bound, whole, config.calendar, 1 << 60)
    frames = [envelope.decode(body) for _, body in done.frames]
    found = pl.concat([empty_batch(), *frames]).filter(pl.col("status") != RETRACTED)
    return found.drop("received_timestamp").sort("tag_id", "source_timestamp")


def stored(reader: Reader) -> pl.DataFrame:
    return reader.read(OUTPUTS, 0, END_US * 2).drop("received_timestamp")


async def run(
    folder: DataFolder, bus: Bus, config: AppsConfig, pool: Any, told: list[Progress] | None = None
) -> Made:
    async with open_reader(folder, bus) as reader:
        work = Backfill(folder, bus, config, SystemClock())
        span = (START_US, END_US)
        tell = told.append if told is not None else None
        return await work.run(reader, "pump.load", pool, span=span, tell=tell)


@pytest.fixture
async def historian(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> Any:
    """A running historian whose table has the pumps' flow."""
    stop = asyncio.Event()
    quick = WriterSettings(commit_interval_s=0.2)
    task = asyncio.create_task(role.run(folder, broker, SUBJECTS, stop, settings=quick))
    await bus.publish_frame(
        SUBJECTS.batch("local", "plc"),
        envelope.encode(flow()),
        envelope.headers("local", "plc", 1, 1, flow().height),
    )
    await until(lambda: Reader(folder.table).read([3], 0, END_US).height > 0)
    yield folder
    stop.set()
    await task


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.historian.backfill.make_parts", _small)
    monkeypatch.setattr("headrace.historian.backfill.LAG_ROWS_MAX", 300)


def _small(reader: Reader, bound: Bound, start_us: int, end_us: int) -> list[Part]:
    return make_parts(reader, bound, start_us, end_us, 100)


async def test_another_version_replaces_the_results_of_the_first(
    historian: DataFolder, bus: Bus, small_parts: None
) -> None:
    """Other values, other times and retractions; a second run finds nothing to do."""
    told: list[Progress] = []
    first = config_of()
    expected = wanted(historian, first)
    made = await run(historian, bus, first, InlinePool(), told)
    assert (made.results, made.changed, made.retracted) == (expected.height, expected.height, 0)
    assert made.samples == flow().height
    assert told[-1].parts_done == told[-1].parts > 5
    assert told[-1].left_s == 0
    async with open_reader(historian, bus) as reader:
        assert_frame_equal(stored(reader), expected)
    second = config_of("load = max(flow) per hour / rated", version=2)
    made = await run(historian, bus, second, InlinePool())
    async with open_reader(historian, bus) as reader:
        found = stored(reader)
        assert (
            made.retracted
            == expected.height - expected.join(found, on=["tag_id", "source_timestamp"]).height
        )
        assert found["tag_id"].unique().sort().to_list() == OUTPUTS
        assert found.height == made.results < expected.height
    again = await run(historian, bus, second, InlinePool())
    assert (again.changed, again.retracted) == (0, 0)
    assert [each.version for each in backfills(historian, "pump.load")] == [1, 2, 2]
    assert backfills(historian, "pump.other") == []


async def test_one_that_was_cut_short_goes_on_where_it_was(
    historian: DataFolder, bus: Bus, small_parts: None
) -> None:
    config = config_of()
    expected = wanted(historian, config)
    with pytest.raises(Refused):
        await run(historian, bus, config, InlinePool(fail_after=3))
    assert not backfills(historian)
    pool = InlinePool()
    told: list[Progress] = []
    made = await run(historian, bus, config, pool, told)
    assert pool.calls < told[-1].parts, "what the log had is not done again"
    assert made.results == expected.height, "counts are of both runs"
    async with open_reader(historian, bus) as reader:
        assert_frame_equal(stored(reader), expected)
    changed = config_of("load = min(flow, 10 min)", version=2)
    with pytest.raises(Refused):
        await run(historian, bus, config, InlinePool(fail_after=2))
    pool = InlinePool()
    await run(historian, bus, changed, pool)
    assert pool.calls == told[-1].parts, "another formula begins anew"


async def test_a_killed_worker_is_told_and_the_next_run_goes_on(
    historian: DataFolder, bus: Bus, small_parts: None
) -> None:
    """Real processes: their results are those of this process to the bit."""
    config = config_of()
    expected = wanted(historian, config)
    pool = LocalPool(1)
    worker = await asyncio.wrap_future(pool.submit(os.getpid))
    killed = False

    def kill(progress: Progress) -> None:
        nonlocal killed
        if progress.parts_done == 3 and not killed:
            killed = True
            os.kill(worker, signal.SIGKILL)

    async with open_reader(historian, bus) as reader:
        work = Backfill(historian, bus, config, SystemClock())
        with pytest.raises(Refused) as caught:
            await work.run(reader, "pump.load", pool, span=(START_US, END_US), tell=kill)
        assert caught.value.code == "HIST-2104"
        pool.close()
        pool = LocalPool(1)
        threads = await asyncio.wrap_future(pool.submit(pl.thread_pool_size))
        assert threads == 1, "each process has one core"
        await work.run(reader, "pump.load", pool)
        pool.close()
        await reader.catch_up(20)
        assert_frame_equal(stored(reader), expected)


async def test_what_cannot_be_made_is_refused(historian: DataFolder, bus: Bus) -> None:
    async with open_reader(historian, bus) as reader:
        work = Backfill(historian, bus, config_of(), SystemClock())
        with pytest.raises(Misconfigured, match=r"pump\.lod") as caught:
            await work.run(reader, "pump.lod", InlinePool())
        assert caught.value.code == "HIST-2101"
        with pytest.raises(Misconfigured) as caught:
            await work.run(reader, "pump.load", InlinePool(), span=(5, 5))
        assert caught.value.code == "HIST-2102"
        with (historian.root / "backfill" / "pump.load.lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(Refused) as refused:
                await work.run(reader, "pump.load", InlinePool())
            assert refused.value.code == "HIST-2106"


FORMULAS = (
    "load = mean(flow, 10 min)",
    "load = flow * 2 + rated",
    "load = integral(flow) per hour -> m3",
    "load = if flow > 22 m3/h for 3 min then 1 else 0",
)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 700), st.sampled_from(FORMULAS))
def test_parts_of_any_size_give_the_same_results(
    tmp_path_factory: pytest.TempPathFactory, rows: int, text: str
) -> None:
    folder = DataFolder(tmp_path_factory.mktemp("table"))
    store = Store(folder, ManualClock(END_US))
    store.commit(flow())
    config = config_of(text)
    bound = formula_of(config, "pump.load")
    assert bound is not None
    reader = Reader(folder.table)
    parts = make_parts(reader, bound, START_US, END_US, rows)
    covered = sum((p.last - p.first) * (p.end_us - p.start_us) for p in parts)
    assert covered == 3 * (END_US - START_US)
    made = [evaluate_part(reader, bound, part, config.calendar, 5) for part in parts]
    bodies = [envelope.decode(body) for each in made for _, body in each.frames]
    found = pl.concat([empty_batch(), *bodies]).drop("received_timestamp")
    expected = wanted(folder, config)
    assert_frame_equal(found.sort("tag_id", "source_timestamp"), expected, check_exact=True)


Place = tuple[int, int]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.tuples(st.integers(1, 2), st.integers(0, 5)), st.integers(0, 2)),
    st.dictionaries(
        st.tuples(st.integers(1, 2), st.integers(0, 5)),
        st.tuples(st.integers(0, 2), st.integers(0, 9)),
    ),
)
def test_changes_turn_what_is_stored_into_the_results(
    results: dict[Place, int], before: dict[Place, tuple[int, int]]
) -> None:
    """All but what was received after reading began; and nothing is written that is there already."""
    now = 5

    def batch(rows: dict[Place, tuple[int, int]]) -> pl.DataFrame:
        keys = sorted(rows)
        return make_batch(
            np.array([key[0] for key in keys], np.int64),
            np.array([key[1] for key in keys], np.int64),
            np.array([rows[key][0] for key in keys], np.float64),
            received_timestamp_us=np.array([rows[key][1] for key in keys], np.int64),
        )

    made = batch({key: (value, now) for key, value in results.items()})
    changed, gone = changes(made, batch(before), now)
    found = {key: value for key, (value, _) in before.items()}
    for tag, at, value in zip(
        changed["tag_id"],
        changed["source_timestamp"].to_physical(),
        changed["value"],
        strict=True,
    ):
        assert found.get((tag, at)) != value, "only what differs"
        found[tag, at] = int(value)
    for tag, at in zip(gone["tag_id"], gone["source_timestamp"].to_physical(), strict=True):
        del found[tag, at]
    assert set(gone["status"]) <= {RETRACTED}
    newer = {key: value for key, (value, received) in before.items() if received > now}
    assert found == results | newer


def test_the_version_that_gave_a_result_is_the_last_that_did() -> None:
    def made(version: int, start_us: int, end_us: int, at_us: int) -> Made:
        return Made(
            key="pump.a", version=version, start_us=start_us, end_us=end_us, at_us=at_us,
            samples=0, results=0, changed=0, retracted=0,
        )  # fmt: skip

    live = [(1, 0, 0), (2, 100, 100), (3, 200, 250)]
    history = [made(3, 50, 150, 300), made(2, 140, 160, 310)]
    told = [version_of(history, at_us, live) for at_us in (10, 60, 145, 170, 220, 400)]
    assert told == [1, 3, 2, 2, 3, 3]
    assert version_of(history, -5, live) is None
