"""Records of apps: kept once, decided once, summed by month of the plant, and never lost with the stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.apps.runtime.effects import Record
from headrace.console.app_records import RecordStore
from headrace.console.value_sums import by_month, money_text, sums
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder

DAY_US = 86_400_000_000


def work(name: str) -> Record:
    body = {"asset": "a/p", "title": "Change the seal", "reason": "worn"}
    return Record(
        id=name, kind="work_request", app="x", version="1.0.0", hook="h", at_us=5, body=body
    )


def value(name: str, at_us: int, **body: object) -> Record:
    body = {"asset": "a/p", "kind": "energy", **body}
    return Record(id=name, kind="value", app="x", version="1.0.0", hook="h", at_us=at_us, body=body)


def test_the_same_record_is_kept_once_and_the_place_with_it(tmp_path: Path) -> None:
    store = RecordStore(DataFolder(tmp_path))
    assert store.position() == 0
    assert store.take([work("1"), work("2"), work("1")], 7) == 2
    assert store.take([work("2"), work("3")], 9) == 1
    assert store.position() == 9
    store.close()
    again = RecordStore(DataFolder(tmp_path))
    assert [one.id for one in again.find("work_request")] == ["1", "2", "3"]
    assert again.find("value") == [] and again.position() == 9
    again.close()


def test_a_record_that_is_too_large_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = RecordStore(DataFolder(tmp_path))
    assert store.take([value("1", 0, evidence={"x": "y" * 70_000}), value("2", 0)], 2) == 1
    store.close()


def test_a_work_request_is_decided_once(tmp_path: Path) -> None:
    store = RecordStore(DataFolder(tmp_path))
    store.take([work("1"), work("2"), value("3", 0)], 3)
    with pytest.raises(Misconfigured, match="CONS-2312"):
        store.decide("1", "rejected", by="mia", reason=" ", at_us=8)
    decided = store.decide("1", "rejected", by="mia", reason="was done", at_us=8)
    assert (decided.state, decided.decided_by, decided.reason) == ("rejected", "mia", "was done")
    with pytest.raises(Refused, match="CONS-2313"):
        store.decide("1", "accepted", by="leo", reason="", at_us=9)
    with pytest.raises(Refused, match="CONS-2313"):
        store.decide("3", "accepted", by="leo", reason="", at_us=9)
    with pytest.raises(Misconfigured, match="CONS-2311"):
        store.decide("none", "accepted", by="leo", reason="", at_us=9)
    assert [one.id for one in store.find("work_request", state="proposed")] == ["2"]
    assert store.take([work("1")], 4) == 0
    assert store.one("1").state == "rejected"
    store.close()


def test_sums_are_by_month_of_the_plant_and_currencies_stay_apart(tmp_path: Path) -> None:
    store = RecordStore(DataFolder(tmp_path))
    store.take(
        [
            value("1", 31 * DAY_US - 1, hours=1, money=10.0, currency="EUR"),
            value("2", 31 * DAY_US, hours=2.5, money=5, currency="USD"),
            value("3", 31 * DAY_US + 1, money="much", hours=True),
        ],
        3,
    )
    found = store.find("value")
    store.close()
    assert [(m.name, m.entries, m.hours) for m in by_month(found, "UTC")] == [
        ("1970-01", 1, 1.0),
        ("1970-02", 2, 2.5),
    ]
    assert [m.name for m in by_month(found, "Asia/Shanghai")] == ["1970-02"]
    total = sums(found, lambda one: "all")[0]
    assert total.money == {"EUR": 10.0, "USD": 5.0}
    assert money_text(total.money) == "10 EUR · 5 USD"
