"""Every statement of the Sparkplug 3.0 TCK is listed, with the test that covers it or the reason.

``tck_coverage.csv``: id, applies_to (``host``: our connector, ``edge_node``: our emulator, ``none``),
covered_by (``file::test``), not_applicable_because.
"""

from __future__ import annotations

import ast
import csv
from pathlib import Path

from data import data_folder

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[3]


def coverage() -> list[dict[str, str]]:
    with (HERE / "tck_coverage.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def names_in(file: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, functions)}


def test_every_statement_is_listed_once() -> None:
    with (data_folder("sparkplug") / "tck_assertions.csv").open(newline="") as lines:
        published = [row["tck_id"] for row in csv.DictReader(lines)]
    assert sorted(row["id"] for row in coverage()) == sorted(published)


def test_every_row_says_where_or_why_not() -> None:
    for row in coverage():
        assert row["applies_to"] in ("host", "edge_node", "none"), row["id"]
        applies = row["applies_to"] != "none"
        assert bool(row["covered_by"]) == applies, row["id"]
        assert bool(row["not_applicable_because"]) != applies, row["id"]


def test_every_named_test_exists() -> None:
    known: dict[str, set[str]] = {}
    for row in coverage():
        if row["covered_by"]:
            file, name = row["covered_by"].split("::")
            known.setdefault(file, names_in(REPOSITORY / file))
            assert name in known[file], f"{row['id']}: there is no {row['covered_by']}"


def test_share_that_is_covered() -> None:
    """The share we state in the docs: statements that apply and have a test."""
    rows = coverage()
    covered = sum(bool(row["covered_by"]) for row in rows)
    assert (len(rows), covered) == (299, 238)
