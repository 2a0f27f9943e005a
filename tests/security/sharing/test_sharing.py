"""Sharing contracts against a partner who wants more: time, windows, tags, rows, signatures, replays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.audit import AuditKeys
from headrace.security.identity import Identity
from headrace.security.sharing import (
    Granted,
    SharingContract,
    SharingRequest,
    Terms,
    allow,
    liability_report,
    sign_offer,
    sign_partner,
)
from headrace.security.sharing.contract import Standing, state_of

S = 1_000_000
HOUR = 3_600 * S


class Hand:
    def __init__(self) -> None:
        self.us = 100 * HOUR

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / S


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditKeys, AuditKeys]:
    root = tmp_path_factory.mktemp("keys")
    return AuditKeys(root / "a"), AuditKeys(root / "b")


def terms(ours: AuditKeys, theirs: AuditKeys, **changes: Any) -> Terms:
    made = Terms(
        offerer="acme/mill",
        partner="smith",
        purpose="maintenance of pumps",
        tags=(("p/flow", 7), ("p/head", 8)),
        from_us=100 * HOUR,
        until_us=200 * HOUR,
        data_from_us=90 * HOUR,
        data_until_us=300 * HOUR,
        every_us=HOUR,
        aggregate="Average",
        rows_max=1_000,
        nonce="00",
        offerer_key=ours.name,
        offerer_pem=ours.public_pem().decode(),
        partner_key=theirs.name,
        partner_pem=theirs.public_pem().decode(),
    )
    return msgspec.structs.replace(made, **changes)


def signed(keys: tuple[AuditKeys, AuditKeys], **changes: Any) -> SharingContract:
    return sign_partner(sign_offer(terms(*keys, **changes), keys[0]), keys[1])


def ask(
    contract: SharingContract, now_us: int, standing: Standing | None = None, **request: Any
) -> Granted:
    words: dict[str, Any] = {"start_us": 0, "end_us": 1 << 60, **request}
    return allow(contract, standing or Standing(), SharingRequest(**words), now_us)


def test_time_has_sharp_edges(keys: tuple[AuditKeys, AuditKeys]) -> None:
    contract = signed(keys)
    for now_us, state in (
        (100 * HOUR - 1, "signed"),
        (100 * HOUR, "active"),
        (200 * HOUR - 1, "active"),
        (200 * HOUR, "expired"),
    ):
        assert state_of(contract, Standing(), now_us) == state
        if state == "active":
            granted = ask(contract, now_us)
            assert granted.start_us == 90 * HOUR and granted.end_us <= now_us
        else:
            with pytest.raises(Refused, match="SEC-1732"):
                ask(contract, now_us)
    for standing, state in (
        (Standing(revoked_us=1), "revoked"),
        (Standing(rows_used=1_000), "exhausted"),
    ):
        assert state_of(contract, standing, 150 * HOUR) == state
        with pytest.raises(Refused, match="SEC-1732"):
            ask(contract, 150 * HOUR, standing)
    assert ask(contract, 150 * HOUR, start_us=0, end_us=90 * HOUR).rows == 0, "before the data"


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(80 * HOUR, 160 * HOUR),
    width=st.integers(0, 60 * HOUR),
    every=st.one_of(
        st.just(0), st.integers(1, 5 * HOUR), st.integers(1, 5).map(lambda n: n * HOUR)
    ),
    now=st.integers(100 * HOUR, 200 * HOUR - 1),
)
def test_no_window_is_smaller_than_agreed_or_begins_elsewhere(
    start: int, width: int, every: int, now: int
) -> None:
    contract = SharingContract(terms=PLAIN, offerer_signature="x", partner_signature="x")
    try:
        granted = ask(contract, now, start_us=start, end_us=start + width, every_us=every)
    except Misconfigured as error:
        assert error.code == "SEC-1734" and every % HOUR
        return
    assert granted.every_us % HOUR == 0 and granted.every_us >= HOUR
    assert (granted.start_us % HOUR == 0 and granted.end_us % HOUR == 0) or not granted.rows
    assert granted.end_us <= max(now, granted.start_us), "only windows that are over"
    assert granted.aggregate == "Average"


PLAIN = Terms(
    offerer="a", partner="b", purpose="p", tags=(("p/flow", 7),), from_us=100 * HOUR,
    until_us=200 * HOUR, data_from_us=90 * HOUR, data_until_us=300 * HOUR, every_us=HOUR,
    aggregate="Average", rows_max=1_000, nonce="", offerer_key="a", offerer_pem="",
    partner_key="b", partner_pem="",
)  # fmt: skip


def test_guessing_tags_tells_nothing(keys: tuple[AuditKeys, AuditKeys]) -> None:
    contract = signed(keys)
    for path in ("p/power", "no/such/tag", "7", "p/*", "p/flow ", "P/FLOW", "../p/flow", ""):
        with pytest.raises(Refused, match="SEC-1733"):
            ask(contract, 150 * HOUR, paths=(path,))
    with pytest.raises(Refused, match="SEC-1733"):
        ask(contract, 150 * HOUR, paths=("p/flow", "p/power"))
    assert ask(contract, 150 * HOUR, paths=("p/flow", "p/flow")).tag_ids == (7,)


def test_samples_are_not_given_where_aggregates_are_agreed_nor_more_rows(
    keys: tuple[AuditKeys, AuditKeys],
) -> None:
    contract = signed(keys, rows_max=10)
    with pytest.raises(Refused, match="SEC-1735"):
        ask(contract, 150 * HOUR, start_us=100 * HOUR, end_us=106 * HOUR)
    assert ask(contract, 150 * HOUR, start_us=100 * HOUR, end_us=105 * HOUR).rows == 10
    with pytest.raises(Refused, match="SEC-1735"):
        ask(contract, 150 * HOUR, Standing(rows_used=1), start_us=100 * HOUR, end_us=105 * HOUR)
    raw = signed(keys, every_us=0, aggregate="", rows_max=10)
    assert ask(raw, 150 * HOUR, Standing(rows_used=4)).rows == 6
    with pytest.raises(Misconfigured, match="SEC-1734"):
        ask(raw, 150 * HOUR, every_us=HOUR)


@pytest.mark.parametrize(
    "change",
    [
        {"tags": (("p/flow", 9),)},
        {"until_us": 900 * HOUR},
        {"rows_max": 10**9},
        {"every_us": S},
        {"nonce": "01"},
        {"purpose": "anything"},
    ],
)
def test_changed_terms_have_no_signature(
    keys: tuple[AuditKeys, AuditKeys], change: dict[str, Any]
) -> None:
    contract = signed(keys)
    other = msgspec.structs.replace(
        contract, terms=msgspec.structs.replace(contract.terms, **change)
    )
    with pytest.raises(Corrupt, match="SEC-1731"):
        other.check_signatures()
    swapped = msgspec.structs.replace(
        contract,
        offerer_signature=contract.partner_signature,
        partner_signature=contract.offerer_signature,
    )
    with pytest.raises(Corrupt, match="SEC-1731"):
        swapped.check_signatures()
    with pytest.raises(Misconfigured, match="SEC-1730"):
        sign_partner(sign_offer(terms(*keys), keys[0]), keys[0])


@pytest.mark.parametrize(
    "change",
    [
        {"tags": ()},
        {"until_us": 0},
        {"data_until_us": 0},
        {"rows_max": 0},
        {"aggregate": ""},
        {"purpose": " "},
        {"every_us": -1},
    ],
)
def test_terms_that_cannot_be_are_not_signed(
    keys: tuple[AuditKeys, AuditKeys], change: dict[str, Any]
) -> None:
    with pytest.raises(Misconfigured, match="SEC-1730"):
        sign_offer(terms(*keys, **change), keys[0])


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def offerer(tmp_path: Path, clock: Hand) -> Iterator[Identity]:
    identity = Identity(DataFolder(tmp_path), clock)
    yield identity
    identity.close()


def test_the_book_meters_tells_and_ends(
    offerer: Identity, keys: tuple[AuditKeys, AuditKeys], clock: Hand
) -> None:
    book = offerer.sharing
    contract = signed((offerer.audit.keys, keys[1]), rows_max=12)
    token = book.accept(contract, "mia")
    with pytest.raises(Misconfigured, match="SEC-1730"):
        book.accept(contract, "mia")  # replayed
    with pytest.raises(Misconfigured, match="SEC-1730"):
        book.accept(signed(keys), "mia")  # of another offerer
    assert book.of_token(token + "x") is None and book.of_token("hr_1") is None
    found = book.of_token(token)
    assert found is not None and found[2] == "active"
    request = SharingRequest(start_us=95 * HOUR, end_us=98 * HOUR)
    granted = book.grant(contract.id, request)
    book.settle(contract.id, granted, 4, b"answer", "shared/samples")
    assert book.contract(contract.id)[1].rows_used == 4
    with pytest.raises(Refused, match="SEC-1733"):
        book.grant(contract.id, SharingRequest(paths=("x",), start_us=0, end_us=1))
    granted = book.grant(contract.id, request)
    book.revoke(contract.id, "mia", "broken terms")
    with pytest.raises(Refused, match="SEC-1732"):
        book.settle(contract.id, granted, 4, b"answer", "shared/samples")  # on its way out
    for _ in range(2):
        with pytest.raises(Refused, match="SEC-1732"):
            book.grant(contract.id, request)
    with pytest.raises(Misconfigured, match="SEC-1730"):
        book.accept(contract, "mia")  # replayed after the end
    entries = offerer.audit.entries(resource=f"share/{contract.id}")[::-1]
    assert [(e.action, e.outcome) for e in entries] == [
        ("share.accept", "done"),
        ("share.read", "done"),
        ("share.read", "denied"),
        ("share.revoke", "done"),
    ]
    assert [r.kind for r in offerer.receipts.who_read([7], 0, clock.us + 1)] == ["share"]
    report = liability_report(
        *book.contract(contract.id), entries, offerer.audit.verify(), offerer.audit.checkpoint()
    )
    for words in (
        "**revoked**",
        "4 rows",
        "p/flow",
        "broken terms",
        "whole",
        "Refused requests: 1",
    ):
        assert words in report


def test_whoever_edits_the_contract_in_the_database_opens_nothing(
    offerer: Identity, keys: tuple[AuditKeys, AuditKeys]
) -> None:
    contract = signed((offerer.audit.keys, keys[1]))
    token = offerer.sharing.accept(contract, "mia")
    with offerer.audit.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE sharing_contract SET document = replace(document, '\"rows_max\":1000', "
            "'\"rows_max\":9000')"
        )
    with pytest.raises(HeadraceError, match="SEC-1731"):
        offerer.sharing.of_token(token)


def test_what_was_signed_before_there_was_samples_min_is_still_signed(
    keys: tuple[AuditKeys, AuditKeys],
) -> None:
    made = terms(*keys)
    assert b"samples_min" not in msgspec.json.encode(made)
    stricter = msgspec.structs.replace(
        made, every_us=60_000_000, aggregate="Average", samples_min=5
    )
    assert b"samples_min" in msgspec.json.encode(stricter)
    assert stricter.digest("offer") != msgspec.structs.replace(stricter, samples_min=4).digest(
        "offer"
    )
    with pytest.raises(Misconfigured, match="SEC-1730"):
        msgspec.structs.replace(made, every_us=0, aggregate="", samples_min=5).check()
