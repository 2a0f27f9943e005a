"""A tail that is full: an event, a fact for the diagnosis, and an end to both."""

from __future__ import annotations

import asyncio

from historian_samples import publish, wave
from store import Store

from headrace.bus.client import Bus
from headrace.bus.log import log_info
from headrace.bus.outbox import Outbox
from headrace.bus.recent import recent_events
from headrace.bus.subjects import SAMPLES_STREAM, Subjects
from headrace.historian.commit import Chunk
from headrace.historian.facts import table_facts
from headrace.historian.index import TableIndex
from headrace.historian.layout import app_id
from headrace.historian.reader import Reader
from headrace.historian.tail import Tail
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from waiting import until


async def test_a_full_tail_is_told_once_and_told_when_it_is_over(
    folder: DataFolder, bus: Bus
) -> None:
    outbox = Outbox(
        bus, Subjects("acme", "mill").event("console", "tail"), "console/tail", SystemClock()
    )
    sending = asyncio.create_task(outbox.run())
    index = TableIndex(folder.table)
    tail = Tail(bus, index, rows_max=100, spill_rows_max=500, report=outbox.report)
    await tail.start()
    reader = Reader(folder.table, tail, index)
    batches = [wave(10, 50, first=50 * n) for n in range(20)]
    for n, batch in enumerate(batches):
        await publish(bus, batch, epoch=1, sequence=n + 1)
        if n == 9:
            await until(lambda: tail.paused)
    facts = await table_facts(reader, 1, live=True)
    assert facts.readable and facts.tail_paused

    store = Store(folder)
    chunk = Chunk(0)
    for n, batch in enumerate(batches):
        chunk.take(n + 1, batch, 1, 0.0)
    store.committer.commit(chunk, app_id(SAMPLES_STREAM, (await log_info(bus)).created_us))
    await until(lambda: not tail.paused)
    facts = await table_facts(reader, 1, live=True)
    assert facts.readable and not facts.tail_paused and facts.committed_sequence == 20
    events = []
    for _ in range(200):
        events = [(e.code, e.severity, e.source) for e in await recent_events(bus)]
        if len(events) == 2:
            break
    assert events == [
        ("HIST-1031", "warning", "console/tail"),
        ("HIST-1801", "info", "console/tail"),
    ]
    await end_tasks(sending)
    await tail.close()


async def test_a_value_that_stands_still_is_seen_and_a_damaged_table_is_told(
    folder: DataFolder, bus: Bus
) -> None:
    store = Store(folder)
    moving = wave(1, 300)
    store.commit(moving)
    reader = Reader(folder.table)
    newest_us = int(moving["source_timestamp"].to_physical().max())  # type: ignore[arg-type] # int
    facts = await table_facts(reader, 1, live=False)
    assert (facts.source_us, facts.unchanged_us) == (newest_us, 0)
    still = moving.with_columns(moving["value"] * 0 + 7.0, tag_id=moving["tag_id"] + 1)
    store.commit(still)
    facts = await table_facts(reader, 2, live=False)
    assert facts.unchanged_us == 299_000_000
    assert (await table_facts(reader, 3, live=False)).source_us == 0
    for entry in sorted((folder.table / "_delta_log").glob("*.json")):
        entry.write_text("no log")
    facts = await table_facts(Reader(folder.table), 2, live=False)
    assert not facts.readable and facts.code in ("HIST-1001", "HIST-1002", "HIST-1802")
