"""The same on the metadata database that several machines share."""

from __future__ import annotations

from pathlib import Path

import pytest
from notify_samples import notice
from test_notifier import PHONE_THEN_CHIEF, RETRY, Plant

from headrace.alarms.notify.store import NotifyStore
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from postgres_server import PostgresServer, postgres

__all__ = ["postgres"]


async def test_an_alarm_goes_its_whole_way(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADRACE_METADATA", postgres.new_database())
    plant = Plant(tmp_path, PHONE_THEN_CHIEF)
    await plant.configure()
    plant.answers["phone"] = RETRY
    await plant.take(notice(1), notice(2))
    await plant.after(1)
    assert [name for name, _ in plant.told] == ["chief", "chief"]
    del plant.answers["phone"]
    await plant.restart()
    await plant.after(6)
    await plant.take(notice(1, "returned", plant.clock.now_us()))
    await plant.work()
    assert plant.told[-2:] == [
        ("phone", "[returned to normal] Pump 1: bearing too hot"),
        ("chief", "[returned to normal] Pump 1: bearing too hot"),
    ]
    assert plant.store.counts() == {"phone": {"sent": 3}, "chief": {"sent": 3}}
    assert plant.store.log(limit=1)[0].kind == "return"
    plant.store.tidy(plant.clock.now_us() + 91 * 86_400_000_000)
    assert plant.store.counts() == {}
    plant.store.close()


def test_a_database_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://headrace@127.0.0.1:1/none?connect_timeout=2"
    monkeypatch.setenv("HEADRACE_METADATA", url)
    with pytest.raises(Transient, match="ALARM-2006"):
        NotifyStore(DataFolder(tmp_path))
