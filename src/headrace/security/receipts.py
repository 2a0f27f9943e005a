"""Who saw or took which data, when, under which rule: receipts of reads, and entries of exports.

Reads are many: they are counted in memory by (minute, actor, door, rule, tags) and put into the audit
chain together every few seconds by one writer. What can be counted is bounded: when that is full and the
database does not answer, the next read is refused, for what cannot be told is not given. An export is told
before it leaves, with the hash of its bytes.

A process that is killed loses the counts of its last seconds (``FLUSH_S``), never an export.

Source: IEC 62443-3-3 SR 2.8 (auditable events), SR 6.1 (audit log accessibility).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from headrace.model.errors import HeadraceError, Transient
from headrace.model.time import US_PER_S, Clock
from headrace.security.audit import AuditChain, AuditEntry
from headrace.security.receipt_rows import (
    EXPORT,
    READ,
    Receipt,
    TagSet,
    as_line,
    lines_digest,
    put_receipts,
    put_sets,
    receipts_between,
    sets_with,
)

FLUSH_S: Final = 15.0
SHARED: Final = "share.read"
PENDING_MAX: Final = 5_000
MINUTE_US: Final = 60 * US_PER_S
_Key = tuple[int, str, str, str, str]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an answer to "who read it".

    Attributes:
        at_us: the minute of a read, the moment of an export.
        kind: ``read``, ``export``, or ``share`` by a sharing contract.
        actor, door, rule: see :class:`Receipt`.
        reads, samples: how many.
        start_us, end_us: of the source times.
        sha256: of an export's bytes.
        entry: of an export in the chain.
    """

    at_us: int
    kind: str
    actor: str
    door: str
    rule: str
    reads: int
    samples: int
    start_us: int
    end_us: int
    sha256: str = ""
    entry: int = 0


