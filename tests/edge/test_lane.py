"""When a lane publishes: at once after quiet, and then not in many small frames."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from headrace.edge import publisher
from headrace.edge.publisher import Lane
from headrace.model.sample import make_batch
from waiting import until


class Frames:
    def __init__(self) -> None:
        self.rows: list[int] = []

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        self.rows.append(int(headers["Headrace-Rows"]))
        return len(self.rows)


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
