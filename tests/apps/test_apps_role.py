"""The apps role on a real broker and historian: results as samples come, over restarts, repairs, edits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import polars as pl
import pytest

from apps_rig import SECOND_US, SUBJECTS, Rig, apps, config, edited, rig_on
from headrace.apps import session
from headrace.apps.changes import recent_changes
from headrace.apps.past import Past
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.recent import recent_events
from headrace.formula.bound import Bound
from headrace.formula.stream import Advance, Stream
from headrace.model.apps import DerivedFacts, FormulaChange
from headrace.model.calendar import PlantCalendar, Shift
from headrace.model.folder import DataFolder

FORMULAS = (
    "ratio = power / flow",
    "busy = mean(power, 2 s)",
    "busier = max(busy, 3 s) - busy",
)


@pytest.fixture
async def rig(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    async with rig_on(folder, broker, bus) as made:
        yield made


async def polls(rig: Rig, count: int, *, every_s: float = 0.1) -> tuple[int, int]:
    """So many polls in real time; gives the first and last source time."""
    times = []
    for _ in range(count):
        times.append(await rig.poll())
        await asyncio.sleep(every_s)
    return times[0], times[-1]


async def test_results_are_those_of_history_to_the_bit(rig: Rig) -> None:
    made = config(*FORMULAS)
    await rig.put(made)
    async with apps(rig):
        began = await rig.running()
        first, last = await polls(rig, 20)
        await rig.done(last)
        await rig.check(made, began.done_us, last + 1, rows_min=3 * 3 * 20)
        state = rig.states[-1]
        assert state.formulas[0].results >= 60 and not state.error_code
        assert state.latency_p99_us > 0
        answer = await rig.bus.request(SUBJECTS.apps_call("why"), b'{"tag_id": 1001}')
        told = msgspec.json.decode(answer, type=DerivedFacts)
        assert (told.asset, told.inputs, told.state) == ("hall/pump_1", [4, 3], "running")
        assert told.has_tag and told.acknowledged_us >= first


async def test_what_came_while_it_did_not_run_is_worked_out_once(rig: Rig) -> None:
    """Cut off without warning, in the middle of a stream of samples; late ones meanwhile too."""
    made = config(*FORMULAS)
    await rig.put(made)
    async with apps(rig) as task:
        began = await rig.running()
        first, last = await polls(rig, 8)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await polls(rig, 8)
    await rig.poll(at_us=last - SECOND_US // 2)
    rig.states.clear()
    async with apps(rig):
        await rig.running()
        _, end = await polls(rig, 5)
        await rig.done(end)
        await rig.check(made, began.done_us, end + 1, rows_min=3 * 3 * 20)
    assert first < last < end


async def test_a_configuration_that_comes_late_is_no_configuration_without_formulas(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role is up before a slow broker has told it what to run: what it missed is worked out still."""
    made = config(*FORMULAS)
    await rig.put(made)
    async with apps(rig):
        began = await rig.running()
        _, last = await polls(rig, 4)
        await rig.done(last)
    await polls(rig, 4)
    rig.states.clear()
    told, watch = asyncio.Event(), Bus.watch

    async def slow(self: Bus, bucket: str, key: str) -> AsyncIterator[bytes]:
        await told.wait()
        async for raw in watch(self, bucket, key):
            yield raw

    monkeypatch.setattr(Bus, "watch", slow)
    async with apps(rig):
        await rig.told(lambda state: state.state == "idle", 60)
        told.set()
        await rig.running()
        end = await rig.poll()
        await rig.done(end)
        assert await rig.check(made, began.done_us, end + 1, rows_min=81) == 81


async def test_a_late_sample_changes_what_it_touches_and_downstream(rig: Rig) -> None:
    made = config(*FORMULAS)
    await rig.put(made)
    async with apps(rig):
        began = await rig.running()
        first, last = await polls(rig, 12)
        await rig.done(last)
        before = await rig.check(made, began.done_us, last + 1, rows_min=9 * 12)
        await rig.poll(at_us=first + 50_000)
        await rig.poll(at_us=first, seed=5)  # a correction
        rows = await rig.check(made, began.done_us, last + 1, rows_min=before + 9)
        assert rows == before + 9
        changes = await changes_of(rig, lambda found: {each.key for each in found} == KEYS)
        assert {each.cause for each in changes} <= {"late", "upstream"}
        assert min(each.start_us for each in changes) == first


KEYS = {"pump.ratio", "pump.busy", "pump.busier"}


