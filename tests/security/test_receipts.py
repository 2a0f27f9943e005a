"""Who read which data: receipts of reads in the audit chain, and exports."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.security import receipts as receipts_module
from headrace.security.audit import AuditChain
from headrace.security.identity import Identity
from headrace.security.receipt_rows import TagSet
from headrace.security.receipts import MINUTE_US, Receipts


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.us = 1_000 * MINUTE_US

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1e6


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def identity(tmp_path: Path, clock: Hand) -> Iterator[Identity]:
    identity = Identity(DataFolder(tmp_path), clock)
    yield identity
    identity.close()


def note(receipts: Receipts, actor: str, tags: list[int], samples: int, start: int) -> None:
    span = (start, start + 10)
    receipts.note(
        actor, "rest/samples", TagSet.of(tags), rule="viewers read", samples=samples, span=span
    )


def codes(identity: Identity) -> list[str]:
    return [flaw.code for flaw in identity.audit.verify().flaws]


def sql(identity: Identity, tmp_path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "metadata.db")) as connection:
        connection.execute(statement)
        connection.commit()


def test_many_reads_are_one_line_a_minute_and_one_entry_a_flush(
    identity: Identity, clock: Hand
) -> None:
    receipts = identity.receipts
    for place in range(500):
        note(receipts, "mia", [3, 7], 10, place)
    note(receipts, "leo", [7, 9], 1, 100)
    clock.us += MINUTE_US
    note(receipts, "mia", [7, 3, 3], 4, 50)
    assert receipts.flush() == 3
    assert receipts.flush() == 0
    assert len(identity.audit.entries()) == 1
    found = receipts.who_read([7], 0, clock.us + 1)
    assert [(r.actor, r.reads, r.samples, r.start_us, r.end_us) for r in found] == [
        ("leo", 1, 1, 100, 110),
        ("mia", 500, 5_000, 0, 509),
        ("mia", 1, 4, 50, 60),
    ]
    assert {r.rule for r in found} == {"viewers read"}
    assert [r.actor for r in receipts.who_read([9], 0, clock.us + 1)] == ["leo"]
    assert receipts.who_read([8], 0, clock.us + 1) == []
    assert len(receipts.who_read([7], clock.us, clock.us + 1)) == 1
    assert codes(identity) == []


def test_an_export_stands_alone_with_the_hash_of_its_bytes(identity: Identity, clock: Hand) -> None:
    number = identity.receipts.export(
        "mia",
        "rest/samples",
        TagSet.of(range(1_000)),
        rule="r",
        rows=3,
        span=(5, 9),
        content=b"abc",
    )
    (entry,) = identity.audit.entries(action="export")
    facts = entry.facts()
    assert entry.number == number
    assert facts["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert (facts["rows"], facts["bytes"], facts["tags"]) == (3, 3, 1_000)
    (line,) = identity.receipts.who_read([999], 0, clock.us + 1)
    assert (line.kind, line.samples, line.sha256) == ("export", 3, facts["sha256"])
    assert identity.receipts.who_read([1_000], 0, clock.us + 1) == []


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE audit_receipt SET line = replace(line, 'mia', 'leo')", "SEC-1702"),
        ("DELETE FROM audit_receipt WHERE place = 0", "SEC-1702"),
        ("INSERT INTO audit_receipt SELECT 1, 7, minute_us, tag_set, line FROM audit_receipt "
         "WHERE place = 0 AND entry = 2", "SEC-1702"),
        ("UPDATE audit_tag_set SET ids = x'0000000000000000'", "SEC-1703"),
        ("DELETE FROM audit_tag_set", "SEC-1703"),
        ("UPDATE audit SET detail = 'no json' WHERE number = 2", "SEC-1313"),
    ],
)  # fmt: skip
def test_whoever_changes_receipts_is_found(
    identity: Identity, tmp_path: Path, statement: str, code: str
) -> None:
    identity.audit.record("system", "test", "x", "done")
    note(identity.receipts, "mia", [3], 1, 0)
    note(identity.receipts, "ada", [4], 1, 0)
    identity.receipts.flush()
    assert codes(identity) == []
    sql(identity, tmp_path, statement)
    assert code in codes(identity)


def test_what_cannot_be_told_is_kept_and_then_refused(
    identity: Identity, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts_module, "PENDING_MAX", 3)
    writing = AuditChain.writing

    def away(self: AuditChain) -> object:
        raise Transient("SEC-1202", "the metadata database does not answer")

    monkeypatch.setattr(AuditChain, "writing", away)
    for tag in (1, 2, 3):
        note(identity.receipts, "mia", [tag], 1, 0)
    note(identity.receipts, "mia", [3], 1, 0)  # counted where there is a line already
    with pytest.raises(Transient, match="SEC-1701"):
        note(identity.receipts, "mia", [4], 1, 0)
    monkeypatch.setattr(AuditChain, "writing", writing)
    note(identity.receipts, "mia", [4], 1, 0)
    identity.receipts.flush()
    found = identity.receipts.who_read([1, 2, 3, 4], 0, clock.us + 1)
    assert [(r.reads, r.samples) for r in found] == [(5, 5)]
    assert codes(identity) == []


def test_verify_tells_how_far_it_is(identity: Identity) -> None:
    for _ in range(3):
        identity.audit.record("system", "test", "x", "done")
    steps: list[tuple[int, int]] = []
    identity.audit.verify((), lambda done, total: steps.append((done, total)))
    assert steps[-1] == (3, 3)
