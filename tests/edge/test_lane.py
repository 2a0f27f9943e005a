"""When a lane publishes: at once after quiet, and then not in many small frames."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from headrace.edge import publisher
from headrace.edge.books import Books
from headrace.edge.publisher import Lane
from headrace.model.sample import make_batch
from headrace.model.time import SystemClock
from waiting import until


class Frames:
    def __init__(self) -> None:
        self.rows: list[int] = []

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        self.rows.append(int(headers["Headrace-Rows"]))
        return len(self.rows)


async def test_many_groups_in_turn_make_more_frames_and_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frame names at most so many cells; what is left over follows at once."""
    monkeypatch.setattr(publisher, "FRAME_WAIT_S", 3600.0)
    monkeypatch.setattr(publisher, "RUNS_MAX", 4)
    frames = Frames()
    lane = Lane(frames, "s", edge="e", connection="c", epoch=1, on_trouble=lambda _: None)
    account = Books("e", SystemClock()).account("c")
    for turn in range(10):
        lane.offer(one_sample(), cell=account.cell(f"{turn % 2}ms"))
    lane.offer(one_sample(), cell=account.cell("1ms"), waits=True)
    task = asyncio.create_task(lane.run())
    await until(lambda: sum(frames.rows) == 11)
    assert frames.rows == [4, 4, 3]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def one_sample(n: int = 1):
    return make_batch(np.ones(n, int), np.arange(n), np.zeros(n), received_timestamp_us=0)


async def test_a_value_after_quiet_does_not_wait_and_a_burst_is_one_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher, "FRAME_WAIT_S", 3600.0)
    frames = Frames()
    lane = Lane(frames, "s", edge="e", connection="c", epoch=1, on_trouble=lambda _: None)
    task = asyncio.create_task(lane.run())
    lane.offer(one_sample())
    await until(lambda: frames.rows == [1], 5)
    await until(lambda: lane.buffered == 0)
    for _ in range(50):
        lane.offer(one_sample())
        await asyncio.sleep(0)
    assert (frames.rows, lane.buffered) == ([1], 50)
    lane.offer(one_sample(10_000))
    await until(lambda: frames.rows == [1, 10_050])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
