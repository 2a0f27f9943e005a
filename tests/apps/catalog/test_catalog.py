"""The catalog of an installation: what is kept, who counts, what is installed and what was before."""

from __future__ import annotations

import http.server
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from headrace.apps.catalog import Catalog, Publishers, Source, check_publishable, write_catalog
from headrace.apps.catalog.entries import entry_of
from headrace.apps.package import (
    Package,
    content_sha256,
    pack,
    read_folder,
    read_package,
    with_certificate,
)
from headrace.bus.broker import free_port
from headrace.model.bench_certificate import Certificate, ScenarioResult
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.security.audit import AuditChain
from headrace.security.identity import Identity
from headrace.security.package_keys import new_key, public_of

KEY = new_key()
SITE = """\
[site]
enterprise = "acme"
name = "mill"
"""


def package(
    version: str = "1.0.0", app: str = "watch", more: str = "", key: bytes | None = KEY
) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        text = (
            f'id = "{app}"\nversion = "{version}"\npublisher = "acme"\n{more}\n[title]\nen = "W"\n'
        )
        (Path(folder) / "app.toml").write_text(text)
        return pack(Path(folder), key)


def certified(*passed: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.toml").write_text(
            'id = "watch"\nversion = "1.0.0"\npublisher = "acme"\ntitle = { en = "W" }\n'
        )
        results = tuple(ScenarioResult(name=f"s{n}", passed=each) for n, each in enumerate(passed))
        certificate = Certificate(
            id="watch", version="1.0.0", headrace="0.1.0", results=results,
            scenarios={each.name: "" for each in results},
            content_sha256=content_sha256(read_folder(Path(folder))),
        )  # fmt: skip
        return with_certificate(pack(Path(folder)), certificate, KEY)


@pytest.fixture
def audit(folder: DataFolder) -> Iterator[AuditChain]:
    identity = Identity(folder)
    yield identity.audit
    identity.close()


@pytest.fixture
def catalog(folder: DataFolder, audit: AuditChain) -> Catalog:
    folder.site_file.write_text(SITE)
    made = Catalog(folder, audit, ManualClock(1_000_000), {"pump": ["1.0.0"]})
    made.publishers.add("acme", public_of(KEY), "os:ann")
    return made


def put(catalog: Catalog, app: str, version: str, what: str = "install") -> None:
    catalog.finish(catalog.install(app, version, "os:ann"), app, version, what, "os:ann")


def test_a_version_is_kept_once_and_never_changed(catalog: Catalog, folder: DataFolder) -> None:
    entry = catalog.take(package(), "os:ann")
    assert catalog.take(package(), "os:ann") == entry == catalog.registry.find("watch")
    with pytest.raises(Refused, match="APPS-2046"):
        catalog.take(package(more='license = "MIT"'), "os:ann")
    with pytest.raises(Misconfigured, match=r"APPS-2044 .*Did you mean watch"):
        catalog.registry.find("wach")
    path = catalog.registry.path(entry)
    path.write_bytes(package(more='license = "MIT"'))
    with pytest.raises(Corrupt, match="APPS-2045"):
        catalog.registry.read("watch")
    path.unlink()
    with pytest.raises(Corrupt, match="APPS-2045"):
        catalog.registry.read("watch")
    (folder.packages / "index.json").write_text("{")
    with pytest.raises(Corrupt, match="APPS-2043"):
        catalog.registry.entries()


def test_who_counts_is_kept_and_told(
    catalog: Catalog, folder: DataFolder, audit: AuditChain
) -> None:
    publishers = catalog.publishers
    other = public_of(new_key())
    publishers.add("acme", other, "os:ann")
    publishers.remove("acme", "os:ann", other)
    assert publishers.all() == {"acme": (public_of(KEY),)}
    for wrong in (("Acme!", other), ("acme", "no key")):
        with pytest.raises(Misconfigured, match=r"APPS-2006|SEC-1743"):
            publishers.add(*wrong, "os:ann")
    publishers.remove("acme", "os:ann")
    with pytest.raises(Misconfigured, match="APPS-2042"):
        publishers.remove("acme", "os:ann")
    with pytest.raises(Refused, match="APPS-2027"):
        catalog.take(package(), "os:ann")
    with pytest.raises(Refused, match="APPS-2028"):
        catalog.take(package(key=None), "os:ann")
    (folder.root / "headrace.toml").write_text("[apps]\nunsigned = true\n")
    assert not catalog.take(package(key=None), "os:ann").is_signed
    told = [(e.action, e.outcome) for e in reversed(audit.entries(resource="publisher/"))]
    for action in ("app.trust", "app.trust", "app.distrust", "app.distrust"):
        assert told.pop(0) == (action, "begun") and told.pop(0) == (action, "done")
    assert told == [("app.distrust", "begun"), ("app.distrust", "failed")]
    (folder.packages / "publishers.json").write_text("nonsense")
    with pytest.raises(Corrupt, match="APPS-2040"):
        Publishers(folder).trust()


