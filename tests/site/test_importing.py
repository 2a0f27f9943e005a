"""Tag lists go out and come back the same, by CSV and by XLSX, in any usual form."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from site_bench_connector import SITE

from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.site.file import load_site
from headrace.site.importing import export_tags, plan_import
from headrace.site.model import SiteProblems, Tag
from headrace.site.notes import Notes
from headrace.site.tag_table import read_tag_table
from headrace.site.tags import from_table

NAME = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
PATH = st.lists(NAME, min_size=2, max_size=8).map("/".join)
# A cell is stripped; a spreadsheet has no control characters.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12).map(
    str.strip
)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TAGS = st.lists(
    st.builds(
        Tag,
        path=PATH,
        connection=NAME,
        address=TEXT.filter(bool),
        unit=TEXT,
        title=TEXT,
        title_zh=TEXT,
        description=TEXT,
        scan_interval_ms=st.integers(-(2**40), 2**40),
        scale=NUMBER,
        offset=NUMBER,
        deadband=NUMBER,
        group=NAME,
        writable=st.booleans(),
        write_minimum=st.none() | NUMBER,
        write_maximum=st.none() | NUMBER,
        sample_interval_us=st.integers(0, 10**12),
        id=st.integers(0, 2**63 - 1),
        was=st.lists(PATH, max_size=3).map(tuple),
    ),
    max_size=8,
)


def read_back(name: str, content: bytes) -> tuple[Tag, ...]:
    notes = Notes(name)
    tags = tuple(from_table(notes, read_tag_table(name, content)).tags)
    assert notes.problems == []
    return tags


@settings(max_examples=60, deadline=None)
@given(TAGS)
@example([Tag("a/b", "c", '"; , |', title="=1+1", description="0,5", offset=-0.0)])
def test_csv_comes_back_the_same(tags: list[Tag]) -> None:
    assert read_back("t.csv", export_tags(tags, ".csv")) == tuple(tags)


@settings(max_examples=15, deadline=None)
@given(TAGS)
def test_xlsx_comes_back_the_same(tags: list[Tag]) -> None:
    assert read_back("t.xlsx", export_tags(tags, ".xlsx")) == tuple(tags)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_any_usual_form(separator: str, encoding: str, newline: str) -> None:
    rows = (
        ("路径", "连接", "地址", "单位", "中文名称", "扫描周期(ms)", "可写"),
        ("a/pump", "plc", "register:0", "m3/h", "水泵流量", "500", "是"),
    )
    text = newline.join(separator.join(row) for row in rows)
    (tag,) = read_back("t.csv", text.encode(encoding))
    assert tag == Tag(
        "a/pump",
        "plc",
        "register:0",
        "m3/h",
        title_zh="水泵流量",
        scan_interval_ms=500,
        writable=True,
    )


def test_decimal_comma_only_where_it_cannot_be_a_separator_of_thousands() -> None:
    text = b"path;connection;address;scale;offset\na/b;c;d;0,25;-12,5\n"
    (tag,) = read_back("t.csv", text)
    assert (tag.scale, tag.offset) == (0.25, -12.5)
    notes = Notes("t.csv")
    from_table(notes, read_tag_table("t.csv", text.replace(b"0,25", b"1,250")))
    assert [problem.code for problem in notes.problems] == ["SITE-1005"]


@pytest.fixture
def folder(site_folder: Path) -> DataFolder:
    return DataFolder(site_folder)


def test_export_and_import_change_nothing(folder: DataFolder) -> None:
    model = load_site(folder.site_file)
    for suffix in (".csv", ".xlsx"):
        list_file = folder.root / f"exported{suffix}"
        list_file.write_bytes(export_tags(model.tags, suffix))
        plan = plan_import(folder, list_file, remove=True)
        assert (plan.added, plan.changed, plan.removed, plan.unchanged) == ((), (), (), 2)
        assert plan.edit.diff() == ""


def test_import_into_a_site_without_tags_gives_the_same_tags(folder: DataFolder) -> None:
    model = load_site(folder.site_file)
    list_file = folder.root / "exported.csv"
    list_file.write_bytes(export_tags(model.tags, ".csv"))
    folder.site_file.write_text(SITE[: SITE.index("# the pump's")], "utf-8")
    plan = plan_import(folder, list_file)
    assert len(plan.added) == 2
    plan.edit.save()
    again = load_site(folder.site_file)
    assert again.tags == model.tags and again.tag_files == ("tags.csv",)


def test_import_changes_only_the_columns_it_has(folder: DataFolder) -> None:
    path = "utilities/pumping/pump_1"
    list_file = folder.root / "new.csv"
    list_file.write_text(
        "path,connection,address,scan_interval_ms\n"
        f"{path}/vibration,plc,register:2,250\n{path}/head,plc,register:6,1000\n"
    )
    plan = plan_import(folder, list_file)
    assert (plan.added, plan.changed) == ((f"{path}/head",), (f"{path}/vibration",))
    plan.edit.save()
    tags = {tag.path: tag for tag in load_site(folder.site_file).tags}
    vibration = tags[f"{path}/vibration"]
    assert (vibration.scan_interval_ms, vibration.group, vibration.unit) == (
        250,
        "waveforms",
        "mm/s",
    )
    assert tags[f"{path}/head"].unit == "m", "the asset type's unit"
    assert "# the pump's own instruments" in folder.site_file.read_text("utf-8")
    removing = plan_import(folder, list_file, remove=True)
    assert removing.removed == (f"{path}/flow",)
    removing.edit.save()
    assert f"{path}/flow" not in {tag.path for tag in load_site(folder.site_file).tags}


def test_a_wrong_list_changes_nothing(folder: DataFolder) -> None:
    list_file = folder.root / "new.csv"
    header = "path,connection,address\n"
    list_file.write_text(header + "a/b,plc,register:1\na/b,plc,register:3\n")
    with pytest.raises(SiteProblems) as caught:
        plan_import(folder, list_file)
    assert (caught.value.problems[0].line, caught.value.problems[0].code) == (3, "SITE-1007")
    list_file.write_text(header + "a/b,nothing,register:1\n")
    with pytest.raises(SiteProblems) as caught:
        plan_import(folder, list_file)
    assert caught.value.problems[0].code == "SITE-1009"
    with pytest.raises(Misconfigured, match="SITE-1001"):
        plan_import(folder, folder.root / "none.csv")
    with pytest.raises(Misconfigured, match="SITE-1403"):
        export_tags((), ".doc")
    assert folder.site_file.read_text("utf-8") == SITE
