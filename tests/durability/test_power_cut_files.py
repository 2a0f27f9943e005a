"""What is ours alone on the harshest disk: when a call has returned, a power cut does not undo it.

Here a name is durable after fsync of its folder and in no other way. Each deed is done by a process of its
own, which is killed with its files open when it has said that it is done.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from forgetting import ForgetfulDisk, sync

from headrace.bus.broker import load_address
from headrace.cli.run import site_subjects
from headrace.historian.index import TableIndex
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security import certificates
from headrace.security.identity import Identity
from headrace.site.edit import SiteEdit
from headrace.site.registry import Registry

pytestmark = [pytest.mark.kill, pytest.mark.foreign]

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"

[[tag]]
path = "hall/press/force"
connection = "plc"
address = "holding:0:float32"
unit = "N"
"""

DEED = """
import json, os, pathlib, sys
from headrace.model.folder import DataFolder

folder = DataFolder(pathlib.Path(sys.argv[1]))
said = None
{deed}
os.write(1, json.dumps(said).encode() + b"\\n")
sys.stdin.read()
"""


def do(disk: ForgetfulDisk, deed: str, how: str = "lost", seed: int = 1) -> object:
    """Do it, and cut the power as soon as it is said to be done; gives what it said."""
    words = [sys.executable, "-c", DEED.format(deed=deed), str(disk.root / "data")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    said = process.stdout.readline()
    disk.power_cut([process.pid], how, seed)
    process.communicate()
    return json.loads(said)


@pytest.fixture
def folder(disk: ForgetfulDisk) -> DataFolder:
    """A data folder that has been there for long, with a site file."""
    made = DataFolder(disk.root / "data")
    made.root.mkdir()
    made.site_file.write_text(SITE)
    for path in (made.site_file, made.root, disk.root):
        sync(path)
    return made


APPLY = """
from headrace.site.file import load_site
from headrace.site.registry import Registry
registry = Registry.of(folder)
registry.apply(load_site(folder.site_file), 1)
said = registry.ids()
"""


@pytest.mark.parametrize("how", ["lost", "torn"])
def test_an_edit_of_the_site_file(disk: ForgetfulDisk, folder: DataFolder, how: str) -> None:
    deed = """
from headrace.site.edit import SiteEdit
edit = SiteEdit(folder)
edit.set_enabled("plc", False)
edit.save()
"""
    do(disk, deed, how)
    assert SiteEdit(folder).check().connections[0].enabled is False


def test_ids_of_tags(disk: ForgetfulDisk, folder: DataFolder) -> None:
    ids = do(disk, APPLY)
    registry = Registry.of(folder)
    assert registry.ids() == ids and ids
    registry.close()


def test_users(disk: ForgetfulDisk, folder: DataFolder) -> None:
    deed = """
from headrace.security.identity import Identity
said = Identity(folder).add_user("eve", "viewer")
"""
    password = str(do(disk, deed))
    identity = Identity(folder)
    assert identity.sign_in("eve", password, "127.0.0.1")
    identity.close()


def test_credentials_and_ports_of_the_broker(disk: ForgetfulDisk, folder: DataFolder) -> None:
    deed = """
from headrace.bus.broker import prepare_address
said = prepare_address(folder).device_password
"""
    password = do(disk, deed)
    assert load_address(folder).device_password == password


def test_the_names_of_the_site(disk: ForgetfulDisk, folder: DataFolder) -> None:
    do(disk, 'from headrace.cli.run import keep_site; keep_site(folder, "other", "names")')
    assert "other.names" in site_subjects(folder).edge_health("local")


def test_certificates_and_trust(disk: ForgetfulDisk, folder: DataFolder) -> None:
    deed = """
from headrace.security import certificates as c
mine, _ = c.own_certificate(folder.certificates, "opcua", "urn:mine", 1_763_800_000_000_000)
peer, _ = c.own_certificate(folder.root / "peer", "opcua", "urn:peer", 1_763_800_000_000_000)
entry = c.reject(folder.certificates, peer.read_bytes())
c.trust(folder.certificates, entry.thumbprint)
said = [mine.read_bytes().hex(), peer.read_bytes().hex()]
"""
    said = do(disk, deed)
    assert isinstance(said, list)
    assert certificates.is_trusted(folder.certificates, bytes.fromhex(said[1]))
    path, key = certificates.own_certificate(folder.certificates, "opcua", "urn:mine", 2)
    assert path.read_bytes().hex() == said[0] and key.stat().st_size


COMMITS = f"""
sys.path[:0] = [{str(Path(__file__).parent.parent / "historian")!r}]
from historian_samples import wave
from store import Store
store = Store(folder)
first = store.table.committed("headrace/SAMPLES/1") or 0
for number in range(first, first + %d):
    store.commit(wave(3, 10, first=10 * number))
said = first + %d
"""


@pytest.mark.parametrize("how", ["lost", "torn"])
def test_commits_of_the_table(disk: ForgetfulDisk, folder: DataFolder, how: str) -> None:
    commit_and_cut(disk, folder, how, [1, 3])  # also the very first one


@pytest.mark.soak
@pytest.mark.parametrize("how", ["lost", "torn"])
def test_many_commits_of_the_table(disk: ForgetfulDisk, folder: DataFolder, how: str) -> None:
    commit_and_cut(disk, folder, how, [1, 3, 94, 1, 1, 1, 1, 97])  # one by one about a checkpoint


def commit_and_cut(disk: ForgetfulDisk, folder: DataFolder, how: str, counts: list[int]) -> None:
    for seed, count in enumerate(counts):
        committed = do(disk, COMMITS % (count, count), how, seed)
        table = open_table(folder.table, SystemClock())
        assert table.committed("headrace/SAMPLES/1") == committed
        rows = TableIndex(folder.table).refresh().rows
        assert rows == 30 * committed  # type: ignore[operator] # a number
        found = pl.concat(pl.read_parquet(path) for path in folder.table.glob("*.parquet"))
        assert found.height == rows
