"""Virtual time: it jumps, dead processes stay silent, and nothing depends on the machine."""

from __future__ import annotations

import asyncio

import pytest

from headrace.sim.world.loop import Killed, Stuck, VirtualLoop


def test_time_jumps_to_what_is_next() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, for_s: float) -> None:
        await asyncio.sleep(for_s)
        seen.append((name, loop.time()))

    async def main() -> None:
        await asyncio.gather(sleeper("b", 7200.0), sleeper("a", 0.25), sleeper("c", 7200.0))

    loop.run_until_complete(main())
    assert seen == [("a", 0.25), ("b", 7200.0), ("c", 7200.0)]


def test_a_timeout_and_a_cancel_work_as_in_any_loop() -> None:
    loop = VirtualLoop()

    async def main() -> tuple[bool, float]:
        try:
            async with asyncio.timeout(3.0):
                await asyncio.Event().wait()
        except TimeoutError:
            task = asyncio.create_task(asyncio.sleep(100))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            return task.cancelled(), loop.time()
        raise AssertionError("no timeout")

    assert loop.run_until_complete(main()) == (True, 3.0)


def test_a_killed_process_does_not_even_reach_its_finally() -> None:
    loop = VirtualLoop()
    process = loop.process("edge")
    said: list[str] = []

    async def work() -> None:
        try:
            said.append("begins")
            await asyncio.create_task(asyncio.sleep(1.0))
            said.append("goes on")
        finally:
            said.append("tidies up")

    async def main() -> None:
        loop.spawn(process, work())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(10.0)

    loop.run_until_complete(main())
    assert said == ["begins"]
    loop.close()  # what is buried may run its finally then; nobody looks any more


def test_work_in_a_thread_takes_time_and_dies_with_its_process() -> None:
    loop = VirtualLoop(lambda: (0.5, 2.0))
    process = loop.process("historian")
    done: list[float] = []

    async def work() -> None:
        await asyncio.to_thread(lambda: done.append(loop.time()))
        done.append(loop.time())

    def dies() -> None:
        process.kill()
        raise Killed

    async def fatal() -> None:
        await asyncio.to_thread(dies)
        done.append(-1.0)

    async def main() -> None:
        await work()
        loop.spawn(process, fatal())
        await asyncio.sleep(100.0)

    loop.run_until_complete(main())
    assert done == [0.5, 2.5]


def test_a_world_in_which_nothing_can_happen_says_so() -> None:
    loop = VirtualLoop()
    with pytest.raises(Stuck, match="nothing is left to happen"):
        loop.run_until_complete(asyncio.Event().wait())
    loop.close()


def test_a_task_error_that_nobody_sees_is_kept() -> None:
    loop = VirtualLoop()

    async def fails() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(1.0)
        del task

    loop.run_until_complete(main())
    loop.close()
    assert not loop.problems  # buried tasks are looked at
