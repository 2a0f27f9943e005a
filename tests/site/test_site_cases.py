"""Every way a site file can be wrong: golden cases. Rewrite them with HEADRACE_BLESS=1 and read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.site.file import SiteFiles, check_site

CASES = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path) -> None:
    model, problems = check_site(SiteFiles(case / "site.toml"))
    assert model is None, "what is wrong is not accepted in part"
    for problem in problems:
        assert problem.line >= 1 and problem.field and problem.remedy, problem
    text = "".join(f"{problem}\n" for problem in problems)
    expected = case / "expected.txt"
    if os.environ.get("HEADRACE_BLESS"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


def test_there_are_cases() -> None:
    assert len(CASES) >= 40
