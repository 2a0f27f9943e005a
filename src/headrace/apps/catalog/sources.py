"""Another catalog: a folder of packages with a signed index, on a disk or behind HTTP(S).

::

    catalog.json        publisher, and CatalogEntry of each package
    catalog.sig         publisher's key, and its Ed25519 signature over catalog.json
    <id>-<version>.hrapp

The index says which bytes each package has; the package's own signature says whose it is. It counts up: a
reader keeps the number that it saw last (:mod:`headrace.apps.catalog.seen`). Off this machine only HTTPS is
spoken. No answer is larger than what was said before, or than a bound.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from headrace.apps.catalog.entries import CatalogEntry, entry_of
from headrace.apps.catalog.seen import Seen
from headrace.apps.package import Package, Trust, read_package
from headrace.apps.package.archive import PACKAGE_BYTES_MAX
from headrace.apps.package.package import Signature
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured, Refused, Transient
from headrace.security.files import write_whole
from headrace.security.package_keys import is_signed, public_of, sign_bytes

INDEX: Final = "catalog.json"
SIGNATURE: Final = "catalog.sig"
INDEX_BYTES_MAX: Final = 16 * 1024 * 1024
WAIT_S: Final = 20.0


class CatalogIndex(msgspec.Struct, frozen=True, kw_only=True):
    """``catalog.json``: whose catalog it is, and what it has.

    Attributes:
        number: counts each time that it is written, so that readers know an older one; 0 of a catalog that
            was written before there were numbers.
    """

    publisher: str
    number: int = 0
    packages: tuple[CatalogEntry, ...] = ()


class Source:
    """One other catalog.

    Args:
        address: a folder, or ``https://...``; ``http://`` on this machine only.
        seen: what was seen of catalogs before; None: look at it as if for the first time.

    Raises:
        Misconfigured: APPS-2050 for an address that is neither.
    """

    def __init__(self, address: str, seen: Seen | None = None) -> None:
        self.address = address.rstrip("/")
        self._seen = seen
        self._is_remote = "://" in address
        if self._is_remote:
            _check_address(address)

    def index(self, trust: Trust) -> CatalogIndex:
        """What it has.

        Raises:
            Misconfigured: APPS-2051 when there is no catalog.
            Transient: APPS-2052 when it cannot be reached.
            Refused: APPS-2053 when it is too large; APPS-2027 when its publisher is not trusted.
                APPS-2063 when the index is older than one that was seen here.
            Corrupt: APPS-2054 when its index is damaged or the signature does not fit.
        """
        content = self._get(INDEX, INDEX_BYTES_MAX)
        try:
            index = msgspec.json.decode(content, type=CatalogIndex)
            signature = msgspec.json.decode(self._get(SIGNATURE, 10_000), type=Signature)
        except UNREADABLE as error:
            raise self._damaged("its index cannot be read") from error
        if signature.publisher != index.publisher:
            raise self._damaged(f"it says to be {index.publisher[:60]}'s, and is signed otherwise")
        if not is_signed(signature.key, signature.signature, content):
            raise self._damaged("the signature is not of this index")
        if signature.key not in trust.keys.get(index.publisher, ()):
            raise Refused(
                "APPS-2027",
                f"{index.publisher[:60]!r} with the key {signature.key[:60]} is not trusted here",
                "When you know that the key is theirs: headrace app trust add PUBLISHER KEY",
            )
        if self._seen is not None:
            digest = hashlib.sha256(content).hexdigest()
            self._seen.look(self.address, index.publisher, index.number, digest)
        return index

    def fetch(self, entry: CatalogEntry, trust: Trust) -> Package:
        """A package of its index; the bytes must be those that the index names.

        Raises:
            Corrupt: APPS-2055 when they are others.
            HeadraceError: what :meth:`index` and :func:`headrace.apps.package.read_package` raise.
        """
        size = min(entry.size, PACKAGE_BYTES_MAX)
        content = self._get(entry.file_name, size)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise Corrupt(
                "APPS-2055",
                f"{entry.file_name[:80]} is not the package that the index of {self.address} names",
                "Do not use it; tell whoever keeps the catalog.",
            )
        return read_package(content, trust)

    def _damaged(self, why: str) -> Corrupt:
        return Corrupt(
            "APPS-2054",
            f"the catalog {self.address} cannot be used: {why}",
            "Tell whoever keeps it; nothing was taken from it.",
        )

    def _get(self, name: str, size_max: int) -> bytes:
        if "/" in name or "\\" in name or name.startswith("."):
            raise self._damaged(f"it names the file {name[:60]!r}")
        try:
            read = self._remote if self._is_remote else self._local
            return read(name, size_max)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Transient(
                "APPS-2052",
                f"the catalog {self.address} cannot be reached: {error or type(error).__name__}",
                "Look at its address and at the network, and try again.",
            ) from error

    def _local(self, name: str, size_max: int) -> bytes:
        path = Path(self.address) / name
        try:
            with path.open("rb") as file:
                content = file.read(size_max + 1)
        except OSError as error:
            raise self._none(name, error.strerror or "") from error
        if len(content) > size_max:
            raise self._too_large(name, size_max)
        return content

    def _remote(self, name: str, size_max: int) -> bytes:
        found = bytearray()
        headers = {"accept-encoding": "identity"}  # what is packed could grow without end
        with (
            httpx.Client(timeout=WAIT_S, follow_redirects=False, headers=headers) as client,
            client.stream("GET", f"{self.address}/{name}") as answer,
        ):
            if answer.status_code != 200:
                raise self._none(name, f"HTTP {answer.status_code}")
            for part in answer.iter_raw():
                found += part
                if len(found) > size_max:
                    raise self._too_large(name, size_max)
        return bytes(found)

    def _none(self, name: str, why: str) -> Misconfigured:
        return Misconfigured(
            "APPS-2051",
            f"there is no {name} in the catalog {self.address}: {why}",
            "Give the folder or the address in which catalog.json lies.",
        )

    def _too_large(self, name: str, size_max: int) -> Refused:
        return Refused(
            "APPS-2053",
            f"{name} of the catalog {self.address} has more than {size_max:,} bytes",
            "Do not use it; tell whoever keeps the catalog.",
        )


def write_catalog(folder: Path, packages: Sequence[Package], publisher: str, key: bytes) -> None:
    """Add packages to a static catalog: files first, then the index, then its signature.

    Args:
        publisher: whose catalog it is. key: private, PEM, of that publisher.

    Raises:
        Refused: APPS-2046 when a version is there with other content.
        Corrupt: APPS-2054 when the index that is there cannot be read.
    """
    known = {(each.id, each.version): each for each in _known(folder).packages}
    for package in packages:
        entry = entry_of(package)
        before = known.setdefault((entry.id, entry.version), entry)
        if before.sha256 != entry.sha256:
            raise Refused(
                "APPS-2046",
                f"{entry.id} {entry.version} is there already, with other content",
                "Give what changed a new version.",
            )
        write_whole(folder / entry.file_name, package.content, mode=0o644)
    ordered = sorted(known.values(), key=lambda each: (each.id, each.numbers))
    index = CatalogIndex(
        publisher=publisher, number=_known(folder).number + 1, packages=tuple(ordered)
    )
    content = msgspec.json.format(msgspec.json.encode(index), indent=1)
    signature = Signature(
        publisher=publisher, key=public_of(key), signature=sign_bytes(key, content)
    )
    write_whole(folder / INDEX, content, mode=0o644)
    write_whole(folder / SIGNATURE, msgspec.json.encode(signature), mode=0o644)


def _known(folder: Path) -> CatalogIndex:
    try:
        return msgspec.json.decode((folder / INDEX).read_bytes(), type=CatalogIndex)
    except FileNotFoundError:
        return CatalogIndex(publisher="")
    except UNREADABLE as error:
        raise Corrupt(
            "APPS-2054", f"{folder / INDEX} cannot be read: {error}", "Begin the catalog anew."
        ) from error


def _check_address(address: str) -> None:
    try:
        place = urlsplit(address)
        scheme, host, port, user = place.scheme, place.hostname or "", place.port, place.username
    except ValueError:
        scheme, host, port, user = "", "", None, None
    is_plain_here = scheme == "http" and _is_loopback(host)
    if not host or not (scheme == "https" or is_plain_here) or port == 0 or user:
        raise Misconfigured(
            "APPS-2050",
            f"{address[:200]!r} is no address of a catalog",
            "Give a folder or https://...; http:// counts on this machine only.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
