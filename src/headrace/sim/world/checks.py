"""What must hold in a world, whatever went wrong in it. Each checker has a name and can be made to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import polars as pl

from headrace.model import status as st
from headrace.model.health import ConnectionState
from headrace.sim.world.devices import Content, Identity, bits_of

SHOWN_MAX: Final = 3
_PLAIN: Final = [
    pl.col("tag_id"),
    pl.col("source_timestamp").cast(pl.Int64),
    pl.col("value"),
    pl.col("text"),
    pl.col("status"),
    pl.col("received_timestamp").cast(pl.Int64),
]


class Violation(NamedTuple):
    """A broken promise: which checker says so, and what it saw."""

    checker: str
    text: str


class Row(NamedTuple):
    """One stored sample."""

    identity: Identity
    content: Content
    received_us: int


def rows_of(batch: pl.DataFrame) -> list[Row]:
    """A batch as rows whose values are compared to the bit."""
    return [
        Row((tag_id, at_us), Content(bits_of(value), text, status), received_us)
        for tag_id, at_us, value, text, status, received_us in batch.select(_PLAIN).rows()
    ]


@dataclass(frozen=True)
class Frame:
    """A message that the log accepted: whose it was, and what it held."""

    connection: str
    epoch: int
    number: int
    rows: tuple[Row, ...]


@dataclass
class Facts:
    """What the world knows to be true.

    Attributes:
        made: what devices showed. confirmed: old values that they showed again, at a later time.
        owed: what must be stored in the end. polled_tags: of devices that keep nothing.
        accepted: frames in the order of the log. forgiven: what a restore took from the log.
        restored: whether the log was ever set back. copies_known: whether the broker surely knew a
            second copy of a message.
    """

    made: dict[Identity, Content] = field(default_factory=dict)
    confirmed: dict[Identity, Content] = field(default_factory=dict)
    owed: set[Identity] = field(default_factory=set)
    polled_tags: set[int] = field(default_factory=set)
    accepted: list[Frame] = field(default_factory=list)
    accepted_ids: set[Identity] = field(default_factory=set)
    forgiven: set[Identity] = field(default_factory=set)
    restored: bool = False
    copies_known: bool = True

    def accept(self, frame: Frame) -> None:
        """The log has one more message."""
        self.accepted.append(frame)
        self.accepted_ids.update(row.identity for row in frame.rows)


def _list(identities: Iterable[Identity]) -> str:
    found = sorted(identities)
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return ", ".join(f"{tag_id}@{at_us}" for tag_id, at_us in found[:SHOWN_MAX]) + more


def check_lost(facts: Facts, rows: list[Row], where: str) -> list[Violation]:
    """Everything that the log accepted is read."""
    lost = facts.accepted_ids - facts.forgiven - {row.identity for row in rows}
    return [Violation("lost", f"{where} lacks {_list(lost)}")] if lost else []


def check_owed(facts: Facts, rows: list[Row]) -> list[Violation]:
    """Everything that a source keeps until it is stored is stored."""
    lost = facts.owed - facts.forgiven - {row.identity for row in rows}
    return [Violation("owed", f"sources had {_list(lost)}, and nobody has it")] if lost else []


def check_acknowledged(facts: Facts, identities: Iterable[Identity]) -> list[Violation]:
    """A source is told that samples are stored only when the log has them."""
    early = set(identities) - facts.accepted_ids
    if not early:
        return []
    return [Violation("acknowledged", f"acknowledged before it was in the log: {_list(early)}")]


def check_doubled(rows: list[Row], where: str, *, by_identity: bool) -> list[Violation]:
    """Nothing is there twice: no equal row in the table, no equal identity in a read."""
    keys = Counter((row.identity, None) if by_identity else (row.identity, row) for row in rows)
    double = [key[0] for key, count in keys.items() if count > 1]
    return [Violation("doubled", f"{where} has twice {_list(double)}")] if double else []


def check_content(facts: Facts, rows: Iterable[Row], where: str) -> list[Violation]:
    """Values are equal to the bit, nothing is invented, and no quality is better than it was."""
    for row in rows:
        shown = facts.made.get(row.identity) or facts.confirmed.get(row.identity)
        if shown == row.content or _is_mark(row, facts):
            continue
        name = f"{where} has {_list([row.identity])} as {row.content}"
        if shown is None:
            return [Violation("invented", f"{name}, which no device showed")]
        if row.content.status >> 30 < shown.status >> 30:
            return [Violation("quality", f"{name}, better than {shown}")]
        return [Violation("values", f"{name}, not {shown}")]
    return []


def _is_mark(row: Row, facts: Facts) -> bool:
    """The edge's own samples: a device is lost, or its last value is old."""
    bits, text, status = row.content
    if status == st.BAD_NO_COMMUNICATION:
        return bits is None and text is None
    if status != st.UNCERTAIN_LAST_USABLE_VALUE:
        return False
    tag_id = row.identity[0]
    return bits is None or any(
        said.bits == bits for (of_tag, _), said in facts.made.items() if of_tag == tag_id
    )


