"""Where the loss ledger is kept: an SQLite file beside the table, synced at each transaction.

The historian's counts of a commit and the commit itself are in two places; so they are written before
it as ``pending``, and taken over after it. A start after a crash looks at the table: when that commit
is there, they count, else the log gives the same messages again. Everything else here are totals of
cells, which may be heard twice.

Minutes are kept 30 days, then as hours with what had been explained; hours 400 days.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from headrace.model.errors import Transient
from headrace.model.ledger import (
    COUNTS,
    EDGE_COUNTS,
    EDGE_SCHEMA,
    EXPLAINED_SCHEMA,
    HOUR_US,
    KEY,
    KEY_SCHEMA,
    WRITER_COUNTS,
    WRITER_SCHEMA,
    CellKey,
    LedgerPage,
    Taken,
    WriterCounts,
    explain,
    tally,
    waiting_in_log,
)
from headrace.model.time import Clock

MINUTES_KEPT_US: Final = 30 * 24 * HOUR_US
HOURS_KEPT_US: Final = 400 * 24 * HOUR_US
LOCK_WAIT_S: Final = 5.0
_ALL: Final = (-(2**62), 2**62)
_REMOVED: Final = {**KEY_SCHEMA, "removed": pl.Int64()}


def _columns(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _table(name: str, columns: Iterable[str]) -> str:
    counts = ", ".join(f'"{column}" INTEGER NOT NULL DEFAULT 0' for column in columns)
    key = 'edge TEXT, connection TEXT, "group" TEXT, minute_us INTEGER, epoch INTEGER'
    return (
        f"CREATE TABLE IF NOT EXISTS {name} ({key}, {counts}, PRIMARY KEY ({_columns(KEY)}))"
        " WITHOUT ROWID"
    )


_EDGE: Final = (*EDGE_COUNTS, "final", "told_us", "sequence", "log_us")
_WRITER: Final = (*WRITER_COUNTS, "told_us")
_TABLES: Final = (
    _table("edge_cell", _EDGE),
    _table("writer_cell", _WRITER),
    _table("hour", COUNTS),
    _table("alarm", ("samples",)),
    _table("unsettled", ("since_us",)),
    'CREATE TABLE IF NOT EXISTS removed (edge TEXT, connection TEXT, "group" TEXT, minute_us INTEGER,'
    ' epoch INTEGER, start INTEGER, "end" INTEGER)',
    f"CREATE INDEX IF NOT EXISTS removed_cell ON removed ({_columns(KEY)})",
    "CREATE INDEX IF NOT EXISTS removed_minute ON removed (minute_us)",
    "CREATE INDEX IF NOT EXISTS edge_minute ON edge_cell (minute_us)",
    "CREATE INDEX IF NOT EXISTS writer_told ON writer_cell (told_us)",
    "CREATE INDEX IF NOT EXISTS writer_minute ON writer_cell (minute_us)",
    "CREATE TABLE IF NOT EXISTS ended (edge TEXT, epoch INTEGER, how TEXT, at_us INTEGER,"
    " PRIMARY KEY (edge, epoch))",
    "CREATE TABLE IF NOT EXISTS pending (app TEXT PRIMARY KEY, sequence INTEGER, body BLOB)",
    "CREATE TABLE IF NOT EXISTS committed (app TEXT PRIMARY KEY, sequence INTEGER)",
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER)",
)


class _Pending(msgspec.Struct):
    """Cells as they are after a commit."""

    cells: list[tuple[CellKey, WriterCounts]]
    at_us: int


@dataclass(frozen=True)
class Wanted:
    """Which part of the ledger.

    Attributes:
        since_us, until_us: minutes that begin in this half-open span.
        connection, group: only these; "" means every.
    """

    since_us: int = _ALL[0]
    until_us: int = _ALL[1]
    connection: str = ""
    group: str = ""

    def where(self) -> tuple[str, list[Any]]:
        """An SQL condition and its values."""
        parts, values = ["minute_us >= ? AND minute_us < ?"], [self.since_us, self.until_us]
        for name in ("connection", "group"):
            if getattr(self, name):
                parts.append(f'"{name}" = ?')
                values.append(getattr(self, name))
        return " AND ".join(parts), values


class LedgerStore:
    """The kept ledger. One process writes, any may read; safe to call from several threads.

    Use :func:`open_ledger`.

    Attributes:
        put_aside: the file that was damaged and is kept beside this one; None: it was not.
    """

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, put_aside: Path | None = None
    ) -> None:
        self.put_aside = put_aside
        self._db = connection
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on disk when it returns.

        Raises:
            OSError: the disk refused.
        """
        with self._lock:
            try:
                with self._db:
                    yield self._db
            except sqlite3.Error as error:
                raise OSError(f"the loss ledger was not written: {error}") from error

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # The historian's own counts.

    def prepare(self, app: str, sequence: int, taken: Sequence[Taken]) -> None:
        """Write down what a commit that is about to be made will count.

        Args:
            app: whose position it is; see :func:`headrace.historian.layout.app_id`.
            sequence: of the log, after that commit.
            taken: what became of its runs, in the order of the log.

        Raises:
            OSError: the disk refused; do not commit.
        """
        keys = dict.fromkeys(run.key for run in taken)
        with self._transaction() as db:
            known = {key: counts for key in keys if (counts := _writer_cell(db, key)) is not None}
            tally(known, taken, _meta(db, "since_us"))
            body = msgspec.msgpack.encode(_Pending(list(known.items()), self._clock.now_us()))
            db.execute("INSERT OR REPLACE INTO pending VALUES (?, ?, ?)", (app, sequence, body))

    def settle(self, app: str, sequence: int) -> None:
        """The commit of :meth:`prepare` is on disk.

        Raises:
            OSError: the disk refused; call again.
        """
        with self._transaction() as db:
            row = db.execute(
                "SELECT body FROM pending WHERE app = ? AND sequence = ?", (app, sequence)
            ).fetchone()
            if row is not None:
                pending = msgspec.msgpack.decode(row[0], type=_Pending)
                values = [
                    (*key, *(getattr(counts, n) for n in WRITER_COUNTS), pending.at_us)
                    for key, counts in pending.cells
                ]
                _put(db, "writer_cell", _WRITER, values)
                _unsettle(db, [key for key, _ in pending.cells], pending.at_us)
                db.execute("DELETE FROM pending WHERE app = ?", (app,))
            db.execute("INSERT OR REPLACE INTO committed VALUES (?, ?)", (app, sequence))

    def untold(self) -> tuple[list[tuple[CellKey, WriterCounts]], int]:
        """The historian's cells that changed since :meth:`mark_told`, and when the last of them did."""
        told_us = dict(self._read("SELECT name, value FROM meta")).get("writer_told_us", 0)
        names = _columns((*KEY, *WRITER_COUNTS, "told_us"))
        query = f"SELECT {names} FROM writer_cell WHERE told_us > ? ORDER BY told_us"
        cells = []
        for row in self._read(query, (told_us,)):
            counts = dict(zip(WRITER_COUNTS, row[len(KEY) : -1], strict=True))
            cells.append((CellKey(*row[: len(KEY)]), WriterCounts(**counts)))
            told_us = row[-1]
        return cells, told_us

    def mark_told(self, told_us: int) -> None:
        """What changed up to then is on the bus."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('writer_told_us', ?)", (told_us,))

    def recover(self, committed: Callable[[str], int | None], part: str = "") -> None:
        """After a start: take over or forget what was pending.

        Args:
            committed: gives the table's position of an app.
            part: ends the stream's name in the apps of this writer, where several share the ledger;
                what belongs to a writer that works now is left alone, and places of writers of
                another number, which nobody moves any more, are forgotten.
        """
        count = part.partition("of")[2]
        for app, sequence in self._read("SELECT app, sequence FROM pending"):
            place = _part_of(app)
            if place != part and place.partition("of")[2] == count:
                continue
            if committed(app) == sequence:
                self.settle(app, sequence)
            else:
                with self._transaction() as db:
                    db.execute("DELETE FROM pending WHERE app = ?", (app,))
        for (app,) in self._read("SELECT app FROM committed"):
            if _part_of(app).partition("of")[2] != count:
                with self._transaction() as db:
                    db.execute("DELETE FROM committed WHERE app = ?", (app,))

    # The edges' counts.

    def take_pages(
        self, pages: Iterable[LedgerPage], position: tuple[int, int] | None = None
    ) -> None:
        """Take over pages; of two pages of one cell the later written one counts.

        Args:
            position: (when the stream LEDGER was made, sequence in it) that is followed now.

        Raises:
            OSError: the disk refused.
        """
        now_us = self._clock.now_us()
        with self._transaction() as db:
            for page in pages:
                _take_page(db, page, now_us)
            if position is not None:
                for name, value in zip(("stream_us", "stream_sequence"), position, strict=True):
                    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def mark_silent(self, edge: str) -> None:
        """Nothing is heard of an edge: what it left open counts as of a killed one, until it is."""
        now_us = self._clock.now_us()
        with self._transaction() as db:
            query = "SELECT DISTINCT epoch FROM unsettled WHERE edge = ?"
            epochs = [epoch for (epoch,) in db.execute(query, (edge,))]
            rows = [(edge, epoch, "silent", now_us) for epoch in epochs]
            db.executemany("INSERT OR IGNORE INTO ended VALUES (?, ?, ?, ?)", rows)

    def mark_heard(self, edge: str) -> None:
        """An edge that was silent is heard again."""
        now_us = self._clock.now_us()
        with self._transaction() as db:
            query = "SELECT epoch FROM ended WHERE edge = ? AND how = 'silent'"
            epochs = [epoch for (epoch,) in db.execute(query, (edge,))]
            db.execute("DELETE FROM ended WHERE edge = ? AND how = 'silent'", (edge,))
            _unsettle(db, _cells_of(db, edge, epochs), now_us)

    def followed(self, stream_us: int) -> int:
        """Up to which sequence the stream LEDGER, made at ``stream_us``, was taken."""
        found = dict(self._read("SELECT name, value FROM meta"))
        return found.get("stream_sequence", 0) if found.get("stream_us") == stream_us else 0

    def edges(self) -> list[str]:
        """Names of the edges that the ledger knows."""
        query = "SELECT edge FROM edge_cell UNION SELECT edge FROM writer_cell ORDER BY 1"
        return [edge for (edge,) in self._read(query)]

    # Both beside each other.

    def accounts(
        self, wanted: Wanted | None = None, *, grace_us: int | None = None
    ) -> pl.DataFrame:
        """The explained ledger; see :func:`headrace.model.ledger.explain`.

        Args:
            grace_us: of cells in motion; None: the default.
        """
        where, values = (wanted or Wanted()).where()
        rows = self._explained(where, values, grace_us)
        hours = self._frame("hour", COUNTS, EXPLAINED_SCHEMA, where, values)
        return pl.concat([rows, hours]).sort(KEY)

    def unsettled(self, *, grace_us: int | None = None) -> pl.DataFrame:
        """The explained cells that are to be looked at: changed, and not yet found closed."""
        keys = _columns(KEY)
        where = f"({keys}) IN (SELECT {keys} FROM unsettled)"
        return self._explained(where, [], grace_us)

    def _explained(self, where: str, values: list[Any], grace_us: int | None) -> pl.DataFrame:
        with self._lock:
            self._db.execute("BEGIN")  # one state of both sides
            try:
                edge = self._select("edge_cell", _EDGE, where, values)
                writer = self._select("writer_cell", _WRITER, where, values)
                removed = self._db.execute(
                    f'SELECT {_columns(KEY)}, sum("end" - start) FROM removed WHERE {where}'
                    f" GROUP BY {_columns(KEY)}",
                    values,
                ).fetchall()
                committed = self._db.execute("SELECT app, sequence FROM committed").fetchall()
                newest = self._db.execute(
                    "SELECT edge, connection, epoch, max(minute_us) FROM writer_cell"
                    " GROUP BY edge, connection, epoch"
                ).fetchall()
                killed = self._db.execute(
                    "SELECT edge, epoch FROM ended WHERE how IN ('killed', 'silent')"
                ).fetchall()
            finally:
                self._db.rollback()
        edge_schema = {**KEY_SCHEMA, **dict.fromkeys(_EDGE, pl.Int64())}
        edge_rows = pl.DataFrame(edge, schema=edge_schema, orient="row")
        in_log = _in_log(edge_rows, committed, newest)
        options = {} if grace_us is None else {"grace_us": grace_us}
        return explain(
            edge_rows.select(*EDGE_SCHEMA).cast({"final": pl.Boolean}),
            pl.DataFrame(writer, schema=WRITER_SCHEMA, orient="row"),
            in_log,
            removed=pl.DataFrame(removed, schema=_REMOVED, orient="row"),
            killed=killed,
            now_us=self._clock.now_us(),
            **options,
        )

    def _select(
        self, table: str, columns: Iterable[str], where: str, values: list[Any]
    ) -> list[Any]:
        names = _columns((*KEY, *columns))
        return self._db.execute(f"SELECT {names} FROM {table} WHERE {where}", values).fetchall()

    def _frame(
        self,
        table: str,
        columns: Iterable[str],
        schema: dict[str, Any],
        where: str,
        values: list[Any],
    ) -> pl.DataFrame:
        with self._lock:
            rows = self._select(table, columns, where, values)
        return pl.DataFrame(rows, schema=schema, orient="row")

    # What the keeper decided.

    def mark_settled(self, keys: Iterable[CellKey], seen_us: int) -> None:
        """These need no second look until they change; nor had they changed since ``seen_us``."""
        query = f"DELETE FROM unsettled WHERE {_is_key()} AND since_us < ?"
        with self._transaction() as db:
            db.executemany(query, [(*key, seen_us) for key in keys])

    def alarms(self) -> dict[CellKey, int]:
        """Cells whose difference was told, and how many samples it was."""
        rows = self._read(f"SELECT {_columns(KEY)}, samples FROM alarm")
        return {CellKey(*row[:-1]): row[-1] for row in rows}

    def keep_alarms(self, told: dict[CellKey, int], ended: Iterable[CellKey]) -> None:
        """Note what was told, and what was told to be over."""
        with self._transaction() as db:
            _put(db, "alarm", ("samples",), [(*key, samples) for key, samples in told.items()])
            db.executemany(f"DELETE FROM alarm WHERE {_is_key()}", list(ended))

    def roll_up(self) -> int:
        """Make hours of old minutes, and let go of old hours; gives how many cells became hours."""
        now_us = self._clock.now_us()
        edge_us = (now_us - MINUTES_KEPT_US) // HOUR_US * HOUR_US
        rows = self._explained("minute_us < ?", [edge_us], None)
        hours = (
            rows.with_columns(pl.col("minute_us") // HOUR_US * HOUR_US, epoch=pl.lit(0, pl.Int64))
            .group_by(KEY)
            .agg(pl.col(COUNTS).sum())
        )
        sums = ", ".join(f'"{name}" = "{name}" + excluded."{name}"' for name in COUNTS)
        with self._transaction() as db:
            db.executemany(
                f"{_insert('hour', COUNTS)} ON CONFLICT DO UPDATE SET {sums}", hours.rows()
            )
            for table in ("edge_cell", "writer_cell", "removed", "alarm", "unsettled"):
                db.execute(f"DELETE FROM {table} WHERE minute_us < ?", (edge_us,))
            db.execute("DELETE FROM hour WHERE minute_us < ?", (now_us - HOURS_KEPT_US,))
            db.execute("DELETE FROM ended WHERE at_us < ?", (edge_us,))
        return rows.height


def _part_of(app: str) -> str:
    """Which of several writers has this place: ``.0of2``; "" when there is one writer."""
    stream = app.rpartition("/")[0].rpartition("/")[2]
    return stream[stream.index(".") :] if "." in stream else ""


def _in_log(
    edge_rows: pl.DataFrame, committed: list[tuple[str, int]], newest: list[Any]
) -> pl.DataFrame:
    """What may wait in the log. An edge with a log of its own counts in other sequences: there a cell
    is complete once the historian has met a later minute of its connection, whose frames are in order.
    """
    logs: dict[int, int] = {}
    for app, sequence in committed:
        log_us = int(app.rsplit("/", 1)[-1])
        logs[log_us] = min(sequence, logs.get(log_us, sequence))  # the writer furthest behind
    parts = [
        waiting_in_log(edge_rows.filter(pl.col("log_us") == log_us), sequence)
        for log_us, sequence in logs.items()
    ]
    lanes = pl.DataFrame(
        newest,
        schema={"edge": pl.String, "connection": pl.String, "epoch": pl.Int64, "newest": pl.Int64},
        orient="row",
    )
    other = edge_rows.filter(~pl.col("log_us").is_in(list(logs)))
    other = other.join(lanes, on=["edge", "connection", "epoch"], how="left")
    waits = pl.col("newest").is_null() | (pl.col("newest") <= pl.col("minute_us"))
    parts.append(other.filter(waits).select(*KEY, pl.col("published").alias("in_log")))
    return pl.concat(parts)


def _insert(table: str, columns: Iterable[str]) -> str:
    names = (*KEY, *columns)
    return f"INSERT INTO {table} ({_columns(names)}) VALUES ({', '.join('?' * len(names))})"


def _is_key() -> str:
    return " AND ".join(f'"{name}" = ?' for name in KEY)


def _put(
    db: sqlite3.Connection, table: str, columns: Iterable[str], rows: Sequence[Sequence[Any]]
) -> None:
    db.executemany(_insert(table, columns).replace("INSERT", "INSERT OR REPLACE", 1), rows)


def _put_newer(db: sqlite3.Connection, row: Sequence[Any]) -> bool:
    """Put an edge's cell unless a later page had it, or it says nothing new."""
    sets = ", ".join(f'"{name}" = excluded."{name}"' for name in _EDGE)
    differs = " OR ".join(f'"{n}" != excluded."{n}"' for n in (*EDGE_COUNTS, "final", "log_us"))
    query = (
        f"{_insert('edge_cell', _EDGE)} ON CONFLICT DO UPDATE SET {sets}"
        f" WHERE excluded.sequence > sequence AND ({differs})"
    )
    return db.execute(query, row).rowcount > 0


