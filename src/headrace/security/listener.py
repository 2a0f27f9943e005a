"""What our listeners show off loopback, and certificates that we give to devices: one small authority.

::

    certificates/authority/ca.pem, ca.key           the authority of this installation; the key stays there
    certificates/authority/server.pem, server.key   what broker and console show
    certificates/authority/issued/<name>.pem, .key  of clients: devices, and our own MQTT side (``gateway``)
    certificates/authority/register.json            all that was ever signed, and what is revoked

A listener shows the user's own certificate instead where ``headrace.toml`` names one. A new certificate
replaces the file; whoever is connected stays so, and the old one counts until its date or until it is revoked.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.ids import check_name
from headrace.model.time import US_PER_S, to_us
from headrace.security import authority
from headrace.security.files import write_whole
from headrace.security.settings import TlsSettings, load_settings

SERVER_DAYS: Final = 397
DEVICE_DAYS: Final = 397
DAYS_MAX: Final = 3_650
RENEW_DAYS: Final = 45
"""The server's own is renewed by itself so long before its end: earlier than the first warning."""
WARN_DAYS: Final = (30, 7, 1)
US_PER_DAY: Final = 86_400 * US_PER_S
REGISTER_MAX: Final = 20_000
SERVER: Final = "server"
GATEWAY: Final = "gateway"

Use = Literal[
    "authority", "server", "device", "gateway", "given",
    "hub_authority", "hub", "edge", "opcua", "opcua_peer",
]  # fmt: skip


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate.

    Attributes:
        name: its common name. use: what for; ``given`` is the user's own.
        serial: hex. sha256: of its DER bytes, hex. not_before_us, not_after_us: validity, UTC microseconds.
        revoked_us: when it was revoked; 0 when it was not.
    """

    name: str
    use: Use
    serial: str
    sha256: str
    not_before_us: int
    not_after_us: int
    revoked_us: int = 0

    def days_left(self, now_us: int) -> int:
        """Whole days until it ends; negative when it has ended."""
        return (self.not_after_us - now_us) // US_PER_DAY


@dataclass(frozen=True)
class ListenerFiles:
    """PEM files: what a listener shows, and the authority whose clients' certificates count."""

    certificate: Path
    key: Path
    authority: Path