def check_order(facts: Facts) -> list[Violation]:
    """In the log, frames of one lane follow each other without a gap, and samples of a polled tag come as
    they were read."""
    if facts.restored:
        return []
    newest: dict[tuple[str, int], Frame] = {}
    place = {identity: number for number, identity in enumerate(facts.made)}
    last: dict[tuple[int, int], int] = {}
    for frame in facts.accepted:
        lane = (frame.connection, frame.epoch)
        before = newest.get(lane)
        if before == frame and not facts.copies_known:
            continue
        number = before.number if before is not None else 0
        if frame.epoch and frame.number != number + 1:
            return [Violation("order", f"frame {frame.number} of {lane} follows {number}")]
        newest[lane] = frame
        for row in frame.rows:
            tag_id = row.identity[0]
            at = place.get(row.identity)
            if at is None or tag_id not in facts.polled_tags:
                continue
            series = (tag_id, frame.epoch)  # a killed edge's last frame may still be on its way
            if at <= last.get(series, -1):
                return [Violation("order", f"{_list([row.identity])} came after a later one")]
            last[series] = at
    return []


def check_books(state: ConnectionState) -> list[Violation]:
    """A connection's counts add up."""
    read = state.expected == state.read + state.missed
    out = state.filtered + state.published + state.buffered + state.dropped
    if read and state.read + state.marked == out:
        return []
    text = (
        f"{state.connection}: expected {state.expected} = read {state.read} + missed {state.missed}; "
        f"read + marked {state.marked} = filtered {state.filtered} + published {state.published} + "
        f"buffered {state.buffered} + dropped {state.dropped}"
    )
    return [Violation("books", text)]


def check_writer_books(facts: Facts, counters: dict[str, int]) -> list[Violation]:
    """What the writer stored and what it dropped as copies is what the log accepted."""
    if facts.restored:
        return []  # it takes again what the restored log has
    offered = sum(len(frame.rows) for frame in facts.accepted)
    stored, copies = counters.get("samples_total", 0), counters.get("duplicates_total", 0)
    if offered == stored + copies:
        return []
    text = f"the log accepted {offered} samples, {stored} are stored and {copies} were copies"
    return [Violation("books", text)]


def check_ledger(accounts: pl.DataFrame) -> list[Violation]:
    """Every sample of every cell has a name, and none is on its way any more."""
    wrong = pl.col("unexplained") + pl.col("open") + pl.col("in_log") + pl.col("buffered")
    found = accounts.filter(wrong != 0)
    if not found.height:
        return []
    row = {name: value for name, value in found.row(0, named=True).items() if value}
    return [Violation("ledger", f"{found.height} cells do not close, such as {row}")]
