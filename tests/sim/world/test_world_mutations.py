"""Every checker can fail: a rule is broken on purpose, and the checker that guards it must say so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.bus.log import LogReader, purge_log
from headrace.edge.books import Cell
from headrace.edge.connectors.sparkplug import session as session_module
from headrace.edge.connectors.sparkplug.node import EdgeNode
from headrace.edge.connectors.sparkplug.session import HostSession
from headrace.edge.pipeline import Counts, Pipeline
from headrace.edge.publisher import Lane
from headrace.historian import ledger_store as ledger_store_module
from headrace.historian.commit import Committer
from headrace.historian.tail import Tail
from headrace.historian.writer import Writer
from headrace.sim.world.plan import Plan, make_plan, read_plan
from headrace.sim.world.runner import Outcome, minimise, run_plan

SCENARIOS = Path(__file__).parents[3] / "scenarios"
SEEDS_MAX = 60


def plans(world: str, kinds: set[str], sources: set[str]) -> Iterator[Plan]:
    """Plans that have one of these faults and one of these sources, as far as any are asked for.
    ``only`` among the faults: they have no others."""
    for seed in itertools.count():
        plan = make_plan(seed, world)  # type: ignore[arg-type]
        has = {fault.kind for fault in plan.faults}
        if (kinds and not kinds & has) or ("only" in kinds and not has <= kinds):
            continue
        if not sources or sources & {source.kind for source in plan.sources}:
            yield plan


def until_caught(checker: str, found: Iterator[Plan]) -> Outcome:
    """Run plans until the checker fires."""
    seen: set[str] = set()
    for plan in itertools.islice(found, SEEDS_MAX):
        outcome = run_plan(plan)
        seen |= outcome.checkers
        if checker in outcome.checkers:
            return outcome
    pytest.fail(f"{checker} did not fire in {SEEDS_MAX} worlds; fired: {seen}")


# -- what is broken -------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def acknowledge_before_publish(patch: pytest.MonkeyPatch) -> None:
    offer = Lane.offer

    def early(self: Lane, batch: pl.DataFrame, acknowledge: Any = None, **more: Any) -> None:
        if acknowledge is not None:
            self.early = asyncio.ensure_future(acknowledge())  # type: ignore[attr-defined]
        offer(self, batch, None, **more)

    patch.setattr(Lane, "offer", early)


def publish_newest_first(patch: pytest.MonkeyPatch) -> None:
    following = Lane._next_frame

    def reversed_frame(self: Lane) -> list:
        return following(self)[::-1]

    patch.setattr(Lane, "_next_frame", reversed_frame)


def count_every_try(patch: pytest.MonkeyPatch) -> None:
    """A frame gets a new number with each try."""
    publish = Lane._publish

    async def again(self: Lane, *frame: Any) -> None:
        self._sequence += 1
        await publish(self, *frame)

    patch.setattr(Lane, "_publish", again)


def forget_a_reading(patch: pytest.MonkeyPatch) -> None:
    """Every fifth batch is thrown away, but its source is told that it is stored."""
    offer, number = Lane.offer, itertools.count(1)

    def forgetful(self: Lane, batch: pl.DataFrame, acknowledge: Any = None, **more: Any) -> None:
        offer(self, batch.clear() if next(number) % 5 == 0 else batch, acknowledge, **more)

    patch.setattr(Lane, "offer", forgetful)


def better_quality(patch: pytest.MonkeyPatch) -> None:
    process = Pipeline.process

    def good(self: Pipeline, raw: pl.DataFrame, expected: int = 0) -> pl.DataFrame:
        batch = process(self, raw, expected)
        return batch.with_columns(pl.lit(0, pl.UInt32).alias("status"))

    patch.setattr(Pipeline, "process", good)


def narrower_values(patch: pytest.MonkeyPatch) -> None:
    process = Pipeline.process

    def rounded(self: Pipeline, raw: pl.DataFrame, expected: int = 0) -> pl.DataFrame:
        batch = process(self, raw, expected)
        return batch.with_columns(pl.col("value").cast(pl.Float32).cast(pl.Float64))

    patch.setattr(Pipeline, "process", rounded)


def lost_is_good(patch: pytest.MonkeyPatch) -> None:
    """A lost device's last values go on as if they were new."""
    lost = Pipeline.lost

    def hopeful(self: Pipeline, now_us: int) -> pl.DataFrame:
        return lost(self, now_us).with_columns(
            pl.lit(0, pl.UInt32).alias("status"), pl.lit(1.0).alias("value")
        )

    patch.setattr(Pipeline, "lost", hopeful)


