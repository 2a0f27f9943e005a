"""Attacks by packages of apps: what a hostile ``.hrapp`` file tries before anything of it is used."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from pathlib import Path

import msgspec
import pytest
from attack_log import attack
from package_fixture import archive, entries_of, link, write_app

from headrace.apps.package import PackageProblems, Trust, pack, read_package, unpack
from headrace.apps.package.archive import FILES_MAX, PACKAGE_BYTES_MAX
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused
from headrace.security.package_keys import new_key, public_of, sign_bytes

KEY = new_key()
TRUST = Trust(keys={"acme": (public_of(KEY),)})


@pytest.fixture
def package(tmp_path: Path) -> bytes:
    """A right one, signed by whom we trust."""
    return pack(write_app(tmp_path / "app"), KEY)


def refused(content: bytes, code: str, kind: type[HeadraceError] = Refused) -> None:
    for trust in (Trust(TRUST.keys, is_unsigned_allowed=True), None):
        with pytest.raises(kind, match=code):
            read_package(content, trust)


@attack(
    "packages/zip bomb",
    tries="gives a small package that fills memory or disk when it is unpacked, also by overlapping entries",
    stops="entries are stored, never compressed, and together no larger than the file",
    stride="D",
    requirement="SR 7.1",
)
def test_bombs(package: bytes) -> None:
    deflated = archive(("zeros", bytes(5_000_000)), compression=zipfile.ZIP_DEFLATED)
    assert len(deflated) < 10_000
    refused(deflated, "APPS-2023")
    refused(archive(*((f"f{n}", b"") for n in range(FILES_MAX + 1))), "APPS-2021")
    refused(bytes(PACKAGE_BYTES_MAX + 1), "APPS-2021")
    # Says to be larger than it is, in both sizes of its record in the central directory.
    lying = bytearray(archive(("a", b"12345678")))
    at = lying.index(b"PK\x01\x02") + 20
    lying[at : at + 8] = struct.pack("<II", 2**31, 2**31)
    refused(bytes(lying), "APPS-2021")
    # Two records of the central directory with one and the same content.
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as made:
        made.writestr("a", b"x" * 1000)
        made.filelist.append(made.filelist[0])
    refused(twice.getvalue(), "APPS-2024")


@attack(
    "packages/path traversal",
    tries="names files so that unpacking writes elsewhere: .., absolute, drives, devices, back-slashes, links",
    stops="names are of plain words below the package's folder; links and folders are refused",
    stride="E",
    requirement="SR 3.4",
)
@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "/etc/cron.d/evil", "C:/evil", "a\\..\\evil", "a//b", "./a"),
        *(
            "con",
            "a/NUL.txt",
            "a.",
            " a",
            "a\x01b",
            "ａ/../b",
            ".ssh/keys",
            "x" * 300,
            "a/" * 9 + "a",
        ),
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    refused(archive((name, b"x")), "APPS-2022")


@attack(
    "packages/link",
    tries="packs a symbolic link, and a file that is then written through it",
    stops="entries that are no plain files are refused before anything is written",
    stride="E",
    requirement="SR 3.4",
)
def test_links_and_folders() -> None:
    refused(archive(link("views", "/etc")), "APPS-2023")
    refused(archive(("views/", b"")), "APPS-2022")
    refused(archive(("views", b""), ("views/pump.toml", b"")), "APPS-2024")


@attack(
    "packages/two files of one name",
    tries="packs two files of one name, so that one is checked and the other used",
    stops="a name may be there once, capitals not counted",
    stride="T",
    requirement="SR 3.4",
)
def test_names_that_are_there_twice() -> None:
    refused(archive(("README.md", b"a"), ("readme.MD", b"b")), "APPS-2024")
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = archive(("app.toml", b"a"), ("app.toml", b"b"))
    refused(doubled, "APPS-2024")


@attack(
    "packages/altered, removed, added files",
    tries="changes a signed package: alters a file, takes one out, puts one in, or gives a list to match",
    stops="SHA-256 of every file is in a list, and the publisher's signature over that list",
    stride="T",
    requirement="SR 3.4",
)
def test_changes_to_a_signed_package(package: bytes) -> None:
    files = entries_of(package)

    def changed(**new: bytes | None) -> bytes:
        merged = {**files, **{name.replace("__", "."): each for name, each in new.items()}}
        return archive(*((n, c) for n, c in sorted(merged.items()) if c is not None))

    refused(changed(seal_watch__py=b"import os\n"), "APPS-2025", Corrupt)
    refused(changed(README__md=None), "APPS-2025", Corrupt)
    refused(changed(more__py=b""), "APPS-2025", Corrupt)
    refused(changed(files__json=None), "APPS-2025", Corrupt)
    refused(changed(files__json=b'{"a": 3}'), "APPS-2025", Corrupt)
    sums = msgspec.json.decode(files["files.json"], type=dict[str, str])
    sums.pop("README.md")
    matching = changed(README__md=None, files__json=msgspec.json.encode(sums))
    refused(matching, "APPS-2026", Corrupt)
    with pytest.raises(Refused, match="APPS-2028"):
        read_package(changed(signature__json=None), TRUST)


@attack(
    "packages/another's name",
    tries="signs a package in the name of a publisher that is trusted: own key, copied signature, other name",
    stops="a publisher is its name and its key; the name in the manifest must be the one that signed",
    stride="S",
    requirement="SR 1.9",
)
def test_signatures_of_others(package: bytes, tmp_path: Path) -> None:
    files, mine = entries_of(package), new_key()

    def signed(publisher: str, key: bytes, public: str) -> bytes:
        signature = sign_bytes(key, files["files.json"])
        wrapped = {"publisher": publisher, "key": public, "signature": signature}
        both = {**files, "signature.json": msgspec.json.encode(wrapped)}
        return archive(*sorted(both.items()))

    with pytest.raises(Refused, match="APPS-2027"):
        read_package(signed("acme", mine, public_of(mine)), TRUST)
    refused(signed("acme", mine, public_of(KEY)), "APPS-2026", Corrupt)
    refused(signed("acme", KEY, "AAAA"), "APPS-2026", Corrupt)
    trusted_other = Trust(keys={"evil": (public_of(mine),), **TRUST.keys})
    with pytest.raises(Refused, match="APPS-2029"):
        read_package(signed("evil", mine, public_of(mine)), trusted_other)
    assert read_package(package, TRUST).is_trusted
    refused(archive(*sorted({**files, "signature.json": b"{}"}.items())), "APPS-2026", Corrupt)


def listed(files: dict[str, bytes]) -> bytes:
    """A package of these files whose list of hashes fits."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return archive(*files.items(), ("files.json", msgspec.json.encode(sums)))


