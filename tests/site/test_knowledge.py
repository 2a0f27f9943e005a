"""What engineers write in the site file: calendar, attributes, relations, formulas, their tags and versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from headrace.formula.binding import bind
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.model.time import ManualClock
from headrace.site.desired import edge_configs
from headrace.site.edit import SiteEdit
from headrace.site.file import SiteFiles, check_site, load_site
from headrace.site.keeper import Keeper
from headrace.site.model import SiteProblems
from headrace.site.registry import Registry
from headrace.site.why import find_tag

SITE = """\
[site]
enterprise = "acme"
name = "mill"
time_zone = "Europe/Berlin"

[calendar]
rotation_start = 2026-01-05
holidays = { 2026-12-25 = "Christmas" }

[[calendar.shift]]
name = "night"
start = 22:00:00
end = "06:00"
teams = ["A", "B"]

[[calendar.stop]]
start = 2026-03-29T00:30:00
end = 2026-03-29T03:30:00+02:00
reason = "change of the clocks"

[asset_type.pump]
quantities = { flow = "m3/h", power = "kW" }
attributes = { rated_power = "kW", maker = "text" }
relations = { source = "tank" }
max_age = "10 s"
formulas = '''
load = power / rated_power -> %
energy = integral(power) per shift -> kWh
share = flow * 1 h / source.volume -> %
'''
shadow = ["share"]
start = { energy = 2026-03-01T00:00:00+01:00 }

[asset_type.tank]
quantities = { level = "m" }
attributes = { area = "m2" }
formulas = "volume = level * area"

[asset."hall/p1"]
type = "pump"
attributes = { rated_power = 5, maker = "north" }
relations = { source = "hall/t1" }

[asset."hall/p2"]
type = "pump"

[asset."hall/t1"]
type = "tank"
attributes = { area = 4.5 }

