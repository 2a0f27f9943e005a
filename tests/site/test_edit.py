"""Edits keep what a person wrote, and are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_bench_connector import SITE

from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.site import writing
from headrace.site.edit import SiteEdit, undo
from headrace.site.file import load_site
from headrace.site.model import SiteProblems, Tag
from headrace.site.writing import save_version, site_lock, versions, write_files

CSV_SITE = SITE.replace('time_zone = "Europe/Berlin"', 'tag_files = ["tags.csv"]')
CSV = (
    "# kept by the instrument shop\r\n"
    'path;connection;address;title\r\n"utilities/air/pressure";plc;register:10;"Druck ""1"""\r\n'
    "\r\n"
    "utilities/air/flow;plc;register:12;Menge\r\n"
)


@pytest.fixture
def csv_folder(site_folder: Path) -> Path:
    (site_folder / "site.toml").write_text(CSV_SITE, encoding="utf-8")
    (site_folder / "tags.csv").write_bytes(CSV.encode("utf-8"))
    return site_folder


def changed_lines(diff: str) -> list[str]:
    return [
        line
        for line in diff.splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---")) and line[1:].strip()
    ]


def test_add_a_connection_with_tags_leaves_the_rest_alone(site_folder: Path) -> None:
    edit = SiteEdit(DataFolder(site_folder))
    edit.add_connection("meter 2".replace(" ", "_"), "bench", "h:1", options={"unit_id": 3})
    edit.add_tags(
        [Tag("utilities/power/meter_2/energy", "meter_2", "register:4", "kWh", "Energy", "电能")]
    )
    diff = edit.save()
    assert changed_lines(diff) == [
        "+[connection.meter_2]",
        '+protocol = "bench"',
        '+endpoint = "h:1"',
        "+options = {unit_id = 3}",
        "+[[tag]]",
        '+path = "utilities/power/meter_2/energy"',
        '+connection = "meter_2"',
        '+address = "register:4"',
        '+unit = "kWh"',
        '+title = {en = "Energy", zh = "电能"}',
    ]
    model = load_site(site_folder / "site.toml")
    assert [each.name for each in model.connections] == ["plc", "meter_2"]
    assert model.tags[-1].title_zh == "电能"


def test_change_enable_disable(site_folder: Path) -> None:
    folder = DataFolder(site_folder)
    edit = SiteEdit(folder)
    edit.set_enabled("plc", False)
    edit.change_connection("plc", endpoint="10.0.0.9:502", options={"unit_id": 7})
    diff = edit.save()
    assert changed_lines(diff) == [
        '-endpoint = "127.0.0.1:1502"',
        "-options = { unit_id = 1 }",
        '+endpoint = "10.0.0.9:502"',
        "+options = {unit_id = 7}",
        "+enabled = false",
    ]
    again = SiteEdit(folder)
    again.set_enabled("plc", True)
    assert changed_lines(again.save()) == ["-enabled = false"]
    with pytest.raises(Misconfigured, match="SITE-1412"):
        SiteEdit(folder).set_enabled("nothing", True)


def test_a_connection_with_tags_goes_only_with_them(site_folder: Path) -> None:
    edit = SiteEdit(DataFolder(site_folder))
    with pytest.raises(Refused, match="SITE-1413"):
        edit.remove_connection("plc")
    edit.remove_connection("plc", with_tags=True)
    edit.save()
    text = (site_folder / "site.toml").read_text("utf-8")
    assert text == SITE[: SITE.index("[connection.plc]")]


def test_removing_one_tag_keeps_the_remark_of_the_next(site_folder: Path) -> None:
    text = SITE.replace(
        '[[tag]]\npath = "utilities/pumping/pump_1/vib',
        '# bearing side\n[[tag]]\npath = "utilities/pumping/pump_1/vib',
    )
    (site_folder / "site.toml").write_text(text, "utf-8")
    edit = SiteEdit(DataFolder(site_folder))
    edit.remove_tags(["utilities/pumping/pump_1/flow"])
    edit.save()
    left = (site_folder / "site.toml").read_text("utf-8")
    assert "# bearing side\n[[tag]]" in left and "own instruments" not in left
    assert len(load_site(site_folder / "site.toml").tags) == 1


def test_rename_writes_was(site_folder: Path) -> None:
    folder = DataFolder(site_folder)
    edit = SiteEdit(folder)
    edit.rename("utilities/pumping/pump_1/flow", "utilities/pumping/pump_1/volume_flow")
    assert changed_lines(edit.save()) == [
        '-path = "utilities/pumping/pump_1/flow"',
        '+path = "utilities/pumping/pump_1/volume_flow"',
        '+was = "utilities/pumping/pump_1/flow"',
    ]
    again = SiteEdit(folder)
    again.rename("utilities/pumping/pump_1/volume_flow", "utilities/pumping/pump_1/q")
    again.save()
    assert load_site(folder.site_file).tags[0].was == (
        "utilities/pumping/pump_1/flow",
        "utilities/pumping/pump_1/volume_flow",
    )
    with pytest.raises(Misconfigured, match="SITE-1414"):
        SiteEdit(folder).rename("no/such", "a/b")


