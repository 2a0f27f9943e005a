"""Tasks end when they are told to, also when a library swallows a cancel."""

from __future__ import annotations

import asyncio
import contextlib

from headrace.model.tasks import check_cancelled


async def test_a_loop_that_checks_ends_at_one_cancel_that_was_swallowed() -> None:
    turns, began = 0, asyncio.Event()

    async def loop() -> None:
        nonlocal turns
        while True:
            check_cancelled()
            turns += 1
            began.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    task = asyncio.create_task(loop())
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled() and turns == 1