def _take_page(db: sqlite3.Connection, page: LedgerPage, now_us: int) -> None:
    changed = []
    for cell in page.cells:
        key = CellKey(page.edge, cell.connection, cell.group, cell.minute_us, cell.epoch)
        counts = [int(getattr(cell.counts, name)) for name in (*EDGE_COUNTS, "final")]
        if _put_newer(db, (*key, *counts, now_us, page.sequence, page.log_us)):
            changed.append(key)
    for rows in page.removed:
        key = CellKey(page.edge, rows.connection, rows.group, rows.minute_us, rows.epoch)
        if _put_removed(db, key, rows.start, rows.end):
            changed.append(key)
    _unsettle(db, changed, now_us)
    if page.end:
        ends = [(page.edge, epoch, page.end, page.at_us) for epoch in page.epochs]
        db.executemany("INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?)", ends)
        _unsettle(db, _cells_of(db, page.edge, page.epochs), now_us)


def _put_removed(db: sqlite3.Connection, key: CellKey, start: int, end: int) -> bool:
    """Keep the union of what was told of a cell; whether it grew."""
    query = f'SELECT start, "end" FROM removed WHERE {_is_key()}'
    known = db.execute(query, key).fetchall()
    spans = [span for span in known if span[0] <= end and start <= span[1]]
    joined = min([start, *(s for s, _ in spans)]), max([end, *(e for _, e in spans)])
    if joined in spans:
        return False
    db.executemany(
        f'DELETE FROM removed WHERE {_is_key()} AND start = ? AND "end" = ?',
        [(*key, *span) for span in spans],
    )
    db.execute(f"INSERT INTO removed VALUES ({', '.join('?' * 7)})", (*key, *joined))
    return True


