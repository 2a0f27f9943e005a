"""Frames that are published as fast as the log takes them, and what it acknowledged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.model.errors import Transient
from headrace.model.sample import make_batch

SUBJECTS = Subjects("acme", "mill")
START_US = 1_700_000_000_000_000
LANES = 4
TAGS = 5
SAMPLES = 20


def frame(lane: int, number: int) -> pl.DataFrame:
    """Frame ``number`` of a lane: the next 20 samples of its five tags, which count up."""
    tag_id = np.tile(np.arange(1, TAGS + 1, dtype=np.int64) + 10 * lane, SAMPLES)
    turn = np.repeat(np.arange(number * SAMPLES, (number + 1) * SAMPLES, dtype=np.int64), TAGS)
    at_us = START_US + turn * 1_000
    return make_batch(tag_id, at_us, turn.astype(np.float64), received_timestamp_us=at_us + 5)


def tags() -> list[int]:
    return [tag + 10 * lane for lane in range(LANES) for tag in range(1, TAGS + 1)]


@dataclass
class Publisher:
    """Lanes that publish one frame after the other, each until it is acknowledged.

    Attributes:
        acknowledged: frames of each lane that the log acknowledged; they are numbered from 0.
        sequence: the highest stream sequence that was acknowledged.
    """

    acknowledged: list[int] = field(default_factory=lambda: [0] * LANES)
    sequence: int = 0
    epoch: int = 0
    _ending: bool = False

    def finish(self) -> None:
        """Let each lane end with the acknowledgement of its next frame."""
        self._ending = True

    async def publish(self, address: BrokerAddress, more: int, during: asyncio.Event) -> None:
        """Publish until ``more`` frames are acknowledged; sets ``during`` and goes on until it is
        cancelled."""
        self.epoch += 1
        enough = sum(self.acknowledged) + more
        async with open_bus(address, "plant") as bus:
            await ensure_streams(bus)
            await asyncio.gather(*(self._lane(bus, lane, enough, during) for lane in range(LANES)))

    async def _lane(self, bus: Bus, lane: int, enough: int, during: asyncio.Event) -> None:
        while not self._ending:
            number = self.acknowledged[lane]
            batch = frame(lane, number)
            headers = envelope.headers("local", f"plc_{lane}", self.epoch, number + 1, batch.height)
            body = envelope.encode(batch)
            try:
                sequence = await bus.publish_frame(
                    SUBJECTS.batch("local", f"plc_{lane}"), body, headers
                )
            except Transient:
                continue  # the broker is gone, and this publisher soon
            self.acknowledged[lane] += 1
            self.sequence = max(self.sequence, sequence)
            if sum(self.acknowledged) >= enough:
                during.set()

    def missing(self, found: pl.DataFrame) -> int:
        """How many acknowledged samples are not there; every sample that is there is right."""
        value = found["value"].to_numpy()
        at_us = found["source_timestamp"].to_physical().to_numpy()
        assert np.array_equal(START_US + value.astype(np.int64) * 1_000, at_us)
        assert not found.select("tag_id", "source_timestamp").is_duplicated().any()
        missing = 0
        for lane, frames in enumerate(self.acknowledged):
            of_lane = found.filter(pl.col("tag_id") // 10 == lane)
            wanted = of_lane.filter(pl.col("value") < frames * SAMPLES).height
            missing += frames * SAMPLES * TAGS - wanted
            assert of_lane.height - wanted in (0, SAMPLES * TAGS), "a frame is there whole or not"
        return missing