async def changes_of(
    rig: Rig, enough: Callable[[list[FormulaChange]], bool]
) -> list[FormulaChange]:
    """What the role told of changed results, once it is enough."""
    for _ in range(1_200):
        found = await recent_changes(rig.bus, SUBJECTS)
        if enough(found):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"only {found}")


async def test_an_edited_shift_of_the_past_repairs_its_sums(rig: Rig) -> None:
    """History of two days; the early shift turns out to have ended an hour earlier."""
    day_us = 86_400 * SECOND_US
    now_us = rig.clock.now_us()
    midnight_us = now_us - now_us % day_us - 2 * day_us
    for hour in range(47):
        await rig.poll(at_us=midnight_us + hour * 3_600 * SECOND_US)
    calendar = PlantCalendar(shifts=(Shift(name="early", start="06:00", end="14:00"),))
    made = config("work = integral(power) per shift", "half = work / 2", calendar=calendar)
    made = edited(edited(made, "work", start_us=midnight_us), "half", start_us=midnight_us)
    await rig.put(config("half = power / 2"))
    async with apps(rig):
        await rig.running()
        await rig.put(made)
        await rig.done(now_us)
        shifts = len(calendar.windows("shift", midnight_us, now_us))
        rows = 3 * 2 * shifts
        assert await rig.check(made, midnight_us, now_us, rows_min=rows) == rows
        shorter = PlantCalendar(shifts=(Shift(name="early", start="06:00", end="13:00"),))
        changed = msgspec.structs.replace(made, calendar=shorter)
        await rig.put(changed)
        await rig.check(changed, midnight_us, now_us)
        changes = await changes_of(rig, lambda found: any(e.cause == "calendar" for e in found))
        edit = next(each for each in changes if each.cause == "calendar")
        assert (edit.key, edit.changed, edit.retracted) == ("pump.work", 3 * shifts, 3 * shifts)


async def test_a_formula_that_fails_stops_alone_and_says_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(*FORMULAS)
    broken = {"on": False}

    class Fragile(Stream):
        def __init__(self, bounds: Sequence[Bound], *rest: object, **named: object) -> None:
            super().__init__(bounds, *rest, **named)
            self.keys = {bound.key for bound in bounds}

        def advance(self, to_us: int) -> Advance:
            if broken["on"] and "pump.busy" in self.keys:
                raise LookupError("a word that is not there")
            return super().advance(to_us)

    def changes(self: Past, bound: Bound, *rest: object) -> pl.DataFrame:
        if broken["on"] and bound.key == "pump.busy":
            raise LookupError("a word that is not there")
        return work_out(self, bound, *rest)

    work_out = Past.changes
    monkeypatch.setattr(session, "Stream", Fragile)
    monkeypatch.setattr(Past, "changes", changes)
    await rig.put(made)
    async with apps(rig):
        began = await rig.running()
        await polls(rig, 5)
        broken["on"] = True
        _, last = await polls(rig, 10)
        await rig.done(last)
        alone = config(*FORMULAS[:1])
        await rig.check(alone, began.done_us, last + 1)
        told = {each.key: each.error_code for each in rig.states[-1].formulas}
        assert told == {"pump.ratio": "", "pump.busy": "APPS-1004", "pump.busier": "APPS-1003"}
        events = [each for each in await recent_events(rig.bus) if each.severity == "error"]
        assert {each.code for each in events} == {"APPS-1003", "APPS-1004"}


async def test_results_begin_where_they_are_told_and_very_late_samples_are_mended(
    rig: Rig,
) -> None:
    """History of half an hour is there before; what comes later than the stream keeps is worked out
    from history, downstream too."""
    now_us = rig.clock.now_us()
    start_us = now_us - 1_800 * SECOND_US
    for second in range(0, 1_800, 60):
        await rig.poll(at_us=start_us + second * SECOND_US)
    made = config("busy = mean(power, 90 s)", "double = busy + busy")
    for name in ("busy", "double"):
        made = edited(made, name, start_us=start_us)
    await rig.put(made)
    async with apps(rig):
        await rig.done(now_us)
        assert await rig.check(made, start_us, now_us, rows_min=180) == 180
        await rig.poll(at_us=start_us + 90 * SECOND_US)
        await rig.poll(at_us=start_us + 60 * SECOND_US, seed=7)
        changes = await changes_of(
            rig, lambda found: sum(e.cause in ("late", "upstream") for e in found) >= 2
        )
        assert await rig.check(made, start_us, now_us, rows_min=186) == 186
        assert {"version", "late"} <= {each.cause for each in changes}
