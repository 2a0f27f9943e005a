"""The loss ledger: every sample accounted for, from the poll that was due to the row in the table. Pure.

A *cell* is what one edge read for one tag group of one connection in one minute of its own clock.
The edge counts into a cell until the log has all of it; frames name the cells of their rows, so the
historian counts into the same ones. All counts are totals of their cell, never increments: to hear
one twice is harmless. Of each cell this holds at every moment::

    expected      = read + missed_*
    read + marked = filtered + protected + published + buffered + dropped_*
    published     = stored + duplicate + rejected + lost + edge_log_full + skipped + in_log

:func:`explain` lays both sides beside each other; what no name covers is ``unexplained``, and an
alarm. Three things are known only afterwards. An edge that was killed told its counts up to a second
before: how much it published, the log itself knows (``before`` of a :class:`Run`); the rest is
``dropped_edge_killed`` or ``read_untold``. And a frame without an answer when its connection was
stopped is ``dropped_in_doubt`` until the historian has met it. And an edge with a log of its own that was full
names the rows that it removed (:class:`Removed`): of what the historian misses, those are
``edge_log_full``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from headrace.model.errors import Corrupt

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 3_600_000_000
GRACE_US: Final = 120_000_000
"""How long after its minute, and after the last word on it, a cell may still be in motion."""

SUBSCRIPTION: Final = "subscription"
"""The group of all tags of a connection that is not polled."""
MARKS: Final = "marks"
"""The group of samples of the edge itself: a device is lost, a value is old."""
FOREIGN: Final = "foreign"
"""The group of frames that name no cells: made by something that keeps no books."""

DERIVED_GROUP: Final = "derived"
"""The group of results of formulas; the connection is their asset type."""
RECOMPUTED_GROUP: Final = "recomputed"
"""The group of results that were worked out again; most take the place of an earlier one."""


class CellKey(NamedTuple):
    """Name of a cell.

    Attributes:
        edge, connection: who read.
        group: ``1000ms`` for tags polled each second, :data:`SUBSCRIPTION`, :data:`MARKS` or
            :data:`FOREIGN`.
        minute_us: start of the minute, by the edge's clock; a multiple of :data:`MINUTE_US`.
        epoch: of the edge's books: its start, microseconds. A restarted edge has another one.
    """

    edge: str
    connection: str
    group: str
    minute_us: int
    epoch: int


class EdgeCounts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The edge's side of a cell, in samples.

    Attributes:
        expected: tags of the polls that were due, or changes that the device reported.
        read: what came, ``bad`` of it with a Bad status.
        missed_slow .. missed_edge_down: expected and not come, by cause; see :data:`CAUSES`.
        marked: samples of the edge's own.
        filtered: kept back by a dead-band. protected: by a protection of their tags.
        published: the log has them on disk. ``buffered``: it does not yet.
        dropped_stopped, dropped_in_doubt: read, and the log never said that it has them.
        last_sequence: of the log's message with the newest of them; 0 when there is none.
        final: nothing of this cell is in motion at the edge any more.
    """

    expected: int = 0
    read: int = 0
    bad: int = 0
    missed_slow: int = 0
    missed_overload: int = 0
    missed_disconnected: int = 0
    missed_failed: int = 0
    missed_foreign: int = 0
    missed_device: int = 0
    missed_gap: int = 0
    missed_edge_down: int = 0
    marked: int = 0
    filtered: int = 0
    protected: int = 0
    published: int = 0
    buffered: int = 0
    dropped_stopped: int = 0
    dropped_in_doubt: int = 0
    last_sequence: int = 0
    final: bool = False


