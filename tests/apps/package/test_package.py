"""Packages: the same bytes from the same folder, and back; signatures and certificates that fit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from package_fixture import MANIFEST, write_app

from headrace.apps.package import (
    Trust,
    content_sha256,
    pack,
    read_folder,
    read_package,
    unpack,
    with_certificate,
    with_signature,
)
from headrace.apps.package.archive import is_safe, read_archive, write_archive
from headrace.model.bench_certificate import Certificate, ScenarioResult
from headrace.model.errors import HeadraceError, Misconfigured, Refused
from headrace.security.package_keys import new_key, public_of

KEY = new_key()
TRUST = Trust(keys={"acme": (public_of(KEY),)})


def test_a_folder_becomes_one_file_and_comes_back(tmp_path):
    app = write_app(tmp_path / "app")
    (app / ".git").mkdir()
    (app / ".git" / "HEAD").write_text("x")
    (app / "publisher.pem").write_bytes(KEY)
    content = pack(app, KEY)
    assert pack(app, KEY) == content
    package = read_package(content, TRUST)
    assert (package.id, package.version, package.kind) == ("seal-watch", "1.2.0", "app")
    assert package.publisher == "acme" and package.is_signed and package.is_trusted
    assert package.names == ("README.md", "app.toml", "seal_watch.py", "views/pump.toml")
    assert package.manifest is not None and package.manifest.word == "seal_watch"
    assert package.file_name == "seal-watch-1.2.0.hrapp"
    unpack(package, tmp_path / "out" / "app")
    assert {n: (tmp_path / "out" / "app" / n).read_bytes() for n in package.names} == {
        n: package.file(n) for n in package.names
    }
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["app"]
    with pytest.raises(Refused, match="APPS-2032"):
        unpack(package, tmp_path / "out" / "app")
    with pytest.raises(Misconfigured, match="APPS-2012"):
        package.file("nothing")


def test_a_package_of_types_says_what_it_is(tmp_path):
    (tmp_path / "types.toml").write_text(
        'id = "pump"\nversion = "1.0.0"\npublisher = "acme"\n[x]\n'
    )
    package = read_package(pack(tmp_path, KEY), TRUST)
    assert (package.id, package.kind, package.manifest) == ("pump", "types", None)
    (tmp_path / "types.toml").write_text('id = "Pump!"\nversion = "1"\n')
    with pytest.raises(Misconfigured, match="APPS-2002"):
        pack(tmp_path, KEY)


def test_who_signed_and_who_is_trusted(tmp_path):
    app = write_app(tmp_path / "app")
    unsigned = pack(app)
    assert not read_package(unsigned, None).is_signed
    with pytest.raises(Refused, match="APPS-2028"):
        read_package(unsigned, TRUST)
    assert not read_package(unsigned, Trust(is_unsigned_allowed=True)).is_signed
    other = with_signature(unsigned, new_key())
    with pytest.raises(Refused, match="APPS-2027"):
        read_package(other, TRUST)
    looked_at = read_package(other, None)
    assert looked_at.is_signed and not looked_at.is_trusted
    assert read_package(with_signature(other, KEY), TRUST).is_trusted
    with pytest.raises(Misconfigured, match="SEC-1740"):
        pack(app, b"no key")


def test_a_certificate_speaks_of_one_content_only(tmp_path):
    app = write_app(tmp_path / "app")
    content = pack(app, KEY)
    right = Certificate(
        id="seal-watch",
        version="1.2.0",
        content_sha256=content_sha256(read_folder(app)),
        headrace="0.1.0",
        results=(ScenarioResult(name="one", passed=True),),
    )
    certified = read_package(with_certificate(content, right, KEY), TRUST)
    assert certified.certificate == right and certified.is_trusted
    (app / "certificate.json").write_bytes(msgspec.json.encode(right))
    assert read_package(pack(app, KEY), TRUST).certificate == right
    (app / "README.md").write_text("changed since")
    stale = read_package(pack(app, KEY), TRUST)
    assert stale.certificate is None and "certificate.json" not in stale.names
    with pytest.raises(Refused, match="APPS-2031"):
        with_certificate(pack(app, KEY), right, KEY)


def test_a_folder_that_cannot_be_packed(tmp_path):
    with pytest.raises(Misconfigured, match="APPS-2001"):
        pack(tmp_path)
    app = write_app(tmp_path / "app")
    (app / "shadow").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="APPS-2030"):
        pack(app)
    (app / "shadow").unlink()
    (app / "not nice?").write_text("")
    with pytest.raises(Refused, match="APPS-2030"):
        pack(app)
    (app / "not nice?").unlink()
    (app / "app.toml").write_text(MANIFEST.replace("1.2.0", "one"))
    with pytest.raises(Misconfigured, match="APPS-2000"):
        pack(app)


names = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}\.txt", fullmatch=True)


@given(st.dictionaries(names, st.binary(max_size=200), max_size=8))
def test_any_files_come_back_and_order_does_not_matter(files):
    content = write_archive(files)
    assert read_archive(content) == files
    assert write_archive(dict(reversed(files.items()))) == content


@given(st.text(max_size=40))
def test_a_safe_name_stays_below_its_folder(name):
    if is_safe(name):
        assert not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


@given(st.binary(max_size=300), st.integers(0, 2_000), st.integers(0, 255))
def test_no_bytes_of_a_package_can_be_changed(tmp_path_factory, noise, place, value):
    """Noise and packages with a changed byte raise errors of ours, or are the very same files."""
    global _PACKED
    with pytest.raises(HeadraceError):
        read_package(noise, None)
    if not _PACKED:
        _PACKED = pack(write_app(tmp_path_factory.mktemp("fuzz") / "app"), KEY)
    changed = bytearray(_PACKED)
    changed[place % len(changed)] = value
    whole = read_package(_PACKED, TRUST)
    try:
        package = read_package(bytes(changed), TRUST)
    except HeadraceError:
        return
    assert {n: package.file(n) for n in package.names} == {n: whole.file(n) for n in whole.names}


_PACKED = b""
