"""How an edge tells its books: for good, each second, at its end, and after a kill."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from scripted import Device, ScriptedType

from headrace.bus.client import Bus
from headrace.bus.log import LogReader
from headrace.bus.subjects import LEDGER_BUCKET, LEDGER_STREAM, Subjects
from headrace.edge import books as books_module
from headrace.edge.books import Books
from headrace.edge.contract import ConnectorContext
from headrace.edge.host import ConnectionHost
from headrace.edge.ledger import LedgerTeller
from headrace.edge.publisher import Lane
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Transient
from headrace.model.ledger import MINUTE_US, LedgerPage
from headrace.model.time import ManualClock

SUBJECTS = Subjects("acme", "mill")
TAGS = tuple(
    TagConfig(tag_id=i, path=f"a/t{i}", address=f"t{i}", scan_interval_ms=1000) for i in (1, 2, 3)
)


def host(books: Books, clock: ManualClock, mode: str = "poll") -> ConnectionHost:
    async def context(resume_us: int) -> Any:
        return ConnectorContext(clock, None, str, resume_us=resume_us)  # type: ignore[arg-type]

    return ConnectionHost(
        ConnectionConfig(name="plc", protocol="scripted", endpoint="x", tags=TAGS),
        ScriptedType(Device(), mode),  # type: ignore[arg-type] # a test's double
        context=context,
        lane=Lane(None, "s", edge="e", connection="plc", epoch=1, on_trouble=lambda _: None),  # type: ignore[arg-type] # nothing is published
        clock=clock,
        report=lambda _: None,
        edge="e",
        account=books.account("plc"),
    )


async def pages(bus: Bus) -> list[LedgerPage]:
    reader = LogReader(bus, 0, LEDGER_STREAM)
    messages = await reader.next(0.5)
    await reader.close()
    return [msgspec.json.decode(message.body, type=LedgerPage) for message in messages]


async def open_page(bus: Bus) -> LedgerPage:
    raw = await bus.get(LEDGER_BUCKET, "e")
    assert raw is not None
    return msgspec.json.decode(raw, type=LedgerPage)


async def test_a_closed_minute_is_told_once_and_for_good(bus: Bus) -> None:
    clock = ManualClock()
    books = Books("e", clock)
    teller = LedgerTeller(bus, SUBJECTS, books)
    assert await teller.begin() == {}
    books.account("plc").cell("1000ms").take(3, 1)
    await teller.tell([])
    assert await pages(bus) == []
    assert (await open_page(bus)).cells[0].counts.read == 3
    clock.advance_us(MINUTE_US)
    for _ in range(2):
        await teller.tell([])
    (told,) = await pages(bus)
    assert told.cells[0].counts.final and told.cells[0].counts.bad == 1
    assert told.log_us > 0
    assert (await open_page(bus)).cells == []


async def test_a_killed_life_is_told_by_the_next_one_which_counts_what_it_missed(bus: Bus) -> None:
    clock = ManualClock()
    first = Books("e", clock)
    teller = LedgerTeller(bus, SUBJECTS, first)
    await teller.begin()
    first.account("plc").cell("1000ms").take(3, 0)
    await teller.tell([host(first, clock), host(Books("e", clock), clock, "subscribe")])
    told_us = clock.now_us()
    clock.advance_us(7_500_000)  # killed meanwhile
    second = Books("e", clock)
    down = await LedgerTeller(bus, SUBJECTS, second).begin()
    assert down == {"plc": told_us}
    (killed,) = await pages(bus)
    assert (killed.end, killed.epochs) == ("killed", [first.epoch])
    assert killed.cells[0].counts.read == 3
    returned = host(second, clock)
    returned.count_down(down["plc"])
    assert second.page().cells[0].counts.missed_edge_down == 7 * len(TAGS)
    assert returned.state().missed == returned.state().expected == 7 * len(TAGS)


async def test_an_orderly_end_leaves_nothing_open(bus: Bus) -> None:
    clock = ManualClock()
    books = Books("e", clock)
    teller = LedgerTeller(bus, SUBJECTS, books)
    await teller.begin()
    books.account("plc").cell("1000ms").take(3, 0)
    await teller.end()
    told = await pages(bus)
    assert [page.end for page in told] == ["", "clean"] and told[0].cells[0].counts.final
    assert await LedgerTeller(bus, SUBJECTS, Books("e", clock)).begin() == {}
    assert [page.end for page in await pages(bus)] == ["", "clean"]


async def test_books_that_were_never_opened_are_not_closed(bus: Bus) -> None:
    """An edge that is stopped before it reached the broker leaves the page of the killed one."""
    clock = ManualClock()
    teller = LedgerTeller(bus, SUBJECTS, Books("e", clock))
    await teller.begin()
    await LedgerTeller(bus, SUBJECTS, Books("e", clock)).end()
    assert (await open_page(bus)).end == ""


class Away:
    """A bus whose broker is away."""

    async def publish_page(self, subject: str, page: LedgerPage) -> None:
        raise Transient("BUS-1701", "no acknowledgement")


async def test_while_the_broker_is_away_memory_is_bounded_and_nothing_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(books_module, "CELLS_MAX", 20)
    clock = ManualClock()
    books = Books("e", clock)
    teller = LedgerTeller(Away(), SUBJECTS, books)  # type: ignore[arg-type] # a test's double
    published = books.account("plc").cell("1000ms")
    published.take(3, 0)
    published.buffer(3)
    published.publish(3, 1)
    for _ in range(100):
        clock.advance_us(MINUTE_US)
        books.account("plc").cell("1000ms").miss("overload", 5)
        await teller.tell([])
    cells = books.page().cells
    assert len(cells) <= 21
    assert sum(cell.counts.missed_overload for cell in cells) == 500
    assert [cell.counts.read for cell in cells if cell.counts.published] == [3]


def test_a_clock_that_is_set_back_opens_no_closed_cell() -> None:
    clock = ManualClock()
    books = Books("e", clock)
    cell = books.account("plc").cell("1000ms")
    cell.take(1, 0)
    clock.step_us(-10 * MINUTE_US)
    other = books.account("plc").cell("1000ms")
    assert other.key.epoch > cell.key.epoch and cell.final
    clock.step_us(10 * MINUTE_US)
    third = books.account("plc").cell("1000ms")
    assert len({cell.key, other.key, third.key}) == 3


def test_after_a_frame_in_doubt_new_cells_are_counted_into() -> None:
    clock = ManualClock()
    books = Books("e", clock)
    account = books.account("plc")
    before = account.cell("1000ms")
    account.doubt()
    assert account.cell("1000ms").key != before.key
