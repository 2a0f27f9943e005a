"""The back-fill that somebody asked the console for: one at a time, on all cores, and on after a restart.

What is asked for stands in ``backfill/console.json`` until it is done, failed or cancelled. A console that was
stopped meanwhile begins it again, and the back-fill itself goes on where it was
(:mod:`headrace.historian.backfill`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import polars as pl

from headrace.bus.client import Bus
from headrace.historian.backfill import Backfill, Made, Progress
from headrace.historian.pools import LocalPool, Pool
from headrace.historian.reader import Reader
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock
from headrace.security.files import write_whole

CATCH_UP_S: Final = 10.0
_LOG: Final = logging.getLogger("headrace.console")
_STRANGE: Final = (
    OSError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError,
    pl.exceptions.PolarsError,
)  # fmt: skip
State = Literal["running", "done", "failed", "cancelled"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What stands on disk: the formula, who asked, and the time; None for all history."""

    key: str
    by: str
    span_us: tuple[int, int] | None = None


class BackfillView(msgspec.Struct, frozen=True, kw_only=True):
    """The running back-fill, or the last one.

    Attributes:
        key: of the formula. by: who asked. state: where it is.
        parts, parts_done: of the whole; 0 parts until it is known how many.
        samples_per_s: of inputs, in this run. left_s: about how long it still takes; None when unknown.
        results, changed, retracted: when it is done, see :class:`headrace.historian.backfill.Made`.
        code, what, remedy: when it failed.
    """

    key: str
    by: str
    state: State = "running"
    parts: int = 0
    parts_done: int = 0
    samples_per_s: float = 0.0
    left_s: float | None = None
    results: int = 0
    changed: int = 0
    retracted: int = 0
    code: str = ""
    what: str = ""
    remedy: str = ""


class BackfillBoard:
    """Back-fills that are asked for in the console.

    Args:
        folder: where jobs are kept. bus: open; results go to the log by it.
        reader: of history, with its tail.
        config: what the apps role runs, now; None before there is a site.
        make_pool: where the parts run.

    Attributes:
        view: the running back-fill or the last one; None when there was none since the console began.
    """

    def __init__(
        self,
        folder: DataFolder,
        bus: Bus,
        reader: Reader,
        config: Callable[[], AppsConfig | None],
        clock: Clock,
        make_pool: Callable[[], Pool] = LocalPool,
    ) -> None:
        self._folder, self._bus, self._reader = folder, bus, reader
        self._config, self._clock, self._make_pool = config, clock, make_pool
        self._task: asyncio.Task[None] | None = None
        self._looked = False
        self._turn = asyncio.Lock()
        self.view: BackfillView | None = None

    @property
    def _note(self) -> Path:
        return self._folder.root / "backfill" / "console.json"

    @property
    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def resume(self) -> None:
        """Once, when the site is known: go on with what a console before this one had not finished."""
        if self._looked or self._config() is None:
            return
        self._looked = True
        try:
            asked = msgspec.json.decode(await asyncio.to_thread(self._note.read_bytes), type=Asked)
        except (FileNotFoundError, *UNREADABLE):
            return
        if not self._is_running:
            self._begin(asked)

    async def start(
        self, key: str, by: str, span_us: tuple[int, int] | None = None
    ) -> BackfillView:
        """Make all results of a formula.

        Args:
            key: ``pump.load_15``.
            by: who asks.
            span_us: ``[start, end)``; None: all history, or what a cancelled one still has to do.

        Raises:
            Refused: HIST-2610 while another one runs.
            Misconfigured: HIST-2611 when the site has no such formula in operation.
        """
        async with self._turn:
            if self._is_running:
                assert self.view is not None, "of the one that runs"
                raise Refused(
                    "HIST-2610",
                    f"{self.view.key} is being back-filled",
                    "Wait until it is done, or cancel it.",
                )
            self._check(key)
            asked = Asked(key=key, by=by, span_us=span_us)
            await asyncio.to_thread(self._keep, asked)
            self._looked = True
            return self._begin(asked)

    def _check(self, key: str) -> None:
        config = self._config()
        found = (
            each
            for each in (config.formulas if config is not None else ())
            if key == f"{each.asset_type}.{each.name}"
        )
        formula = next(found, None)
        if formula is None or formula.kind != "formula" or formula.state == "off":
            raise Misconfigured(
                "HIST-2611",
                f"there is no formula {key} in operation",
                "See them on the page Formulas; one that is switched off has no results.",
            )

    async def cancel(self) -> BackfillView | None:
        """End the running one; what is made stays, and starting it again goes on from there."""
        if self._is_running:
            assert self._task is not None and self.view is not None, "it runs"
            await asyncio.to_thread(self._note.unlink, missing_ok=True)
            await end_tasks(self._task)
            self.view = msgspec.structs.replace(self.view, state="cancelled", left_s=None)
        return self.view

    async def close(self) -> None:
        """The console ends; the next one goes on."""
        if self._task is not None:
            await end_tasks(self._task)

    def _keep(self, asked: Asked) -> None:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._note, msgspec.json.encode(asked), mode=0o600)

    def _begin(self, asked: Asked) -> BackfillView:
        self.view = BackfillView(key=asked.key, by=asked.by)
        self._task = asyncio.create_task(self._run(asked))
        return self.view

    async def _run(self, asked: Asked) -> None:
        pool: Pool | None = None
        try:
            config = self._config()
            assert config is not None, "it was there when this was asked for"
            pool = self._make_pool()
            await self._reader.catch_up(CATCH_UP_S)
            work = Backfill(self._folder, self._bus, config, self._clock)
            made = await work.run(
                self._reader, asked.key, pool, span=asked.span_us, tell=self._tell
            )
            end = _done(made)
        except HeadraceError as error:
            end = _failed(error.code, error.what, error.remedy)
        except _STRANGE as error:
            text = f"it cannot be worked out: {type(error).__name__}: {error}"
            end = _failed(
                "HIST-2612", text, "Look at the disk and at the formula; report the rest."
            )
        finally:
            if pool is not None:
                await asyncio.to_thread(pool.close)
        await asyncio.to_thread(self._note.unlink, missing_ok=True)
        assert self.view is not None, "of this one"
        self.view = msgspec.structs.replace(self.view, **end)

    def _tell(self, told: Progress) -> None:
        assert self.view is not None, "of the one that runs"
        self.view = msgspec.structs.replace(
            self.view,
            parts=told.parts,
            parts_done=told.parts_done,
            samples_per_s=told.samples_per_s,
            left_s=told.left_s,
        )


def _done(made: Made) -> dict[str, Any]:
    return {
        "state": "done",
        "left_s": 0.0,
        "results": made.results,
        "changed": made.changed,
        "retracted": made.retracted,
    }


def _failed(code: str, what: str, remedy: str) -> dict[str, Any]:
    _LOG.error("%s %s", code, what)
    return {"state": "failed", "left_s": None, "code": code, "what": what, "remedy": remedy}
