"""One ``.hrapp`` file: what it holds, whose it is, and whether it is what its publisher signed.

::

    app.toml or types.toml   what it is
    ...                      all other files of its folder
    described.json           types of its services, written when it is packed
    certificate.json         of the bench
    files.json               SHA-256 of each file above
    signature.json           publisher's key, and its Ed25519 signature over files.json

Order of trust: bytes -> names and sizes -> hashes -> signature -> publisher -> manifest. What fails raises,
and nothing of the package is used.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from headrace.apps.package.archive import (
    FILES_MAX,
    PACKAGE_BYTES_MAX,
    is_safe,
    read_archive,
    write_archive,
)
from headrace.apps.package.manifest import (
    MANIFEST,
    check_manifest,
    is_id,
    read_manifest,
    toml_text,
)
from headrace.apps.package.versions import parse_version
from headrace.model.app_manifest import AppManifest
from headrace.model.bench_certificate import Certificate
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.security.files import make_folder, write_whole
from headrace.security.package_keys import is_signed, public_of, sign_bytes
from headrace.site.model import Problem

TYPES: Final = "types.toml"
FILES: Final = "files.json"
SIGNATURE: Final = "signature.json"
CERTIFICATE: Final = "certificate.json"
DESCRIBED: Final = "described.json"
SUFFIX: Final = ".hrapp"
MADE: Final = (FILES, SIGNATURE, CERTIFICATE, DESCRIBED)
"""What machines write into a package; the bench's certificate speaks of all the rest."""
_LEFT_OUT: Final = re.compile(r"(\..*|__pycache__|.*\.pyc|.*\.hrapp|.*\.pem|.*~)")
Kind = Literal["app", "types"]


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``signature.json``: the publisher's public key (base64), and its signature over ``files.json``."""

    publisher: str
    key: str
    signature: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose packages count.

    Attributes:
        keys: publisher -> public keys, base64. is_unsigned_allowed: also what nobody signed.
    """

    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_unsigned_allowed: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose files are those of its list, and whose signature fits.

    Attributes:
        id, version, kind: what it is. manifest: of an app; None for asset types.
        sha256: of the ``.hrapp`` file, hex. content: the file itself.
        publisher: whose it says to be. is_signed: by a key. is_trusted: by a key that was given as trusted.
        certificate: of the bench; None without one, or when it speaks of other content.
    """

    id: str
    version: str
    kind: Kind
    manifest: AppManifest | None
    sha256: str
    publisher: str
    is_signed: bool
    is_trusted: bool
    certificate: Certificate | None
    content: bytes = field(repr=False)
    _files: Mapping[str, bytes] = field(repr=False)

    @property
    def file_name(self) -> str:
        """What the package's file is called: ``<id>-<version>.hrapp``."""
        return f"{self.id}-{self.version}{SUFFIX}"

    @property
    def names(self) -> tuple[str, ...]:
        """Its files, sorted."""
        return tuple(sorted(self._files))

    def file(self, name: str) -> bytes:
        """Content of one of its files.

        Raises:
            Misconfigured: APPS-2012 when it has none of this name.
        """
        if name not in self._files:
            raise Misconfigured(
                "APPS-2012",
                f"there is no file {name!r} in {self.id} {self.version}",
                "See what it has: headrace app show",
            )
        return self._files[name]


# --- making ---------------------------------------------------------------------------------------------


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of an app's folder that go into its package; hidden ones, keys and packages do not.

    Raises:
        Misconfigured: APPS-2001 when it is no folder of an app.
        Refused: APPS-2021 when there is too much, APPS-2030 for a link or a name that cannot be kept.
    """
    if not any((folder / each).is_file() for each in (MANIFEST, TYPES)):
        raise Misconfigured(
            "APPS-2001",
            f"there is neither {MANIFEST} nor {TYPES} in {folder}",
            "Begin one: headrace app new FOLDER",
        )
    found: dict[str, bytes] = {}
    size = 0
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file() or not is_safe(name):
            raise Refused(
                "APPS-2030",
                f"{name!r} is a link or has a name that a package cannot keep",
                "Copy it, or rename it with A-Z a-z 0-9 _ . + and -.",
            )
        size += path.stat().st_size
        if size > PACKAGE_BYTES_MAX or len(found) >= FILES_MAX:
            raise Refused(
                "APPS-2021",
                f"{folder} has more than {PACKAGE_BYTES_MAX:,} bytes or {FILES_MAX:,} files",
                "Keep large data elsewhere.",
            )
        if name not in (FILES, SIGNATURE):
            found[name] = path.read_bytes()
    return found


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if _LEFT_OUT.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            found += _walk(path)
        else:
            found.append(path)
    return found


def check_folder(folder: Path) -> list[Problem]:
    """Everything that is wrong with the manifest of an app's folder, in the order of files and lines.

    Raises:
        Misconfigured: APPS-2001 when it is no folder of an app.
        Refused: APPS-2021, APPS-2030 as :func:`read_folder`.
    """
    files = read_folder(folder)
    if MANIFEST not in files:
        _types_head(files[TYPES])
        return []
    return check_manifest(files[MANIFEST], files, files.__getitem__)[1]


def content_sha256(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents of all files but those that machines write into a package.

    Example:
        >>> one = content_sha256({"app.toml": b"id"})
        >>> one == content_sha256({"app.toml": b"id", "certificate.json": b"{}"})
        True
    """
    sums = {name: _sha256(content) for name, content in files.items() if name not in MADE}
    return _sha256(msgspec.json.encode(sums, order="sorted"))


