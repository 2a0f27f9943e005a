"""Warnings before certificates end: 30, 7 and 1 days ahead, and when they have ended.

All that this data folder holds are looked at: of listeners and devices, of hub and edges, of OPC UA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, cast

import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt
from headrace.model.folder import DataFolder
from headrace.model.health import Severity
from headrace.model.time import US_PER_S, to_datetime
from headrace.security.authority import VALIDITY
from headrace.security.certificates import CertificateEntry, list_certificates
from headrace.security.listener import US_PER_DAY, WARN_DAYS, Issued, Listener, Use, read_pem

CODE: Final = "SEC-1620"
Report = Callable[[Severity, str, str, str], None]


class ExpiryWatch:
    """Tells each threshold of each certificate once.

    Args:
        report: takes severity, code, text and remedy of an event.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._told: dict[str, int] = {}

    def look(self, entries: Iterable[Issued], now_us: int) -> None:
        """Look at those that are in use; tell what came nearer than when it was last told."""
        for entry in entries:
            reached = threshold(entry, now_us)
            if reached is None or self._told.get(entry.serial, max(WARN_DAYS) + 1) <= reached:
                continue
            self._told[entry.serial] = reached
            severity: Severity = "error" if reached <= min(WARN_DAYS) else "warning"
            self._report(severity, CODE, text(entry, now_us), remedy(entry))


def threshold(entry: Issued, now_us: int) -> int | None:
    """The nearest of 30, 7, 1 days that is reached; 0 when it has ended; None before.

    Example:
        >>> entry = Issued(name="a", use="device", serial="1", sha256="", not_before_us=0,
        ...                not_after_us=8 * US_PER_DAY)
        >>> threshold(entry, 0), threshold(entry, US_PER_DAY), threshold(entry, 9 * US_PER_DAY)
        (30, 7, 0)
    """
    left_us = entry.not_after_us - now_us
    if left_us <= 0:
        return 0
    reached = [days for days in WARN_DAYS if left_us <= days * US_PER_DAY]
    return min(reached) if reached else None


def text(entry: Issued, now_us: int, language: str = "en") -> str:
    """What is told of a certificate that ends or has ended."""
    day = to_datetime(entry.not_after_us).date().isoformat()
    has_ended = entry.not_after_us <= now_us
    if language == "zh":
        return f"{entry.name}（{entry.use}）的证书{'已于' if has_ended else '将于'} {day} 到期"
    return f"the certificate of {entry.name} ({entry.use}) {'has ended' if has_ended else 'ends'} on {day}"


def certificates_of(folder: DataFolder) -> list[Issued]:
    """Every certificate in use in a data folder, the newest of each use and name.

    Raises:
        Misconfigured: SEC-1611 for what the settings name; EDGE-2031 for a file that is none.
        Corrupt: SEC-1612, SEC-1615 when a register is damaged.
    """
    found = Listener(folder).in_use()
    found += [
        _of_opc_ua(entry)
        for entry in list_certificates(folder.certificates)
        if entry.kept_in != "rejected"
    ]
    for path, use, name in (
        (folder.hub / "ca.pem", "hub_authority", "hub"),
        (folder.hub / "server.pem", "hub", "hub"),
        (folder.edge / "ca.pem", "hub_authority", "of this edge"),
        (folder.edge / "edge.pem", "edge", "this edge"),
    ):
        if path.is_file():
            found.append(msgspec.structs.replace(read_pem(path, cast(Use, use)), name=name))
    return found + _edges(folder.hub / "edges.json")


class _Edge(msgspec.Struct):
    certificate: str
    joined_us: int


class _Edges(msgspec.Struct):
    edges: dict[str, _Edge] = {}


def _edges(path: Path) -> list[Issued]:
    """Edges that joined: the hub keeps a digest of each certificate, and signed it for so long."""
    try:
        book = msgspec.json.decode(path.read_bytes(), type=_Edges)
    except FileNotFoundError:
        return []
    except UNREADABLE as error:
        raise Corrupt(
            "SEC-1615", f"{path} cannot be read: {error}", "Restore it from a backup."
        ) from error
    lasts_us = int(VALIDITY.total_seconds()) * US_PER_S
    return [
        Issued(
            name=name,
            use="edge",
            serial=edge.certificate[:40],
            sha256=edge.certificate,
            not_before_us=edge.joined_us,
            not_after_us=edge.joined_us + lasts_us,
        )
        for name, edge in book.edges.items()
    ]


def _of_opc_ua(entry: CertificateEntry) -> Issued:
    return Issued(
        name=entry.path.stem if entry.kept_in == "own" else entry.subject,
        use="opcua" if entry.kept_in == "own" else "opcua_peer",
        serial=entry.thumbprint,
        sha256="",
        not_before_us=entry.not_before_us,
        not_after_us=entry.not_after_us,
    )


def remedy(entry: Issued) -> str:
    """What to do about a certificate that ends."""
    if entry.use == "given":
        return (
            "Put a new one in the place that headrace.toml names, then: headrace cert renew server"
        )
    if entry.use == "authority":
        return "Make a new one beside it: headrace cert renew-authority; see docs/transport.md."
    if entry.use == "opcua":
        return "Remove the file in certificates/own and restart the edge; let servers trust the new one."
    if entry.use == "opcua_peer":
        return "Renew it on the device, then: headrace trust add"
    if entry.use in ("edge", "hub", "hub_authority"):
        return "Let the edge join anew: headrace edge invite, see docs/edge.md."
    return f"Make a new one: headrace cert renew {entry.name}"