def test_install_upgrade_roll_back_and_remove(
    catalog: Catalog, folder: DataFolder, audit: AuditChain
) -> None:
    for version in ("1.0.0", "1.1.0", "1.10.0"):
        catalog.take(package(version), "os:ann")
    put(catalog, "watch", "1.0.0")
    text = folder.site_file.read_text().replace(
        'version = "1.0.0"', 'version = "1.0.0"\nenabled = false  # until Monday'
    )
    folder.site_file.write_text(text)
    with pytest.raises(Misconfigured, match="APPS-2060"):
        catalog.rollback("watch")
    assert catalog.upgrade("watch") == "1.10.0"
    put(catalog, "watch", catalog.upgrade("watch", "1.1.0"), "upgrade")
    put(catalog, "watch", catalog.upgrade("watch"), "upgrade")
    assert "enabled = false  # until Monday" in folder.site_file.read_text()
    assert catalog.installed() == {"watch": "1.10.0"}
    with pytest.raises(Misconfigured, match="APPS-2059"):
        catalog.upgrade("watch")
    for wanted in ("1.1.0", "1.0.0"):
        assert catalog.rollback("watch") == wanted
        put(catalog, "watch", wanted, "rollback")
    with pytest.raises(Misconfigured, match="APPS-2060"):
        catalog.rollback("watch")
    with pytest.raises(Refused, match="APPS-2061"):
        catalog.drop("watch", "1.0.0", "os:ann")
    catalog.finish(catalog.remove("watch"), "watch", "1.0.0", "remove", "os:ann")
    assert tomllib.loads(folder.site_file.read_text()) == tomllib.loads(SITE)
    catalog.drop("watch", "1.0.0", "os:ann")
    assert catalog.registry.versions() == {"watch": ["1.1.0", "1.10.0"]}
    with pytest.raises(Misconfigured, match="APPS-2058"):
        catalog.remove("watch")
    entries = reversed(audit.entries(resource="app/watch"))
    told = [each.action for each in entries if each.outcome == "done"]
    assert told[3:] == [
        *("app.install", "app.upgrade", "app.upgrade", "app.rollback", "app.rollback"),
        *("app.remove", "app.drop"),
    ]
    assert [each.what for each in catalog.history("watch")][-1] == "remove"


def test_what_a_package_needs(catalog: Catalog) -> None:
    needs = 'requires = { base = ">=2" }\n[types.pump]\npackage = "pump"\nversion = ">=3"\n'
    catalog.take(package(more=needs), "os:ann")
    with pytest.raises(
        Refused, match=r"APPS-2049 .*base >=2 \(here: none\); pump >=3 \(here: 1.0.0"
    ):
        catalog.install("watch", "", "os:ann")
    catalog.take(package("0.9.0", "later", 'headrace = ">=99"'), "os:ann")
    with pytest.raises(Refused, match="APPS-2048"):
        catalog.install("later", "", "os:ann")
    catalog.take(package("2.0.0", "base"), "os:ann")
    own = 'requires = { base = "2" }\n[types.a]\npackage = "crane"\n[types.b]\npackage = "pump"\n'
    catalog.take(package("1.1.0", more=own), "os:ann")
    put(catalog, "base", "2.0.0")
    put(catalog, "watch", "1.1.0")
    with pytest.raises(Refused, match=r"APPS-2061 .*watch"):
        catalog.remove("base")


def test_types_are_kept_and_not_installed(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "types.toml").write_text('id = "crane"\nversion = "1.0.0"\npublisher = "acme"\n')
    assert catalog.publish(pack(tmp_path, KEY), "os:ann").kind == "types"
    assert catalog.available()["crane"] == ["1.0.0"]
    with pytest.raises(Misconfigured, match="APPS-2057"):
        catalog.install("crane", "", "os:ann")


