"""Eight hours of the demo with faults: it grows in nothing, restarts nothing, and its books close.

``HEADRACE_SOAK_S`` is how long (28800), ``HEADRACE_SOAK_SEED`` which faults, ``HEADRACE_SOAK_REPORT`` where
``soak.csv``, ``soak.png`` and ``soak.txt`` go (the test's own folder).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from installation import Installation
from watching import Series, disk_mb, figures_of

from headrace.bus import subjects
from headrace.bus.broker import load_address
from headrace.bus.client import Bus, open_bus
from headrace.bus.envelope import HEADER_ROWS
from headrace.bus.log import LogReader
from headrace.cli.run import site_subjects
from headrace.model.errors import Refused, Transient
from headrace.model.health import EdgeState, HistorianState
from headrace.model.tasks import end_tasks

SOAK_S = float(os.environ.get("HEADRACE_SOAK_S", "28800"))
ASK_TRIES = 6
SEED = int(os.environ.get("HEADRACE_SOAK_SEED", "1"))
SAMPLE_S = min(30.0, SOAK_S / 60)
FAULT_EVERY_S = 45.0
FAULT_S = (5.0, 40.0)
SETTLE_S = 120.0
FRAME_ROWS_MAX = 10_000
TABLE_BYTES_PER_SAMPLE_MAX = 40

pytestmark = [pytest.mark.soak, pytest.mark.kill, pytest.mark.timeout(SOAK_S + 900)]


def newest_commit(table: Path) -> tuple[int, int] | None:
    """(stream sequence, samples stored or dropped as copies since ever) of the table's newest commit.

    What compaction drops later, since a clock went back and a later sample has the same time, was
    stored once and counts as that.
    """
    for entry in sorted((table / "_delta_log").glob("[0-9]*.json"), reverse=True):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        position = [action["txn"]["version"] for action in actions if "txn" in action]
        notes = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
        if position and "headrace.samples_total" in notes:
            handled = notes["headrace.samples_total"] + notes["headrace.duplicates_total"]
            return int(position[0]), int(handled)
    return None


class Books:
    """What edge, log and historian say of the same samples."""

    def __init__(self) -> None:
        self.edge: EdgeState | None = None
        self.historian: HistorianState | None = None
        self.logged: Counter[str] = Counter()
        self.logged_until: list[tuple[int, int]] = []
        self.open: list[str] = []

    async def take(self, message: Any) -> None:
        """Check the edge's own equations, each second."""
        if ".health.edge." in message.subject:
            self.edge = msgspec.json.decode(message.data, type=EdgeState)
            for each in self.edge.connections:
                given = (
                    each.filtered + each.protected + each.published + each.buffered + each.dropped
                )
                if each.expected != each.read + each.missed or each.read + each.marked != given:
                    self.open.append(f"{each.connection} at {self.edge.at_us}: {each}")
        elif ".health.historian" in message.subject:
            self.historian = msgspec.json.decode(message.data, type=HistorianState)

    async def follow(self, bus: Bus) -> None:
        """Count the rows of every message of the log."""
        log = LogReader(bus, 0)
        total = 0
        while True:
            try:
                found = await log.next(1.0)
            except Transient:
                continue
            for message in found:
                connection = subjects.parse_batch(message.subject)[-1]
                rows = int(message.headers[HEADER_ROWS])
                self.logged[connection] += rows
                total += rows
                self.logged_until.append((message.sequence, total))

    def unexplained(self, table: Path) -> int | None:
        """Samples of the log, up to what the newest commit names, less what the table says it stored or
        dropped as copies; None while the log is not read so far."""
        found = newest_commit(table)
        if found is None:
            return None
        sequence, handled = found
        while self.logged_until and self.logged_until[0][0] < sequence:
            self.logged_until.pop(0)
        if not self.logged_until or self.logged_until[0][0] != sequence:
            return None
        return self.logged_until[0][1] - handled

    def published_but_not_logged(self) -> dict[str, int]:
        assert self.edge is not None
        return {
            each.connection: each.published - self.logged[each.connection]
            for each in self.edge.connections
        }


