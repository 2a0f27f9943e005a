"""The process of one app: ``python -m headrace.apps.runtime.process``, with :class:`Start` on standard input.

It connects to the broker as the app's own user, gives up all other rights, and only then imports the app.
It ends when the broker is away: it could not connect again, and the runtime starts another.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import polars as pl

from headrace.apps.models.laid import FOLDER, LaidModels
from headrace.apps.runtime import wire
from headrace.apps.runtime.effects import Effects, merged
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.apps.runtime.outside import Outside
from headrace.apps.runtime.sandbox import enclose
from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus, open_bus
from headrace.model.errors import HeadraceError
from headrace.model.sample import Int64Array, concat_batches

STEP_US: Final = 300_000_000
KEEP_S: Final = 5.0
ASK_S: Final = 120.0
BROKER_S: Final = 20.0
ENDED: Final = 3
_PR_SET_PDEATHSIG: Final = 1
T = TypeVar("T")
_log = logging.getLogger("headrace.app")


class _Line:
    """The connection to the runtime.

    Args:
        bus: open. start: see :class:`headrace.apps.runtime.wire.Start`.
    """

    def __init__(self, bus: Bus, start: wire.Start) -> None:
        self._bus = bus
        self.life = start.life
        self._subject = start.subject
        self._loop = asyncio.get_running_loop()

    async def ask(self, verb: str, body: msgspec.Struct) -> bytes:
        subject = f"{self._subject}.ask.{verb}"
        return await self._bus.request(subject, msgspec.msgpack.encode(body), timeout_s=ASK_S)

    # -- doors of the executor, called by its thread --------------------------------------------

    def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        ids = [int(tag) for tag in np.asarray(tag_ids)]
        past = wire.Past(life=self.life, tag_ids=ids, start_us=start_us, end_us=end_us)
        return envelope.decode(self._wait(self.ask("past", past)))

    def call(self, app: str, service: str, body: bytes) -> bytes:
        call = wire.Call(life=self.life, app=app, service=service, body=body)
        return self._wait(self.ask("call", call))

    def _wait(self, question: Any) -> bytes:
        answer: bytes = asyncio.run_coroutine_threadsafe(question, self._loop).result()
        return answer


class _Process:
    def __init__(self, line: _Line, start: wire.Start) -> None:
        self._line = line
        self._start = start
        # One thread: hooks never run side by side, and pings are answered meanwhile.
        self._hooks = ThreadPoolExecutor(1)
        self._kept_s = 0.0
        self._answers: list[wire.Answered] = []

    async def run(self, holds: list[str]) -> None:
        raw = await self._line.ask("begin", wire.Begin(life=self._line.life, holds=holds))
        begun = msgspec.msgpack.decode(raw, type=wire.Begun)
        executor = await self._do(self._make, begun)
        turn = wire.Turn(
            life=self._line.life,
            after=executor.replay_after,
            events_after=executor.event_sequence if executor.wants_alarms else -1,
            orders_after=executor.order_sequence if executor.wants_orders else -1,
        )
        while True:
            raw = await self._line.ask("turn", turn)
            work = msgspec.msgpack.decode(raw, type=wire.Work)
            effects = await self._do(self._take, executor, work)
            await self._give(executor, effects, work.sequence)
            while executor.to_us < work.known_us:
                effects = await self._do(executor.advance, self._next(executor, work.known_us))
                await self._give(executor, effects, work.sequence)
            turn = wire.Turn(life=self._line.life)

    @staticmethod
    def _next(executor: Executor, known_us: int) -> int:
        """In steps: after a long stop the first results are kept before the last are worked out."""
        return min(known_us, executor.to_us + STEP_US) if executor.to_us else known_us

    async def _do(self, what: Any, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._hooks, what, *given)

    def _make(self, begun: wire.Begun) -> Executor:
        deployment = self._start.deployment
        module = load_module(Path(self._start.folder), deployment.manifest)
        executor = Executor(
            deployment.manifest,
            module,
            deployment,
            begun.state,
            start_us=begun.start_us,
            after=begun.after,
            doors=self._line,
            models=LaidModels(Path(self._start.folder) / FOLDER),
        )
        if executor.past_span_us is not None:
            executor.feed(self._line.samples(executor.tag_ids, *executor.past_span_us))
        return executor

    def _take(self, executor: Executor, work: wire.Work) -> Effects:
        if work.samples:
            executor.feed(envelope.decode(work.samples), work.sequence)
        else:
            executor.feed(concat_batches([]), work.sequence)
        done = []
        for told in work.told:
            what = told.alarm or told.order
            assert what is not None, "something was told"
            done.append(executor.tell(what, told.sequence))
        for asked in work.calls:
            try:
                body, effects = executor.serve(asked.service, asked.body, asked.at_us, asked.id)
                effects.calls = 1
                done.append(effects)
                self._answers.append(wire.Answered(id=asked.id, body=body))
            except HeadraceError as error:
                self._answers.append(wire.Answered(id=asked.id, error=error.as_dict()))
        return merged(done)

    async def _give(self, executor: Executor, effects: Effects, sequence: int) -> None:
        """Hand over what was done; where nothing was, the position alone, now and then."""
        now_s = asyncio.get_running_loop().time()
        if not (effects.calls or self._answers) and now_s - self._kept_s < KEEP_S:
            return
        answers, self._answers, self._kept_s = self._answers, [], now_s
        given = wire.Given(
            life=self._line.life,
            state=await self._do(executor.save),
            to_us=executor.to_us,
            sequence=sequence,
            samples=envelope.encode(effects.samples) if effects.samples.height else b"",
            records=effects.records,
            writes=effects.writes,
            problems=effects.problems,
            answers=answers,
            calls=effects.calls,
        )
        await self._line.ask("give", given)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ENDED)


async def _run(start: wire.Start) -> None:
    address = BrokerAddress(
        port=0,
        mqtt_port=0,
        monitor_port=0,
        platform_password=start.secret,
        device_password="",
        platform_user=start.user,
        servers=tuple(start.urls),
        authority_pem=start.authority_pem,
    )
    async with open_bus(address, f"app {start.user}", wait_s=BROKER_S) as bus:
        manifest = start.deployment.manifest
        if start.outside >= 0:
            Outside(socket.socket(fileno=start.outside)).take_over()
        holds = enclose(
            Path(start.folder),
            Path(start.scratch),
            memory_mb=manifest.budgets.memory_mb,
        )
        working = asyncio.create_task(_Process(_Line(bus, start), start).run(holds))
        while not working.done():
            await asyncio.wait({working}, timeout=0.5)
            if not bus.client.is_connected:
                os._exit(ENDED)
        working.result()


def main() -> None:
    """The process itself: standard output is the app's log."""
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=wire.Start)
    _die_with_parent(int(sys.argv[1]))
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(name)s %(message)s"
    )
    try:
        asyncio.run(_run(start))
    except HeadraceError as error:
        said = msgspec.json.encode(error.as_dict()).decode()
        sys.stdout.write(f"\n{ERROR_MARK}{said}\n")
        sys.stdout.flush()
        os._exit(ENDED)


ERROR_MARK: Final = "headrace-error "

if __name__ == "__main__":
    main()
