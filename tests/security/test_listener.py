"""The authority of our listeners: what it signs, what counts, what is told before it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security import listener as listener_module
from headrace.security.authority import ensure_authority, ensure_server
from headrace.security.certificates import own_certificate
from headrace.security.expiry import ExpiryWatch, certificates_of, threshold
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


def chains(shown: x509.Certificate, authorities: bytes) -> bool:
    """Whether a verifier that knows these authorities takes a server's certificate."""
    known = x509.load_pem_x509_certificates(authorities)
    return any(each.subject == shown.issuer and _signed_by(shown, each) for each in known)


def _signed_by(shown: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        shown.verify_directly_issued_by(authority)
    except InvalidSignature:
        return False
    return True


def test_a_new_authority_counts_beside_the_old_one_until_that_is_retired(
    folder: DataFolder,
) -> None:
    listener = Listener(folder)
    with pytest.raises(Refused, match="SEC-1616"):
        listener.renew_authority(NOW_US)
    listener.ensure(("plant.example",), NOW_US)
    old = (listener.path / "ca.pem").read_bytes()
    first = listener.issue_device("press_3", NOW_US)[0].read_bytes()
    both = listener.renew_authority(NOW_US + 1).read_bytes()
    with pytest.raises(Refused, match="SEC-1616"):
        listener.renew_authority(NOW_US + 2)

    def server() -> x509.Certificate:
        return x509.load_pem_x509_certificate((listener.path / "server.pem").read_bytes())

    assert both.endswith(old) and listener.trusted_pem() == both.decode()
    listener.renew_server(NOW_US + 2)
    assert chains(server(), old), "who knows the old one only must be able to connect on"
    assert chains(x509.load_pem_x509_certificate(first), both)
    with pytest.raises(Refused, match=r"SEC-1617.*press_3"):
        listener.retire_authority(NOW_US + 3)
    second = listener.issue_device("press_3", NOW_US + 3)[0].read_bytes()
    listener.retire_authority(NOW_US + 4)
    new = (listener.path / "ca.pem").read_bytes()
    assert len(x509.load_pem_x509_certificates(new)) == 1 and new in both and new != old
    assert chains(server(), new) and not chains(server(), old)
    assert chains(x509.load_pem_x509_certificate(second), new)
    assert not chains(x509.load_pem_x509_certificate(first), new)
    assert not (listener.previous / "ca.key").exists()
    with pytest.raises(Refused, match="SEC-1616"):
        listener.retire_authority(NOW_US + 5)


@pytest.mark.parametrize("number", range(5))
def test_a_killed_renewal_of_the_authority_is_finished_by_the_next(
    folder: DataFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(folder)
    listener.ensure((), NOW_US)
    old = (listener.path / "ca.pem").read_bytes()
    real, written = listener_module.write_whole, list[Path]()

    def killed(path: Path, content: bytes, *, mode: int) -> None:
        if len(written) == number:
            raise KeyboardInterrupt
        written.append(path)
        real(path, content, mode=mode)

    monkeypatch.setattr(listener_module, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        listener.renew_authority(NOW_US)
    monkeypatch.undo()
    both = listener.renew_authority(NOW_US + 1).read_bytes()
    assert both.endswith(old) and len(x509.load_pem_x509_certificates(both)) == 2
    made = x509.load_pem_x509_certificate(listener.issue_device("p", NOW_US)[0].read_bytes())
    assert chains(made, both) and not chains(made, old)
    assert sum(each.use == "authority" for each in listener.entries()) == 2


def test_every_certificate_of_the_folder_is_looked_at(folder: DataFolder) -> None:
    Listener(folder).issue_device("press_3", NOW_US, 5)
    ensure_authority(folder.hub, NOW_US)
    ensure_server(folder.hub, ("hub.example",), NOW_US)
    edge = {"name": "hall", "certificate": "ab" * 32, "joined_us": NOW_US}
    (folder.hub / "edges.json").write_text(json.dumps({"edges": {"hall": edge}}))
    own_certificate(folder.certificates, "client", "urn:a", NOW_US)
    found = {(each.use, each.name) for each in certificates_of(folder)}
    assert found == {
        ("authority", "authority"),
        ("device", "press_3"),
        ("hub", "hub"),
        ("hub_authority", "hub"),
        ("edge", "hall"),
        ("opcua", "client"),
    }
    late_us = NOW_US + 20 * 365 * US_PER_DAY
    assert {threshold(each, late_us) for each in certificates_of(folder)} == {0}
    (folder.hub / "edges.json").write_text("{")
    with pytest.raises(Corrupt, match="SEC-1615"):
        certificates_of(folder)
