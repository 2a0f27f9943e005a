"""``[app.ID]``: an app on a site that has other names and units than the app."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from headrace.formula.binding import bind
from headrace.formula.evaluate import History, evaluate
from headrace.model.deployment import AppDeployment
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.model.time import ManualClock
from headrace.site.app_assets import deployments
from headrace.site.app_package import read_installed
from headrace.site.desired import edge_configs
from headrace.site.file import SiteFiles, check_site, load_site
from headrace.site.keeper import Keeper
from headrace.site.model import SiteModel, SiteProblems
from headrace.site.registry import Registry
from packages import install

APP = """\
id = "water-use"
version = "1.2.0"
title = { en = "Water use", zh = "用水" }
placement = "platform"

[types.pump]
package = "pump"
quantities = { flow = "m3/h", power = "kW" }
optional = { temperature = "degC", mode = "text" }
attributes = { rated_flow = "m3/h" }
relations = { feeds = "tank" }

[types.tank]
package = "tank"
quantities = { level = "m" }

[formulas]
pump = '''
share = flow / rated_flow -> %
specific = power / flow -> kW.h/m3
warm = temperature - 10 degC -> K
fill = feeds.level * 2
alarm low: share < least_share, priority medium
'''

[titles.pump]
share = { en = "Share", zh = "份额" }

[settings.least_share]
unit = "%"
default = 20.0
minimum = 0.0
maximum = 100.0

[[outputs]]
type = "pump"
name = "score"
unit = "1"
title = { en = "Score" }

[permissions]
writes = ["pump.flow"]
"""
SITE = """\
[site]
enterprise = "acme"
name = "werk"

[asset_type.pumpe]
package = "pump"
quantities = { durchfluss = "l/s", leistung = "W", temperatur = "degF" }
attributes = { nenn_durchfluss = "l/s" }
relations = { behaelter = "behaelter" }
formulas = "kalt = temperatur < 40 degF"

[asset_type.behaelter]
quantities = { stand = "cm" }

[asset."halle/p1"]
type = "pumpe"
title = { en = "Pump one", zh = "一号泵" }
attributes = { nenn_durchfluss = 10 }
relations = { behaelter = "halle/b1" }

[asset."halle/p2"]
type = "pumpe"
attributes = { nenn_durchfluss = 20 }

[asset."halle/p3"]
type = "pumpe"

[asset."halle/b1"]
type = "behaelter"

[app.water-use]
version = "1.2.0"
settings = { least_share = 30 }

[app.water-use.bind.pump]
type = "pumpe"
quantities = { flow = "durchfluss", power = "leistung", temperature = "temperatur" }
attributes = { rated_flow = "nenn_durchfluss" }
relations = { feeds = "behaelter" }
settings."halle/p2" = { least_share = 40 }

[app.water-use.bind.tank]
type = "behaelter"
quantities = { level = "stand" }

