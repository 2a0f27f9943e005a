"""``app.toml``: everything that is wrong is told at once, each at its line, with what to do."""

from __future__ import annotations

import pytest
from package_fixture import MANIFEST

from headrace.apps.package import check_manifest, in_range, is_range, newest, read_manifest
from headrace.apps.package.manifest import PackageProblems
from headrace.apps.package.versions import platform_version

FILES = {"app.toml": b"", "seal_watch.py": b"WEAR = 1\n", "views/pump.toml": b""}


def problems(text: str, files: dict[str, bytes] = FILES) -> list[tuple[str, int, str, str]]:
    manifest, found = check_manifest(text.encode(), files, files.__getitem__)
    assert (manifest is None) == bool(found)
    assert all(each.what and each.line for each in found)
    return [(each.code, each.line, each.field, each.remedy) for each in found]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_right_manifest_is_read():
    manifest = read_manifest(MANIFEST.encode(), FILES, FILES.__getitem__)
    assert manifest.types["pump"].quantities == {"flow": "m3/h", "power": "kW"}
    assert manifest.settings["limit"].maximum == 100.0


CASES = {
    "unknown key": ("publisher =", "publsher =", "APPS-2003", "publsher"),
    "unknown key below": ("optional =", "optionel =", "APPS-2003", "types.pump.optionel"),
    "id": ('"seal-watch"', '"Seal watch"', "APPS-2006", "id"),
    "version": ('"1.2.0"', '"1.2"', "APPS-2007", "version"),
    "range": ('">=0.1"', '"~0.1"', "APPS-2008", "headrace"),
    "unit": ('"m3/h"', '"m3/hour"', "APPS-2010", "types.pump.quantities.flow"),
    "kind of value": ("default = 80.0", 'default = "80"', "APPS-2015", "settings.limit.default"),
    "limits": ("default = 80.0", "default = 800.0", "APPS-2015", "settings.limit.default"),
    "a text for a number": (
        "maximum = 100.0",
        'maximum = "x"',
        "APPS-2005",
        "settings.limit.maximum",
    ),
    "view lacks": ('["pump.toml"]', '["pmp.toml"]', "APPS-2012", "views.0"),
    "python lacks": ('"seal_watch"', '"seal"', "APPS-2012", "python"),
    "twice": ('name = "wear"', 'name = "load"', "APPS-2011", "outputs.0.name"),
    "output of no model": (
        'name = "wear"',
        'model = "life"\nname = "wear"',
        "APPS-2009",
        "outputs.0.model",
    ),
    "output of no type": ('type = "pump"', 'type = "pmp"', "APPS-2009", "outputs.0.type"),
    "two places": (
        "seal_temperature =",
        'optional_power = "kW", power =',
        "APPS-2011",
        "types.pump.optional.power",
    ),
    "formula": ("power / rated_power", "powr / rated_power", "FORM-1010", "formulas.pump"),
    "formula's units": ("load > 1.1", "load > 1.1 m", "FORM-1012", "formulas.pump"),
    "title of no formula": (
        "[titles.pump.load]",
        "[titles.pump.lod]",
        "APPS-2009",
        "titles.pump.lod",
    ),
    "writes": ('["pump.flow"]', '["pump.speed"]', "APPS-2014", "permissions.writes.0"),
    "network": (":25", "", "APPS-2014", "permissions.network.0"),
    "no English": ('en = "Seal watch"', "", "APPS-2004", "title"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_has_its_code_line_and_field(case):
    before, after, code, field = CASES[case]
    text = MANIFEST.replace(before, after, 1)
    assert text != MANIFEST
    found = problems(text)
    assert [(each[0], each[2]) for each in found][:1] == [(code, field)], found
    if after:
        assert found[0][1] == line_of(text, after)


def test_all_problems_come_at_once_and_near_words_are_offered():
    text = MANIFEST.replace("publisher =", "publsher =").replace('"m3/h"', '"m3/hour"')
    text = text.replace("1.2.0", "one").replace("[permissions]\n", "[permissions]\nhistry = true\n")
    found = problems(text)
    assert [each[0] for each in found] == ["APPS-2007", "APPS-2003", "APPS-2010", "APPS-2003"]
    assert found[1][3] == "Did you mean publisher?" and found[3][3] == "Did you mean history?"
    with pytest.raises(PackageProblems, match=r"APPS-2000 .* \(and 3 more\)"):
        read_manifest(text.encode(), FILES, FILES.__getitem__)


def test_python_is_looked_at_and_is_needed_for_what_it_gives():
    broken = {**FILES, "seal_watch.py": b"def f(:\n"}
    assert [each[:2] for each in problems(MANIFEST, broken)] == [("APPS-2013", 1)]
    without = MANIFEST.replace('python = "seal_watch"\n', "")
    assert [each[0] for each in problems(without)] == ["APPS-2017", "APPS-2017"]


def test_what_is_no_toml_is_told_with_its_line():
    assert problems("id = \n")[0][:2] == ("APPS-2002", 1)
    assert problems("\n\nid = [\n")[0][0] == "APPS-2002"
    assert {each[0] for each in problems("")} == {"APPS-2004"}
    assert problems("types = 3\nid='a'\nversion='1.0.0'\ntitle={en='A'}")[0][0] == "APPS-2005"


def test_ranges_of_versions():
    assert in_range((1, 2, 3), "") and in_range((1, 2, 3), "1.2") and in_range((1, 2, 3), "!=1.3")
    assert not in_range((2, 0, 0), ">=1, <2") and not in_range((1, 2, 3), ">1.2")
    assert in_range((1, 2, 3), "<=1.2") and not is_range("newest")
    assert newest(["1.2.0", "1.10.0", "2.0.0"], "<2") == "1.10.0"
    assert newest([], "") is None
    assert platform_version("0.2.0.dev1+local") == (0, 2, 0)


def test_what_a_model_gives_beside_its_outputs_is_named_by_the_platform():
    model = 'models = ["life"]\n' + MANIFEST.replace(
        'name = "wear"', 'name = "wear"\nmodel = "life"'
    )
    assert problems(model) == []
    for name in ("life_drift", "wear_shadow"):
        more = f'[[outputs]]\ntype = "pump"\nname = "{name}"\nunit = "1"\ntitle = {{en = "x", zh = "x"}}\n'
        place = model.index("[[outputs]]")
        found = problems(model[:place] + more + model[place:])
        assert [(code, field) for code, _, field, _ in found] == [("APPS-2011", "outputs.1.model")]