[connection.plc]
protocol = "bench"
endpoint = "127.0.0.1:1502"
"""
TAGS = ("hall/p1/flow", "hall/p1/power", "hall/p2/power", "hall/t1/level")


def _site(text: str = SITE) -> str:
    tags = "".join(
        f'\n[[tag]]\npath = "{path}"\nconnection = "plc"\naddress = "register:{place}"\n'
        for place, path in enumerate(TAGS)
    )
    return text + tags


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    found = DataFolder(tmp_path)
    found.site_file.write_text(_site(), encoding="utf-8")
    return found


@pytest.fixture
def registry(folder: DataFolder) -> Iterator[Registry]:
    opened = Registry.of(folder)
    yield opened
    opened.close()


def _apply(
    registry: Registry, folder: DataFolder, now_us: int, old: str = "", new: str = ""
) -> None:
    text = folder.site_file.read_text(encoding="utf-8")
    assert old in text
    folder.site_file.write_text(text.replace(old, new) if old else text, encoding="utf-8")
    registry.apply(load_site(folder.site_file), now_us)


def test_the_calendar_is_the_plants_own(folder: DataFolder) -> None:
    calendar = load_site(folder.site_file).calendar
    assert calendar.time_zone == "Europe/Berlin" and calendar.holidays == {
        "2026-12-25": "Christmas"
    }
    stop = calendar.stops[0]
    # 00:30 in winter to 03:30 in summer: three hours on the clock are two.
    assert stop.end_us - stop.start_us == 2 * 3_600_000_000
    (night,) = calendar.between("shift", stop.start_us - 9_000_000_000, stop.start_us)
    assert (night.hours, night.name, night.team) == (7.0, "night", "B")


def test_a_formula_gives_each_asset_that_has_its_inputs_a_tag(
    registry: Registry, folder: DataFolder
) -> None:
    _apply(registry, folder, 1_000)
    derived = {record.path: record for record in registry.find("**") if record.derived}
    assert set(derived) == {
        "hall/p1/load", "hall/p1/energy", "hall/p2/energy", "hall/p1/share_shadow", "hall/t1/volume",
    }  # fmt: skip
    load = derived["hall/p1/load"]
    assert (load.unit, load.address, load.asset, load.edge) == ("%", "pump.load", "hall/p1", "")
    assert derived["hall/p1/energy"].unit == "kWh" and derived["hall/t1/volume"].unit == "m^3"
    (edge,) = edge_configs(load_site(folder.site_file), registry.ids()).values()
    assert {tag.path for each in edge.connections for tag in each.tags} == set(TAGS)


def test_the_apps_role_gets_all_that_it_runs(registry: Registry, folder: DataFolder) -> None:
    keeper = Keeper(folder, registry, ManualClock(5_000))
    assert keeper.look()
    config = msgspec.json.decode(keeper.pending["apps"], type=AppsConfig)
    assert config == registry.apps()
    ids = registry.ids()
    assert config.calendar.shifts[0].name == "night"
    p1, p2, _ = config.assets
    assert p1.tags == {"flow": ids["hall/p1/flow"], "power": ids["hall/p1/power"]}
    assert p1.attributes == {"rated_power": 5.0, "maker": "north"}
    assert p1.outputs["share"] == ids["hall/p1/share_shadow"], "kept apart"
    assert p1.outputs["load"] == ids["hall/p1/load"] and set(p2.outputs) == {"energy"}
    states = {each.name: (each.state, each.version, each.start_us) for each in config.formulas}
    assert states == {
        "load": ("live", 1, 0),
        "energy": ("live", 1, 1_772_319_600_000_000),
        "share": ("shadow", 1, 0),
        "volume": ("live", 1, 0),
    }
    binding = bind(config)
    assert {bound.key for bound in binding.bound} == {
        "pump.load", "pump.energy", "pump.share", "tank.volume",
    }  # fmt: skip
    assert ("hall/p2", "pump.load", "rated_power") in binding.missing
    assert [bound.assets for bound in binding.bound if bound.key == "pump.load"] == [("hall/p1",)]


def test_another_text_is_another_version_of_the_same_tag(
    registry: Registry, folder: DataFolder
) -> None:
    _apply(registry, folder, 1_000)
    before = registry.ids()["hall/p1/load"]
    _apply(registry, folder, 2_000, "load = power / rated_power -> %", "load = 2 * power")
    assert registry.ids()["hall/p1/load"] == before
    (record,) = registry.find("hall/p1/load")
    assert record.unit == "kW"
    _apply(registry, folder, 3_000, "load = 2 * power", "load = power / rated_power -> %")
    _apply(registry, folder, 4_000)
    versions = registry.formula_versions("pump", "load")
    assert [(each.version, each.start_us, each.accepted_us) for each in versions] == [
        (1, 0, 1_000),
        (2, 2_000, 2_000),
        (3, 3_000, 3_000),
    ]
    assert versions[0].text == versions[2].text != versions[1].text
    config = registry.apps()
    assert config is not None and config.formulas[0].version == 3


def test_a_formula_that_leaves_retires_its_tag_and_returns_with_it(
    registry: Registry, folder: DataFolder
) -> None:
    _apply(registry, folder, 1_000)
    before = registry.ids()["hall/t1/volume"]
    share = "share = flow * 1 h / source.volume -> %"
    _apply(registry, folder, 2_000, share, "share = flow * 1 h / source.level / 1 m2 -> %")
    _apply(registry, folder, 3_000, "volume = level * area", "")
    assert "hall/t1/volume" not in registry.ids()
    assert registry.formula_versions("tank")[-1].retired_us == 3_000
    _apply(registry, folder, 4_000, 'formulas = ""', 'formulas = "volume = level * area"')
    assert registry.ids()["hall/t1/volume"] == before
    assert [each.retired_us for each in registry.formula_versions("tank")] == [None]


def test_equipment_that_is_renamed_keeps_its_derived_tags(
    registry: Registry, folder: DataFolder
) -> None:
    _apply(registry, folder, 1_000)
    before = {
        path: tag_id for path, tag_id in registry.ids().items() if path.startswith("hall/p1/")
    }
    edit = SiteEdit(folder)
    edit.rename("hall/p1", "hall/pump_9")
    edit.save()
    _apply(registry, folder, 2_000)
    after = registry.ids()
    assert {p.replace("/p1/", "/pump_9/"): tag_id for p, tag_id in before.items()} == {
        path: tag_id for path, tag_id in after.items() if path.startswith("hall/pump_9/")
    }
    _apply(registry, folder, 3_000)
    assert registry.ids() == after


def test_problems_of_formulas_have_a_caret_and_two_languages(folder: DataFolder) -> None:
    text = _site().replace("load = power / rated_power", "load = power / rated_powr")
    model, problems = check_site(SiteFiles(folder.site_file, {"site.toml": text.encode()}))
    (problem,) = problems
    assert model is None
    assert text.splitlines()[problem.line - 1] == "load = power / rated_powr -> %"
    line, caret = problem.caret.split("\n")
    assert line[caret.index("^") : caret.rindex("^") + 1] == "rated_powr"
    assert "rated_power" in problem.remedy and "rated_power" in problem.remedy_zh
    assert problem.what_zh != problem.what


def test_a_relation_follows_equipment_that_is_renamed(folder: DataFolder) -> None:
    edit = SiteEdit(folder)
    edit.rename("hall/t1", "hall/tank_1")
    model = edit.check()
    assert model.assets[0].relations == {"source": "hall/tank_1"}


def _edited(folder: DataFolder, edit: SiteEdit) -> list[str]:
    """What an edit added and took, after it was saved and is accepted."""
    diff = edit.save()
    load_site(folder.site_file)
    return [line for line in diff.splitlines()[2:] if line[0] in "+-"]


def test_a_formula_is_changed_where_it_stands(folder: DataFolder) -> None:
    edit = SiteEdit(folder)
    edit.set_formula("pump", "load", "load = power / rated_power", state="off")
    assert _edited(folder, edit) == [
        "-load = power / rated_power -> %",
        "+load = power / rated_power",
        '+off = ["load"]',
    ]


def test_a_formula_is_added_and_taken_out_again(folder: DataFolder) -> None:
    before = folder.site_file.read_text(encoding="utf-8")
    edit = SiteEdit(folder)
    edit.set_formula("pump", "hot", "alarm hot: power > 80 kW for 5 min, priority high")
    assert _edited(folder, edit) == ["+alarm hot: power > 80 kW for 5 min, priority high"]
    edit = SiteEdit(folder)
    edit.remove_formula("pump", "hot")
    edit.save()
    assert folder.site_file.read_text(encoding="utf-8") == before
    edit = SiteEdit(folder)
    edit.remove_formula("pump", "share")
    assert _edited(folder, edit) == [
        "-share = flow * 1 h / source.volume -> %",
        '-shadow = ["share"]',
    ]


def test_a_formula_that_another_reads_cannot_go(folder: DataFolder) -> None:
    edit = SiteEdit(folder)
    edit.remove_formula("tank", "volume")
    with pytest.raises(SiteProblems, match=r"source\.volume"):
        edit.save()
    assert "volume = level * area" in folder.site_file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asset_type", "name", "text", "code"),
    [
        ("pupm", "load", "load = power", "SITE-1419"),
        ("pump", "load", "laod = power", "SITE-1118"),
        ("pump", "load", "load = power\nother = power", "SITE-1118"),
        ("pump", "load", "", "SITE-1118"),
        ("pump", "load", "load = power +", "FORM-1002"),
    ],
)
def test_what_is_no_formula_of_the_type_is_not_saved(
    folder: DataFolder, asset_type: str, name: str, text: str, code: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        SiteEdit(folder).set_formula(asset_type, name, text)
    assert caught.value.code == code


def test_a_formula_that_is_not_there_cannot_be_removed(folder: DataFolder) -> None:
    with pytest.raises(Misconfigured, match="SITE-1420"):
        SiteEdit(folder).remove_formula("pump", "never")


def test_a_derived_tag_is_no_devices_fault(registry: Registry, folder: DataFolder) -> None:
    _apply(registry, folder, 1_000)
    tag = find_tag(registry, "hall/p1/share_shadow")
    assert (tag.derived, tag.edge, tag.connection) == (True, "apps", "pump")
