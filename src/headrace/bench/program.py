"""An app's Python on the bench: the executor of its process, driven by the scenario's clock."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import polars as pl

from headrace.app.records import AlarmChange
from headrace.apps.runtime.effects import Effects, Problem, Record, merged
from headrace.apps.runtime.executor import Executor
from headrace.bench.laying import Laid, told_name
from headrace.bench.learned import Models
from headrace.bench.platform import Given, Proposal, Trouble
from headrace.model.alarm import Transition
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.sample import Int64Array, concat_batches, empty_batch, microseconds
from headrace.model.time import US_PER_S

SAVE_US: Final = 10 * US_PER_S
_KEY: Final = ["tag_id", "source_timestamp"]
_ACTIVE: Final = ("UNACK", "ACKED")
_KINDS: Final = {"work_request": "work_request", "value": "value_entry"}


def load_module(folder: Path, name: str) -> ModuleType:
    """Import an app's Python from its folder, anew.

    Raises:
        Misconfigured: APPS-2422 when it cannot be imported.
    """
    for known in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[known]
    path = str(folder.resolve())
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise Misconfigured(
            "APPS-2422",
            f"the app's Python {name} cannot be imported: {type(error).__name__}: {error}",
            "Import it yourself to see where it fails.",
        ) from error


class AppProgram:
    """Drives an app's hooks, and holds what they give against what they may.

    Args:
        laid: the app on its assets. load: gives its Python; called again after a kill.
        start_us: hooks are due after it. models: those that its score hooks find.

    Raises:
        Misconfigured: APPS-22xx when hooks and manifest do not fit together, APPS-2422 as of
            :func:`load_module`.
    """

    def __init__(
        self,
        laid: Laid,
        load: Callable[[], ModuleType],
        start_us: int,
        models: Models | None = None,
    ) -> None:
        self._laid = laid
        self._load = load
        self._start_us = start_us
        self._models = models or Models()
        self._past: list[pl.DataFrame] = []
        self._events: list[AlarmChange] = []
        self._saved, self._saved_us = b"", start_us
        self._given = empty_batch()
        self._known: dict[str, Record] = {}
        self.cpu_s = 0.0
        self._executor = self._new()

    def turn(
        self, batch: pl.DataFrame, transitions: Sequence[Transition], to_us: int, now_us: int
    ) -> Given:
        """Take samples and changes of alarms, and run what is due."""
        begin_s = _cpu_s()
        given = Given()
        self._past.append(batch)
        done = [self._executor.feed(batch, len(self._past))]
        for change in map(self._change, transitions):
            self._events.append(change)
            done.append(self._executor.tell(change, len(self._events)))
        done += self._advance(to_us)
        self._take(merged(done), given, now_us)
        if to_us - self._saved_us >= SAVE_US:
            self._save(given, now_us)
        self.cpu_s += _cpu_s() - begin_s
        return given

    def restart(self, now_us: int) -> Given:
        """A kill: what it kept ten seconds ago at most, the log since then, and what it gives of that."""
        given, to_us = Given(), self._executor.to_us
        self._executor = self._new()
        again = self._executor.replay_after
        done = [self._executor.feed(b, n) for n, b in enumerate(self._past, 1) if n > again]
        done += [self._executor.tell(each, n) for n, each in enumerate(self._events, 1)]
        done += self._advance(to_us)
        effects = merged(done)
        self._compare(effects.samples, given, now_us)
        self._take(effects, given, now_us)
        return given

    def _advance(self, to_us: int) -> list[Effects]:
        """Go on, with each model from its moment on."""
        done = []
        self._models.now_us = self._executor.to_us
        for moment_us in self._models.moments(self._executor.to_us, to_us):
            done.append(self._executor.advance(moment_us))
            self._models.now_us = moment_us
        return done

    def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        """What the historian would give of what has arrived: samples of ``[start, end)``, and the newest of
        each tag before it."""
        mine = pl.col("tag_id").is_in(pl.Series(tag_ids).implode())
        rows = concat_batches([each.filter(mine) for each in self._past])
        rows = rows.unique(["tag_id", "source_timestamp"], keep="last", maintain_order=True)
        rows = rows.sort("tag_id", "source_timestamp")
        at_us = microseconds(rows["source_timestamp"])
        before = rows.filter(pl.Series(at_us < start_us)).unique("tag_id", keep="last")
        inside = rows.filter(pl.Series((at_us >= start_us) & (at_us < end_us)))
        return pl.concat([before, inside]).sort("tag_id", "source_timestamp")

    def call(self, app: str, service: str, body: bytes) -> bytes:
        """There is no other app on the bench."""
        raise Transient(
            "APPS-2424",
            f"there is no app {app} on the bench to ask for {service}",
            "Let the hook go on without the answer: the other app may be away in a plant too.",
        )

    def _new(self) -> Executor:
        return Executor(
            self._laid.deployment.manifest,
            self._load(),
            self._laid.deployment,
            self._saved,
            start_us=self._start_us,
            doors=self,
            models=self._models,
        )

    def _save(self, given: Given, now_us: int) -> None:
        try:
            self._saved = self._executor.save()
        except HeadraceError as error:
            given.troubles.append(Trouble(error.code, error.what, error.remedy, now_us))
        self._saved_us = self._executor.to_us

    def _change(self, each: Transition) -> AlarmChange:
        word = self._laid.deployment.manifest.word
        return AlarmChange(
            asset=each.asset,
            name=told_name(word, each.alarm),
            event=each.event,
            active=each.after in _ACTIVE,
            at_us=each.at_us,
            id=each.id,
        )

    def _take(self, done: Effects, given: Given, now_us: int) -> None:
        given.calls += done.calls
        given.writes += len(done.writes)
        given.troubles += map(_trouble, done.problems)
        if done.samples.height:
            given.samples.append(done.samples)
            self._given = _last([self._given, done.samples])
        for record in done.records:
            before = self._known.setdefault(record.id, record)
            if before != record:
                given.troubles.append(_other(f"the {record.kind} {record.id}", now_us))
            given.proposals.append(_proposal(record))

    def _compare(self, samples: pl.DataFrame, given: Given, now_us: int) -> None:
        """After a kill an app gives again what it gave, and nothing else."""
        both = _last([samples]).join(self._given, on=_KEY, how="left", suffix="_before")
        same = both["value"].eq_missing(both["value_before"])
        same &= both["text"].eq_missing(both["text_before"])
        for tag_id in both.filter(~same)["tag_id"].unique(maintain_order=True):
            name = "/".join(self._laid.outputs.get(tag_id, ("", str(tag_id))))
            given.troubles.append(_other(f"the output {name}", now_us))


def _last(batches: list[pl.DataFrame]) -> pl.DataFrame:
    """Of each tag and time the last one that was given."""
    return concat_batches(batches).unique(_KEY, keep="last", maintain_order=True)


def _other(what: str, now_us: int) -> Trouble:
    return Trouble(
        "APPS-2423",
        f"{what} is another one after a restart than before, for the same time",
        "Keep what later calls need in window.state, not in the module.",
        now_us,
    )


def _trouble(problem: Problem) -> Trouble:
    what = problem.what if problem.hook in problem.what else f"{problem.hook}: {problem.what}"
    return Trouble(problem.code, what, problem.remedy, problem.at_us)


def _proposal(record: Record) -> Proposal:
    body: dict[str, Any] = record.body
    text = str(body.get("title") or body.get("kind") or "")
    return Proposal(record.id, _KINDS[record.kind], str(body["asset"]), record.at_us, text)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