class Listener:
    """The certificates of one installation.

    Args:
        folder: the data folder.
    """

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.path = folder.certificates / "authority"

    def files(self) -> ListenerFiles | None:
        """What a listener shows; None when nothing was made yet.

        Raises:
            Misconfigured: SEC-1611 when what the settings name cannot be used.
        """
        given = load_settings(self.folder).tls
        ours = self.path / "ca.pem"
        if given.certificate or given.key:
            certificate, key = self._given(given)
            return ListenerFiles(certificate, key, ours)
        own = self.path / "server.pem"
        return ListenerFiles(own, self.path / "server.key", ours) if own.is_file() else None

    def ensure(self, names: tuple[str, ...], now_us: int) -> ListenerFiles:
        """Make what is missing: the authority, and the server's certificate for these names.

        Args:
            names: host names and addresses by which this machine is reached; its own are added.

        Raises:
            Misconfigured: SEC-1611 when what the settings name cannot be used.
            Corrupt: SEC-1612 when the register is damaged.
        """
        made = not (self.path / "ca.pem").is_file()
        pem = authority.ensure_authority(self.path, now_us)
        if made:
            self._note(pem, "authority", "authority")
        wanted = tuple(dict.fromkeys((*names, "localhost", "127.0.0.1", "::1")))
        if not self._is_for(wanted):
            self._serve(wanted, now_us)
        found = self.files()
        assert found is not None  # it was made just now
        return found

    def trusted_pem(self) -> str:
        """The authority that clients must believe, PEM.

        Raises:
            Misconfigured: SEC-1611 when the file that the settings name cannot be read.
        """
        given = load_settings(self.folder).tls
        path = self._absolute(given.authority) if given.authority else self.path / "ca.pem"
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(path, error) from error

    def client_files(self, now_us: int) -> tuple[str, ...]:
        """Authority, and where devices show certificates our own MQTT side's too: PEM files.

        Raises:
            Corrupt: SEC-1612 when the register is damaged.
        """
        trusted = self.path / "trusted.pem"
        write_whole(trusted, self.trusted_pem().encode(), mode=0o644)
        if not load_settings(self.folder).tls.devices:
            return (str(trusted),)
        held = [each for each in self.entries() if each.use == "gateway" and not each.revoked_us]
        if not held or max(each.days_left(now_us) for each in held) < RENEW_DAYS:
            self._issue(GATEWAY, "gateway", now_us, SERVER_DAYS)
        return (str(trusted), *map(str, self._issued(GATEWAY)))

    def renew_server(self, now_us: int) -> Issued:
        """A new certificate for the names of the present one; listeners take it over by a reload.

        Raises:
            Refused: SEC-1613 when there is none.
        """
        names = self._names()
        if not names:
            raise Refused(
                "SEC-1613",
                "there is no server certificate to renew",
                "headrace up --listen makes one.",
            )
        return self._serve(names, now_us)

    def server_is_due(self, now_us: int) -> bool:
        """Whether our own server certificate ends soon."""
        path = self.path / "server.pem"
        return path.is_file() and read_pem(path).days_left(now_us) < RENEW_DAYS

    @property
    def previous(self) -> Path:
        """Where the authority lies that counts beside a new one."""
        return self.path / "previous"

    @property
    def is_changing(self) -> bool:
        """Whether two authorities count: the old one until :meth:`retire_authority`."""
        return (self.previous / "ca.key").is_file()

    def renew_authority(self, now_us: int) -> Path:
        """A new authority beside the old one; gives the file with both, which clients need from now on.

        New certificates of devices are signed by the new one; the server's stays with the old one, until
        that is retired, so that clients which know only the old one go on.

        Raises:
            Refused: SEC-1616 when there is none yet, or when two count already.
            Corrupt: SEC-1612 when the register is damaged.
        """
        bundle, key, made = self.path / "ca.pem", self.path / "ca.key", self.path / "next"
        began = (made / "ca.key").is_file()  # a renewal that was killed is finished
        if not bundle.is_file() or (self.is_changing and not began):
            raise Refused(
                "SEC-1616",
                "two authorities count already" if self.is_changing else "there is no authority",
                "headrace cert retire-authority ends the old one; headrace up --listen makes the first.",
            )
        # A name of its own: among issuers of one name a verifier may try the wrong key only.
        new = authority.ensure_authority(made, now_us, f"Headrace authority {now_us}")
        if not self.is_changing:
            write_whole(self.previous / "ca.pem", bundle.read_bytes(), mode=0o644)
            write_whole(self.previous / "ca.key", key.read_bytes(), mode=0o600)
        write_whole(bundle, new + (self.previous / "ca.pem").read_bytes(), mode=0o644)
        write_whole(key, (made / "ca.key").read_bytes(), mode=0o600)
        serial = read_pem(bundle, "authority").serial
        if all(each.serial != serial for each in self._register()):
            self._note(new, "authority", "authority")
        for name in ("ca.pem", "ca.key"):
            (made / name).unlink()
        if any(each.use == "gateway" for each in self.in_use()):
            self._issue(GATEWAY, "gateway", now_us, SERVER_DAYS)
        return bundle

    def of_previous(self, now_us: int) -> list[Issued]:
        """Devices' certificates in use that only the old authority signed.

        Raises:
            Corrupt: SEC-1612 when the register is damaged.
        """
        serials = [each.serial for each in self._register()]
        newest = max(i for i, each in enumerate(self._register()) if each.use == "authority")
        return [
            each
            for each in self.in_use()
            if each.use in ("device", "gateway")
            and now_us < each.not_after_us
            and serials.index(each.serial) < newest
        ]

    def retire_authority(self, now_us: int, *, force: bool = False) -> None:
        """Let only the new authority count: the server shows its certificate, the old key is gone.

        Args:
            force: also when devices still hold certificates of the old one; they count no more then.

        Raises:
            Refused: SEC-1616 when only one counts; SEC-1617 while devices need the old one.
            Corrupt: SEC-1612 when the register is damaged.
        """
        if not self.is_changing:
            raise Refused(
                "SEC-1616",
                "only one authority counts",
                "headrace cert renew-authority makes another.",
            )
        held = self.of_previous(now_us)
        if held and not force:
            names = ", ".join(sorted(each.name for each in held)[:10])
            raise Refused(
                "SEC-1617",
                f"{len(held)} devices hold certificates of the old authority: {names}",
                "Renew them (headrace cert renew NAME) and give them out, or retire it with --force.",
            )
        served = self._names()
        new = x509.load_pem_x509_certificate((self.path / "ca.pem").read_bytes())
        (self.previous / "ca.key").unlink()
        if served:
            self._serve(served, now_us)
        write_whole(self.path / "ca.pem", new.public_bytes(serialization.Encoding.PEM), mode=0o644)
        (self.previous / "ca.pem").unlink(missing_ok=True)

    def issue_device(self, name: str, now_us: int, days: int = DEVICE_DAYS) -> tuple[Path, Path]:
        """A certificate and key for a device; gives their files. What it had before counts on.

        Raises:
            Misconfigured: MODEL-1002 not a name; SEC-1614 the days cannot be.
            Corrupt: SEC-1612 when the register is damaged.
        """
        check_name(name, "device")
        if not 1 <= days <= DAYS_MAX or name in (SERVER, GATEWAY):
            raise Misconfigured(
                "SEC-1614",
                f"no certificate of {days} days is made for {name}",
                f"Give 1 to {DAYS_MAX} days, and the device's own name.",
            )
        if not (self.path / "ca.pem").is_file():
            self._note(authority.ensure_authority(self.path, now_us), "authority", "authority")
        self._issue(name, "device", now_us, days)
        return self._issued(name)

    def revoke(self, which: str, now_us: int) -> list[Issued]:
        """Revoke by name (all of them) or by serial; gives those that count no more.

        Raises:
            Refused: SEC-1613 when none is known by that, or all are revoked already.
            Corrupt: SEC-1612 when the register is damaged.
        """
        known = self._register()
        hit = [
            each
            for each in known
            if which in (each.name, each.serial)
            and each.use in ("device", "gateway")
            and not each.revoked_us
        ]
        if not hit:
            raise Refused(
                "SEC-1613",
                f"no certificate {which!r} counts that could be revoked",
                "See headrace cert list.",
            )
        gone = [msgspec.structs.replace(each, revoked_us=now_us) for each in hit]
        serials = {each.serial: each for each in gone}
        self._keep([serials.get(each.serial, each) for each in known])
        return gone

    def counts(self, pem: str, now_us: int) -> str | None:
        """The name in a client's certificate that we signed and did not revoke; None for any other.

        The listener has checked the signature already; here only the register decides.

        Raises:
            Corrupt: SEC-1612 when the register is damaged.
        """
        try:
            shown = x509.load_pem_x509_certificate(pem.encode())
        except ValueError:
            return None
        return self.counts_sha256(shown.fingerprint(hashes.SHA256()).hex(), now_us)

    def counts_sha256(self, sha256: str, now_us: int) -> str | None:
        """The same, of a certificate whose SHA-256 the broker tells.

        Raises:
            Corrupt: SEC-1612 when the register is damaged.
        """
        for each in self._register():
            if each.sha256 == sha256:
                live = not each.revoked_us and each.not_before_us <= now_us < each.not_after_us
                return each.name if live else None
        return None

    def entries(self) -> list[Issued]:
        """All that was signed here, the user's own listener certificate too; by name, newest first.

        Raises:
            Corrupt: SEC-1612 when the register is damaged.
            Misconfigured: SEC-1611 when what the settings name cannot be used.
        """
        found = self._register()
        given = load_settings(self.folder).tls
        if given.certificate:
            path, _ = self._given(given)
            found.append(read_pem(path, "given"))
        found.reverse()  # of two that end together the later one comes first
        return sorted(found, key=lambda each: (each.use, each.name, -each.not_after_us))

    def in_use(self) -> list[Issued]:
        """The newest of each name that is not revoked: those whose end matters."""
        newest: dict[tuple[str, str], Issued] = {}
        for each in self.entries():
            if not each.revoked_us:
                newest.setdefault((each.use, each.name), each)
        return list(newest.values())

    def _serve(self, names: tuple[str, ...], now_us: int) -> Issued:
        # While two authorities count, others may believe the old one only: the server stays with it.
        signer = self.previous if self.is_changing else self.path
        certificate, key = authority.issue(signer, "Headrace", now_us, SERVER_DAYS, names)
        # A reload between the two would show a key that does not fit; it keeps the old pair then.
        write_whole(self.path / "server.key", key, mode=0o600)
        write_whole(self.path / "server.pem", certificate, mode=0o644)
        return self._note(certificate, SERVER, "server")

    def _issue(self, name: str, use: Use, now_us: int, days: int) -> Issued:
        certificate, key = authority.issue(self.path, name, now_us, days)
        path, key_path = self._issued(name)
        write_whole(key_path, key, mode=0o600)
        write_whole(path, certificate, mode=0o644)
        return self._note(certificate, name, use)

    def _issued(self, name: str) -> tuple[Path, Path]:
        return self.path / "issued" / f"{name}.pem", self.path / "issued" / f"{name}.key"

    def _note(self, pem: bytes, name: str, use: Use) -> Issued:
        entry = _entry(x509.load_pem_x509_certificate(pem), use)
        entry = msgspec.structs.replace(entry, name=name)
        self._keep([*self._register(), entry][-REGISTER_MAX:])
        return entry

    def _register(self) -> list[Issued]:
        path = self.path / "register.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Issued])
        except FileNotFoundError:
            return []
        except UNREADABLE as error:
            raise Corrupt(
                "SEC-1612", f"{path} cannot be read: {error}", "Restore it from a backup."
            ) from error

    def _keep(self, entries: list[Issued]) -> None:
        write_whole(self.path / "register.json", msgspec.json.encode(entries), mode=0o600)

    def _names(self) -> tuple[str, ...]:
        path = self.path / "server.pem"
        if not path.is_file() or not (self.path / "server.key").is_file():
            return ()
        found = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(str(each.value) for each in names)

    def _is_for(self, names: tuple[str, ...]) -> bool:
        return set(self._names()) == set(names)

    def _given(self, settings: TlsSettings) -> tuple[Path, Path]:
        certificate, key = self._absolute(settings.certificate), self._absolute(settings.key)
        if not settings.authority:
            raise self._unusable(certificate, "authority is not given beside it")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise self._unusable(certificate, error) from error
        return certificate, key

    def _absolute(self, path: str) -> Path:
        return self.folder.root / path

    def _unusable(self, path: Path, reason: object) -> Misconfigured:
        return Misconfigured(
            "SEC-1611",
            f"{path} cannot be shown by a listener: {reason}",
            "Correct certificate, key and authority under [tls] in headrace.toml.",
        )


def read_pem(path: Path, use: Use = "server") -> Issued:
    """The first certificate of a PEM file.

    Raises:
        Corrupt: SEC-1901 when there is none.
    """
    try:
        return _entry(x509.load_pem_x509_certificate(path.read_bytes()), use)
    except ValueError as error:
        raise Corrupt(
            "SEC-1901", f"{path} holds no certificate", "Restore it from a backup."
        ) from error


def _entry(certificate: x509.Certificate, use: Use) -> Issued:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return Issued(
        name=str(names[0].value) if names else "",
        use=use,
        serial=f"{certificate.serial_number:x}",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before_us=to_us(certificate.not_valid_before_utc),
        not_after_us=to_us(certificate.not_valid_after_utc),
    )
