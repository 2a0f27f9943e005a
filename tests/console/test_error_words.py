"""What an error says in each language: a Chinese sentence where there is one, always the code and the facts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.console.error_words import error_markup, error_words
from headrace.console.texts import Texts, table
from headrace.model.errors import Refused

ERRORS = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text("utf-8")
SAID = sorted(key.removeprefix("errors.") for key in table() if key.startswith("errors."))


def test_every_code_with_a_sentence_is_one_that_is_raised() -> None:
    assert SAID and [code for code in SAID if f"| {code} |" not in ERRORS] == []


def test_what_the_catalog_refuses_is_said_in_chinese() -> None:
    """All codes that a package which somebody drops on the catalog, or an install of it, can meet."""
    files = ("package", "archive", "registry", "installing", "certified", "publishers")
    folder = Path(__file__).resolve().parents[2] / "src" / "headrace" / "apps"
    found = {
        code
        for name in files
        for path in folder.glob(f"*/{name}.py")
        for code in re.findall(r'"(APPS-20\d\d)"', path.read_text("utf-8"))
    }
    # Of commands alone: what an engineer packs, what trust and a way back ask for.
    theirs = {"APPS-2006", "APPS-2012", "APPS-2030", "APPS-2031", "APPS-2032", "APPS-2041",
              "APPS-2042", "APPS-2047", "APPS-2059"}  # fmt: skip
    assert found - theirs - set(SAID) == set()


@pytest.mark.parametrize("code", ["APPS-2028", "APPS-2999"])
def test_code_and_facts_are_always_there(code: str) -> None:
    error = Refused(code, "nobody signed <this>", "Sign it.")
    for language in ("en", "zh"):
        shown = str(error_markup(Texts(language), error))
        assert code in shown and "nobody signed &lt;this&gt;" in shown
    assert error_words(Texts("en"), error) == ("nobody signed <this>.", "", "Sign it.")
    sentence, detail, _ = error_words(Texts("zh"), error)
    assert (detail == "") == (code == "APPS-2999") and sentence
