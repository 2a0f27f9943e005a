"""The books close: for every life of an edge, a log and a historian, and not when a count is wrong."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from headrace.model import ledger_causes
from headrace.model.errors import Corrupt
from headrace.model.ledger import (
    COUNTS,
    DERIVED_GROUP,
    DROPPED,
    FOREIGN,
    KEY_SCHEMA,
    MINUTE_US,
    MISSED,
    RECOMPUTED_GROUP,
    CellKey,
    EdgeCounts,
    Run,
    Taken,
    WriterCounts,
    decode_runs,
    edge_frame,
    encode_runs,
    explain,
    tally,
    waiting_in_log,
    writer_frame,
)
from headrace.model.ledger_view import summed, total, ways

KEY = CellKey("local", "plc_1", "1000ms", 3 * MINUTE_US, 7)
few = some.integers(0, 30)
calm = settings(deadline=None)  # the first example waits for a busy machine


@some.composite
def lives(draw: some.DrawFn) -> tuple[EdgeCounts, list[int]]:
    """A cell whose edge side is true, and the rows of its frames."""
    frames = draw(some.lists(some.integers(1, 20), max_size=6))
    missed = {name: draw(few) for name in MISSED}
    kept = {name: draw(few) for name in ("filtered", "buffered", *DROPPED)}
    marked = draw(few)
    read = sum(frames) + sum(kept.values()) - marked
    if read < 0:
        marked, read = marked + read, 0
    counts = EdgeCounts(
        expected=read + sum(missed.values()),
        read=read,
        marked=marked,
        published=sum(frames),
        last_sequence=100 + len(frames),
        **missed,
        **kept,
    )
    return counts, frames


def follow(frames: list[int], *, seen: list[bool] | None = None) -> dict[CellKey, WriterCounts]:
    """The historian's side after those frames that it sees, and the closing one."""
    cells: dict[CellKey, WriterCounts] = {}
    before = 0
    for rows, sees in zip(frames, seen or [True] * len(frames), strict=True):
        if sees:
            copies = rows // 3
            taken = Taken(KEY, before, rows, stored=rows - copies, duplicate=copies)
            tally(cells, [taken])
        before += rows
    tally(cells, [Taken(KEY, before, 0)])
    return cells


def closes(row: dict[str, int]) -> bool:
    gone = [*MISSED, "filtered", "buffered", *DROPPED, "dropped_edge_killed", "in_log"]
    gone += ["stored", "duplicate", "rejected", "lost", "edge_log_full", "skipped"]
    return row["expected"] + row["marked"] == sum(row[name] for name in gone)


def only(frame: pl.DataFrame) -> dict[str, int]:
    assert frame.height == 1
    return frame.row(0, named=True)


@calm
@given(lives(), some.data())
def test_what_the_log_lost_is_known_to_the_sample(
    life: tuple[EdgeCounts, list[int]], data: some.DataObject
) -> None:
    edge, frames = life
    seen = [data.draw(some.booleans()) for _ in frames]
    row = only(explain(edge_frame({KEY: edge}), writer_frame(follow(frames, seen=seen))))
    assert row["lost"] == sum(rows for rows, sees in zip(frames, seen, strict=True) if not sees)
    assert row["unexplained"] == 0 and closes(row)


@calm
@given(lives(), some.data())
def test_what_an_edge_removed_is_named_as_far_as_it_is_missed(
    life: tuple[EdgeCounts, list[int]], data: some.DataObject
) -> None:
    """Removed frames may have reached the hub after all, and others may be lost besides."""
    edge, frames = life
    edge.read -= edge.dropped_in_doubt
    edge.expected -= edge.dropped_in_doubt
    edge.dropped_in_doubt = 0
    if edge.read < 0:
        return
    seen = [data.draw(some.booleans()) for _ in frames]
    gone = [data.draw(some.booleans()) for _ in frames]
    rows = sum(count for count, left in zip(frames, gone, strict=True) if left)
    missed = sum(count for count, sees in zip(frames, seen, strict=True) if not sees)
    counts = writer_frame(follow(frames, seen=seen))
    if data.draw(some.booleans(), "the log was purged to its end"):
        first = next((i for i in reversed(range(len(frames))) if seen[i]), -1) + 1
        counts = writer_frame(unclosed(frames[:first], seen[:first]))
    removed = pl.DataFrame([(*KEY, rows)], schema={**KEY_SCHEMA, "removed": pl.Int64}, orient="row")
    row = only(explain(edge_frame({KEY: edge}), counts, removed=removed))
    assert row["edge_log_full"] == min(rows, missed)
    assert row["lost"] + row["edge_log_full"] + row["unexplained"] == missed