class Receipts:
    """Receipts of one process; any thread may note.

    Args:
        audit: the chain that they stand in.
        clock: for their minutes.
    """

    def __init__(self, audit: AuditChain, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._counts: dict[_Key, list[int]] = {}
        self._sets: dict[str, TagSet] = {}

    def note(
        self, actor: str, door: str, tags: TagSet, *, rule: str, samples: int, span: tuple[int, int]
    ) -> None:
        """Count a read; it is in the chain within ``FLUSH_S``.

        Args:
            actor, door, rule: see :class:`Receipt`.
            tags: what was read.
            samples: how many were given.
            span: source times [start, end), UTC microseconds.

        Raises:
            Transient: SEC-1701 when the chain cannot take receipts and no more can be kept; then
                do not give the data.
        """
        minute_us = self._clock.now_us() // MINUTE_US * MINUTE_US
        key = (minute_us, actor, door, rule, tags.digest)
        if len(self._counts) >= PENDING_MAX and key not in self._counts:
            self._make_room()
        with self._lock:
            self._sets[tags.digest] = tags
            self._add(key, [1, samples, *span])

    def _make_room(self) -> None:
        try:
            self.flush()
        except HeadraceError as error:
            raise Transient(
                "SEC-1701",
                f"{PENDING_MAX:,} receipts of reads wait for the audit chain, which does not take "
                f"them: {error}",
                "See whether the metadata database answers; reading goes on when it does.",
            ) from error

    def _add(self, key: _Key, more: list[int]) -> None:
        known = self._counts.get(key)
        if known is None:
            self._counts[key] = more
            return
        known[0] += more[0]
        known[1] += more[1]
        known[2], known[3] = min(known[2], more[2]), max(known[3], more[3])

    def flush(self) -> int:
        """Put what was counted into the chain; gives how many receipts that were.

        Raises:
            Transient: SEC-1202 when a shared database does not answer; nothing is lost then.
        """
        with self._writing:
            with self._lock:
                counts, sets = self._counts, self._sets
                self._counts, self._sets = {}, {}
            if not counts:
                return 0
            try:
                self._write([_receipt(key, n) for key, n in sorted(counts.items())], sets)
            except Exception:  # whatever it is: the counts go back, and it goes on
                with self._lock:
                    self._sets = sets | self._sets
                    for key, n in counts.items():
                        self._add(key, n)
                raise
            return len(counts)

    def _write(self, receipts: list[Receipt], sets: dict[str, TagSet]) -> None:
        told = {
            "receipts": len(receipts),
            "sha256": lines_digest(as_line(each) for each in receipts),
            "reads": sum(each.reads for each in receipts),
            "samples": sum(each.samples for each in receipts),
        }
        with self._audit.writing() as connection:
            put_sets(connection, sets.values())
            number = self._audit.append(connection, "system", READ, "receipts", "done", **told)
            put_receipts(connection, number, receipts)

    def export(
        self,
        actor: str,
        door: str,
        tags: TagSet,
        *,
        rule: str,
        rows: int,
        span: tuple[int, int],
        content: bytes,
        **more: Any,
    ) -> int:
        """Tell an export before it leaves; gives the number of its entry.

        Args:
            content: the file, whose hash is told.
            more: further facts, such as the format.

        Raises:
            Transient: SEC-1202 when a shared database does not answer; then do not give the file.
        """
        told = {
            "rows": rows,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "tags": len(tags.tag_ids()),
            "tag_set": tags.digest,
            "start_us": span[0],
            "end_us": span[1],
            "rule": rule,
            **more,
        }
        with self._audit.writing() as connection:
            put_sets(connection, [tags])
            return self._audit.append(connection, actor, EXPORT, door, "done", **told)

    def who_read(
        self, tag_ids: Iterable[int], start_us: int, end_us: int, limit: int = 10_000
    ) -> list[Reading]:
        """Who read or took any of some tags between two moments, oldest first; the newest ``limit``.

        Args:
            start_us, end_us: when it was read, UTC microseconds; a read counts for its whole minute.
        """
        with self._audit.reading() as connection:
            held: set[str] = set()
            for tag_id in tag_ids:
                held |= sets_with(connection, tag_id)
            first_us = start_us // MINUTE_US * MINUTE_US
            found = [
                _reading(receipt)
                for receipt in receipts_between(connection, first_us, end_us)
                if receipt.tag_set in held
            ]
        exports = [
            entry
            for action in (EXPORT, SHARED)
            for entry in self._audit.entries(
                action=action, start_us=start_us, end_us=end_us, limit=10 * limit
            )
        ]
        found += [each for entry in exports if (each := _exported(entry, held)) is not None]
        return sorted(_merged(found), key=lambda each: each.at_us)[-limit:]


def _receipt(key: _Key, counts: list[int]) -> Receipt:
    minute_us, actor, door, rule, tag_set = key
    reads, samples, start_us, end_us = counts
    return Receipt(
        minute_us=minute_us,
        actor=actor,
        door=door,
        rule=rule,
        tag_set=tag_set,
        reads=reads,
        samples=samples,
        start_us=start_us,
        end_us=end_us,
    )


def _reading(receipt: Receipt) -> Reading:
    return Reading(
        at_us=receipt.minute_us,
        kind=READ,
        actor=receipt.actor,
        door=receipt.door,
        rule=receipt.rule,
        reads=receipt.reads,
        samples=receipt.samples,
        start_us=receipt.start_us,
        end_us=receipt.end_us,
    )


def _exported(entry: AuditEntry, held: set[str]) -> Reading | None:
    detail = entry.facts()
    if detail.get("tag_set") not in held:
        return None
    return Reading(
        at_us=entry.at_us,
        kind=EXPORT if entry.action == EXPORT else "share",
        actor=entry.actor,
        door=entry.resource,
        rule=detail.get("rule", entry.resource),
        reads=1,
        samples=detail.get("rows", 0),
        start_us=detail.get("start_us", 0),
        end_us=detail.get("end_us", 0),
        sha256=detail.get("sha256", ""),
        entry=entry.number,
    )


def _merged(found: list[Reading]) -> list[Reading]:
    """Receipts of one minute, actor and door in one line, whichever tags beside these were read."""
    lines: dict[tuple[Any, ...], Reading] = {}
    for each in found:
        key = (each.at_us, each.kind, each.actor, each.door, each.rule, each.entry)
        known = lines.get(key)
        if known is not None:
            each = msgspec.structs.replace(
                each,
                reads=known.reads + each.reads,
                samples=known.samples + each.samples,
                start_us=min(known.start_us, each.start_us),
                end_us=max(known.end_us, each.end_us),
            )
        lines[key] = each
    return list(lines.values())
