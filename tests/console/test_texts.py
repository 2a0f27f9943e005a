"""Every text exists in both languages, is used, and fits its use."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import headrace.console
from headrace.console.texts import Texts, table

SOURCE = Path(headrace.console.__file__).parent
SECTIONS = {key.partition(".")[0] for key in table()}


def literals() -> set[str]:
    """Strings in the console's source that look like a key, and the fixed beginnings of made-up ones."""
    found: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "*" for v in node.values]
                found.add("".join(str(part) for part in parts))
    return {text for text in found if text.partition(".")[0] in SECTIONS and "." in text}


def test_every_key_used_exists_in_both_languages() -> None:
    for key in literals():
        if "*" not in key and re.fullmatch(r"[a-z_]+\.[A-Za-z0-9_-]*[A-Za-z0-9]", key):
            assert key in table(), f"{key} is used and stands in no table of console/texts"
    for key, (english, chinese) in table().items():
        assert english.strip() and chinese.strip(), key


def test_no_text_is_left_over() -> None:
    used = literals()
    patterns = [re.compile(re.escape(text).replace(r"\*", ".+")) for text in used if "*" in text]
    for key in table():
        made = any(pattern.fullmatch(key) for pattern in patterns)
        assert key in used or made, f"nothing uses {key}; take it out of console/texts"


def test_both_languages_fill_in_the_same_values() -> None:
    for key, (english, chinese) in table().items():
        fields = [
            {f for _, f, _, _ in string.Formatter().parse(t) if f} for t in (english, chinese)
        ]
        assert fields[0] == fields[1], key


def test_an_unknown_language_gives_english() -> None:
    assert Texts("xx")("nav.overview") == "Overview"
    assert Texts("zh").title({"en": "Pump", "zh": "泵"}, "x") == "泵"
    assert Texts("zh").title({"en": "Pump"}, "x") == "Pump"
    assert Texts("en").title("", "x") == "x"