def _unsettle(db: sqlite3.Connection, keys: Iterable[CellKey], now_us: int) -> None:
    _put(db, "unsettled", ("since_us",), [(*key, now_us) for key in keys])


def _cells_of(db: sqlite3.Connection, edge: str, epochs: Iterable[int]) -> list[CellKey]:
    found = []
    for epoch in epochs:
        for table in ("edge_cell", "writer_cell"):
            query = f"SELECT {_columns(KEY)} FROM {table} WHERE edge = ? AND epoch = ?"
            found += [CellKey(*row) for row in db.execute(query, (edge, epoch))]
    return found


def _writer_cell(db: sqlite3.Connection, key: CellKey) -> WriterCounts | None:
    query = f"SELECT {_columns(WRITER_COUNTS)} FROM writer_cell WHERE {_is_key()}"
    row = db.execute(query, key).fetchone()
    return WriterCounts(**dict(zip(WRITER_COUNTS, row, strict=True))) if row else None


def _meta(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def open_ledger(path: Path, clock: Clock) -> LedgerStore:
    """Open the ledger for the one process that writes it; make it when there is none.

    A file that is damaged is put aside, and a new ledger begun: it may not stop the historian.

    Raises:
        OSError: the disk refused.
    """
    try:
        return _open_writable(path, clock)
    except sqlite3.DatabaseError:
        aside = path.with_name(f"{path.stem}.damaged-{clock.now_us()}{path.suffix}")
        for end in ("", "-wal", "-shm"):
            if (part := path.with_name(path.name + end)).exists():
                part.rename(aside.with_name(aside.name + end))
    try:
        return _open_writable(path, clock, aside)
    except sqlite3.Error as error:
        raise OSError(f"the loss ledger {path} was not made: {error}") from error


def _open_writable(path: Path, clock: Clock, put_aside: Path | None = None) -> LedgerStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=LOCK_WAIT_S, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        with db:
            for statement in _TABLES:
                db.execute(statement)
            _widen(db)
            now_us = clock.now_us()
            db.execute("INSERT OR IGNORE INTO meta VALUES ('since_us', ?)", (now_us,))
    except sqlite3.Error:
        db.close()
        raise
    return LedgerStore(db, clock, put_aside)


def _widen(db: sqlite3.Connection) -> None:
    """Give a ledger of an older version the counts that it does not have."""
    for table, names in (("edge_cell", _EDGE), ("writer_cell", _WRITER), ("hour", COUNTS)):
        known = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        for name in names:
            if name not in known:
                db.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" INTEGER NOT NULL DEFAULT 0')


@contextmanager
def read_ledger(path: Path, clock: Clock) -> Iterator[LedgerStore]:
    """The ledger for reading, while the historian may be writing it.

    Raises:
        Transient: HIST-1703 when there is none yet, HIST-1704 when it cannot be read now.
    """
    if not path.exists():
        raise Transient(
            "HIST-1703",
            f"there is no loss ledger in {path.parent} yet",
            "The historian makes it when it starts: headrace up",
        )
    try:
        db = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, timeout=LOCK_WAIT_S, check_same_thread=False
        )
        try:
            yield LedgerStore(db, clock)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise Transient(
            "HIST-1704", f"the loss ledger {path} cannot be read now: {error}", "Try again."
        ) from error