def test_moving_equipment_moves_its_tags_and_its_asset(csv_folder: Path) -> None:
    folder = DataFolder(csv_folder)
    edit = SiteEdit(folder)
    moves = edit.rename("utilities/pumping", "cooling/water")
    assert len(moves) == 2
    edit.save()
    model = load_site(folder.site_file)
    assert model.assets[0].path == "cooling/water/pump_1"
    assert model.tags[0].path == "cooling/water/pump_1/flow"
    assert model.tags[0].was == ("utilities/pumping/pump_1/flow",)
    assert (csv_folder / "tags.csv").read_bytes() == CSV.encode(), "not touched"


def test_csv_rows_that_are_not_touched_keep_their_bytes(csv_folder: Path) -> None:
    folder = DataFolder(csv_folder)
    edit = SiteEdit(folder)
    edit.rename("utilities/air/flow", "utilities/air/volume_flow")
    edit.add_tags([Tag("utilities/air/dew_point", "plc", "register:14", "Cel", scale=0.1)])
    edit.save()
    lines = (csv_folder / "tags.csv").read_bytes().decode().split("\r\n")
    assert lines == [
        "# kept by the instrument shop",
        "path;connection;address;title;was;unit;scale",
        '"utilities/air/pressure";plc;register:10;"Druck ""1"""',
        "",
        "utilities/air/volume_flow;plc;register:12;Menge;utilities/air/flow",
        "utilities/air/dew_point;plc;register:14;;;Cel;0.1",
        "",
    ]
    edit = SiteEdit(folder)
    edit.remove_tags(["utilities/air/dew_point"])
    edit.save()
    assert "dew_point" not in (csv_folder / "tags.csv").read_text()


def test_a_wrong_edit_is_not_written(site_folder: Path) -> None:
    edit = SiteEdit(DataFolder(site_folder))
    edit.add_connection("other", "bench", "no port")
    with pytest.raises(SiteProblems) as caught:
        edit.save()
    assert caught.value.problems[0].field == "connection.other.endpoint"
    assert (site_folder / "site.toml").read_text("utf-8") == SITE


def test_somebody_else_was_faster(site_folder: Path) -> None:
    edit = SiteEdit(DataFolder(site_folder))
    edit.set_enabled("plc", False)
    (site_folder / "site.toml").write_text(SITE + "# mine\n", "utf-8")
    with pytest.raises(Refused, match="SITE-1416"):
        edit.save()
    assert (site_folder / "site.toml").read_text("utf-8") == SITE + "# mine\n"


def test_undo_and_undo_of_undo(csv_folder: Path) -> None:
    folder = DataFolder(csv_folder)

    def accept(now_us: int) -> None:
        names = ("site.toml", "tags.csv")
        save_version(folder, {name: (csv_folder / name).read_bytes() for name in names}, now_us)

    accept(1)
    edit = SiteEdit(folder)
    edit.rename("utilities/air/flow", "utilities/air/q")
    edit.save()
    accept(2)
    version, diff = undo(folder)
    assert version.number == 1 and "-utilities/air/q" in diff
    assert (csv_folder / "tags.csv").read_bytes() == CSV.encode()
    accept(3)
    assert undo(folder)[0].number == 2
    assert "utilities/air/q" in (csv_folder / "tags.csv").read_text()
    assert undo(folder, 1)[0].number == 1
    with pytest.raises(Misconfigured, match="SITE-1417"):
        undo(folder, 99)


def test_only_the_last_hundred_versions_stay(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    for number in range(1, 106):
        save_version(folder, {"site.toml": str(number).encode()}, number)
    assert save_version(folder, {"site.toml": b"105"}, 200) is None
    kept = [version.number for version in versions(folder)]
    assert kept == list(range(6, 106))


def test_a_crash_between_two_files_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after each possible write; whoever comes next sees all new or all old."""
    real = writing._write_atomically

    class PowerCutError(Exception):
        pass

    for survive in range(4):
        root = tmp_path / str(survive)
        root.mkdir()
        folder = DataFolder(root)
        old = {"site.toml": b"old", "tags.csv": b"old"}
        for name, content in old.items():
            (root / name).write_bytes(content)
        left = survive

        def dying(path: Path, content: bytes) -> None:
            nonlocal left
            if left == 0:
                raise PowerCutError
            left -= 1
            real(path, content)

        with site_lock(folder), monkeypatch.context() as patch:
            patch.setattr(writing, "_write_atomically", dying)
            try:
                write_files(folder, {"site.toml": b"new", "tags.csv": b"new"})
            except PowerCutError:
                pass
        with site_lock(folder):
            seen = {(root / name).read_bytes() for name in old}
        assert seen == ({b"old"} if survive == 0 else {b"new"})


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.booleans(), st.booleans()), max_size=6, unique_by=lambda x: x[0])
)
def test_adding_and_removing_gives_the_same_text(
    tmp_path_factory: pytest.TempPathFactory, added: list[tuple[str, bool, bool]]
) -> None:
    """What is added and then removed again leaves no trace but blank lines."""
    root = tmp_path_factory.mktemp("edit")
    (root / "site.toml").write_text(SITE, "utf-8")
    edit = SiteEdit(DataFolder(root))
    for number, (name, enabled, with_tag) in enumerate(added):
        edit.add_connection(f"x_{name}", "bench", "h:1", enabled=enabled)
        if with_tag:
            edit.add_tags([Tag(f"new/{name}", f"x_{name}", f"register:{number}")])
    edit.check()
    for name, _, _ in added:
        edit.remove_connection(f"x_{name}", with_tags=True)
    squeezed = [line for line in edit.text.splitlines() if line]
    assert squeezed == [line for line in SITE.splitlines() if line]
