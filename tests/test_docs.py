"""The documents hold to the source: error codes, glossary, the site file's keys."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace.site.file import load_site
from headrace.site.model import Tag
from headrace.site.sections import SECTIONS
from headrace.site.tag_table import HEADERS

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"\b(?:MODEL|FORM|BUS|EDGE|HIST|SITE|ALARM|APPS|SEC|CONS|CLI|SIM)-\d{4}\b")


@pytest.fixture(scope="module")
def list_errors() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "list_errors", ROOT / "scripts" / "list_errors.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["list_errors"] = module
    spec.loader.exec_module(module)
    return module


def test_the_list_of_errors_is_up_to_date(list_errors: ModuleType) -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert page == list_errors.page(), "run: python scripts/list_errors.py"


def test_every_code_in_the_source_is_listed_once(list_errors: ModuleType) -> None:
    """Counted another way than the script does: by searching all texts but docstrings."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([A-Z]+-\d{4}) \| ([\w, ]+) \| (.+?) \| `", page, re.MULTILINE)
    codes = [code for code, _, _ in listed]
    assert len(codes) == len(set(codes))
    assert all(meaning.strip() for _, _, meaning in listed)
    used: set[str] = set()
    for path in (ROOT / "src" / "headrace").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in docstrings:
                used |= set(CODE.findall(node.value))
    assert used == set(codes)


def test_no_list_says_a_line_twice() -> None:
    """Lists that many write at once are merged by taking both sides."""
    for path in (ROOT / "CHANGELOG.md", ROOT / "docs" / "glossary.md", ROOT / "ARCHITECTURE.md"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 60]
        begins = [line[:60] if path.name == "ARCHITECTURE.md" else line for line in lines]
        assert not {line for line in begins if begins.count(line) > 1}, path.name


def test_the_site_file_page_names_every_key_and_its_example_is_right(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "site-file.md").read_text(encoding="utf-8")
    for section in SECTIONS:
        assert f"`[{section}" in page or f"`[[{section}" in page, section
    for field in Tag.__struct_fields__:
        assert f"`{field}`" in page, field
    for words in HEADERS.values():
        for word in words:
            assert word in page, word
    blocks = re.findall(r"```(toml|csv)\n(.*?)```", page, re.DOTALL)
    site, tags = blocks[0][1], blocks[1][1]
    knowledge = "\n".join(text for kind, text in blocks[2:] if kind == "toml")
    named = '[site]\nenterprise = "acme"\nname = "mill"\n\n'
    (tmp_path / "more.toml").write_text(named + knowledge, encoding="utf-8")
    written = load_site(tmp_path / "more.toml")
    assert sum(len(kind.formulas) for kind in written.asset_types) == 5 and written.calendar.shifts
    (tmp_path / "site.toml").write_text(site, encoding="utf-8")
    (tmp_path / "tags.csv").write_text(tags, encoding="utf-8")
    model = load_site(tmp_path / "site.toml")
    assert len(model.tags) >= 3 and model.connections


def test_the_glossary_has_one_line_a_term_and_every_struct_of_the_model() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| \*\*(.+?)\*\*", page, re.MULTILINE)
    assert len(terms) == len(set(terms))
    names = {name for term in terms for name in re.split(r"[, /]+", term)}
    lacking = []
    for path in [
        *(ROOT / "src" / "headrace" / "model").glob("*.py"),
        ROOT / "src" / "headrace" / "site" / "model.py",
    ]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_public = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            if is_public and node.name not in names:
                lacking.append(node.name)
    assert lacking == [], "give each a line in docs/glossary.md"
