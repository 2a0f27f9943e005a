"""What the catalog does not take on trust: files that changed, older indexes, certificates, other consoles."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from headrace import __version__
from headrace.apps.catalog import Catalog, Publishers, Seen, Source, write_catalog
from headrace.apps.catalog.certified import check_certificate
from headrace.apps.package import content_sha256, pack, read_folder, read_package, with_certificate
from headrace.apps.package.bench_keys import sign_certificate
from headrace.model.bench_certificate import Certificate, ScenarioResult
from headrace.model.errors import Corrupt, HeadraceError, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.security.identity import Identity, opened_chain
from headrace.security.package_keys import new_key, public_of
from headrace.security.shared_files import SharedFiles
from headrace.site.file import SiteFiles, check_site
from postgres_server import PostgresServer

KEY, BENCH = new_key(), new_key()
SITE = '[site]\nenterprise = "acme"\nname = "mill"\n'
APP = 'id = "watch"\nversion = "{version}"\npublisher = "acme"\ntitle = {{ en = "W" }}\n'


def packed(
    version: str = "1.0.0",
    headrace: str = "0.1.0",
    bench: bytes | None = None,
    fields: dict[str, object] | None = None,
) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = APP.format(version=version) + 'headrace = ">=0.1, <2"\n'
        (folder / "app.toml").write_text(manifest)
        certificate = Certificate(
            id="watch", version=version, content_sha256=content_sha256(read_folder(folder)),
            headrace=headrace, results=(ScenarioResult(name="dry", passed=True, checks=1),),
            scenarios={"dry": "5" * 64},
        )  # fmt: skip
        certificate = msgspec.structs.replace(certificate, **(fields or {}))
        if bench is not None:
            certificate = sign_certificate(certificate, bench)
        return with_certificate(pack(folder), certificate, KEY)


@contextmanager
def opened(folder: DataFolder) -> Iterator[Catalog]:
    folder.root.mkdir(parents=True, exist_ok=True)
    if not folder.site_file.exists():
        folder.site_file.write_text(SITE)
    identity = Identity(folder, ManualClock(1_000_000))
    try:
        yield Catalog(folder, identity.audit, ManualClock(1_000_000))
    finally:
        identity.close()


@pytest.fixture
def catalog(folder: DataFolder) -> Iterator[Catalog]:
    with opened(folder) as made:
        made.publishers.add("acme", public_of(KEY), "os:ann")
        yield made


def install(catalog: Catalog, version: str = "1.0.0") -> None:
    edit = catalog.install("watch", version, "os:ann")
    catalog.finish(edit, "watch", version, "install", "os:ann")


# --- the file that was taken ----------------------------------------------------------------------------


def codes(folder: DataFolder) -> list[str]:
    return [each.code for each in check_site(SiteFiles(folder.site_file))[1]]


def test_the_site_takes_no_other_file_than_the_catalog_took(
    catalog: Catalog, folder: DataFolder
) -> None:
    entry = catalog.take(packed(), "os:ann")
    install(catalog)
    assert codes(folder) == []
    path = catalog.registry.path(entry)
    path.write_bytes(packed(headrace="0.2.0"))
    assert codes(folder) == ["SITE-2160"]
    path.write_bytes(packed())
    assert codes(folder) == []
    listing = folder.packages / "index.json"
    whole = listing.read_bytes()
    listing.write_text("[]")
    assert codes(folder) == ["SITE-2160"]
    listing.write_text("[")
    assert codes(folder) == ["SITE-2161"]
    listing.write_bytes(whole)
    assert codes(folder) == []


# --- the audit chain tells what was done ----------------------------------------------------------------


def test_an_edit_that_is_refused_is_not_told_as_done(catalog: Catalog, folder: DataFolder) -> None:
    catalog.take(packed(), "os:ann")
    edit = catalog.install("watch", "1.0.0", "os:ann")
    folder.site_file.write_text(SITE + "# somebody else\n")
    with pytest.raises(Refused, match="SITE-1416"):
        catalog.finish(edit, "watch", "1.0.0", "install", "os:ann")
    with opened_chain(folder) as audit:
        told = audit.entries(action="app.install")
    assert [each.outcome for each in told] == ["failed", "begun"]
    assert told[0].facts()["code"] == "SITE-1416" and catalog.history() == []


def test_many_who_trust_at_once_lose_nobody(catalog: Catalog, folder: DataFolder) -> None:
    keys = {f"maker-{n}": public_of(new_key()) for n in range(8)}
    failed: list[BaseException] = []

    def trust(name: str) -> None:
        try:
            Publishers(folder).add(name, keys[name], "os:ann")
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=trust, args=(name,)) for name in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    expected = {name: (key,) for name, key in keys.items()}
    assert Publishers(folder).all() == {"acme": (public_of(KEY),), **expected}


# --- older indexes --------------------------------------------------------------------------------------


def test_a_catalog_cannot_go_back_to_an_older_index(
    catalog: Catalog, folder: DataFolder, tmp_path: Path
) -> None:
    other, trust = tmp_path / "other", catalog.publishers.trust()
    names = ("catalog.json", "catalog.sig")

    def kept() -> dict[str, bytes]:
        return {name: (other / name).read_bytes() for name in names}

    def put(files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (other / name).write_bytes(content)

    def look(seen: Seen | None) -> int:
        return Source(str(other), seen).index(trust).number

    write_catalog(other, [read_package(packed(), None)], "acme", KEY)
    first = kept()
    assert look(catalog.seen) == look(catalog.seen) == 1
    write_catalog(other, [read_package(packed("1.0.1"), None)], "acme", KEY)
    second = kept()
    assert look(catalog.seen) == 2
    put(first)
    with pytest.raises(Refused, match=r"APPS-2063 .* number 1 and is older than number 2"):
        look(Seen(folder))
    assert look(None) == 1
    write_catalog(other, [read_package(packed("1.0.2"), None)], "acme", KEY)
    with pytest.raises(Refused, match=r"APPS-2063 .*another one than number 2"):
        look(catalog.seen)
    put(second)
    assert look(catalog.seen) == 2
    (folder.packages / "sources.json").write_text("{")
    with pytest.raises(Corrupt, match="APPS-2064"):
        look(catalog.seen)


# --- certificates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "scenarios", "why"),
    [
        ({"version": "9.0.0"}, None, "it is of watch 9.0.0"),
        ({"scenarios": {}}, None, "not those of its scenarios"),
        ({"headrace": "3.0.0"}, None, "benched on Headrace 3.0.0"),
        ({}, {}, "which the package lacks"),
        ({"headrace": __version__}, {"dry": "6" * 64}, "is another one"),
    ],
)
def test_a_certificate_that_cannot_be_of_the_package(
    fields: dict[str, object], scenarios: dict[str, str] | None, why: str
) -> None:
    package = read_package(packed(fields=fields), None)
    with pytest.raises(Refused, match=rf"APPS-2065 .*{why}"):
        check_certificate(package, (), scenarios)


def test_a_plant_may_ask_for_a_bench_that_it_trusts(catalog: Catalog, folder: DataFolder) -> None:
    catalog.publish(packed(), "os:ann", {"dry": "5" * 64})
    settings = folder.root / "headrace.toml"
    settings.write_text(f'[apps]\nbenches = ["{public_of(BENCH)}"]\n')
    for content in (packed("1.0.1"), packed("1.0.1", bench=new_key())):
        with pytest.raises(Refused, match="APPS-2066"):
            catalog.publish(content, "os:ann")
    with pytest.raises(Refused, match=r"APPS-2066 .* no bench, which does not count"):
        catalog.install("watch", "1.0.0", "os:ann")
    entry = catalog.publish(packed("1.0.1", bench=BENCH), "os:ann")
    assert entry.bench == public_of(BENCH)
    assert "1.0.1" in catalog.install("watch", "1.0.1", "os:ann").diff()
    signed = read_package(packed("1.0.2", bench=BENCH), None).certificate
    assert signed is not None
    forged = packed("1.0.2", fields={"bench": signed.bench, "signature": "A" * 86 + "=="})
    with pytest.raises(Refused, match=r"APPS-2066 .*not signed by the bench that it names"):
        catalog.publish(forged, "os:ann")


# --- several consoles -----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.soak)])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DataFolder, DataFolder]:
    """Data folders of two machines with one metadata."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database()
    found = []
    for name in ("one", "two"):
        folder = DataFolder(tmp_path / name)
        folder.root.mkdir()
        (folder.root / "headrace.toml").write_text(f'[metadata]\nurl = "{url}"\n')
        found.append(folder)
    return found[0], found[1]


