"""Lines of keys: whatever TOML allows, the line is the one a person sees."""

from __future__ import annotations

import tomllib

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.site.toml_lines import header_lines, key_lines

TEXT = '''\
# remark with [brackets] = and "quotes"
[site] # more
name = "mill # no remark"
'quoted.key' = 1
dotted.inner.key = 1
long = """
[not.a.header]
still = "text"
"""
raw = \'\'\'
[[tag]]
\'\'\'
list = [
  1, # one
  { a = 1, b = [2, 3] },
  "x",
]

[[tag]]
path = "a"
title = { en = "A", zh = "甲" }
[[tag]]
path = "b"
[tag.sub]
x = 1
[connection . "plc 1"]
y = 2
'''


def test_lines() -> None:
    tomllib.loads(TEXT)
    lines = key_lines(TEXT)
    assert lines[("site",)] == 2
    assert lines[("site", "name")] == 3
    assert lines[("site", "quoted.key")] == 4
    assert lines[("site", "dotted", "inner", "key")] == 5
    assert lines[("site", "raw")] == 10
    assert lines[("site", "list", 1, "b", 1)] == 15
    assert lines[("site", "list", 2)] == 16
    assert lines[("tag", 0, "title", "zh")] == 21
    assert lines[("tag", 1, "path")] == 23
    assert lines[("tag", 1, "sub", "x")] == 25
    assert lines[("connection", "plc 1", "y")] == 27
    assert ("not", "a", "header") not in lines
    assert [line for line, _ in header_lines(TEXT)] == [2, 19, 22, 24, 26]


KEYS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6
)
KEYS = KEYS.filter(lambda key: not set(key) & set('"\\'))
VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_every_key_that_a_parser_sees_has_its_line(data: dict[str, dict[str, object]]) -> None:
    text = tomlkit.dumps(data)
    lines = key_lines(text)
    written = text.split("\n")
    for section, table in tomllib.loads(text).items():
        assert (section,) in lines
        for key in table:
            line = written[lines[(section, key)] - 1]
            assert key in line, "the line shows the key"
