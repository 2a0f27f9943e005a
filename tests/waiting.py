"""Waiting on a condition, the only way a test waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "") -> None:
    """Return as soon as ``condition()`` holds; fail when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.01)


def until_sync(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "") -> None:
    """The same without an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {timeout_s} s: {what or condition}"
        time.sleep(0.02)
