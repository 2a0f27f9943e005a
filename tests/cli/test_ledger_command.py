"""``headrace ledger``: in words, as numbers, and by its exit code."""

from __future__ import annotations

import csv
import io
import json

import pytest
import typer
from typer.testing import CliRunner, Result

from headrace.cli import ledger
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from ledger_books import write_books

NOW_US = SystemClock().now_us()


@pytest.fixture
def books(folder: DataFolder) -> DataFolder:
    folder.root.mkdir()
    write_books(folder.ledger_file, NOW_US)
    return folder


def run(folder: DataFolder, *arguments: str) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    ledger.register(app)
    command = ["ledger", *arguments, "--data", str(folder.root)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "250", "NO_COLOR": "1"})


def test_books_that_close_end_with_zero_and_name_each_cause(books: DataFolder) -> None:
    shown = run(books, "--connection", "press_1", "--by", "minute")
    assert shown.exit_code == 0, shown.output
    assert "The books close: every sample is accounted for." in shown.output
    assert "2 device too slow, 1 kept back by dead-band, 1 copy" in shown.output
    assert "Lengthen scan_interval_ms" in shown.output


def test_an_unexplained_difference_ends_with_three(books: DataFolder) -> None:
    shown = run(books)
    assert shown.exit_code == 3
    assert "4 samples are unexplained" in shown.output


def test_json_and_csv_have_every_count(books: DataFolder) -> None:
    shown = run(books, "--format", "json", "--by", "connection")
    assert shown.exit_code == 3
    answer = json.loads(shown.stdout)
    assert answer["unexplained"] == 4
    assert answer["rows"][0]["causes"] == {"missed_slow": 2, "filtered": 1, "duplicate": 1}
    rows = list(csv.DictReader(io.StringIO(run(books, "--format", "csv").stdout)))
    assert [(row["connection"], row["stored"]) for row in rows] == [
        ("press_1", "6"),
        ("press_2", "5"),
    ]


def test_a_time_without_books_is_empty_and_closes(books: DataFolder) -> None:
    shown = run(books, "--from", "-1m")
    assert shown.exit_code == 0 and "The books close" in shown.output


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--by", "year"], "CLI-1701"), (["--format", "xml"], "CLI-1702")]
)
def test_an_argument_that_does_not_fit_says_so(
    books: DataFolder, arguments: list[str], code: str
) -> None:
    error = run(books, *arguments).exception
    assert isinstance(error, Misconfigured) and error.code == code and error.remedy


def test_without_a_ledger_it_says_what_makes_one(folder: DataFolder) -> None:
    folder.root.mkdir()
    error = run(folder).exception
    assert isinstance(error, HeadraceError) and isinstance(error, Transient)
    assert error.code == "HIST-1703" and "headrace up" in error.remedy