def miss_counts(patch: pytest.MonkeyPatch) -> None:
    def miss(self: Counts, samples: int) -> None:
        self.expected += samples

    patch.setattr(Counts, "miss", miss)


def unnamed_misses(patch: pytest.MonkeyPatch) -> None:
    def miss(self: Cell, cause: str, samples: int) -> None:
        self.counts.expected += samples

    patch.setattr(Cell, "miss", miss)


def count_stored_twice(patch: pytest.MonkeyPatch) -> None:
    tally = ledger_store_module.tally

    def twice(known: Any, taken: Any, since_us: int = 0) -> None:
        tally(known, taken, since_us)
        for counts in known.values():
            counts.stored += 1

    patch.setattr(ledger_store_module, "tally", twice)


def store_copies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Committer, "_look_up", lambda self, rows, suspect: None)


def position_before_rows(patch: pytest.MonkeyPatch) -> None:
    write = Committer._write

    def early(self: Committer, rows: pl.DataFrame) -> list:
        app = f"headrace/SAMPLES/{self._world_created_us}"  # type: ignore[attr-defined]
        self._table.commit([], position=(app, self._world_sequence))  # type: ignore[attr-defined]
        return write(self, rows)

    commit = Committer.commit

    def remembering(self: Committer, chunk: Any, app: str) -> Any:
        self._world_created_us = app.rsplit("/", 1)[-1]  # type: ignore[attr-defined]
        self._world_sequence = chunk.sequence  # type: ignore[attr-defined]
        return commit(self, chunk, app)

    patch.setattr(Committer, "_write", early)
    patch.setattr(Committer, "commit", remembering)


def purge_everything(patch: pytest.MonkeyPatch) -> None:
    async def purge(self: Writer, info: Any, now_s: float) -> None:
        del now_s
        await purge_log(self._bus, info.last_sequence)

    patch.setattr(Writer, "_purge", purge)


def never_full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writer, "_is_full", lambda self, chunk: False)


def give_up_after_an_outage(patch: pytest.MonkeyPatch) -> None:
    async def once(self: Writer, stop: asyncio.Event) -> None:
        await self._follow(stop)

    patch.setattr(Writer, "run", once)


def trust_a_restored_log(patch: pytest.MonkeyPatch) -> None:
    async def trusting(*_: Any) -> bool:
        return False

    patch.setattr("headrace.historian.writer.is_restored", trusting)


def number_alone_tells(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Committer, "_is_committed", lambda self, c, app: self._table.committed(app) == c.sequence
    )


def gaps_are_purges(patch: pytest.MonkeyPatch) -> None:
    async def believe(self: LogReader) -> None:
        self.lost.append((self.next_sequence, self._gap_to - 1))
        self.next_sequence, self._gap_to = self._gap_to, 0

    patch.setattr(LogReader, "_explain_gap", believe)


def no_tail(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tail, "segments", lambda self, *position: [])


def any_order_will_do(patch: pytest.MonkeyPatch) -> None:
    def apply(self: HostSession, node: EdgeNode, message: Any, now_s: float) -> None:
        self._apply(node, message, now_s)

    patch.setattr(HostSession, "_in_order", apply)


def deaths_are_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HostSession, "_mark_stale", lambda self, node, tag_ids, at_us: None)


def ask_at_once(patch: pytest.MonkeyPatch) -> None:
    ask = HostSession._ask_rebirth

    def impatient(
        self: HostSession, node: EdgeNode, now_s: float, reason: str, **more: Any
    ) -> None:
        node.rebirth_not_before_s = now_s
        ask(self, node, now_s, reason, **more)

    patch.setattr(HostSession, "_ask_rebirth", impatient)


def wait_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HostSession, "tick", lambda self, now_us, now_s: None)


