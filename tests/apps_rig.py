"""A whole small site for tests of the apps role: broker, historian and apps role in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from headrace.apps import role as apps_role
from headrace.apps.knowledge import Knowledge, know
from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET, Subjects
from headrace.formula.bound import Bound
from headrace.historian import role as historian_role
from headrace.historian.formulas import AssetTags, evaluate_history
from headrace.historian.reader import Reader, open_reader
from headrace.model.apps import AppsState
from headrace.model.calendar import PlantCalendar
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.sample import make_batch
from headrace.model.time import SystemClock
from waiting import until

SUBJECTS = Subjects("acme", "mill")
PUMP = AssetTypeConfig(name="pump", quantities={"flow": "m3/h", "power": "kW"})
SECOND_US = 1_000_000


def config(*texts: str, assets: int = 3, calendar: PlantCalendar | None = None) -> AppsConfig:
    """Pumps with the tags 1, 2 (flow, power of the first), 3, 4... and these formulas."""
    formulas = tuple(formula(text) for text in texts)
    pumps = tuple(
        AssetConfig(
            path=f"hall/pump_{n}",
            type="pump",
            tags={"flow": 2 * n + 1, "power": 2 * n + 2},
            outputs={each.name: 1000 * (place + 1) + n for place, each in enumerate(formulas)},
        )
        for n in range(assets)
    )
    return AppsConfig(
        enterprise="acme",
        site="mill",
        types=(PUMP,),
        assets=pumps,
        formulas=formulas,
        calendar=calendar or PlantCalendar(),
    )


def formula(text: str) -> FormulaConfig:
    """A statement of pumps: ``name = ...`` or ``alarm name: ...``."""
    if text.startswith("alarm "):
        name = text.removeprefix("alarm ").partition(":")[0].strip()
        return FormulaConfig(asset_type="pump", name=name, text=text, kind="alarm")
    return FormulaConfig(asset_type="pump", name=text.partition("=")[0].strip(), text=text)


def edited(before: AppsConfig, name: str, **changes: object) -> AppsConfig:
    """The same with one formula changed."""
    formulas = tuple(
        msgspec.structs.replace(each, **changes) if each.name == name else each
        for each in before.formulas
    )
    return msgspec.structs.replace(before, formulas=formulas)


def samples(
    tag_ids: Sequence[int], at_us: Sequence[int], value: Sequence[float], received_us: int
) -> pl.DataFrame:
    return make_batch(
        np.array(tag_ids, np.int64),
        np.array(at_us, np.int64),
        np.array(value, np.float64),
        received_timestamp_us=received_us,
    )


@dataclass
class Rig:
    """What a test works with.

    Attributes:
        bus: of the test. folder: data. reader: of the history, fresh.
        states: health messages of the role.
    """

    bus: Bus
    address: BrokerAddress
    folder: DataFolder
    reader: Reader
    states: list[AppsState] = field(default_factory=list)
    sequence: int = 0
    clock: SystemClock = field(default_factory=SystemClock)

    async def put(self, made: AppsConfig) -> None:
        await self.bus.put(DESIRED_BUCKET, "apps", msgspec.json.encode(made))

    async def send(self, batch: pl.DataFrame) -> None:
        """Publish one frame, as an edge does."""
        self.sequence += 1
        headers = envelope.headers("local", "plc", 1, self.sequence, batch.height)
        await self.bus.publish_frame(
            SUBJECTS.batch("local", "plc"), envelope.encode(batch), headers
        )

    async def poll(self, assets: int = 3, *, at_us: int = 0, seed: int = 0) -> int:
        """One sample of each input now, or at a time; gives the time."""
        now_us = self.clock.now_us()
        at_us = at_us or now_us
        values = np.random.default_rng(at_us + seed).normal(50, 10, 2 * assets)
        ids = np.arange(1, 2 * assets + 1)
        await self.send(
            make_batch(ids, np.full(len(ids), at_us), values, received_timestamp_us=now_us)
        )
        return at_us

    async def running(self, timeout_s: float = 60.0) -> AppsState:
        """Wait until the role runs and has nothing to mend."""
        await self.told(lambda state: state.state == "running", timeout_s)
        return self.states[-1]

    async def done(self, at_us: int, timeout_s: float = 60.0) -> None:
        """Wait until results are out up to a time, and nothing is left to mend."""
        await self.told(lambda state: state.done_us > at_us, timeout_s)

    async def told(self, holds: Callable[[AppsState], bool], timeout_s: float) -> None:
        try:
            await until(
                lambda: (
                    bool(self.states) and holds(self.states[-1]) and not self.states[-1].repairs
                ),
                timeout_s,
            )
        except AssertionError as error:
            raise AssertionError(f"not in {timeout_s} s: {self.states[-1:]}") from error

    async def check(
        self,
        made: AppsConfig,
        start_us: int,
        end_us: int,
        *,
        rows_min: int = 1,
        timeout_s: float = 60.0,
    ) -> int:
        """What is stored of every formula is what history gives, to the bit; gives the rows.

        Waits for so many rows: before the first sample has arrived, nothing equals nothing.
        """
        knowledge = know(made, {}, 0)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            await self.reader.catch_up(10)
            found, wanted = await asyncio.to_thread(self._both, knowledge, start_us, end_us)
            if (found.height >= rows_min and found.equals(wanted)) or loop.time() > deadline_s:
                keys = ["tag_id", "at_us", "value", "text", "status"]
                more = found.join(wanted, on=keys, how="anti", nulls_equal=True)
                less = wanted.join(found, on=keys, how="anti", nulls_equal=True)
                assert not more.height + less.height, f"{more}\n{less}"
                assert_frame_equal(found, wanted, check_exact=True)
                assert found.height >= rows_min
                return found.height
            await asyncio.sleep(0.05)

    def _both(
        self, knowledge: Knowledge, start_us: int, end_us: int
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        ids = np.concatenate([bound.outputs for bound in knowledge.bounds]).tolist()
        found = self.reader.read(ids, start_us, end_us).select(
            "tag_id",
            pl.col("source_timestamp").to_physical().alias("at_us"),
            "value",
            "text",
            "status",
        )
        # After what is found: a formula of a formula is worked out from what is stored of the first.
        wanted = [
            history(self.reader, bound, knowledge.config.calendar, start_us, end_us)
            for bound in knowledge.bounds
        ]
        return found, pl.concat(wanted).sort("tag_id", "at_us")


def history(
    reader: Reader, bound: Bound, calendar: PlantCalendar, start_us: int, end_us: int
) -> pl.DataFrame:
    """A formula's samples, evaluated on stored history in one go."""
    tags = [
        AssetTags(path, {name: int(ids[n]) for name, ids in bound.inputs.items()})
        for n, path in enumerate(bound.assets)
    ]
    rows = pl.concat(
        evaluate_history(
            reader,
            bound.plan,
            tags,
            start_us,
            end_us,
            calendar=calendar,
            attributes=bound.attributes,
        )
    )
    ids = pl.Series("tag_id", bound.outputs[rows["asset"].to_numpy()], pl.Int64)
    return rows.with_columns(ids).select("tag_id", "at_us", "value", "text", "status")


@asynccontextmanager
async def historian(rig_folder: DataFolder, address: BrokerAddress) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(historian_role.run(rig_folder, address, SUBJECTS, stop))
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def apps(rig: Rig) -> AsyncIterator[asyncio.Task[None]]:
    """The role, in this event loop; cancelled without warning when the test asks so."""
    stop = asyncio.Event()
    task = asyncio.create_task(apps_role.run(rig.folder, rig.address, SUBJECTS, stop))
    try:
        yield task
    finally:
        stop.set()
        if not task.cancelled():
            await task


@asynccontextmanager
async def rig_on(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    """Historian and reader on a test's broker; the role is started by the test."""
    async with historian(folder, broker), open_reader(folder, bus) as reader:
        made = Rig(bus, broker, folder, reader)

        async def hear(message) -> None:
            made.states.append(msgspec.json.decode(message.data, type=AppsState))

        unsubscribe = await bus.subscribe(SUBJECTS.apps_health(), hear)
        try:
            yield made
        finally:
            await unsubscribe()


__all__ = ["apps", "config", "edited", "history", "replace", "rig_on", "samples"]