def pack(
    folder: Path, key: bytes | None = None, *, described: bytes | None = None
) -> bytes:  # fmt: skip
    """The package of an app's folder: equal folders give equal bytes.

    A certificate that speaks of other content than this is left out.

    Args:
        key: the publisher's private key (PEM); None leaves the package unsigned.
        described: what the services of its Python take and give, as JSON.

    Raises:
        Misconfigured: APPS-2001 when it is no folder of an app; SEC-1740 when the key is none.
        PackageProblems: APPS-2000 when its manifest is wrong.
        Refused: APPS-2021, APPS-2030 as :func:`read_folder`.
    """
    files = read_folder(folder)
    files.pop(DESCRIBED, None)
    if described is not None:
        files[DESCRIBED] = described
    if certificate_of(files) is None:
        files.pop(CERTIFICATE, None)
    return _made(files, key)


def with_signature(content: bytes, key: bytes) -> bytes:
    """The same package, signed by another key or for the first time.

    Raises:
        HeadraceError: what :func:`read_package` raises; SEC-1740 when the key is none.
    """
    package = read_package(content, None)
    return _made({name: package.file(name) for name in package.names}, key)


def with_certificate(content: bytes, certificate: Certificate, key: bytes | None) -> bytes:
    """The same package with a certificate of the bench, signed anew.

    Raises:
        Refused: APPS-2031 when the certificate speaks of other content.
    """
    package = read_package(content, None)
    files = {name: package.file(name) for name in package.names}
    files[CERTIFICATE] = msgspec.json.format(msgspec.json.encode(certificate), indent=1)
    if certificate_of(files) is None:
        raise Refused(
            "APPS-2031",
            f"the certificate is of other content than {package.id} {package.version}",
            "Bench what is packed: headrace app bench",
        )
    return _made(files, key)


def certificate_of(files: Mapping[str, bytes]) -> Certificate | None:
    """The bench's certificate among some files, when it speaks of exactly these."""
    if CERTIFICATE not in files:
        return None
    try:
        certificate = msgspec.json.decode(files[CERTIFICATE], type=Certificate)
    except UNREADABLE:
        return None
    return certificate if certificate.content_sha256 == content_sha256(files) else None


def _made(files: dict[str, bytes], key: bytes | None) -> bytes:
    files = {name: content for name, content in files.items() if name not in (FILES, SIGNATURE)}
    _, _, _, publisher = _identity(files)
    sums = {name: _sha256(content) for name, content in files.items()}
    files[FILES] = msgspec.json.format(msgspec.json.encode(sums, order="sorted"), indent=1)
    if key is not None:
        signature = Signature(
            publisher=publisher, key=public_of(key), signature=sign_bytes(key, files[FILES])
        )
        files[SIGNATURE] = msgspec.json.encode(signature)
    return write_archive(files)


# --- reading --------------------------------------------------------------------------------------------


def read_package(path: Path | bytes, trust: Trust | None) -> Package:
    """A package, with all that can be checked of it checked.

    Args:
        path: of the ``.hrapp`` file, or its content.
        trust: whose packages count; None: everybody's, also unsigned: to look at one.

    Raises:
        Misconfigured: APPS-2001 when the file cannot be read or is of nothing known;
            PackageProblems APPS-2000 when its manifest is wrong.
        Corrupt: APPS-2020 when it is damaged, APPS-2025 when a file was altered, removed or added,
            APPS-2026 when the signature does not fit.
        Refused: APPS-2021 to APPS-2024, APPS-2033 for a hostile archive, APPS-2027 when the publisher is not
            trusted, APPS-2028 when nobody signed it, APPS-2029 when it is signed as somebody else's.
    """
    content = path if isinstance(path, bytes) else _content(path)
    files = read_archive(content)
    _check_sums(files)
    _check_texts(files)
    signature = _signature(files)
    if trust is not None:
        _check_trust(signature, trust)
    manifest, name, version, publisher = _identity(files)
    if signature is not None and signature.publisher != publisher:
        raise Refused(
            "APPS-2029",
            f"{name} says to be of {publisher or 'nobody'}, and is signed as {signature.publisher}'s",
            "Do not use it; ask the publisher for another.",
        )
    keys = trust.keys.get(publisher, ()) if trust is not None else ()
    return Package(
        id=name,
        version=version,
        kind="app" if manifest is not None else "types",
        manifest=manifest,
        sha256=_sha256(content),
        publisher=publisher,
        is_signed=signature is not None,
        is_trusted=signature is not None and signature.key in keys,
        certificate=certificate_of(files),
        content=content,
        _files={k: v for k, v in files.items() if k not in (FILES, SIGNATURE)},
    )


