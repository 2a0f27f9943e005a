"""Batches and checks that the historian's tests share."""

from __future__ import annotations

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.model.sample import make_batch

SUBJECTS = Subjects("acme", "mill")
START_US = 1_700_000_000_000_000


def wave(tags: int, samples: int, *, first: int = 0, step_us: int = 1_000_000) -> pl.DataFrame:
    """``samples`` samples of each tag 1..tags, tag by tag within one time, Good, one in 50 Bad."""
    tag_id = np.tile(np.arange(1, tags + 1, dtype=np.int64), samples)
    turn = np.repeat(np.arange(first, first + samples, dtype=np.int64), tags)
    at_us = START_US + turn * step_us
    status = np.where((turn + tag_id) % 50 == 0, 0x80340000, 0).astype(np.uint32)
    return make_batch(
        tag_id,
        at_us,
        np.sin(turn / 10.0) * tag_id,
        status=status,
        received_timestamp_us=at_us + 1500,
        value_is_null=status != 0,
    )


async def publish(bus: Bus, batch: pl.DataFrame, *, epoch: int, sequence: int) -> int:
    """Publish one frame as an edge does; gives its stream sequence."""
    headers = envelope.headers("local", "plc_1", epoch, sequence, batch.height)
    subject = SUBJECTS.batch("local", "plc_1")
    return await bus.publish_frame(subject, envelope.encode(batch), headers)


def same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Both have the same samples, exactly; the expected ones in any order."""
    assert_frame_equal(found, expected.sort("tag_id", "source_timestamp"), check_exact=True)
