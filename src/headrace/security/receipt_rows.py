"""Rows of read receipts, and what ties them to the audit chain. The chain itself lies in ``audit.py``.

::

    entry n of the chain, action "read": detail = {"receipts": how many, "sha256": of their lines}
    audit_receipt (n, 0..)               the receipts, a line of JSON each
    audit_tag_set (digest, ids)          tags that are read together, once for all receipts of them

So receipts are as hard to change as the chain is, and a flood of reads costs one entry a flush.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np
from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text, func, insert, select
from sqlalchemy.engine import Connection

from headrace.security.database import TABLES, words

READ: Final = "read"
EXPORT: Final = "export"
_RECEIPT: Final = Table(
    "audit_receipt",
    TABLES,
    Column("entry", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("minute_us", BigInteger, nullable=False, index=True),
    Column("tag_set", words(64), nullable=False),
    Column("line", Text, nullable=False),
)
_TAG_SET: Final = Table(
    "audit_tag_set",
    TABLES,
    Column("digest", words(64), primary_key=True),
    Column("ids", LargeBinary, nullable=False),
)


class TagSet(msgspec.Struct, frozen=True):
    """Tags that are read together.

    Attributes:
        digest: SHA-256 of ``ids``, in hex.
        ids: sorted tag ids, int64 little endian.

    Example:
        >>> TagSet.of([7, 3, 7]).tag_ids().tolist()
        [3, 7]
    """

    digest: str
    ids: bytes

    @classmethod
    def of(cls, tag_ids: Iterable[int]) -> TagSet:
        """The set of some tag ids, in any order."""
        ids = np.unique(np.fromiter(tag_ids, "<i8")).tobytes()
        return cls(hashlib.sha256(ids).hexdigest(), ids)

    def tag_ids(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The ids, sorted."""
        return np.frombuffer(self.ids, "<i8")


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What one actor read by one door, of one set of tags, within one minute.

    Attributes:
        minute_us: UTC microseconds at which the minute begins.
        actor: who. door: such as ``rest/samples`` or ``live``.
        rule: by which rule of the policy.
        tag_set: digest of the tags.
        reads: how many requests, or messages of a live connection.
        samples: how many samples, buckets or results were given.
        start_us, end_us: of the source times that were asked for or given.
    """

    minute_us: int
    actor: str
    door: str
    rule: str
    tag_set: str
    reads: int
    samples: int
    start_us: int
    end_us: int


def lines_digest(lines: Iterable[str]) -> str:
    """SHA-256 of receipts' lines, as the chain's entry names it."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def put_receipts(connection: Connection, entry: int, lines: Iterable[Receipt]) -> None:
    """Insert the receipts of one entry, in their order."""
    rows = [
        {
            "entry": entry,
            "place": place,
            "minute_us": receipt.minute_us,
            "tag_set": receipt.tag_set,
            "line": as_line(receipt),
        }
        for place, receipt in enumerate(lines)
    ]
    if rows:
        connection.execute(insert(_RECEIPT), rows)


def as_line(receipt: Receipt) -> str:
    """A receipt as it stands in the database."""
    return msgspec.json.encode(receipt).decode()


def put_sets(connection: Connection, sets: Iterable[TagSet]) -> None:
    """Insert those sets of tags that are not there yet; the transaction holds the lock of all writers."""
    for each in sets:
        known = select(_TAG_SET.c.digest).where(_TAG_SET.c.digest == each.digest)
        if connection.execute(known).first() is None:
            connection.execute(insert(_TAG_SET).values(digest=each.digest, ids=each.ids))


def receipts_digest(connection: Connection, entry: int) -> tuple[int, str]:
    """How many receipts an entry has now, and the digest of their lines."""
    query = select(_RECEIPT.c.line).where(_RECEIPT.c.entry == entry).order_by(_RECEIPT.c.place)
    lines = [row.line for row in connection.execute(query)]
    return len(lines), lines_digest(lines)


def count_receipts(connection: Connection, newest: int) -> int:
    """How many receipts there are of entries up to a number."""
    query = select(func.count()).select_from(_RECEIPT).where(_RECEIPT.c.entry <= newest)
    return int(connection.execute(query).scalar_one())


def damaged_sets(connection: Connection) -> list[str]:
    """Digests of sets that are gone or hold other tags than they did."""
    found = []
    known = set()
    for row in connection.execute(select(_TAG_SET).execution_options(yield_per=100)):
        known.add(row.digest)
        if hashlib.sha256(row.ids).hexdigest() != row.digest:
            found.append(str(row.digest))
    for (digest,) in connection.execute(select(_RECEIPT.c.tag_set).distinct()):
        if digest not in known:
            found.append(str(digest))
    return found


def sets_with(connection: Connection, tag_id: int) -> set[str]:
    """Digests of the sets that hold a tag."""
    found = set()
    for row in connection.execute(select(_TAG_SET).execution_options(yield_per=100)):
        ids = np.frombuffer(row.ids, "<i8")
        place = int(np.searchsorted(ids, tag_id))
        if place < len(ids) and ids[place] == tag_id:
            found.add(str(row.digest))
    return found


def receipts_between(connection: Connection, start_us: int, end_us: int) -> Iterator[Receipt]:
    """Receipts of minutes in [start_us, end_us), oldest first."""
    query = (
        select(_RECEIPT.c.line)
        .where(_RECEIPT.c.minute_us >= start_us, _RECEIPT.c.minute_us < end_us)
        .order_by(_RECEIPT.c.minute_us, _RECEIPT.c.entry, _RECEIPT.c.place)
        .execution_options(yield_per=1_000)
    )
    for row in connection.execute(query):
        yield msgspec.json.decode(row.line, type=Receipt)