def unpack(package: Package, to: Path) -> None:
    """Write a package's files below a folder that is not there yet: all of them, or no folder.

    Raises:
        Refused: APPS-2032 when there is something of this name.
        OSError: what the file system refuses.
    """
    if to.exists() or to.is_symlink():
        raise Refused("APPS-2032", f"there is something at {to} already", "Name another folder.")
    make_folder(to.parent)
    temporary = to.with_name(f".{to.name}.{package.sha256[:12]}.new")
    try:
        for name in package.names:
            write_whole(temporary / name, package.file(name), mode=0o644)
        temporary.rename(to)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > PACKAGE_BYTES_MAX:
            raise Refused(
                "APPS-2021",
                f"{path} has {path.stat().st_size:,} bytes",
                f"A package has at most {PACKAGE_BYTES_MAX:,}.",
            )
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "APPS-2001", f"{path} cannot be read: {error.strerror}", "Give the file of a package."
        ) from error


def _check_sums(files: Mapping[str, bytes]) -> None:
    try:
        sums = msgspec.json.decode(files[FILES], type=dict[str, str])
    except (KeyError, *UNREADABLE) as error:
        raise Corrupt(
            "APPS-2025", f"the package has no list of its files ({FILES})", "Fetch it again."
        ) from error
    found = {k: _sha256(v) for k, v in files.items() if k not in (FILES, SIGNATURE)}
    for name in sorted(sums.keys() | found.keys()):
        if sums.get(name) != found.get(name):
            how = "was added to" if name not in sums else "was altered in"
            how = "is gone from" if name not in found else how
            raise Corrupt(
                "APPS-2025", f"{name[:80]!r} {how} the package", "Do not use it; fetch it again."
            )


def _check_texts(files: Mapping[str, bytes]) -> None:
    """Views and scenarios are read by others, who trust that no parser falls over them."""
    for name, content in files.items():
        if name.startswith(("views/", "scenarios/")) and name.endswith(".toml"):
            try:
                toml_text(content)
            except ValueError as error:
                raise Refused(
                    "APPS-2033", f"{name!r} in the package: {error}", "Write it with fewer."
                ) from error


def _signature(files: Mapping[str, bytes]) -> Signature | None:
    if SIGNATURE not in files:
        return None
    try:
        signature = msgspec.json.decode(files[SIGNATURE], type=Signature)
    except UNREADABLE as error:
        raise Corrupt(
            "APPS-2026", f"{SIGNATURE} of the package cannot be read", "Fetch it again."
        ) from error
    if not is_signed(signature.key, signature.signature, files[FILES]):
        raise Corrupt(
            "APPS-2026",
            f"the signature of {signature.publisher[:60]!r} is not of this package",
            "Do not use it; fetch it again.",
        )
    return signature


def _check_trust(signature: Signature | None, trust: Trust) -> None:
    if signature is None:
        if not trust.is_unsigned_allowed:
            raise Refused(
                "APPS-2028",
                "nobody signed this package",
                "Sign it: headrace app sign; or allow it: unsigned = true under [apps] of headrace.toml",
            )
        return
    if signature.key not in trust.keys.get(signature.publisher, ()):
        raise Refused(
            "APPS-2027",
            f"{signature.publisher[:60]!r} with the key {signature.key[:60]} is not trusted here",
            "When you know that the key is theirs: headrace app trust add PUBLISHER KEY",
        )


class _TypesHead(msgspec.Struct):
    """What every package of asset types says of itself; the rest is read where types are used."""

    id: str
    version: str
    publisher: str = ""


def _types_head(content: bytes) -> _TypesHead:
    try:
        head = msgspec.convert(tomllib.loads(toml_text(content)), _TypesHead)
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, too much, not what it needs
        raise Misconfigured(
            "APPS-2002", f"{TYPES} cannot be read: {error}", "It begins with id and version."
        ) from error
    if not is_id(head.id) or parse_version(head.version) is None:
        raise Misconfigured(
            "APPS-2002",
            f"{TYPES} has the id {head.id[:60]!r} and the version {head.version[:60]!r}",
            "Use a-z 0-9 and - for the id, and major.minor.patch.",
        )
    return head


def _identity(files: Mapping[str, bytes]) -> tuple[AppManifest | None, str, str, str]:
    if MANIFEST in files:
        manifest = read_manifest(files[MANIFEST], files, files.__getitem__)
        return manifest, manifest.id, manifest.version, manifest.publisher
    if TYPES not in files:
        raise Misconfigured(
            "APPS-2001",
            f"the package has neither {MANIFEST} nor {TYPES}",
            "It is of nothing known.",
        )
    head = _types_head(files[TYPES])
    return None, head.id, head.version, head.publisher


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