def unclosed(frames: list[int], seen: list[bool]) -> dict[CellKey, WriterCounts]:
    """The historian's side after those frames, with nothing after them."""
    cells: dict[CellKey, WriterCounts] = {}
    before = 0
    for rows, sees in zip(frames, seen, strict=True):
        if sees:
            tally(cells, [Taken(KEY, before, rows, stored=rows)])
        before += rows
    return cells


@calm
@given(lives(), some.sampled_from([*MISSED, "expected", "read", "published", "filtered"]), few)
def test_a_count_that_is_wrong_is_seen(
    life: tuple[EdgeCounts, list[int]], name: str, wrong: int
) -> None:
    edge, frames = life
    setattr(edge, name, getattr(edge, name) + wrong + 1)
    edge.dropped_in_doubt = 0
    row = only(explain(edge_frame({KEY: edge}), writer_frame(follow(frames))))
    assert row["unexplained"] > 0


@calm
@given(lives(), some.data())
def test_a_kill_leaves_nothing_unexplained(
    life: tuple[EdgeCounts, list[int]], data: some.DataObject
) -> None:
    """What the edge told last is older than what it did; the log has more, or it has all of it."""
    edge, frames = life
    told = data.draw(some.integers(0, len(frames)), "frames that the last word knows")
    unknown = data.draw(some.integers(0, sum(frames[told:])), "read after the last word")
    later = sum(frames[told:])
    edge.published -= later
    edge.buffered += later - unknown
    edge.read -= unknown
    edge.expected -= unknown
    if edge.read < 0:
        return
    rows = edge_frame({KEY: edge}), writer_frame(follow(frames))
    row = only(explain(*rows, killed=[(KEY.edge, KEY.epoch)]))
    assert row["unexplained"] == 0 and closes(row)
    assert row["stored"] + row["duplicate"] == sum(frames)
    final = {KEY: EdgeCounts(read=5, expected=5, published=5, final=True)}
    row = only(explain(edge_frame(final), rows[1], killed=[(KEY.edge, KEY.epoch)]))
    assert row["unexplained"] == abs(sum(frames) - 5), "a closed cell is no guess"


def test_a_cell_that_only_the_log_knows_is_of_the_killed_edge_or_unexplained() -> None:
    writer = writer_frame({KEY: WriterCounts(stored=4)})
    assert only(explain(edge_frame({}), writer))["unexplained"] == 4
    row = only(explain(edge_frame({}), writer, killed=[("local", 7)]))
    assert (row["unexplained"], row["read_untold"], row["expected"]) == (0, 4, 4)


def test_what_waits_in_the_log_is_no_loss_and_hides_none() -> None:
    edge = edge_frame({KEY: EdgeCounts(expected=9, read=9, published=9, last_sequence=50)})
    writer = writer_frame({KEY: WriterCounts(stored=3)})
    row = only(explain(edge, writer, waiting_in_log(edge, 49)))
    assert (row["in_log"], row["unexplained"]) == (6, 0)
    assert only(explain(edge, writer, waiting_in_log(edge, 50)))["unexplained"] == 6
    ahead = writer_frame({KEY: WriterCounts(stored=12)})
    assert only(explain(edge, ahead, waiting_in_log(edge, 49)))["unexplained"] == 3


def test_a_cell_in_motion_is_open_until_its_grace_is_over() -> None:
    edge = edge_frame({KEY: EdgeCounts(expected=9, read=9, published=9)}, told_us=5 * MINUTE_US)
    writer = writer_frame({KEY: WriterCounts(stored=3)}, told_us=4 * MINUTE_US)
    row = only(explain(edge, writer, now_us=6 * MINUTE_US, grace_us=2 * MINUTE_US))
    assert (row["open"], row["unexplained"]) == (6, 0)
    row = only(explain(edge, writer, now_us=7 * MINUTE_US, grace_us=2 * MINUTE_US))
    assert (row["open"], row["unexplained"]) == (0, 6)


def test_a_frame_in_doubt_that_the_log_has_after_all_is_published() -> None:
    edge = edge_frame({KEY: EdgeCounts(expected=9, read=9, published=6, dropped_in_doubt=3)})
    there = only(explain(edge, writer_frame({KEY: WriterCounts(stored=9)})))
    gone = only(explain(edge, writer_frame({KEY: WriterCounts(stored=6)})))
    assert (there["unexplained"], there["dropped_in_doubt"], there["published"]) == (0, 0, 9)
    assert (gone["unexplained"], gone["dropped_in_doubt"], gone["published"]) == (0, 3, 6)


