"""Back-fills asked for in the console: one at a time, cancelled, and on after the console was away."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from formula_site import PUMP, FormulaClient, with_pumps
from site_fixture import CLOCK, RunningSite

sys.path.insert(0, str(Path(__file__).parent.parent / "historian"))
import test_backfill
from test_backfill import InlinePool, config_of, stored, wanted

from headrace.bus.client import Bus
from headrace.console.backfills import BackfillBoard
from headrace.historian.reader import open_reader
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, SystemClock
from waiting import until, until_sync

historian = test_backfill.historian
small_parts = test_backfill.small_parts


class GatedPool(InlinePool):
    """Some parts at once, the others when the gate is opened."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.gate = first, threading.Event()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        waits = self.calls >= self.first

        def call() -> Any:
            if waits:
                self.gate.wait(60)
            return work(*arguments)

        self.calls += 1
        return self._executor.submit(call)

    def close(self) -> None:
        self.gate.set()
        super().close()


@asynccontextmanager
async def board_of(folder: DataFolder, bus: Bus, pool: InlinePool) -> Any:
    async with open_reader(folder, bus) as reader:
        config = config_of()
        board = BackfillBoard(folder, bus, reader, lambda: config, SystemClock(), lambda: pool)
        yield board
        await board.close()


async def test_it_goes_on_after_the_console_was_away(
    historian: DataFolder,
    bus: Bus,
    small_parts: None,
) -> None:
    gated = GatedPool(3)
    async with board_of(historian, bus, gated) as board:
        await board.resume()
        assert board.view is None, "nothing was asked for"
        await board.start("pump.load", "mia")
        await until(lambda: board.view.parts_done >= 3)
        with pytest.raises(Refused, match="HIST-2610"):
            await board.start("pump.load", "mia")
    assert (historian.root / "backfill" / "console.json").exists()
    rest = InlinePool()
    async with board_of(historian, bus, rest) as board:
        await board.resume()
        await until(lambda: board.view.state != "running")
        assert (board.view.state, board.view.by, board.view.code) == ("done", "mia", "")
        assert rest.calls < board.view.parts, "what was done is not done again"
        expected = wanted(historian, config_of())
        assert board.view.results == expected.height
    assert not (historian.root / "backfill" / "console.json").exists()
    async with open_reader(historian, bus) as reader:
        assert stored(reader).height == expected.height


async def test_one_that_is_cancelled_stays_so_until_it_is_asked_for_again(
    historian: DataFolder,
    bus: Bus,
    small_parts: None,
) -> None:
    gated = GatedPool(2)
    async with board_of(historian, bus, gated) as board:
        await board.start("pump.load", "mia")
        await until(lambda: board.view.parts_done >= 2)
        view = await board.cancel()
        assert (view.state, view.parts_done >= 2) == ("cancelled", True)
    async with board_of(historian, bus, InlinePool()) as board:
        await board.resume()
        assert board.view is None
        await board.start("pump.load", "mia")
        await until(lambda: board.view.state == "done")


async def test_what_fails_is_said(
    historian: DataFolder,
    bus: Bus,
    small_parts: None,
) -> None:
    async with board_of(historian, bus, InlinePool(fail_after=1)) as board:
        with pytest.raises(Misconfigured, match="HIST-2611"):
            await board.start("pump.never", "mia")
        await board.start("pump.load", "mia")
        await until(lambda: board.view.state == "failed")
        assert (board.view.code, board.view.what) == ("HIST-2104", "the power went")
    assert not (historian.root / "backfill" / "console.json").exists()


def test_the_past_is_worked_out_by_rest(running_site: RunningSite) -> None:
    with with_pumps(running_site) as client:
        start_us = (CLOCK.now_us() // US_PER_S - 3000) * US_PER_S
        times = start_us + np.arange(50, dtype=np.int64) * US_PER_S
        tag_id = running_site.tags[f"{PUMP}/power"]
        running_site.publish_columns(np.full(50, tag_id), times, np.arange(50.0))
        load = {"text": "load = power / rated_power -> %"}
        assert client("PUT", "/formula/pump/load", json=load).status_code == 200
        until_sync(lambda: "pump.load" in client.formulas(), 30, "the formula is known")

        assert client("POST", "/formula/pump/never/backfill").json()["code"] == "HIST-2611"
        assert client("POST", "/formula/pump/load/backfill", json={"x": 1}).status_code == 422
        operator = FormulaClient(running_site, "operator")
        assert operator("POST", "/formula/pump/load/backfill").status_code == 403
        assert operator("DELETE", "/formula/backfill").status_code == 403
        span = {"start": str(start_us), "end": str(start_us + 60 * US_PER_S)}
        begun = client("POST", "/formula/pump/load/backfill", json=span)
        assert begun.json()["backfill"]["key"] == "pump.load"

        def state() -> dict[str, Any]:
            found: dict[str, Any] = client("GET", "/formula/backfill").json()["backfill"]
            return found

        until_sync(lambda: state()["state"] != "running", 90, "the back-fill ends")
        assert (state()["state"], state()["results"]) == ("done", 50)
        assert isinstance(client("DELETE", "/formula/backfill"), httpx.Response)
        assert state()["state"] == "done", "there was nothing left to cancel"