def stepped(folder: DataFolder) -> None:
    files = SharedFiles(folder, "packages")
    files.step()
    files.close()


def test_what_one_console_takes_the_other_has(two: tuple[DataFolder, DataFolder]) -> None:
    here, there = two
    with ExitStack() as stack:
        one, other = (stack.enter_context(opened(each)) for each in two)
        one.publishers.add("acme", public_of(KEY), "os:ann")
        entry = one.take(packed(), "os:ann")
        install(one)
        stepped(there)
        assert other.publishers.all() == one.publishers.all()
        assert other.registry.read("watch", trust=other.publishers.trust()).sha256 == entry.sha256
        assert [each.what for each in other.history("watch")] == ["install"]
        other.take(packed("1.1.0"), "os:bob")
        one.take(packed("1.2.0"), "os:ann")
        for folder, catalog in ((here, one), (there, other)):
            stepped(folder)
            assert catalog.registry.versions() == {"watch": ["1.0.0", "1.1.0", "1.2.0"]}
        one.drop("watch", "1.1.0", "os:ann")
        stepped(there)
        assert not (there.packages / "watch-1.1.0.hrapp").exists()
        stray = there.packages / "watch-7.0.0.hrapp"
        stray.write_bytes(packed("7.0.0"))
        stepped(there)
        assert not stray.exists()
        assert (there.packages / ".aside" / stray.name).read_bytes() == packed("7.0.0")


