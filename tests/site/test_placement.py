"""Where formulas are evaluated: found when the site file is checked, given to edges, and moved at one time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.apps.knowledge import know
from headrace.formula.bound import Bound
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.site.desired import edge_configs
from headrace.site.edit import SiteEdit
from headrace.site.file import load_site
from headrace.site.formulas import formula_lines
from headrace.site.registry import Registry
from headrace.site.why import find_tag

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[asset_type.pump]
quantities = { flow = "m3/h", power = "kW" }
relations = { source = "tank" }
formulas = '''
ratio = power / flow
smooth = mean(ratio, 10 min)
fill = source.twice / flow
alarm high: smooth > 0
'''
placement = "edge"

[asset_type.tank]
quantities = { level = "m" }
formulas = "twice = level * 2"
placement = { twice = "edge" }
"""
PLACES = {"hall/p1": "north", "hall/p2": "south", "hall/p3": "local", "hall/t1": "north"}


def _site(text: str = SITE) -> str:
    for path, edge in PLACES.items():
        kind = "tank" if path.endswith("t1") else "pump"
        text += f'\n[asset."{path}"]\ntype = "{kind}"\n'
        if path == "hall/p1":
            text += 'relations = { source = "hall/t1" }\n'
        text += (
            f'\n[connection.{path[5:]}]\nprotocol = "bench"\nendpoint = "x:1"\nedge = "{edge}"\n'
        )
        for place, name in enumerate(["level"] if kind == "tank" else ["flow", "power"]):
            text += f'\n[[tag]]\npath = "{path}/{name}"\nconnection = "{path[5:]}"\n'
            text += f'address = "register:{place}"\n'
    return text


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


def apply(
    registry: Registry, folder: DataFolder, now_us: int, old: str = "", new: str = ""
) -> None:
    text = folder.site_file.read_text(encoding="utf-8")
    folder.site_file.write_text(text.replace(old, new) if old else text, encoding="utf-8")
    registry.apply(load_site(folder.site_file), now_us)


def running(config: AppsConfig | None, edge: str = "") -> dict[str, Bound]:
    assert config is not None
    return {bound.key: bound for bound in know(config, {}, 0, edge).every}


def on_edge(registry: Registry, folder: DataFolder, edge: str) -> dict[str, Bound]:
    configs = edge_configs(load_site(folder.site_file), registry.ids(), (), registry.apps())
    assert configs["local"].apps is None
    apps = configs[edge].apps
    return running(apps, edge) if apps is not None else {}


def test_each_edge_evaluates_what_it_reads_and_the_platform_the_rest(
    registry: Registry, folder: DataFolder
) -> None:
    apply(registry, folder, 1_000)
    config = registry.apps()
    north = on_edge(registry, folder, "north")
    assert {key: bound.assets for key, bound in north.items()} == {
        "pump.ratio": ("hall/p1",),
        "tank.twice": ("hall/t1",),
        "pump.smooth": ("hall/p1",),
        "pump.fill": ("hall/p1",),
    }
    assert north["pump.fill"].inputs["source.twice"] == north["tank.twice"].outputs
    south = on_edge(registry, folder, "south")
    assert {bound.assets for bound in south.values()} == {("hall/p2",)}
    here = running(config)
    assert here["pump.ratio"].assets == ("hall/p3",)
    assert here["pump.high"].assets == ("hall/p1", "hall/p2", "hall/p3")  # alarms stay
    smooth = [*north["pump.smooth"].outputs, *south["pump.smooth"].outputs]
    assert [*here["pump.high"].inputs["smooth"]][:2] == smooth
    lines = {line.name: line for line in formula_lines(config)}
    assert lines["ratio"].edges == ("north", "south") and lines["ratio"].on_platform
    assert lines["twice"].edges == ("north",) and not lines["twice"].on_platform
    tag = find_tag(registry, "hall/p2/ratio")
    assert (tag.edge, tag.machine) == ("apps-south", "south")
    assert find_tag(registry, "hall/p3/ratio").edge == "apps"


def test_a_move_is_one_source_time_for_both_places(registry: Registry, folder: DataFolder) -> None:
    apply(registry, folder, 1_000, 'placement = "edge"\n', "")
    assert not on_edge(registry, folder, "south")
    there = 5_000_000_000
    apply(registry, folder, there, "[asset_type.tank]", 'placement = "edge"\n\n[asset_type.tank]')
    here, south = running(registry.apps()), on_edge(registry, folder, "south")
    assert here["pump.ratio/before"].assets == ("hall/p1", "hall/p2")
    assert here["pump.ratio/before"].end_us == south["pump.smooth"].start_us == there
    assert here["pump.ratio"].assets == ("hall/p3",) and not here["pump.ratio"].moved_us
    # What smooth looks back to must be there when it begins.
    assert south["pump.ratio"].start_us == there - south["pump.smooth"].plan.back_us - 1
    back = 9_000_000_000
    apply(registry, folder, back, 'placement = "edge"\n\n', "")
    here, south = running(registry.apps()), on_edge(registry, folder, "south")
    assert here["pump.ratio"].assets == ("hall/p1", "hall/p2", "hall/p3")
    assert here["pump.ratio"].moved_us == back
    assert {key: bound.end_us for key, bound in south.items()} == {
        "pump.ratio/before": back,
        "pump.smooth/before": back,
    }
    apply(registry, folder, back + 1, "ratio = power / flow", "ratio = 2 * power / flow")
    assert "pump.ratio/before" not in on_edge(registry, folder, "south")  # another text since


def test_a_formula_that_is_taken_out_takes_its_placement_along(folder: DataFolder) -> None:
    edit = SiteEdit(folder)
    edit.remove_formula("tank", "twice")
    edit.remove_formula("pump", "fill")
    edit.save()
    text = folder.site_file.read_text(encoding="utf-8")
    assert "twice" not in text and load_site(folder.site_file)
