"""Assets and asset types to AAS and back: the same, whatever they are called; what cannot be taken is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data import data_folder
from headrace.apps.asset_types.aas import aas_json, read_aas
from headrace.cli.app import build
from headrace.model.errors import HeadraceError
from headrace.site.file import load_site
from headrace.site.model import Asset, AssetType, SiteModel

NAMES = st.from_regex(r"\A[A-Za-z0-9_-]{1,12}\Z")
UNITS = st.sampled_from(["", "m3/h", "bar", "degC", "%", "text", "condition"])
TITLES = st.text("aZ 泵ü<&\"'", max_size=8).map(str.strip)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def sites(draw: st.DrawFn) -> SiteModel:
    types = []
    for name in sorted(draw(st.sets(NAMES, min_size=1, max_size=3))):
        types.append(
            AssetType(
                name=name, title=draw(TITLES), title_zh=draw(TITLES),
                package=draw(st.sampled_from(["", "pump"])),
                quantities=draw(st.dictionaries(NAMES, UNITS, max_size=4)),
                attributes=draw(st.dictionaries(NAMES, st.sampled_from(["kW", "text"]), max_size=3)),
                relations={"next": name} if draw(st.booleans()) else {},
            )
        )  # fmt: skip
    assets = []
    for path in sorted(draw(st.sets(st.tuples(NAMES, NAMES).map("/".join), max_size=4))):
        kind = draw(st.sampled_from(types))
        attributes = {
            name: draw(TITLES.filter(bool)) if unit == "text" else draw(NUMBERS)
            for name, unit in kind.attributes.items()
        }
        relations = dict.fromkeys(kind.relations, path)
        assets.append(
            Asset(
                path=path,
                type=kind.name,
                title=draw(TITLES),
                attributes=attributes,
                relations=relations,
            )
        )
    return SiteModel(enterprise="acme", name="mill", asset_types=tuple(types), assets=tuple(assets))


@settings(max_examples=15, deadline=None)
@given(sites())
def test_a_round_trip_gives_the_same(model: SiteModel) -> None:
    found = read_aas(aas_json(model))
    assert found.refused == ()
    assert found.types == model.asset_types
    assert found.assets == model.assets


def test_strangers_are_refused_by_name() -> None:
    path = data_folder("aas") / "basyx_compliance" / "test_demo_full_example.json"
    found = read_aas(path.read_bytes())
    identities = [
        each["id"]
        for word in ("assetAdministrationShells", "submodels", "conceptDescriptions")
        for each in json.loads(path.read_bytes())[word]
    ]
    assert (found.types, found.assets) == ((), ())
    assert identities and all(any(each in line for line in found.refused) for each in identities)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "APPS-2132"),
        (b"[]", "APPS-2132"),
        (b'{"submodels": [5]}', "APPS-2132"),
        (b'{"submodels": 5}', "APPS-2132"),
        (b'{"submodels": [{"modelType": "Submodel"}]}', "APPS-2132"),
        (b"\xff\xfe", "APPS-2132"),
        (b"[" * 100_000, "APPS-2131"),
        (b" " * (33 << 20), "APPS-2131"),
    ],
)
def test_what_is_no_environment_is_refused(content: bytes, code: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        read_aas(content)
    assert caught.value.code == code


SITE = """\
[site]
enterprise = "acme"
name = "mill"
"""
PUMPS = """
# Our pumps.
[asset_type.pump]
title = { en = "Pump", zh = "泵" }
package = "pump"
quantities = { flow = "m3/h" }
attributes = { rated_flow = "m3/h" }

[asset."hall/p1"]
type = "pump"
attributes = { rated_flow = 25.5 }
"""


def test_the_commands_take_a_site_to_another_one(tmp_path: Path) -> None:
    run, app = CliRunner(), build(("aas",))
    for name, text in (
        ("four", SITE),
        ("one", SITE + PUMPS),
        ("two", SITE),
        ("three", SITE + PUMPS.replace("25.5", "7")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.toml").write_text(text)
    file = str(tmp_path / "site.json")
    exported = run.invoke(app, ["aas", "export", file, "--data", str(tmp_path / "one")])
    assert exported.exit_code == 0, exported.output
    taken = run.invoke(app, ["aas", "import", file, "--yes", "--data", str(tmp_path / "two")])
    assert taken.exit_code == 0, taken.output
    one, two = (load_site(tmp_path / name / "site.toml") for name in ("one", "two"))
    assert (two.asset_types, two.assets) == (one.asset_types, one.assets)
    package = str(tmp_path / "site.aasx")
    run.invoke(app, ["aas", "export", package, "--data", str(tmp_path / "one")])
    run.invoke(app, ["aas", "import", package, "--yes", "--data", str(tmp_path / "four")])
    four = load_site(tmp_path / "four" / "site.toml")
    assert (four.asset_types, four.assets) == (one.asset_types, one.assets)
    again = run.invoke(app, ["aas", "import", file, "--yes", "--data", str(tmp_path / "two")])
    assert "Nothing of it is new" in again.output
    other = run.invoke(app, ["aas", "import", file, "--yes", "--data", str(tmp_path / "three")])
    assert getattr(other.exception, "code", "") == "APPS-2134"
    gone = run.invoke(
        app, ["aas", "import", str(tmp_path / "no.json"), "--data", str(tmp_path / "two")]
    )
    assert getattr(gone.exception, "code", "") == "APPS-2133"