def test_of_two_changes_at_once_the_second_is_told(
    two: tuple[DataFolder, DataFolder],
) -> None:
    here, there = two
    one, other = (SharedFiles(each, "packages") for each in two)
    with one.changing():
        (here.packages / "index.json").write_text("[1]")
    with pytest.raises(Refused, match="SEC-1760"), other.changing():  # the change in between
        (there.packages / "index.json").write_text("[3]")
        with one.changing():
            (here.packages / "index.json").write_text("[2]")
    for folder in two:
        stepped(folder)
        assert json.loads((folder.packages / "index.json").read_text()) == [2]
    failure = Refused("APPS-2046", "no", "")
    with pytest.raises(HeadraceError, match="APPS-2046"), other.changing():  # half a change
        (there.packages / "index.json").write_text("[4]")
        raise failure
    assert json.loads((there.packages / "index.json").read_text()) == [2]


def test_a_file_that_the_database_garbled_is_refused(tmp_path: Path) -> None:
    folders = []
    for name in ("one", "two"):
        folder = DataFolder(tmp_path / name)
        folder.root.mkdir()
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        (folder.root / "headrace.toml").write_text(f'[metadata]\nurl = "{url}"\n')
        folders.append(folder)
    with SharedFiles(folders[0], "packages").changing():
        (folders[0].packages / "index.json").write_text("[1]")
    with sqlite3.connect(tmp_path / "shared.db") as database:
        database.execute("UPDATE shared_file SET content = X'00'")
    database.close()
    with pytest.raises(Corrupt, match="SEC-1761"):
        stepped(folders[1])
    assert not (folders[1].packages / "index.json").exists()