[connection.plc]
protocol = "bench"
endpoint = "127.0.0.1:1502"
"""
TAGS = {
    "halle/p1/durchfluss": "l/s",
    "halle/p1/leistung": "W",
    "halle/p1/temperatur": "degF",
    "halle/p2/durchfluss": "m3/h",
    "halle/p2/leistung": "kW",
    "halle/p3/durchfluss": "l/s",
    "halle/b1/stand": "cm",
}


def site_of(text: str, tags: dict[str, str]) -> str:
    return text + "".join(
        f'\n[[tag]]\npath = "{path}"\nconnection = "plc"\naddress = "register:{place}"\nunit = "{unit}"\n'
        + ("writable = true\n" if path.endswith("p1/durchfluss") else "")
        for place, (path, unit) in enumerate(tags.items())
    )


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path)
    install(tmp_path, "water-use", "1.2.0", APP)
    made.site_file.write_text(site_of(SITE, TAGS))
    return made


def problems_of(folder: DataFolder, old: str, new: str) -> list[tuple[str, int, str]]:
    """(code, line, what) of the site file with one change."""
    text = folder.site_file.read_text()
    assert old in text
    _, problems = check_site(
        SiteFiles(folder.site_file, {"site.toml": text.replace(old, new, 1).encode()})
    )
    return [(each.code, each.line, each.what) for each in problems]


def run(config: AppsConfig, key: str, values: dict[int, float]) -> dict[str, float]:
    """Asset -> result of a formula, when each tag has one sample."""
    bound = next(each for each in bind(config).bound if each.key == key)
    count = len(bound.assets)
    histories = {
        name: History(
            np.arange(count),
            np.zeros(count, np.int64),
            np.array([values[tag] for tag in ids.tolist()]),
            np.zeros(count, np.uint32),
        )
        for name, ids in bound.inputs.items()
    }
    found = evaluate(bound.plan, histories, 0, 1, assets=count, attributes=bound.attributes)
    return {bound.assets[row["asset"]]: row["value"] for row in found.to_dicts()}


def test_an_app_works_under_its_own_names_and_in_its_own_units(folder: DataFolder) -> None:
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, ManualClock(5_000))
    assert keeper.look() and not keeper.problems
    config = msgspec.json.decode(keeper.pending["apps"], type=AppsConfig)
    ids = registry.ids()
    value = {
        "halle/p1/durchfluss": 5.0,  # l/s: 18 m3/h of 36
        "halle/p1/leistung": 3600.0,
        "halle/p1/temperatur": 68.0,
        "halle/p2/durchfluss": 36.0,  # m3/h, of 20 l/s
        "halle/p2/leistung": 9.0,
        "halle/b1/stand": 150.0,
    }
    values = {ids[path]: each for path, each in value.items()}
    share = run(config, "water_use.pump.share", values)
    assert share == pytest.approx({"halle/p1": 50.0, "halle/p2": 50.0})
    specific = run(config, "water_use.pump.specific", values)
    assert specific == pytest.approx({"halle/p1": 0.2, "halle/p2": 0.25})
    assert run(config, "water_use.pump.warm", values) == pytest.approx({"halle/p1": 10.0})
    assert run(config, "water_use.pump.fill", values) == pytest.approx({"halle/p1": 3.0})
    limits = [each for each in config.assets if each.type == "water_use.pump"]
    assert [each.attributes["least_share"] for each in limits] == [30.0, 40.0]
    registry.close()


def test_what_an_app_gives_is_named_by_it_and_stays_the_same_tag(folder: DataFolder) -> None:
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), 1_000)
    given = {each.path: each for each in registry.find("**") if each.derived}
    names = {path.rpartition("/")[2] for path in given if path.startswith("halle/p1/")}
    assert names == {
        "kalt", "water_use_share", "water_use_specific", "water_use_warm", "water_use_fill",
        "water_use_score",
    }  # fmt: skip
    share = given["halle/p1/water_use_share"]
    assert (share.unit, share.title, share.title_zh) == ("%", "Share", "份额")
    assert share.address == "water_use.pump.share"
    text = folder.site_file.read_text()
    folder.site_file.write_text(text[: text.index("[app.")] + text[text.index("[connection") :])
    registry.apply(load_site(folder.site_file), 2_000)
    assert not registry.find("**/water_use_*")
    folder.site_file.write_text(text)
    registry.apply(load_site(folder.site_file), 3_000)
    assert registry.ids()["halle/p1/water_use_share"] == share.tag_id
    registry.close()


def test_a_deployment_says_all_that_the_runtime_needs(folder: DataFolder) -> None:
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, ManualClock(5_000))
    keeper.look()
    assert msgspec.json.decode(keeper.pending["app_list"]) == ["water_use"]
    made = msgspec.json.decode(keeper.pending["app.water_use"], type=AppDeployment)
    ids = registry.ids()
    assert made == deployments(load_site(folder.site_file), ids)["water_use"]
    package = read_installed(folder.packages / "water-use-1.2.0.hrapp")
    assert (made.package_sha256, made.manifest) == (package.sha256, package.manifest)
    p1, p2, tank = made.assets
    assert (p1.path, p1.type, p1.title_zh, tank.type) == ("halle/p1", "pump", "一号泵", "tank")
    assert p1.tags["flow"] == ids["halle/p1/durchfluss"] and p1.units["flow"] == "l/s"
    assert p2.units == {"flow": "m3/h", "power": "kW"}
    assert p1.attributes == {"rated_flow": pytest.approx(36.0)}
    assert p1.relations == {"feeds": "halle/b1"} and p1.outputs == {
        "score": ids["halle/p1/water_use_score"]
    }
    assert p1.writes == {"flow": ("local", "plc", "halle/p1/durchfluss")} and not p2.writes
    assert (made.settings, p2.settings) == ({"least_share": 30.0}, {"least_share": 40.0})
    assert made.unserved == {"pump halle/p3": "there is no tag halle/p3/leistung, which is power"}
    told = [each.text for each in keeper.events if each.code == "SITE-1306"]
    assert told == [
        "water-use cannot serve halle/p3: there is no tag halle/p3/leistung, which is power"
    ]
    registry.close()


def test_formulas_and_alarms_of_an_app_read_what_its_python_gives(folder: DataFolder) -> None:
    more = "twice = score * 2\nalarm low: share < least_share or score > 9, priority medium"
    changed = APP.replace("alarm low: share < least_share, priority medium", more)
    install(folder.root, "water-use", "1.2.0", changed)
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), 1_000)
    config, ids = registry.apps(), registry.ids()
    assert config is not None
    score, other = (ids[f"halle/{pump}/water_use_score"] for pump in ("p1", "p2"))
    twice = run(config, "water_use.pump.twice", {score: 4.0, other: 5.0})
    assert twice == pytest.approx({"halle/p1": 8.0, "halle/p2": 10.0})
    alarm = next(each for each in bind(config).bound if each.key == "water_use.pump.low")
    assert score in alarm.inputs["score"]
    registry.close()


def test_a_disabled_app_keeps_its_tags_and_runs_nothing(folder: DataFolder) -> None:
    text = folder.site_file.read_text()
    folder.site_file.write_text(
        text.replace('version = "1.2.0"', 'version = "1.2.0"\nenabled = false')
    )
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), 1_000)
    assert registry.find("**/water_use_share")
    config = registry.apps()
    assert config is not None
    assert [each.key for each in bind(config).bound if each.key.startswith("water_use")] == []
    registry.close()


def test_an_app_on_the_edge_is_placed_by_the_tags_it_reads(folder: DataFolder) -> None:
    install(folder.root, "water-use", "1.2.0", APP.replace('"platform"', '"edge"'))
    text = folder.site_file.read_text()
    folder.site_file.write_text(text.replace('127.0.0.1:1502"', '127.0.0.1:1502"\nedge = "far"'))
    registry = Registry.of(folder)
    model = load_site(folder.site_file)
    registry.apply(model, 1_000)
    config = registry.apps()
    assert config is not None
    p1 = next(each for each in config.assets if each.type == "water_use.pump")
    assert p1.edges == dict.fromkeys(("share", "specific", "warm", "fill"), "far")
    far = edge_configs(model, registry.ids(), (), config)["far"].apps
    assert far is not None and {each.asset_type for each in far.formulas} == {"water_use.pump"}
    assert {each.path for each in far.assets} == {"halle/p1", "halle/p2", "halle/b1"}
    registry.close()


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ('version = "1.2.0"', 'version = "1.3.0"', "SITE-2101", "water-use-1.3.0.hrapp is not installed"),
        ('version = "1.2.0"', 'version = "new"', "SITE-2104", "is no app and its version"),
        ('version = "1.2.0"', "", "SITE-1004", "has no version"),
        ("least_share = 30", "least_shore = 30", "SITE-1009", "no setting 'least_shore'"),
        ("least_share = 30", "least_share = 130", "SITE-2108", "not 100 or less in %"),
        ("least_share = 30", 'least_share = "x"', "SITE-2108", "not a number in %"),
        ("bind.tank", "bind.tonk", "SITE-1009", "needs no type 'tonk'"),
        ('type = "pumpe"\nquantities', 'type = "pompe"\nquantities', "SITE-1009", "is not declared"),
        ('{ flow = "durchfluss"', '{ flaw = "durchfluss"', "SITE-1009", "no quantity 'flaw'"),
        ('{ flow = "durchfluss"', '{ flow = "durchflus"', "SITE-1009", "has no"),
        ('flow = "durchfluss", ', "", "SITE-2109", "bound to flow, which the app needs in m3/h"),
        ('attributes = { rated_flow = "nenn_durchfluss" }', "", "SITE-2109", "bound to rated_flow"),
        ('settings."halle/p2"', 'settings."halle/p9"', "SITE-1009", "no asset of the type is 'halle/p9'"),
        ('relations = { feeds', 'assets = ["x/*"]\nrelations = { feeds', "SITE-1009", "'x/*'"),
        ('relations = { feeds', 'assets = [""]\nrelations = { feeds', "SITE-1105", ""),
        ("[app.water-use.bind.pump]", "[app.Water]\nversion = '1.0.0'\n[app.water-use.bind.pump]",
         "SITE-2104", "is no app"),
        ("bind.tank]", "bind.tank]\nbottom = 1", "SITE-1003", "unknown key 'bottom'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_line(
    folder: DataFolder, old: str, new: str, code: str, said: str
) -> None:
    found = problems_of(folder, old, new)
    assert [each for each in found if each[0] == code and said in each[2]], found
    app_line = folder.site_file.read_text().split("\n").index("[app.water-use]") + 1
    assert all(line >= app_line for _, line, _ in found)


def test_units_of_another_dimension_serve_nothing(folder: DataFolder) -> None:
    text = folder.site_file.read_text().replace('flow = "durchfluss"', 'flow = "leistung"', 1)
    model, problems = check_site(SiteFiles(folder.site_file, {"site.toml": text.encode()}))
    assert model is not None, problems
    assert isinstance(model, SiteModel)
    why = {each.path: each.why for each in model.apps[0].unserved}
    assert why["halle/p1"] == "halle/p1/leistung is in W, and flow cannot be: m3/h"


def test_several_tables_bind_one_type_and_no_asset_twice(folder: DataFolder) -> None:
    text = folder.site_file.read_text()
    one = text[text.index("[app.water-use.bind.pump]") : text.index("[app.water-use.bind.tank]")]
    one = one.replace('settings."halle/p2" = { least_share = 40 }\n', "")
    both = one.replace("[app.water-use.bind.pump]", "[[app.water-use.bind.pump]]")
    first, second = (
        both.rstrip() + f'\nassets = ["halle/{which}"]\n\n' for which in ("p1", "p[23]")
    )
    start, end = (
        text[: text.index("[app.water-use.bind.pump]")],
        text[text.index("[app.water-use.bind.tank]") :],
    )
    folder.site_file.write_text(start + first + second + end)
    (app,) = load_site(folder.site_file).apps
    assert [each.path for each in app.assets] == ["halle/p1", "halle/p2", "halle/b1"]
    folder.site_file.write_text(start + first + second.replace("p[23]", "p[12]") + end)
    with pytest.raises(SiteProblems) as caught:
        load_site(folder.site_file)
    assert [(each.code, each.what) for each in caught.value.problems] == [
        ("SITE-2107", "halle/p1 is bound to the type pump twice")
    ]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"PK no zip at all", "SITE-2103"),
        (b"", "SITE-2103"),
    ],
)
def test_a_damaged_package_is_said(folder: DataFolder, content: bytes, code: str) -> None:
    (folder.packages / "water-use-1.2.0.hrapp").write_bytes(content)
    _, problems = check_site(SiteFiles(folder.site_file))
    assert [each.code for each in problems] == [code]


@pytest.mark.parametrize(
    "manifest", ["id = 5", "id = [", 'id = "a"\nversion = "1"\ntitle = {}\nx = 1']
)
def test_a_manifest_that_is_none_is_said(folder: DataFolder, manifest: str) -> None:
    install(folder.root, "water-use", "1.2.0", manifest)
    _, problems = check_site(SiteFiles(folder.site_file))
    assert [each.code for each in problems] == ["SITE-2102"]


def test_a_new_package_is_seen_without_a_change_of_the_file(folder: DataFolder) -> None:
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, ManualClock(5_000))
    keeper.look()
    keeper.look()
    assert not keeper.look()
    install(
        folder.root, "water-use", "1.2.0", APP.replace("flow / rated_flow", "2 * flow / rated_flow")
    )
    assert keeper.look()
    config = msgspec.json.decode(keeper.pending["apps"], type=AppsConfig)
    (share,) = (each for each in config.formulas if each.name == "share")
    assert (share.version, share.text) == (2, "share = 2 * flow / rated_flow -> %")
    registry.close()


@pytest.mark.parametrize(
    "section",
    [
        "app = 5",
        "[app]\nwater-use = 5",
        '[app.water-use]\nversion = 5',
        '[app.water-use]\nversion = "1.2.0"\nsettings = 5\nbind = 5',
        '[app.water-use]\nversion = "1.2.0"\nsettings = { least_share = [] }\nbind = { pump = 5 }',
        '[app.water-use]\nversion = "1.2.0"\nbind = { pump = [5, {}] }',
        '[app.water-use]\nversion = "1.2.0"\nbind.pump = { type = "pumpe", quantities = { flow = ["a"] } }',
        '[app.water-use]\nversion = "1.2.0"\nbind.pump = { type = "pumpe", quantities = 5, assets = [5] }',
        '[app.water-use]\nversion = "1.2.0"\nbind.pump = { type = "pumpe", attributes = { rated_flow = [1] } }',
        '[app.water-use]\nversion = "1.2.0"\nbind.pump = { type = "pumpe", settings = { "halle/p1" = 5 } }',
        '[app.water-use]\nversion = "1.2.0"\nbind.pump = { type = ["pumpe"] }',
        '[app."../../etc/passwd"]\nversion = "1.2.0"',
        '[app.water-use]\nversion = "../1.2.0"',
    ],
)  # fmt: skip
def test_what_is_written_wrongly_is_a_problem_and_never_a_crash(
    folder: DataFolder, section: str
) -> None:
    text = folder.site_file.read_text()
    start, end = text.index("[app.water-use]"), text.index("[connection.plc]")
    broken = (
        f"{text[:start]}{section}\n\n{text[end:]}"
        if "[app" in section
        else f"{section}\n{text[:start]}{text[end:]}"
    )
    model, problems = check_site(SiteFiles(folder.site_file, {"site.toml": broken.encode()}))
    assert model is None and problems and all(each.remedy is not None for each in problems)


def test_a_model_has_drift_with_an_alarm_and_its_challenger_tags_that_nothing_reads(
    folder: DataFolder,
) -> None:
    with_model = APP.replace('unit = "1"\n', 'unit = "1"\nmodel = "wear"\n')
    with_model = with_model.replace("\n[types.pump]", 'models = ["wear"]\n\n[types.pump]', 1)
    install(folder.root, "water-use", "1.2.0", with_model)
    curious = 'leistung = "W", water_use_score_shadow = "1", water_use_score = "1"'
    text = folder.site_file.read_text().replace('leistung = "W"', curious)
    spy = (
        "kalt = temperatur < 40 degF\\nspy = water_use_score_shadow * 2\\nown = water_use_score * 2"
    )
    text = text.replace("kalt = temperatur < 40 degF", spy)
    folder.site_file.write_text(text)
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, ManualClock(5_000))
    assert keeper.look() and not keeper.problems
    ids, model = registry.ids(), load_site(folder.site_file)
    found = deployments(model, ids)["water_use"].assets[0]
    assert found.outputs == {"score": ids["halle/p1/water_use_score"]}
    assert found.shadows == {"score": ids["halle/p1/water_use_score_shadow"]}
    assert found.drifts == {"wear": ids["halle/p1/water_use_wear_drift"]}
    config = msgspec.json.decode(keeper.pending["apps"], type=AppsConfig)
    bounds = {each.key: each for each in bind(config).bound}
    assert "pumpe.spy" not in bounds  # what a challenger gives is nobody's input
    alarm = bounds["water_use.pump.wear_drift_high"]
    assert alarm.inputs["wear_drift"].tolist() == [
        ids["halle/p1/water_use_wear_drift"],
        ids["halle/p2/water_use_wear_drift"],
    ]
    every = {tag for each in config.assets for tag in each.tags.values()}
    assert not every & set(found.shadows.values())
    titles = {tag.path: (tag.title, tag.title_zh) for tag in model.derived}
    assert titles["halle/p1/water_use_score_shadow"] == ("Score (challenger)", "")
    registry.close()
