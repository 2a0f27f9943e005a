"""Back-test: a condition or an alarm on stored history before it is enabled.

How often it would have come, for how long, whether marked events were met, and how that moves with a limit.
Decisions are those of live operation: the same evaluator, the same rules for what sets and ends an alarm
(:mod:`headrace.formula.activity`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.formula.activity import OFF, ON, Activity, Changes, rows_of
from headrace.formula.binding import check_all, lay
from headrace.formula.bound import Bound
from headrace.formula.clauses import is_alarm
from headrace.formula.evaluate import History, evaluate
from headrace.historian.backfill_parts import Part, attributes_of, make_parts
from headrace.historian.inputs import read_inputs
from headrace.historian.marks import Episode, Mark, Met, meet
from headrace.historian.reader import Reader
from headrace.historian.sweep import Sweep, swept
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import AppsConfig, FormulaConfig
from headrace.model.sample import Int64Array

PART_ROWS: Final = 2_000_000
EPISODES_MAX: Final = 10_000
TRIED: Final = "tried"
_STATEMENT: Final = re.compile(r"\s*([A-Za-z_]\w*)\s*=")
_ALARM: Final = re.compile(r"\s*alarm\s+([A-Za-z_]\w*)")
_NOTHING: Final = {
    "asset": pl.Int64(),
    "start_us": pl.Int64(),
    "end_us": pl.Int64(),
    "suppressed": pl.Boolean(),
}

Progress = Callable[[int, int], None]
"""(parts done, parts in all)."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to try.

    Attributes:
        text: ``temperature > 80 degC for 5 min``, a statement ``name = condition``, or an alarm.
        asset_type: whose quantities it names.
        start_us, end_us: time of history, in UTC microseconds.
        assets: paths of those that count; None means all of the type.
        marks: events to be met; before_us, after_us: see :func:`headrace.historian.marks.meet`.
        sweep: values of one number of the text.
    """

    text: str
    asset_type: str
    start_us: int
    end_us: int
    assets: frozenset[str] | None = None
    marks: tuple[Mark, ...] = ()
    before_us: int = 3_600_000_000
    after_us: int = 600_000_000
    sweep: Sweep | None = None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on history, in short.

    Attributes:
        count: episodes of which somebody would have been told; suppressed: of which not.
        total_s, longest_s: how long they lasted, all together and the longest.
        met: events that were met, when some were marked.
    """

    count: int
    suppressed: int
    total_s: float
    longest_s: float
    met: Met | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a sweep."""

    value: float
    tally: Tally


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a back-test found.

    Attributes:
        text: the statement that was tried.
        assets: on which it was; lacking: (path, what it lacks) where it was not.
        episodes: by time, at most 10,000 of them; ``tally`` counts all.
        swept: the number as it is written in the text, when one was swept.
    """

    text: str
    start_us: int
    end_us: int
    assets: tuple[str, ...]
    lacking: tuple[tuple[str, str], ...]
    tally: Tally
    episodes: tuple[Episode, ...]
    swept: str = ""
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """What begins and ends episodes, on the same assets."""

    on: Bound
    off: Bound | None = None
    suppressed: Bound | None = None

    @property
    def bounds(self) -> list[Bound]:
        return [each for each in (self.on, self.off, self.suppressed) if each is not None]


def backtest(
    reader: Reader, config: AppsConfig, question: Question, progress: Progress | None = None
) -> Outcome:
    """Try a condition on history.

    Args:
        config: what the site's engineers wrote, with types, assets and calendar.

    Raises:
        FormulaProblem: what is wrong with the text, with its place.
        Misconfigured: HIST-2201 for an empty time, HIST-2202 when the text is no condition, HIST-2203 and
            HIST-2204 for the sweep, HIST-2205 when no asset has what it reads.
        Refused: HIST-2001 when there are too many samples for one part.
    """
    if question.end_us <= question.start_us:
        raise Misconfigured(
            "HIST-2201", "the time of the back-test is empty", "Give an end after the start."
        )
    text = statement_of(question.text, config, question.asset_type)
    chosen, variants = swept(text, question.sweep) if question.sweep else ("", iter(()))
    values = list(variants)
    first, lacking = conditions_of(config, question, text)
    tried = [first, *(conditions_of(config, question, each)[0] for _, each in values)]
    found = episodes_of(reader, config, tried, question, progress)
    tallies = [_tally(each, first.on.assets, question) for each in found]
    return Outcome(
        text=text,
        start_us=question.start_us,
        end_us=question.end_us,
        assets=first.on.assets,
        lacking=lacking,
        tally=tallies[0],
        episodes=_told(found[0], first.on.assets),
        swept=chosen,
        points=tuple(
            Point(value=value, tally=tally)
            for (value, _), tally in zip(values, tallies[1:], strict=True)
        ),
    )


