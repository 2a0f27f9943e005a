"""Files of apps on their way to an edge's machine: whole, with their hash and a trusted signature, or not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import edge_runtime
import msgspec
import numpy as np
import pytest
from edge_runtime import packed

from headrace.apps.catalog.publishers import Publishers
from headrace.apps.models.handing import hand_over
from headrace.apps.models.laid import FOLDER, LaidModels
from headrace.apps.models.registry import open_models
from headrace.apps.package.package import read_package
from headrace.apps.runtime.files import (
    FileNote,
    Parcel,
    Receipt,
    Receiver,
    hand_received,
    model_files,
    received_models,
)
from headrace.apps.runtime.sending import parcel_of
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.security.package_keys import new_key, public_of
from models_onnx import linear

KEY = new_key()
NAME = "load-watch-1.0.0.hrapp"
PYTHON = "from headrace import app\n"


def note(name: str, content: bytes) -> FileNote:
    return FileNote(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def deployed(content: bytes) -> AppDeployment:
    package = read_package(content, None)
    assert package.manifest is not None
    return AppDeployment(
        enterprise="acme", site="mill", manifest=package.manifest, package_sha256=package.sha256
    )


class Edge:
    """An edge that wants one app."""

    def __init__(self, root: Path, wanted: bytes) -> None:
        self.folder = DataFolder(root / "edge")
        self.deployment = deployed(wanted)
        self.receiver = Receiver(self.folder, lambda: {"load_watch": self.deployment})

    def take(self, parcel: Parcel) -> Receipt:
        raw = self.receiver.take(msgspec.msgpack.encode(parcel))
        return msgspec.msgpack.decode(raw, type=Receipt)

    def send(self, parcel: Parcel, contents: dict[str, bytes], piece: int = 700) -> int:
        """As the hub does; gives how many pieces that took."""
        pieces, receipt = 0, self.take(parcel)
        while receipt.name:
            data = contents[receipt.name][receipt.offset :][:piece]
            changes = {"name": receipt.name, "offset": receipt.offset, "data": data}
            receipt = self.take(msgspec.structs.replace(parcel, **changes))
            pieces += 1
        return pieces


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return packed(PYTHON, "", KEY, tmp_path)


def offer(content: bytes, **more: object) -> Parcel:
    told = Parcel(word="load_watch", package=note(NAME, content), keys=(public_of(KEY),))
    return msgspec.structs.replace(told, **more)


def test_a_package_comes_in_pieces_and_goes_on_after_a_restart(tmp_path, content):
    edge, parcel = Edge(tmp_path, content), offer(content)
    assert edge.take(parcel) == Receipt(name=NAME)
    first = msgspec.structs.replace(parcel, name=NAME, data=content[:1_000])
    assert edge.take(first) == edge.take(first) == Receipt(name=NAME, offset=1_000)
    again = Edge(tmp_path, content)
    assert not again.receiver.has_package(again.deployment)
    assert again.send(parcel, {NAME: content}) == -(-(len(content) - 1_000) // 700)
    assert (again.folder.packages / NAME).read_bytes() == content
    assert again.receiver.has_package(again.deployment)
    assert again.send(parcel, {}) == 0


@pytest.mark.parametrize(
    ("key", "trusted", "code"),
    [(None, KEY, "APPS-2028"), (KEY, new_key(), "APPS-2027"), (KEY, None, "APPS-2027")],
)
def test_what_nobody_trusted_signed_is_not_kept(tmp_path, key, trusted, code):
    content = packed(PYTHON, "", key, tmp_path)
    edge = Edge(tmp_path, content)
    keys = (public_of(trusted),) if trusted else ()
    with pytest.raises(HeadraceError, match=code):
        edge.send(offer(content, keys=keys), {NAME: content})
    assert not (edge.folder.packages / NAME).exists()
    assert edge.receiver.problems["load_watch"].code == code


def test_the_machines_own_publishers_count_before_the_hubs(tmp_path, content):
    edge = Edge(tmp_path, content)
    edge.folder.packages.mkdir(parents=True)
    own = msgspec.json.encode({"other": (public_of(KEY),)})
    (edge.folder.packages / "publishers.json").write_bytes(own)
    with pytest.raises(HeadraceError, match="APPS-2027"):
        edge.send(offer(content), {NAME: content})


def test_other_bytes_and_other_files_are_refused(tmp_path, content):
    edge, parcel = Edge(tmp_path, content), offer(content)
    wrong = bytes(reversed(content))
    with pytest.raises(HeadraceError, match="APPS-2271"):
        edge.send(parcel, {NAME: wrong}, piece=len(content))
    assert edge.send(parcel, {NAME: content}, piece=len(content)) == 1  # from its beginning
    for bad in (
        offer(content, word="other"),
        offer(content, package=note(NAME, wrong)),
        offer(content, package=msgspec.structs.replace(parcel.package, name="../x.hrapp")),
        offer(content, models=(note("../../site.toml", b"x"),)),
        offer(content, models=(FileNote(name="a.json", sha256="0" * 64, size=1 << 40),)),
        offer(content, name="else.json", data=b"x"),
    ):
        with pytest.raises(HeadraceError, match="APPS-2270"):
            edge.take(bad)
    with pytest.raises(HeadraceError, match="APPS-2271"):
        edge.receiver.take(b"\xc1")


def test_models_come_go_and_are_laid_before_who_names_them(tmp_path, content):
    edge, files = Edge(tmp_path, content), tmp_path / "files"
    onnx = b"the bytes of a model"
    name = f"{hashlib.sha256(onnx).hexdigest()}.onnx"
    laid = b'{"sha256":"...","version":1,"inputs":[]}'
    contents = {NAME: content, name: onnx, "rul.json": laid, "shadow/rul.json": laid + b" "}
    models = tuple(note(each, contents[each]) for each in list(contents)[1:])
    assert edge.send(offer(content, models=models), contents) > 3
    manifest = edge.deployment.manifest
    assert hand_received(edge.folder, manifest, files)
    assert list(model_files(files / FOLDER)) == [name, "rul.json", "shadow/rul.json"]
    assert not hand_received(edge.folder, manifest, files)
    edge.send(offer(content), contents)
    assert not model_files(received_models(edge.folder, "load_watch"))
    assert hand_received(edge.folder, manifest, files)
    assert list(model_files(files / FOLDER)) == [name]  # no one names it any more


def test_an_edge_scores_with_the_platforms_champion_to_the_bit(tmp_path, monkeypatch):
    head = edge_runtime.HEAD.replace("[types.pump]", 'models = ["power"]\n[types.pump]')
    monkeypatch.setattr(edge_runtime, "HEAD", head)
    hub, content = DataFolder(tmp_path / "hub"), packed(PYTHON, "", KEY, tmp_path)
    hub.packages.mkdir(parents=True)
    (hub.packages / NAME).write_bytes(content)
    Publishers(hub).add("acme", public_of(KEY), "test")
    edge, tried = Edge(tmp_path, content), np.linspace(-3, 7, 33).reshape(-1, 1)
    with open_models(hub) as registry:
        for version, factor in enumerate((2.1, 3.3), 1):
            registry.add("load-watch", "power", linear([factor]), ["power"], by="os:eve")
            registry.change("load-watch", "power", version, "champion", by="os:eve", why="try")
            parcel, paths = parcel_of(hub, edge.deployment)
            assert len(parcel.models) == 2  # the older one is no longer handed over
            edge.send(parcel, {name: path.read_bytes() for name, path in paths.items()})
            scores = []
            for folder, hand in ((hub, hand_over), (edge.folder, hand_received)):
                files = tmp_path / "files" / folder.root.name
                assert hand(folder, edge.deployment.manifest, files)
                model = LaidModels(files / FOLDER)("power")
                assert model is not None
                scores.append(model.run(tried))
            assert np.array_equal(*scores) and np.allclose(scores[0], factor * tried)
