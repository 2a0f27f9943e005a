"""Whatever stands in the files: a model or a list of problems, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_knowledge import SITE as KNOWLEDGE

from headrace.site.file import SiteFiles, check_site
from headrace.site.model import Tag
from headrace.site.sections import SECTIONS

VALUE = st.recursive(
    st.none().map(lambda _: 0)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.datetimes()
    | st.text(max_size=10)
    | st.sampled_from(["a/b", "plc", "bench", "h:1", "register:0", "m3/h", "pump", "tags.csv"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["en", "zh", "flow", "x y"]), inner, max_size=3)
    ),
    max_leaves=4,
)
WORD = st.sampled_from(
    [
        *Tag.__struct_fields__,
        *("enterprise", "name", "title", "time_zone", "tag_files", "type", "quantities"),
        *("attributes", "relations", "max_age", "formulas", "shadow", "off", "start"),
        *("shift", "stop", "holidays", "rotation_start", "days", "teams", "end"),
        *("retention_days", "protocol", "endpoint", "edge", "enabled", "options"),
    ]
)
TABLE = st.dictionaries(WORD, VALUE, max_size=6)
NAMED = st.dictionaries(st.sampled_from(["plc", "a", "a/b", "a/b/c", "pump", "x y"]), TABLE | VALUE)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "site": TABLE | VALUE,
        "tag": st.lists(TABLE, max_size=3) | VALUE,
        **{word: NAMED | VALUE for word in SECTIONS if word not in ("site", "tag")},
    },
)
RELAXED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def answers(files: SiteFiles) -> None:
    model, problems = check_site(files)
    assert (model is None) == bool(problems)
    assert all(problem.line >= 1 and problem.code and problem.what for problem in problems)


@RELAXED
@given(DOCUMENT)
def test_any_document(tmp_path: Path, data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data).encode("utf-8", "replace")
    answers(SiteFiles(tmp_path / "site.toml", {"site.toml": text}))


@RELAXED
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    answers(SiteFiles(tmp_path / "site.toml", {"site.toml": content}))


PIECE = st.sampled_from(
    [
        *("", "0", "-1", '"', "'", "\n", "[", "]", "{}", "true", "2026-01-01", "2026-13-01", "x"),
        *("flow", "pump", "tank", "source", "formulas", "alarm a: flow > 1", "hall/p1", "=", "→"),
        *(
            "9999-12-31T23:59:59",
            "0001-01-01T00:00:00+14:00",
            "1e400",
            "text",
            "condition",
            "\ud7ff",
        ),
    ]
)


@settings(parent=RELAXED, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(KNOWLEDGE)), st.integers(0, 25), PIECE), max_size=3))
def test_any_edit_of_what_engineers_wrote(
    tmp_path: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = KNOWLEDGE
    for at, length, piece in edits:
        text = text[:at] + piece + text[at + length :]
    answers(SiteFiles(tmp_path / "site.toml", {"site.toml": text.encode()}))


HEAD = b"""[site]
enterprise = "acme"
name = "mill"
tag_files = ["tags.%s"]
[connection.plc]
protocol = "bench"
endpoint = "h:1"
"""


@RELAXED
@given(
    st.binary(max_size=80)
    | st.lists(
        st.lists(st.sampled_from(["path", "a/b", "plc", "address", '"', "\r", "0,5", "路径", ""])),
        max_size=4,
    ).map(lambda rows: "\n".join(";".join(row) for row in rows).encode("gbk"))
)
def test_any_tag_list(tmp_path: Path, content: bytes) -> None:
    files = {"site.toml": HEAD % b"csv", "tags.csv": b"path;connection;address\n" + content}
    answers(SiteFiles(tmp_path / "site.toml", files))
    answers(SiteFiles(tmp_path / "site.toml", {**files, "tags.csv": content}))


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"PK\x03\x04" + tail))
def test_any_spreadsheet(content: bytes) -> None:
    files = {"site.toml": HEAD % b"xlsx", "tags.xlsx": content}
    answers(SiteFiles(Path("/nowhere/site.toml"), files))