@attack(
    "packages/deep nesting",
    tries="nests lists, brackets or JSON so deep, or writes so much, that a reader falls over",
    stops="sizes are bounded, and what a parser cannot hold is a problem of the file like any other",
    stride="D",
    requirement="SR 3.5",
)
def test_texts_that_would_fell_a_reader() -> None:
    head = b'id = "a"\nversion = "1.0.0"\ntitle = { en = "A" }\n'
    deep = b"[" * 50_000 + b"]" * 50_000
    for manifest in (b"x = " + deep, head + b"#" * 300_000, b"\xff", b"a.b." * 5_000 + b"c = 1"):
        refused(listed({"app.toml": manifest}), "APPS-2000", PackageProblems)
    formula = b'[types.t]\npackage = "t"\nquantities = { q = "m" }\n[formulas]\nt = "f = %s"\n'
    for text in (b"(" * 5_000 + b"q" + b")" * 5_000, b"not " * 5_000 + b"q", b"-" * 20_000 + b"q"):
        refused(listed({"app.toml": head + formula % text}), "APPS-2000", PackageProblems)
    python = head.replace(b"title", b'python = "m"\ntitle')
    for code in (b"-" * 100_000 + b"1", b"(" * 1_000 + b")" * 1_000, b"\x00", b"x = " + deep):
        refused(listed({"app.toml": python, "m.py": code}), "APPS-2000", PackageProblems)
    refused(listed({"types.toml": b"x = " + deep}), "APPS-2002", Misconfigured)
    refused(listed({"app.toml": head, "views/a.toml": b"a.b." * 5_000 + b"c = 1"}), "APPS-2033")
    certificate = b'{"x": ' + deep + b"}"
    assert read_package(listed({"app.toml": head, "certificate.json": certificate}), None).id == "a"
    refused(
        archive(("app.toml", head), ("files.json", b'{"a":' + deep + b"}")), "APPS-2025", Corrupt
    )


@attack(
    "packages/half a package",
    tries="breaks an installation off in the middle, or unpacks over what is there",
    stops="files are written beside their place and appear as one folder, or not at all",
    stride="T",
    requirement="SR 3.4",
)
def test_nothing_half_done(package: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_package(package, TRUST)
    written: list[Path] = []

    def full(path: Path, content: bytes, *, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("headrace.apps.package.package.write_whole", full)
    with pytest.raises(OSError, match="No space"):
        unpack(read, tmp_path / "to" / "app")
    assert len(written) == 3 and not any((tmp_path / "to").iterdir())
    (tmp_path / "there").symlink_to(tmp_path)
    with pytest.raises(Refused, match="APPS-2032"):
        unpack(read, tmp_path / "there")
