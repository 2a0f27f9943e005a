"""Proposals of how an app is bound: by what a site says of its types, by words, and never by guessing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from headrace.apps.asset_types.catalog import known_types, read_types
from headrace.apps.asset_types.proposal import Proposal, propose
from headrace.apps.package.package import pack
from headrace.cli.app_bind import add_to, installed_manifest, write_binding
from headrace.model.app_manifest import NeededType
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.site.edit import SiteEdit, undo
from headrace.site.file import load_site
from headrace.site.writing import save_version

PUMP_APP = Path(__file__).parents[2] / "apps" / "pump-efficiency"
SITE = """\
# Written by hand.
[site]
enterprise = "acme"
name = "werk"

[asset_type.pumpe]
{package}
quantities = {{ {quantities} }}
attributes = {{ nenn_durchfluss = "l/s", nenn_foerderhoehe = "m" }}

[asset_type.tank]
quantities = {{ level = "m" }}

[asset."h/p1"]
type = "pumpe"
attributes = {{ nenn_durchfluss = 7, nenn_foerderhoehe = 20 }}

[asset."h/p2"]
type = "pumpe"

[asset."h/t1"]
type = "tank"
"""
GERMAN = 'durchfluss = "l/s", saugdruck = "bar", enddruck = "bar", leistung = "W"'
CHINESE = 'll = "m3/h", yl1 = "kPa", yl2 = "MPa", gl = "kW"'
TITLES = {"ll": "流量", "yl1": "进口压力", "yl2": "出口压力", "gl": "功率"}


def folder_of(
    tmp_path: Path, quantities: str = GERMAN, package: str = "", more: str = ""
) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.packages.mkdir()
    (folder.packages / "pump-efficiency-1.0.0.hrapp").write_bytes(pack(PUMP_APP, None))
    folder.site_file.write_text(SITE.format(quantities=quantities, package=package) + more)
    return folder


def proposed(folder: DataFolder, **given: str) -> Proposal:
    manifest = installed_manifest(folder, "pump-efficiency")
    said = {name.replace("__", "."): value for name, value in given.items()}
    return propose(load_site(folder.site_file), manifest, known_types(folder.packages), said)


def names(proposal: Proposal) -> dict[str, str | None]:
    (kind,) = proposal.types
    return {each.name: each.chosen.name if each.chosen else None for each in kind.names}


def test_german_names_are_found_by_the_words_of_the_catalog(tmp_path: Path) -> None:
    made = proposed(folder_of(tmp_path))
    assert names(made) == {
        "flow": "durchfluss", "suction_pressure": "saugdruck", "discharge_pressure": "enddruck",
        "power": "leistung", "rated_flow": "nenn_durchfluss", "rated_head": "nenn_foerderhoehe",
    }  # fmt: skip
    assert made.questions == () and made.types[0].reason == "pumpe is a word for pump"
    assert all(each.chosen and each.chosen.reason for each in made.types[0].names)


def test_chinese_titles_of_tags_are_words_too(tmp_path: Path) -> None:
    tags = '\n[connection.plc]\nprotocol = "modbus"\nendpoint = "127.0.0.1:1502"\n' + "".join(
        f'[[tag]]\npath = "h/p1/{name}"\nconnection = "plc"\naddress = "holding:{n}:uint16"\n'
        f'title = {{ en = "x", zh = "{title}" }}\n'
        for n, (name, title) in enumerate(TITLES.items())
    )
    made = proposed(folder_of(tmp_path, CHINESE, 'package = "pump"', tags))
    assert {name: other for name, other in names(made).items() if not name.startswith("rated")} == {
        "flow": "ll", "suction_pressure": "yl1", "discharge_pressure": "yl2", "power": "gl",
    }  # fmt: skip
    assert made.types[0].reason == "it says that it is a pump" and made.questions == ()


def test_two_that_could_be_meant_are_asked(tmp_path: Path) -> None:
    quantities = GERMAN.replace("durchfluss", "wasser_flow").replace("}", "") + ', oel_flow = "l/s"'
    folder = folder_of(tmp_path, quantities, 'package = "pump"')
    made = proposed(folder)
    assert names(made)["flow"] is None
    assert made.questions == ("what is pump.flow in m3/h of pumpe? (wasser_flow, oel_flow)",)
    said = proposed(folder, pump__flow="wasser_flow")
    assert names(said)["flow"] == "wasser_flow" and said.questions == ()


def test_what_only_the_unit_speaks_for_is_asked(tmp_path: Path) -> None:
    quantities = GERMAN.replace("durchfluss", "f17")
    made = proposed(folder_of(tmp_path, quantities, 'package = "pump"'))
    (flow, *_) = made.types[0].names
    assert flow.chosen is None and flow.candidates[0].name == "f17"
    assert flow.candidates[0].reason == "the only one that can be in m3/h"


def test_a_quantity_of_another_dimension_is_no_candidate(tmp_path: Path) -> None:
    quantities = GERMAN.replace('durchfluss = "l/s"', 'durchfluss = "kg/s"')
    made = proposed(folder_of(tmp_path, quantities, 'package = "pump"'))
    assert made.questions == ("what is pump.flow in m3/h of pumpe? (none that fits)",)


def test_a_site_without_such_a_type_is_asked_for_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 'a = "K"')
    text = folder.site_file.read_text().replace("pumpe", "kessel")
    folder.site_file.write_text(text)
    made = proposed(folder)
    assert made.types == () and made.questions[0].startswith("which asset type is pump?")
    assert proposed(folder, pump="kessel").types[0].type == "kessel"


def test_every_type_that_declares_itself_is_bound(tmp_path: Path) -> None:
    more = f'[asset_type.zweite]\npackage = "pump"\nquantities = {{ {GERMAN} }}\n'
    more += '[asset."h/z"]\ntype = "zweite"\n'
    made = proposed(folder_of(tmp_path, package='package = "pump"', more=more))
    assert [each.type for each in made.types] == ["pumpe", "zweite"]
    assert [each["type"] for each in made.section()["bind"]["pump"]] == ["pumpe", "zweite"]
    assert made.questions == (
        "what is pump.rated_flow in m3/h of zweite? (none that fits)",
        "what is pump.rated_head in m of zweite? (none that fits)",
    )


def test_a_type_is_not_guessed_to_be_a_second_thing_and_what_is_absent_is_no_question(
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path)
    manifest = installed_manifest(folder, "pump-efficiency")
    power = NeededType(package="compressor", quantities={"power": "kW"})
    engine = NeededType(package="gas-turbine", quantities={"core_speed": "1/min"})
    more = {"compressor": power, "engine": engine}
    both = msgspec.structs.replace(manifest, types={**manifest.types, **more})
    made = propose(load_site(folder.site_file), both, known_types(folder.packages), {})
    assert [(each.needed, each.type) for each in made.types] == [("pump", "pumpe")]
    assert made.questions == () and made.absent == ("compressor", "engine")


def test_a_binding_is_written_keeps_what_stands_there_and_can_be_taken_back(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    edit = SiteEdit(folder)
    save_version(folder, {"site.toml": folder.site_file.read_bytes()}, 1)
    edit.set_app("pump-efficiency", version="1.0.0", settings={"best_efficiency": 70})
    model = write_binding(edit, proposed(folder))
    edit.save()
    (app,) = load_site(folder.site_file).apps
    assert app == model.apps[0] and app.settings["best_efficiency"] == 70.0
    assert app.bind[0].quantities["power"] == "leistung"
    assert {each.path for each in app.unserved} == {"h/p1", "h/p2"}, "they have no tags"
    assert folder.site_file.read_text().startswith("# Written by hand.")
    write_binding(SiteEdit(folder), proposed(folder))  # once more changes nothing
    undo(folder, 1)
    assert load_site(folder.site_file).apps == ()


def test_the_command_shows_asks_and_writes(tmp_path: Path) -> None:
    import typer

    folder = folder_of(tmp_path, GERMAN.replace("durchfluss", "f17"))
    group = typer.Typer()
    group.callback()(lambda: None)
    add_to(group)
    common = ["bind", "pump-efficiency", "--data", str(tmp_path)]
    refused = CliRunner().invoke(group, [*common, "--yes"])
    assert refused.exit_code and "pump.flow" in str(refused.exception)
    answered = CliRunner().invoke(group, common, input="f17\ny\n")
    assert answered.exit_code == 0, answered.output
    assert (
        "What is pump.flow of pumpe" in answered.output and "0 assets are served" in answered.output
    )
    assert load_site(folder.site_file).apps[0].bind[0].quantities["flow"] == "f17"
    unknown = CliRunner().invoke(group, ["bind", "no-such-app", "--data", str(tmp_path)])
    assert isinstance(unknown.exception, Misconfigured) and unknown.exception.code == "APPS-2113"


def test_all_shipped_types_are_right_in_both_languages() -> None:
    types = known_types()
    assert set(types) == {
        "pump", "compressor", "motor", "machining-centre", "gas-turbine", "hydro-unit",
        "wind-turbine", "heat-exchanger", "furnace", "sensor-point",
    }  # fmt: skip
    for kind in types.values():
        for each in (*kind.quantities.values(), *kind.attributes.values()):
            assert each.title.keys() == {"en", "zh"} and each.title["zh"] and each.names
        words = [word for each in kind.quantities.values() for word in each.names]
        assert len(words) == len(set(words)), f"{kind.id} has a word that means two quantities"


def test_an_installed_type_of_a_newer_version_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "types"
    folder.mkdir()
    text = 'id = "pump"\nversion = "9.0.0"\ntitle = { en = "P" }\n[quantities.x]\nunit = "bar"\n'
    (folder / "types.toml").write_text(text)
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "pump-9.0.0.hrapp").write_bytes(pack(folder, None))
    assert known_types(packages)["pump"].quantities.keys() == {"x"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id = 1",
        'id = "a"\nversion = "1"\ntitle = {}',
        'id = "a"\nversion = "1.0.0"\ntitle = {}\nbottom = 1',
    ],
)
def test_a_file_that_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_types(text.encode())
    assert caught.value.code == "APPS-2101"