@calm
@given(some.lists(some.integers(1, 9), min_size=1, max_size=8), some.data())
def test_a_log_that_begins_again_counts_nothing_twice(
    frames: list[int], data: some.DataObject
) -> None:
    before = [sum(frames[:i]) for i in range(len(frames))]
    taken = [Taken(KEY, b, n, stored=n) for b, n in zip(before, frames, strict=True)]
    restart = data.draw(some.integers(0, len(frames)))
    again = [one._replace(stored=0, duplicate=one.rows) for one in taken[:restart]]
    cells: dict[CellKey, WriterCounts] = {}
    tally(cells, [*taken, *again])
    assert cells[KEY].stored == cells[KEY].seen == sum(frames)
    assert cells[KEY].redelivered == sum(frames[:restart])


def test_rows_before_the_ledger_was_begun_are_not_lost() -> None:
    cells: dict[CellKey, WriterCounts] = {}
    tally(cells, [Taken(KEY, 40, 2, stored=2), Taken(KEY, 45, 1, stored=1)], since_us=4 * MINUTE_US)
    assert (cells[KEY].skipped, cells[KEY].lost, cells[KEY].stored) == (40, 3, 3)


def test_frames_without_books_are_explained_as_foreign() -> None:
    key = KEY._replace(group=FOREIGN)
    cells: dict[CellKey, WriterCounts] = {}
    tally(cells, [Taken(key, 0, 3, stored=3), Taken(key, 0, 2, stored=1, duplicate=1)])
    row = only(explain(edge_frame({}), writer_frame(cells)))
    assert (row["foreign"], row["expected"], row["unexplained"]) == (5, 5, 0) and closes(row)


runs = some.builds(
    Run,
    few,
    some.integers(0, 10**8).map(lambda minute: minute * MINUTE_US),
    some.sampled_from(["1000ms", "subscription", "marks"]),
    few,
    few,
)


@calm
@given(some.lists(runs, max_size=5))
def test_runs_come_back_as_they_went(sent: list[Run]) -> None:
    assert decode_runs(encode_runs(sent)) == sent


@calm
@given(some.text(max_size=30))
def test_any_other_text_is_refused_or_is_runs(text: str) -> None:
    try:
        decode_runs(text)
    except Corrupt as error:
        assert error.code == "MODEL-1701"


@pytest.mark.parametrize("text", ["1.2.a.3", "1.2.a.3.x", "1.2..3.4", ";", "1.2.a.-3.4"])
def test_a_header_that_is_none_says_which(text: str) -> None:
    with pytest.raises(Corrupt, match="MODEL-1701"):
        decode_runs(text)


def test_every_way_out_has_a_name_and_both_languages() -> None:
    out = {
        *MISSED,
        *DROPPED,
        "dropped_edge_killed",
        "filtered",
        "protected",
        "buffered",
        "in_log",
        "lost",
    }
    out |= {"skipped", "duplicate", "rejected", "edge_log_full"}
    assert {cause.name for cause in ledger_causes.CAUSES} == {*out, RECOMPUTED_GROUP}
    assert out <= set(COUNTS)
    for cause in ledger_causes.BY_NAME.values():
        assert all(cause.title) and all(cause.text), cause.name
        assert bool(cause.remedy[0]) == bool(cause.remedy[1]) == (cause.weight == "loss"), cause


def test_results_that_replace_earlier_ones_are_not_called_copies() -> None:
    key = CellKey("apps", "pump", RECOMPUTED_GROUP, 0, 5)
    other = key._replace(group=DERIVED_GROUP)
    counts = EdgeCounts(expected=5, read=5, published=5, final=True)
    edge = edge_frame({key: counts, other: counts})
    writer = writer_frame(
        {key: WriterCounts(stored=1, duplicate=4), other: WriterCounts(stored=3, duplicate=2)}
    )
    rows = summed(explain(edge, writer))
    told = [{way.cause.name: way.samples for way in ways(row)} for row in rows.to_dicts()]
    assert told == [{"duplicate": 2}, {"recomputed": 4}]
    assert {w.cause.name: w.samples for w in ways(total(rows))} == {"duplicate": 2, "recomputed": 4}


def test_the_page_of_the_ledger_names_every_way() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    for cause in ledger_causes.BY_NAME.values():
        row = f"| {cause.title[0]} | {cause.hop} |"
        assert row in page or cause is ledger_causes.UNEXPLAINED, row