def statement_of(text: str, config: AppsConfig, asset_type: str) -> str:
    """A statement from what may be the condition alone.

    ``state = "RUN"`` is a condition when ``state`` is something of the asset type.
    """
    head = _STATEMENT.match(text)
    kind = next((each for each in config.types if each.name == asset_type), None)
    known: set[str] = set()
    if kind is not None:
        known = {*kind.quantities, *kind.attributes}
    if is_alarm(text) or (head is not None and head[1] not in known):
        return text
    return f"{TRIED} = {text}"


def conditions_of(
    config: AppsConfig, question: Question, text: str
) -> tuple[Conditions, tuple[tuple[str, str], ...]]:
    """The conditions of a statement on their assets, and (path, what it lacks) of the others."""
    head = (_ALARM if is_alarm(text) else _STATEMENT).match(text)
    name = head[1] if head else TRIED
    formula = FormulaConfig(
        asset_type=question.asset_type,
        name=name,
        kind="alarm" if is_alarm(text) else "formula",
        text=text,
    )
    kept = [f for f in config.formulas if (f.asset_type, f.name) != (question.asset_type, name)]
    changed = msgspec.structs.replace(config, formulas=(*kept, formula))
    checked, problems = check_all(changed)
    mine = (question.asset_type, name)
    for found in problems:
        if (found.asset_type, found.name) == mine:
            raise found.problem
    binding = lay(changed, checked, with_off=True)
    bounds = {
        each.role: _of(each, question.assets)
        for each in binding.bound
        if f"{each.key}/".startswith(f"{question.asset_type}.{name}/")
    }
    on = bounds.get("alarm") or bounds.get("formula")
    lacking = tuple(
        (path, what)
        for path, key, what in binding.missing
        if key == f"{question.asset_type}.{name}"
    )
    if on is None or not on.assets:
        raise Misconfigured(
            "HIST-2205",
            f"no asset of the type {question.asset_type!r} has what {text!r} reads",
            "; ".join(f"{path} lacks {what}" for path, what in lacking[:3])
            or "See types and assets with: headrace site show",
        )
    if on.plan.kind != "condition":
        raise Misconfigured(
            "HIST-2202",
            f"{text!r} gives a {on.plan.kind}, not a condition",
            "Compare it with something: x > 80.",
        )
    return Conditions(on, bounds.get("alarm_off"), bounds.get("alarm_suppressed")), lacking


def _of(bound: Bound | None, chosen: frozenset[str] | None) -> Bound | None:
    """A bound on some of its assets."""
    if bound is None or chosen is None:
        return bound
    at = np.flatnonzero([path in chosen for path in bound.assets])
    return replace(
        bound,
        assets=tuple(bound.assets[n] for n in at),
        inputs={name: tags[at] for name, tags in bound.inputs.items()},
        outputs=bound.outputs[at],
        attributes=attributes_of(bound, at),
    )


@dataclass
class _Trial:
    """One variant on the assets of one part after the other in time."""

    conditions: Conditions
    activity: Activity
    quiet: Activity
    changes: list[Changes] = field(default_factory=list)
    quieted: list[Changes] = field(default_factory=list)

    @classmethod
    def of(cls, conditions: Conditions, count: int) -> _Trial:
        has_off = np.full(count, conditions.off is not None)
        return cls(conditions, Activity(has_off), Activity(np.zeros(count, np.bool_)))

    def take(self, part: Part, histories: Mapping[str, History], config: AppsConfig) -> None:
        on, off, quiet = (
            None if each is None else _evaluated(each, part, histories, config)
            for each in (self.conditions.on, self.conditions.off, self.conditions.suppressed)
        )
        frames = [(0, which, f) for which, f in ((ON, on), (OFF, off)) if f is not None]
        self.changes.append(self.activity.take(rows_of(frames)[0]))
        if quiet is not None:
            self.quieted.append(self.quiet.take(rows_of([(0, ON, quiet)])[0]))

    def episodes(self, first: int) -> pl.DataFrame:
        """What was found; ``first`` is the number of the first asset."""
        found = _spans(self.changes)
        quiet = _spans(self.quieted)
        starts = found["start_us"].to_numpy()
        asset = found["asset"].to_numpy()
        hushed = np.zeros(len(starts), np.bool_)
        for number, begin, end in quiet.select("asset", "start_us", "end_us").iter_rows():
            until = np.inf if end is None else end
            hushed |= (asset == number) & (starts >= begin) & (starts < until)
        return found.with_columns(pl.Series("suppressed", hushed), pl.col("asset") + first)


