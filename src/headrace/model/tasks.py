"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN_S: Final = 0.2


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until each has ended, however it does.

    One cancel is not enough: in Python 3.11 ``asyncio.wait_for`` swallows it when its inner call
    ends at the same moment, and the task would run on.

    Example:
        >>> async def main() -> bool:
        ...     task = asyncio.create_task(asyncio.sleep(60))
        ...     await end_tasks(task)
        ...     return task.cancelled()
        >>> asyncio.run(main())
        True
    """
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen here, so that the loop does not warn of it


def check_cancelled() -> None:
    """At the head of an endless loop: end it when a cancel of this task was swallowed further down.

    Raises:
        asyncio.CancelledError: when the running task was asked to end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
