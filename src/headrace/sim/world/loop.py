"""An event loop without a clock, threads or sockets: time is a number, and it jumps to what is next.

The same coroutines that run in production run here. What they wait for is a timer of this loop or a message
of the simulated world, so a run depends on nothing but its inputs and takes as long as its computing does.
"""

from __future__ import annotations

import asyncio
import heapq
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
STEPS_MAX: Final = 2_000_000
_PRUNE_TASKS: Final = 500
_CLOSES_MAX: Final = 20


class Killed(BaseException):
    """Unwinds synchronous code of a process that is killed in the middle of it. Nothing catches it: the
    process is dead, so nothing of it runs afterwards."""


class Stuck(Exception):
    """Nothing is left that could ever happen, or too much happens without an end."""


class Process:
    """A simulated operating-system process: tasks that die together, at once, without a last word.

    Args:
        name: shown in traces.

    Attributes:
        alive: false after :meth:`kill`; nothing of it runs any more, not even ``finally``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)
        self.tasks: list[asyncio.Task[Any]] = []

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.alive = False


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class _Handle(asyncio.TimerHandle):
    """A callback that is due, with the process that it belongs to."""

    process: Process | None = None


class VirtualLoop(asyncio.AbstractEventLoop):
    """An asyncio event loop in virtual time.

    Args:
        work_s: how long the next piece of work in a "thread" takes: (before, after) its effects, in
            seconds. The work itself is done in one instant between them.

    Example:
        >>> async def main() -> float:
        ...     await asyncio.sleep(3600)
        ...     return asyncio.get_running_loop().time()
        >>> VirtualLoop().run_until_complete(main())
        3600.0
    """

    def __init__(self, work_s: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)) -> None:
        self._work_s = work_s
        self._now_s = 0.0
        self._count = 0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._ready: deque[_Handle] = deque()  # bounded by what runs; see STEPS_MAX
        self._outside = Process("world")
        self._processes: list[Process] = [self._outside]
        self._running = False
        self.problems: list[str] = []

    def process(self, name: str) -> Process:
        """A new process."""
        made = Process(name)
        self._processes.append(made)
        return made

    def spawn(
        self, process: Process, coroutine: Coroutine[Any, Any, Result]
    ) -> asyncio.Task[Result]:
        """Run a coroutine as a task of a process."""
        return self.create_task(coroutine, context=process.context)

    # -- what asyncio asks of a loop ----------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override] # typeshed's name and context differ by version
        self,
        coro: Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Result]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        process = context.get(_PROCESS) if context is not None else _PROCESS.get()
        tasks = (process or self._outside).tasks
        if len(tasks) >= _PRUNE_TASKS:
            tasks[:] = [each for each in tasks if not each.done()]
        tasks.append(task)
        return task

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = self._handle(self._now_s, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = self._handle(when, callback, args, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def run_in_executor(
        self, executor: Any, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> asyncio.Task[Result]:
        del executor

        async def work() -> Result:
            before_s, after_s = self._work_s()
            await asyncio.sleep(before_s)
            result = func(*args)
            await asyncio.sleep(after_s)
            return result

        return self.create_task(work())

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that ended with an error which nobody looked at, for example."""
        if not isinstance(context.get("exception"), Killed):
            self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio's timers tell their loop; cancelled ones are dropped when they are due."""

    def _handle(self, when: float, callback: Any, args: Any, context: Context | None) -> _Handle:
        handle = _Handle(when, callback, args, self, context)
        handle.process = context.get(_PROCESS) if context is not None else _PROCESS.get()
        return handle

    # -- running ------------------------------------------------------------------------------

    def run_outside(self, callback: Callable[[], object], delay_s: float) -> None:
        """Call back later on behalf of the world, whatever happens to the process that asks."""
        self.call_later(delay_s, callback, context=self._outside.context)

    def run_until_complete(self, future: Any) -> Any:
        """Run until the coroutine ends; gives its result.

        Raises:
            Stuck: nothing is left that could wake it, or it never ends.
        """
        task = self.create_task(future, context=self._outside.context)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            for _ in range(STEPS_MAX):
                if task.done():
                    return task.result()
                self._step()
            raise Stuck(f"no end after {STEPS_MAX} steps, at {self._now_s:.3f} s")
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def _step(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            if not timers:
                raise Stuck(f"nothing is left to happen at {self._now_s:.3f} s")
            self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            process = handle.process
            if not handle.cancelled() and (process is None or process.alive):
                handle._run()

    def close(self) -> None:
        """End what is left over, quietly; nothing of it runs on."""
        with warnings.catch_warnings():
            # What a buried "finally" begins and never awaits is meant to be so.
            warnings.simplefilter("ignore", RuntimeWarning)
            for process in self._processes:
                for task in process.tasks:
                    _bury(task)
                process.tasks.clear()
        self._ready.clear()
        self._timers.clear()


def _bury(task: asyncio.Task[Any]) -> None:
    """Close a suspended coroutine for good, however often it awaits in its ``finally``."""
    if task.done():
        if not task.cancelled():
            task.exception()  # seen
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined] # asyncio's own switch
    coroutine = task.get_coro()
    for _ in range(_CLOSES_MAX):
        try:
            coroutine.close()
            return
        except RuntimeError:
            continue