def births_of_any_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HostSession, "_is_overtaken", lambda self, node, payload: False)


def only_the_last_births(patch: pytest.MonkeyPatch) -> None:
    def retire(self: EdgeNode) -> None:
        if self.alias:
            self.former_alias = self.alias

    patch.setattr(EdgeNode, "retire_aliases", retire)


def quality_is_ignored(patch: pytest.MonkeyPatch) -> None:
    decode = session_module.decode_value

    def good(metric: Any, datatype: int) -> Any:
        return decode(metric, datatype)._replace(status=0)

    patch.setattr(session_module, "decode_value", good)


KEEPING = {"queue", "handshake"}
BROKEN: list[tuple[Break, str, str, set[str], set[str]]] = [
    (acknowledge_before_publish, "acknowledged", "chain", set(), KEEPING),
    (forget_a_reading, "owed", "chain", set(), {"history", *KEEPING}),
    (publish_newest_first, "order", "chain", {"stall", "kill", "log_full"}, {"poll"}),
    (count_every_try, "order", "chain", set(), set()),
    (better_quality, "quality", "chain", set(), set()),
    (narrower_values, "values", "chain", set(), set()),
    (lost_is_good, "invented", "chain", {"away", "refuse", "mute"}, set()),
    (miss_counts, "books", "chain", {"slow", "away", "mute"}, {"poll"}),
    (unnamed_misses, "ledger", "chain", {"slow", "away", "mute"}, {"poll"}),
    (count_stored_twice, "ledger", "chain", set(), set()),
    (store_copies, "doubled", "chain", {"restore"}, set()),
    (position_before_rows, "lost", "chain", {"kill_in_commit"}, set()),
    (purge_everything, "lost", "chain", set(), set()),
    (never_full, "bounded", "chain", {"disk_floor", "disk_full"}, set()),
    (give_up_after_an_outage, "progress", "chain", {"kill"}, set()),
    (trust_a_restored_log, "lost", "chain", {"restore"}, set()),
    (no_tail, "fresh", "chain", set(), set()),
    (any_order_will_do, "order", "sparkplug", {"swap", "only"}, set()),
    (deaths_are_silent, "stale", "sparkplug", {"node_cut", "kill"}, set()),
    (ask_at_once, "storm", "sparkplug", {"lose"}, set()),
    (wait_for_ever, "progress", "sparkplug", {"lose"}, set()),
    (quality_is_ignored, "quality", "sparkplug", set(), set()),
]


@pytest.mark.parametrize(
    ("break_it", "checker", "world", "kinds", "sources"),
    BROKEN,
    ids=[each[0].__name__ for each in BROKEN],
)
def test_a_broken_rule_is_caught(
    break_it: Break,
    checker: str,
    world: str,
    kinds: set[str],
    sources: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_it(monkeypatch)
    until_caught(checker, plans(world, kinds, sources))


@pytest.mark.parametrize(
    ("break_it", "checker", "scenario"),
    [
        (number_alone_tells, "lost", "restored_log_with_the_same_number"),
        (gaps_are_purges, "lost", "first_delivery_lost"),
        (births_of_any_age, "invented", "births_overtaken"),
        (only_the_last_births, "invented", "late_data_after_two_births"),
        (only_the_last_births, "invented", "late_data_after_births_without_a_device"),
    ],
)
def test_a_scenario_fails_again_without_the_mend_that_it_asked_for(
    break_it: Break, checker: str, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    assert checker in run_plan(read_plan(SCENARIOS / f"{scenario}.toml")).checkers


def test_a_failing_plan_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    trust_a_restored_log(monkeypatch)
    caught = until_caught("lost", plans("chain", {"restore"}, set()))
    small = minimise(caught)
    assert "lost" in small.checkers
    assert len(small.plan.faults) <= len(caught.plan.faults)
    assert {"restore", "snapshot"} <= {fault.kind for fault in small.plan.faults}
    for place in range(len(small.plan.faults)):
        fewer = small.plan.faults[:place] + small.plan.faults[place + 1 :]
        smaller = run_plan(Plan(**{**_fields(small.plan), "faults": fewer}))
        assert "lost" not in smaller.checkers, "one fault more could have gone"


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__struct_fields__}