def episodes_of(
    reader: Reader,
    config: AppsConfig,
    tried: Sequence[Conditions],
    question: Question,
    progress: Progress | None = None,
) -> list[pl.DataFrame]:
    """Episodes of each variant: ``asset``, ``start_us``, ``end_us`` (null: it held at the end), ``suppressed``.

    Args:
        tried: variants on the same assets; history is read once for all of them.
    """
    everything = _together(tried)
    back_us = max(each.plan.back_us for conditions in tried for each in conditions.bounds)
    widest = max(
        (each for conditions in tried for each in conditions.bounds), key=lambda b: b.plan.back_us
    )
    asked = Bound(
        key="", role="formula", plan=widest.plan, assets=widest.assets,
        inputs=everything, outputs=widest.outputs,
    )  # fmt: skip
    parts = make_parts(reader, asked, question.start_us, question.end_us, PART_ROWS)
    found: list[list[pl.DataFrame]] = [[] for _ in tried]
    trials: list[_Trial] = []
    for number, part in enumerate(parts):
        if part.start_us == question.start_us:
            trials = [_Trial.of(conditions, part.last - part.first) for conditions in tried]
        inputs = {name: tags[part.first : part.last] for name, tags in everything.items()}
        histories = read_inputs(reader, inputs, part.start_us, part.end_us, back_us)
        for trial in trials:
            trial.take(part, histories, config)
        if part.end_us == question.end_us:
            for frames, trial in zip(found, trials, strict=True):
                frames.append(trial.episodes(part.first))
        if progress is not None:
            progress(number + 1, len(parts))
    nothing = pl.DataFrame(schema=_NOTHING)
    return [pl.concat([nothing, *frames]).sort("start_us", "asset") for frames in found]


def _together(tried: Iterable[Conditions]) -> dict[str, Int64Array]:
    return {
        name: tags
        for conditions in tried
        for each in conditions.bounds
        for name, tags in each.inputs.items()
    }


def _evaluated(
    bound: Bound, part: Part, histories: Mapping[str, History], config: AppsConfig
) -> pl.DataFrame:
    return evaluate(
        bound.plan,
        {name: histories[name] for name in bound.inputs},
        part.start_us,
        part.end_us,
        assets=part.last - part.first,
        attributes=attributes_of(bound, slice(part.first, part.last)),
        calendar=config.calendar,
    )


def _spans(changes: Sequence[Changes]) -> pl.DataFrame:
    """From when to when alarms were active."""
    columns = {
        "asset": np.concatenate([np.empty(0, np.int64), *(c.alarm for c in changes)]),
        "start_us": np.concatenate([np.empty(0, np.int64), *(c.at_us for c in changes)]),
        "active": np.concatenate([np.empty(0, np.bool_), *(c.active for c in changes)]),
        "changed": np.concatenate([np.empty(0, np.bool_), *(c.active_changed for c in changes)]),
    }
    told = pl.DataFrame(columns).filter("changed").sort("asset", "start_us")
    ended = told.with_columns(pl.col("start_us").shift(-1).over("asset").alias("end_us"))
    return ended.filter("active").select("asset", "start_us", "end_us")


def _told(found: pl.DataFrame, assets: Sequence[str]) -> tuple[Episode, ...]:
    return tuple(
        Episode(asset=assets[asset], start_us=start, end_us=end, suppressed=suppressed)
        for asset, start, end, suppressed in found.head(EPISODES_MAX)
        .select("asset", "start_us", "end_us", "suppressed")
        .iter_rows()
    )


def _tally(found: pl.DataFrame, assets: Sequence[str], question: Question) -> Tally:
    heard = found.filter(~pl.col("suppressed"))
    lengths_s = (heard["end_us"].fill_null(question.end_us) - heard["start_us"]) / 1e6
    met = None
    if question.marks:
        met = meet(
            heard,
            assets,
            question.marks,
            before_us=question.before_us,
            after_us=question.after_us,
            end_us=question.end_us,
        )
    return Tally(
        count=heard.height,
        suppressed=found.height - heard.height,
        total_s=float(lengths_s.sum()),
        longest_s=float(lengths_s.max() or 0.0),  # type: ignore[arg-type] # of floats
        met=met,
    )
