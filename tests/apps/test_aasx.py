"""AASX files: a site there and back, what others wrote told by name, and hostile files refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

import pytest

from data import data_folder
from headrace.apps.asset_types.aas import read_aas
from headrace.apps.asset_types.aasx import aasx_bytes, is_aasx, read_aasx
from headrace.model.errors import HeadraceError
from headrace.site.model import Asset, AssetType, SiteModel

PUMP = AssetType(
    name="pump", title="Pump", title_zh="泵", package="pump",
    quantities={"flow": "m3/h", "state": "text"}, attributes={"rated_flow": "m3/h"},
    relations={"feeds": "pump"},
)  # fmt: skip
ASSETS = tuple(
    Asset(
        path=f"hall/p{n}", type="pump", title=f"P{n}",
        attributes={"rated_flow": 20.0 + n}, relations={"feeds": "hall/p0"},
    )
    for n in range(3)
)  # fmt: skip
MODEL = SiteModel(enterprise="acme", name="mill", asset_types=(PUMP,), assets=ASSETS)
FULL = "test_demo_full_example"


def parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_a_site_goes_there_and_back() -> None:
    content = aasx_bytes(MODEL)
    assert is_aasx(content)
    found = read_aasx(content)
    assert (found.types, found.assets, found.refused) == ((PUMP,), ASSETS, ())


def test_what_others_wrote_is_told_by_name() -> None:
    folder = data_folder("aas") / "basyx_compliance"
    found = read_aasx((folder / f"{FULL}_json.aasx").read_bytes())
    ids = [
        each["id"]
        for word in ("assetAdministrationShells", "submodels", "conceptDescriptions")
        for each in json.loads((folder / f"{FULL}.json").read_bytes())[word]
    ]
    assert (found.types, found.assets) == ((), ())
    assert ids and all(any(each in line for line in found.refused) for each in ids)
    assert "File /TestFile.pdf: it has no place in a site file" in found.refused


def test_xml_in_it_says_the_same_as_json() -> None:
    folder = data_folder("aas") / "basyx_compliance"
    files = parts((folder / f"{FULL}_json.aasx").read_bytes())
    files["aasx/data.xml"] = (folder / f"{FULL}.xml").read_bytes()
    for name in ("aasx/_rels/aasx-origin.rels", "[Content_Types].xml"):
        files[name] = files[name].replace(b"data.json", b"data.xml")
        files[name] = files[name].replace(b"application/json", b"application/xml")
    del files["aasx/data.json"], files["aasx/_rels/data.json.rels"]
    shells = {line for line in read_aasx(packed(files)).refused if not line.startswith("File")}
    assert shells == set(read_aas((folder / f"{FULL}.json").read_bytes()).refused)


def bomb(files: dict[str, bytes]) -> None:
    files["aasx/zero.bin"] = bytes(40 << 20)


def many(files: dict[str, bytes]) -> None:
    files.update({f"aasx/{n}.txt": b"" for n in range(2_001)})


def deep(files: dict[str, bytes]) -> None:
    files["aasx/data.json"] = b"[" * 10_000


def entity(files: dict[str, bytes]) -> None:
    rels = files["_rels/.rels"].partition(b"?>")[2] or files["_rels/.rels"]
    files["_rels/.rels"] = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + rels


def wide_entity(files: dict[str, bytes]) -> None:
    files["aasx/_rels/aasx-origin.rels"] = "<!DOCTYPE a>".encode("utf-16")


def no_origin(files: dict[str, bytes]) -> None:
    files["_rels/.rels"] = files["_rels/.rels"].replace(b"aasx-origin", b"elsewhere")


def no_data(files: dict[str, bytes]) -> None:
    del files["aasx/data.json"]


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (bomb, "APPS-2131"), (many, "APPS-2131"), (deep, "APPS-2131"), (entity, "APPS-2160"),
        (wide_entity, "APPS-2160"), (no_origin, "APPS-2132"), (no_data, "APPS-2132"),
    ],
)  # fmt: skip
def test_hostile_and_broken_files_are_refused(
    harm: Callable[[dict[str, bytes]], None], code: str
) -> None:
    files = parts(aasx_bytes(MODEL))
    harm(files)
    with pytest.raises(HeadraceError) as caught:
        read_aasx(packed(files))
    assert caught.value.code == code


@pytest.mark.parametrize("content", [b"PK", b"PK\x03\x04 no zip", packed({})])
def test_what_is_no_aasx_is_refused(content: bytes) -> None:
    with pytest.raises(HeadraceError) as caught:
        read_aasx(content)
    assert caught.value.code == "APPS-2132"
    with pytest.raises(HeadraceError, match="over 32 MB"):
        read_aasx(bytes(33 << 20))