class WriterCounts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The historian's side of a cell, in samples.

    Attributes:
        stored: samples that the table did not have.
        late: of those, samples not newer than what the table already had of their tag.
        duplicate: samples whose tag and source timestamp the table already had: copies, and later
            received ones, which take the place of the earlier.
        rejected: rows of frames that could not be read and went to the quarantine.
        lost: rows that the log once had, by the totals in later frames, and the historian never saw.
        skipped: rows that were before the ledger was begun.
        redelivered: rows of frames that had been counted already; beside the account, not in it.
    """

    stored: int = 0
    late: int = 0
    duplicate: int = 0
    rejected: int = 0
    lost: int = 0
    skipped: int = 0
    redelivered: int = 0

    @property
    def seen(self) -> int:
        """Up to which row of the cell the log has been followed."""
        return self.stored + self.duplicate + self.rejected + self.lost + self.skipped


class PageCell(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One cell of a :class:`LedgerPage`; the page says whose."""

    connection: str
    group: str
    minute_us: int
    epoch: int
    counts: EdgeCounts


class Removed(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Rows of a cell that an edge removed from its own full log before its hub had them.

    Attributes:
        connection, group, minute_us, epoch: the cell; the page says whose.
        start, end: rows ``[start, end)`` of all that were published of the cell. To hear of a row
            twice is harmless, and so is a row that had reached the hub after all.
    """

    connection: str
    group: str
    minute_us: int
    epoch: int
    start: int
    end: int


class LedgerPage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an edge tells of its books, on the bus.

    Attributes:
        edge: who tells.
        epoch: of its books now; ``sequence`` counts its pages, the later one is right.
        at_us: when it was written, by the edge's clock.
        log_us: when the log was made that ``last_sequence`` of the cells counts in; its identity.
        cells: with their totals.
        end: ``clean`` when this is the last page of the edge's orderly end; ``killed`` when the next
            life of the edge found it, and it was no orderly end.
        epochs: of all cells that were in motion, and the epoch now.
        polled: connections that were being polled.
        removed: rows that left its own log unsent; of pages that tell nothing else, ``epoch`` and
            ``sequence`` are 0.
    """

    edge: str
    epoch: int
    sequence: int
    at_us: int
    log_us: int = 0
    end: str = ""
    epochs: list[int] = []
    polled: list[str] = []
    cells: list[PageCell] = []
    removed: list[Removed] = []


class WriterPage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the historian tells of its side on the bus: cells that changed, with their totals."""

    at_us: int
    cells: list[tuple[CellKey, WriterCounts]] = []


KEY: Final = CellKey._fields
KEY_SCHEMA: Final[dict[str, Any]] = {
    "edge": pl.String(),
    "connection": pl.String(),
    "group": pl.String(),
    "minute_us": pl.Int64(),
    "epoch": pl.Int64(),
}
EDGE_COUNTS: Final = tuple(n for n in EdgeCounts.__struct_fields__ if n != "final")
WRITER_COUNTS: Final = WriterCounts.__struct_fields__
MISSED: Final = tuple(name for name in EDGE_COUNTS if name.startswith("missed_"))
DROPPED: Final = ("dropped_stopped", "dropped_in_doubt")
_SEEN: Final = ("stored", "duplicate", "rejected", "lost", "skipped")
_INT64: Final = pl.Int64()
EDGE_SCHEMA: Final[dict[str, Any]] = {
    **KEY_SCHEMA,
    **dict.fromkeys(EDGE_COUNTS, _INT64),
    "final": pl.Boolean(),
    "told_us": _INT64,
}
WRITER_SCHEMA: Final[dict[str, Any]] = {
    **KEY_SCHEMA,
    **dict.fromkeys(WRITER_COUNTS, _INT64),
    "told_us": _INT64,
}
DERIVED: Final = (
    "in_log", "read_untold", "dropped_edge_killed", "edge_log_full", "foreign", "open", "unexplained",
)  # fmt: skip
COUNTS: Final = (*(n for n in EDGE_COUNTS if n != "last_sequence"), *WRITER_COUNTS, *DERIVED)
"""Every count of an explained row."""
EXPLAINED_SCHEMA: Final[dict[str, Any]] = {**KEY_SCHEMA, **dict.fromkeys(COUNTS, _INT64)}


def edge_frame(cells: Mapping[CellKey, EdgeCounts], told_us: int = 0) -> pl.DataFrame:
    """The edge's side as :data:`EDGE_SCHEMA`; ``told_us`` is when it was last heard.

    Example:
        >>> key = CellKey("local", "plc_1", "1000ms", 0, 5)
        >>> edge_frame({key: EdgeCounts(expected=3, read=3)})["read"].to_list()
        [3]
    """
    rows = [
        (*key, *(getattr(c, n) for n in EDGE_COUNTS), c.final, told_us) for key, c in cells.items()
    ]
    return pl.DataFrame(rows, schema=EDGE_SCHEMA, orient="row")


def writer_frame(cells: Mapping[CellKey, WriterCounts], told_us: int = 0) -> pl.DataFrame:
    """The historian's side as :data:`WRITER_SCHEMA`; ``told_us`` is when it last changed."""
    rows = [(*key, *(getattr(c, n) for n in WRITER_COUNTS), told_us) for key, c in cells.items()]
    return pl.DataFrame(rows, schema=WRITER_SCHEMA, orient="row")


def explain(
    edge_rows: pl.DataFrame,
    writer_rows: pl.DataFrame,
    in_log: pl.DataFrame | None = None,
    *,
    removed: pl.DataFrame | None = None,
    killed: Collection[tuple[str, int]] = (),
    now_us: int | None = None,
    grace_us: int = GRACE_US,
) -> pl.DataFrame:
    """Both sides of each cell beside each other, and what separates them by name.

    Args:
        edge_rows: columns of :data:`EDGE_SCHEMA`, one row a cell.
        writer_rows: columns of :data:`WRITER_SCHEMA`, one row a cell.
        in_log: the key and ``in_log``: how many published samples at most wait in the log for the
            historian; see :func:`waiting_in_log`. None: it has taken everything.
        removed: the key and ``removed``: how many rows the edge removed from its own full log; None: none.
        killed: (edge, epoch) of edges that ended without closing their books.
        now_us: with it, a difference of a cell that may still be in motion is ``open``, not
            ``unexplained``; None: nothing moves any more.
        grace_us: see :data:`GRACE_US`.

    Returns:
        Columns of :data:`EXPLAINED_SCHEMA`, sorted by key. Of every row: ``expected + marked`` is the
        sum of all ``missed_*``, ``filtered``, ``protected``, ``buffered``, ``dropped_*``, ``edge_log_full``,
        ``in_log``, ``stored``, ``duplicate``, ``rejected``, ``lost``, ``skipped``, when ``open`` and
        ``unexplained`` are 0.

    Example:
        >>> key = CellKey("local", "plc_1", "1000ms", 0, 5)
        >>> edge = edge_frame({key: EdgeCounts(expected=9, read=8, missed_slow=1, published=8)})
        >>> explain(edge, writer_frame({key: WriterCounts(stored=7)}))["unexplained"].to_list()
        [1]
    """
    rows = _beside(edge_rows, writer_rows, in_log, removed, killed)
    seen = pl.sum_horizontal(_SEEN)
    rows = rows.with_columns(seen.alias("seen"), pl.sum_horizontal(MISSED).alias("missed"))
    rows = _settle_foreign(rows)
    rows = _settle_doubt(rows)
    rows = _settle_killed(rows)
    rows = _settle_log_full(rows)
    deficit = pl.col("published") - pl.col("seen")
    rows = rows.with_columns(pl.min_horizontal("in_log", deficit.clip(0)).alias("in_log"))
    gaps = (
        (pl.col("expected") - pl.col("read") - pl.col("missed")).abs()
        + (pl.col("read") + pl.col("marked") - pl.col("published") - _kept_back()).abs()
        + (pl.col("published") - pl.col("seen") - pl.col("in_log")).abs()
    )
    moving = pl.lit(False) if now_us is None else _settles_us(grace_us) > now_us
    rows = rows.with_columns(
        pl.when(moving).then(gaps).otherwise(0).alias("open"),
        pl.when(moving).then(0).otherwise(gaps).alias("unexplained"),
    )
    return rows.select(*EXPLAINED_SCHEMA).cast(pl.Schema(EXPLAINED_SCHEMA)).sort(KEY)


def _beside(
    edge_rows: pl.DataFrame,
    writer_rows: pl.DataFrame,
    in_log: pl.DataFrame | None,
    removed: pl.DataFrame | None,
    killed: Collection[tuple[str, int]],
) -> pl.DataFrame:
    rows = edge_rows.with_columns(has_edge=True).join(
        writer_rows.rename({"told_us": "taken_us"}).with_columns(has_writer=True),
        on=KEY, how="full", coalesce=True,
    )  # fmt: skip
    ended = pl.DataFrame(list(killed), schema={"edge": pl.String, "epoch": pl.Int64}, orient="row")
    rows = rows.join(ended.unique().with_columns(killed=True), on=["edge", "epoch"], how="left")
    for name, counted in (("in_log", in_log), ("removed", removed)):
        if counted is None:
            rows = rows.with_columns(pl.lit(0, pl.Int64).alias(name))
        else:
            rows = rows.join(counted.select(*KEY, name), on=KEY, how="left")
    zero = pl.lit(0, pl.Int64)
    return rows.with_columns(
        pl.col(pl.Int64).fill_null(0), pl.col(pl.Boolean).fill_null(False)
    ).with_columns(read_untold=zero, dropped_edge_killed=zero, edge_log_full=zero, foreign=zero)


def _kept_back() -> pl.Expr:
    """Samples of a cell that the edge has and did not give to the log."""
    return pl.sum_horizontal("filtered", "protected", "buffered", *DROPPED, "dropped_edge_killed")


def _settles_us(grace_us: int) -> pl.Expr:
    return pl.max_horizontal(pl.col("minute_us") + MINUTE_US, "told_us", "taken_us") + grace_us


def _settle_foreign(rows: pl.DataFrame) -> pl.DataFrame:
    """Frames without books: what the historian saw is all that is known."""
    foreign = pl.col("group") == FOREIGN
    return rows.with_columns(
        pl.when(foreign).then("seen").otherwise(name).alias(name)
        for name in ("expected", "read", "published", "foreign")
    )


def _settle_doubt(rows: pl.DataFrame) -> pl.DataFrame:
    """Frames without an answer that the log has after all."""
    surplus = (pl.col("seen") - pl.col("published")).clip(0)
    found = pl.min_horizontal(surplus, "dropped_in_doubt")
    return rows.with_columns(
        published=pl.col("published") + found,
        dropped_in_doubt=pl.col("dropped_in_doubt") - found,
    )


def _settle_killed(rows: pl.DataFrame) -> pl.DataFrame:
    """Cells that a killed edge left open: the log says what it published."""
    left = pl.col("killed") & ~pl.col("final")
    reached = pl.max_horizontal("seen", "published")
    given = pl.col("read") + pl.col("marked") - pl.sum_horizontal("filtered", "protected", *DROPPED)
    rows = rows.with_columns(
        pl.when(left).then(reached).otherwise("published").alias("published"),
        pl.when(left).then(0).otherwise("buffered").alias("buffered"),
        pl.when(left).then((given - reached).clip(0)).otherwise(0).alias("dropped_edge_killed"),
        pl.when(left).then((reached - given).clip(0)).otherwise(0).alias("read_untold"),
    )
    return rows.with_columns(
        expected=pl.col("expected") + pl.col("read_untold"),
        read=pl.col("read") + pl.col("read_untold"),
    )


def _settle_log_full(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that the edge removed from its own full log: named, as far as the historian misses them."""
    within = pl.min_horizontal("lost", "removed")
    after = pl.min_horizontal(
        pl.col("removed") - within, (pl.col("published") - pl.col("seen")).clip(0)
    )
    return rows.with_columns(
        lost=pl.col("lost") - within, edge_log_full=within + after, seen=pl.col("seen") + after
    )


def waiting_in_log(edge_rows: pl.DataFrame, committed_sequence: int) -> pl.DataFrame:
    """Which cells have frames after the historian's position; for :func:`explain`.

    Args:
        edge_rows: columns of :data:`EDGE_SCHEMA`.
        committed_sequence: of the log; the table has everything up to it.

    Returns:
        The key and ``in_log``, an upper bound: a cell's last frame alone has a known position.
    """
    waits = pl.col("last_sequence") > committed_sequence
    return edge_rows.filter(waits).select(*KEY, pl.col("published").alias("in_log"))


MINUTE_MAX: Final = 200_000_000
"""Beyond the year 2300."""


class Run(NamedTuple):
    """Neighbouring rows of one frame that are of one cell.

    Attributes:
        epoch, minute_us, group: the cell; edge and connection stand in the frame's subject.
        before: rows of the cell in the frames before, and before this run in this one.
        rows: how many; 0 closes the cell: ``before`` is then all that was ever published of it.
    """

    epoch: int
    minute_us: int
    group: str
    before: int
    rows: int


def encode_runs(runs: Iterable[Run]) -> str:
    """The header of a frame.

    Example:
        >>> encode_runs([Run(5, 120_000_000, "1000ms", 40, 2)])
        '5.2.1000ms.40.2'
    """
    return ";".join(
        f"{run.epoch}.{run.minute_us // MINUTE_US}.{run.group}.{run.before}.{run.rows}"
        for run in runs
    )


def decode_runs(text: str) -> list[Run]:
    """The runs of a frame's header.

    Raises:
        Corrupt: MODEL-1701 when it is no such header.

    Example:
        >>> decode_runs("5.2.1000ms.40.2")
        [Run(epoch=5, minute_us=120000000, group='1000ms', before=40, rows=2)]
    """
    runs = []
    for part in text.split(";") if text else []:
        words = part.split(".")
        numbers = [words[i] for i in (0, 1, 3, 4)] if len(words) == 5 else []
        if not numbers or not words[2] or not all(_is_count(n) for n in numbers):
            raise Corrupt("MODEL-1701", f"a frame names its cells as {part[:80]!r}")
        epoch, minute, before, rows = map(int, numbers)
        if minute > MINUTE_MAX:
            raise Corrupt("MODEL-1701", f"a frame names its cells as {part[:80]!r}")
        runs.append(Run(epoch, minute * MINUTE_US, words[2], before, rows))
    return runs


def _is_count(text: str) -> bool:
    # A minute becomes microseconds in 64 bits: eleven digits still fit; an epoch has sixteen.
    return text.isascii() and text.isdigit() and len(text) <= 17


class Taken(NamedTuple):
    """What became of one run at the historian; ``stored + duplicate + rejected`` are its rows."""

    key: CellKey
    before: int
    rows: int
    stored: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: int = 0


def tally(known: dict[CellKey, WriterCounts], taken: Iterable[Taken], since_us: int = 0) -> None:
    """Count runs, in the order of the log, into the historian's side of their cells.

    Args:
        known: the cells of these runs as they were; changed in place, new ones are added.
        taken: what became of the runs.
        since_us: when this ledger was begun; rows of older cells before the first run that is met
            are ``skipped``, not ``lost``.

    Example:
        >>> key, cells = CellKey("local", "plc_1", "1000ms", 0, 5), {}
        >>> tally(cells, [Taken(key, 0, 3, stored=3), Taken(key, 5, 1, stored=1)])
        >>> cells[key].stored, cells[key].lost
        (4, 2)
    """
    for run in taken:
        is_new = run.key not in known
        counts = known.setdefault(run.key, WriterCounts())
        seen = counts.seen
        if run.key.group == FOREIGN:
            pass  # has no totals
        elif run.before > seen:
            if is_new and run.key.minute_us < since_us:
                counts.skipped += run.before
            else:
                counts.lost += run.before - seen
        elif run.before + run.rows <= seen:
            counts.redelivered += run.rows
            continue
        counts.stored += run.stored
        counts.late += run.late
        counts.duplicate += run.duplicate
        counts.rejected += run.rejected
