"""Waiting on a condition, the only way a test waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

PROMISE_S: Final = 8.0
BUSY_S: Final = 60.0
"""Shorter limits are promises of the product and hold as they are. Longer ones only say that something
comes at all: a busy machine gets a minute for it."""


def limit_s(timeout_s: float) -> float:
    return timeout_s if timeout_s < PROMISE_S else max(timeout_s, BUSY_S)


async def until(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "") -> None:
    """Return as soon as ``condition()`` holds; fail when it does not in time."""
    timeout_s = limit_s(timeout_s)
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.01)


def until_sync(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "") -> None:
    """The same without an event loop."""
    timeout_s = limit_s(timeout_s)
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {timeout_s} s: {what or condition}"
        time.sleep(0.02)