class Watch:
    """One soaking installation: faults, figures and books."""

    def __init__(self, installation: Installation, bus: Bus) -> None:
        self.installation = installation
        self.bus = bus
        self.books = Books()
        self.series = Series()
        self.faults: list[str] = []
        self.start_s = time.monotonic()
        names = ("broker", "sim", "historian", "edge", "apps", "console")
        self.pids = {name: installation.pid(name) for name in names}
        assert installation.process is not None
        self.pids["up"] = installation.process.pid

    @property
    def at_s(self) -> float:
        return time.monotonic() - self.start_s

    def unexplained(self) -> int | None:
        return self.books.unexplained(self.installation.folder.table)

    async def ask_sim(self, verb: str, **call: Any) -> Any:
        """Asked again when no answer came: a machine with other work may stand still for a while."""
        subject = site_subjects(self.installation.folder).sim_call(verb)
        for _ in range(ASK_TRIES - 1):
            with contextlib.suppress(Transient):
                return json.loads(await self.bus.request(subject, json.dumps(call).encode()))
        return json.loads(await self.bus.request(subject, json.dumps(call).encode()))

    async def make_faults(self, until_s: float) -> None:
        """One fault after the other, by seed, with a pause of health in between."""
        chance = random.Random(SEED)
        kinds = await self.ask_sim("fault_list")
        while self.at_s + FAULT_EVERY_S < until_s:
            begin_s = self.at_s
            kind = chance.choice(kinds)
            call = {"name": kind["name"], "target": chance.choice(kind["targets"])}
            await self.ask_sim("fault_start", **call)
            self.faults.append(f"{begin_s:.0f} s: {call['name']} of {call['target']}")
            await asyncio.sleep(chance.uniform(*FAULT_S))
            with contextlib.suppress(Refused):  # some end by themselves
                await self.ask_sim("fault_stop", **call)
            await asyncio.sleep(max(0.0, begin_s + FAULT_EVERY_S - self.at_s))

    async def sample(self) -> None:
        """Take the figures every now and then, for ever."""
        folder = self.installation.folder
        while True:
            figures = await asyncio.to_thread(figures_of, self.pids)
            for name in ("table", "broker", "logs"):
                figures[f"{name} disk MB"] = await asyncio.to_thread(disk_mb, folder.root / name)
            state = self.books.historian
            if state is not None:
                figures |= {"samples": state.samples_total, "files of the table": state.files}
            self.series.add(self.at_s, figures)
            await asyncio.sleep(SAMPLE_S)


@asynccontextmanager
async def watched(installation: Installation) -> AsyncIterator[Watch]:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(load_address(installation.folder), "soak"))
        watch = Watch(installation, bus)
        await bus.subscribe(subjects.ALL_HEALTH, watch.books.take)
        tasks = [asyncio.create_task(watch.books.follow(bus)), asyncio.create_task(watch.sample())]
        stack.push_async_callback(end_tasks, *tasks)
        yield watch
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]


async def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.2)


def report(watch: Watch, folder: Path, warm_s: float) -> str:
    """Write the report; gives its text."""
    folder.mkdir(parents=True, exist_ok=True)
    watch.series.write(folder / "soak.csv")
    watch.series.draw(folder / "soak.png", warm_s)
    text = watch.series.summary(warm_s) + "\n\n" + "\n".join(watch.faults) + "\n"
    (folder / "soak.txt").write_text(text)
    return text


def check_disk(watch: Watch) -> None:
    """The table takes its bytes a sample; the log what it keeps, twice over at most."""
    last = {name: values[-1] for name, values in watch.series.columns.items()}
    assert last["table disk MB"] < TABLE_BYTES_PER_SAMPLE_MAX * last["samples"] / 1e6 + 10, last
    assert last["logs disk MB"] < 50, last
    assert last["broker disk MB"] < 600, last


async def test_the_demo_runs_for_hours_with_faults_and_grows_in_nothing(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data", "--demo", "--seed", str(SEED))
    installation.start()
    warm_s = min(SOAK_S / 3, 3 * 3_600)
    try:
        async with watched(installation) as watch:
            await watch.make_faults(SOAK_S)
            await wait_for(
                lambda: watch.unexplained() is not None, SETTLE_S, "the log is not followed"
            )
            text = report(
                watch, Path(os.environ.get("HEADRACE_SOAK_REPORT", tmp_path / "report")), warm_s
            )
            print(text)
            assert {name: installation.pid(name) for name in watch.pids if name != "up"} == {
                name: pid for name, pid in watch.pids.items() if name != "up"
            }, "a process was started again"
            assert "starting it again" not in installation.output, installation.output
            await check_books(watch)
            check_disk(watch)
            growing = list(watch.series.growing(warm_s))
            assert not growing, "\n".join([*growing, text])
    except BaseException:
        print(installation.logs())
        raise
    finally:
        installation.stop()


async def check_books(watch: Watch) -> None:
    """The edge's equations held each second; the log has what was published; the table what is in
    the log."""
    books = watch.books
    assert not books.open, books.open[:3]
    ahead = {name: rows for name, rows in books.published_but_not_logged().items() if rows > 0}
    await wait_for(
        lambda: not any(rows > 0 for rows in books.published_but_not_logged().values()),
        SETTLE_S,
        f"published, and not in the log: {ahead}",
    )
    behind = books.published_but_not_logged()
    assert all(rows > -FRAME_ROWS_MAX for rows in behind.values()), behind

    def closed() -> bool:
        return watch.unexplained() == 0

    await wait_for(closed, SETTLE_S, f"log less table: {watch.unexplained()}")
