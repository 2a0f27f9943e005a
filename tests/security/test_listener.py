"""The authority of our listeners: what it signs, what counts, what is told before it ends."""

from __future__ import annotations

import pytest

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.expiry import ExpiryWatch
from headrace.security.listener import RENEW_DAYS, SERVER_DAYS, US_PER_DAY, Listener

NOW_US = 1_795_392_000_000_000


def test_a_device_counts_until_it_is_revoked_or_ends(folder: DataFolder) -> None:
    listener = Listener(folder)
    path, key = listener.issue_device("press_3", NOW_US, 10)
    first = path.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    assert listener.counts(first, NOW_US) == "press_3"
    listener.issue_device("press_3", NOW_US, 20)
    second = path.read_text()
    assert first != second
    assert {listener.counts(pem, NOW_US) for pem in (first, second)} == {"press_3"}
    assert listener.counts(first, NOW_US + 10 * US_PER_DAY) is None
    assert listener.counts(second, NOW_US + 10 * US_PER_DAY) == "press_3"
    assert len(listener.revoke("press_3", NOW_US)) == 2
    assert listener.counts(second, NOW_US) is None
    with pytest.raises(Refused, match="SEC-1613"):
        listener.revoke("press_3", NOW_US)


def test_a_certificate_of_another_authority_counts_nothing(folder: DataFolder) -> None:
    stranger = Listener(DataFolder(folder.root / "other"))
    pem = stranger.issue_device("press_3", NOW_US)[0].read_text()
    Listener(folder).issue_device("press_3", NOW_US)
    assert Listener(folder).counts(pem, NOW_US) is None
    assert Listener(folder).counts("no certificate", NOW_US) is None


def test_the_server_keeps_its_certificate_until_names_change_or_it_is_due(
    folder: DataFolder,
) -> None:
    listener = Listener(folder)
    first = listener.ensure(("plant.example",), NOW_US).certificate.read_bytes()
    assert listener.ensure(("plant.example",), NOW_US).certificate.read_bytes() == first
    assert not listener.server_is_due(NOW_US)
    assert listener.server_is_due(NOW_US + (SERVER_DAYS - RENEW_DAYS + 1) * US_PER_DAY)
    listener.renew_server(NOW_US)
    files = listener.files()
    assert files is not None and files.certificate.read_bytes() != first
    other = listener.ensure(("other.example",), NOW_US).certificate.read_bytes()
    assert other not in (first, files)


def test_the_users_own_certificate_is_shown_and_a_wrong_one_refused(folder: DataFolder) -> None:
    other = Listener(DataFolder(folder.root / "given"))
    given = other.ensure(("plant.example",), NOW_US)
    settings = folder.root / "headrace.toml"
    lines = [f'certificate = "{given.certificate}"', f'key = "{given.key}"']
    settings.write_text("\n".join(["[tls]", *lines, f'authority = "{given.authority}"']))
    shown = Listener(folder).ensure((), NOW_US)
    assert shown.certificate == given.certificate
    assert Listener(folder).trusted_pem() == given.authority.read_text()
    assert "given" in {entry.use for entry in Listener(folder).in_use()}
    settings.write_text("\n".join(["[tls]", *lines]))
    with pytest.raises(Misconfigured, match="SEC-1611"):
        Listener(folder).files()
    given.key.write_text("nonsense")
    settings.write_text("\n".join(["[tls]", *lines, f'authority = "{given.authority}"']))
    with pytest.raises(Misconfigured, match="SEC-1611"):
        Listener(folder).files()


def test_a_damaged_register_is_said(folder: DataFolder) -> None:
    listener = Listener(folder)
    listener.issue_device("press_3", NOW_US)
    (listener.path / "register.json").write_text("{")
    with pytest.raises(Corrupt, match="SEC-1612"):
        listener.entries()


@pytest.mark.parametrize(("name", "days"), [("press_3", 0), ("press_3", 4_000), ("server", 9)])
def test_no_certificate_without_end_or_with_our_own_name(
    folder: DataFolder, name: str, days: int
) -> None:
    with pytest.raises(Misconfigured, match="SEC-1614"):
        Listener(folder).issue_device(name, NOW_US, days)


def test_the_end_is_told_30_7_and_1_days_ahead_and_once_each(folder: DataFolder) -> None:
    listener = Listener(folder)
    listener.issue_device("press_3", NOW_US, 40)
    told: list[tuple[int, str]] = []
    day = 0
    watch = ExpiryWatch(lambda severity, code, text, remedy: told.append((day, severity)))
    for day in range(45):
        for _ in range(2):
            watch.look(listener.in_use(), NOW_US + day * US_PER_DAY)
    assert told == [(10, "warning"), (33, "warning"), (39, "error"), (40, "error")]


def test_a_renewed_device_is_not_told_of(folder: DataFolder) -> None:
    listener = Listener(folder)
    listener.issue_device("press_3", NOW_US, 40)
    listener.issue_device("press_3", NOW_US + 5 * US_PER_DAY, 397)
    told: list[str] = []
    watch = ExpiryWatch(lambda severity, code, text, remedy: told.append(text))
    watch.look(listener.in_use(), NOW_US + 38 * US_PER_DAY)
    assert told == []