def test_only_what_passed_the_bench_is_published(catalog: Catalog) -> None:
    for content in (package(), certified(True, False), certified()):
        with pytest.raises(Refused, match="APPS-2056"):
            catalog.publish(content, "os:ann")
    assert catalog.registry.entries() == []
    entry = catalog.publish(certified(True, True), "os:ann")
    assert (entry.scenarios, entry.rating, entry.benched_on) == (2, 1.0, "0.1.0")


# --- other catalogs -------------------------------------------------------------------------------------


class _Folder(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    port = free_port()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), lambda *given: _Folder(*given, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{port}"
        server.shutdown()


def test_another_catalog_on_a_disk_and_behind_http(catalog: Catalog, tmp_path: Path) -> None:
    packages = [read_package(content, None) for content in (package(), package("1.1.0"))]
    other, trust = tmp_path / "other", catalog.publishers.trust()
    for each in packages:
        write_catalog(other, [each], "acme", KEY)
    with served(other) as address:
        for source in (Source(str(other)), Source(address)):
            index = source.index(trust)
            assert [each.version for each in index.packages] == ["1.0.0", "1.1.0"]
            assert source.fetch(index.packages[1], trust).sha256 == packages[1].sha256
            with pytest.raises(Misconfigured, match="APPS-2051"):
                source.fetch(msgspec.structs.replace(index.packages[0], id="none"), trust)
    with pytest.raises(Transient, match="APPS-2052"):
        Source(address).index(trust)
    with pytest.raises(Misconfigured, match="APPS-2051"):
        Source(str(tmp_path)).index(trust)
    with pytest.raises(Refused, match="APPS-2046"):
        changed = read_package(package(more='license = "MIT"'), None)
        write_catalog(other, [changed], "acme", KEY)


@pytest.mark.parametrize(
    "address",
    [
        *("http://catalog.example", "ftp://catalog.example", "https://", "http://user@127.0.0.1/"),
        *("file:///etc", "http://127.0.0.1.example/", "https://a:0/", "https://[::1"),
    ],
)
def test_what_is_no_address_of_a_catalog(address: str) -> None:
    with pytest.raises(Misconfigured, match="APPS-2050"):
        Source(address)


def _tampered(folder: Path, before: bytes, after: bytes) -> None:
    path = folder / "catalog.json"
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after))


def test_a_catalog_that_was_touched_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    read: Package = read_package(package(), None)
    trust = catalog.publishers.trust()

    def written(name: str, publisher: str = "acme", key: bytes = KEY) -> Path:
        write_catalog(tmp_path / name, [read], publisher, key)
        return tmp_path / name

    def refused(folder: Path, code: str, kind: type[HeadraceError] = Corrupt) -> None:
        with pytest.raises(kind, match=code):
            Source(str(folder)).index(trust)

    _tampered(written("a"), b'"1.0.0"', b'"9.0.0"')
    refused(tmp_path / "a", "APPS-2054")
    refused(written("b", "acme", new_key()), "APPS-2027", Refused)
    refused(written("c", "evil"), "APPS-2027", Refused)
    (written("d") / "catalog.sig").write_bytes(b"{}")
    refused(tmp_path / "d", "APPS-2054")
    (written("e") / read.file_name).write_bytes(
        package(more='license = "MIT"')[: len(read.content)]
    )
    source, entry = Source(str(tmp_path / "e")), entry_of(read)
    with pytest.raises(Corrupt, match="APPS-2055"):
        source.fetch(entry, trust)
    (tmp_path / "e" / read.file_name).write_bytes(bytes(len(read.content) + 1))
    with pytest.raises(Refused, match="APPS-2053"):
        source.fetch(entry, trust)
    with pytest.raises(Corrupt, match="APPS-2054"):
        source.fetch(msgspec.structs.replace(entry, id="../../etc/passwd"), trust)


def test_publishing_asks_for_a_signature(tmp_path: Path) -> None:
    content = certified(True)
    check_publishable(read_package(content, None))
    plain = read_package(content, None)
    (tmp_path / "app").mkdir()
    for name in plain.names:
        (tmp_path / "app" / name).write_bytes(plain.file(name))
    with pytest.raises(Refused, match="APPS-2028"):
        check_publishable(read_package(pack(tmp_path / "app"), None))
