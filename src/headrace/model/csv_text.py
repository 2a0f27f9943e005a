"""Texts in CSV that a spreadsheet must not run as formulas.

A cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return is taken for a formula
when the file is opened by double click; an apostrophe before it makes it text (OWASP, "CSV Injection").
Numbers in columns of numbers stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

_RISKY: Final = r"^('*[=+\-@\t\r])"
_DEFUSED: Final = re.compile(r"^'('*[=+\-@\t\r])")


def defuse(text: str) -> str:
    """A text as a cell that nothing runs; :func:`plain` gives it back.

    Example:
        >>> defuse("=1+1"), plain(defuse("=1+1")), defuse("hot")
        ("'=1+1", '=1+1', 'hot')
    """
    return re.sub(_RISKY, r"'\1", text)


def plain(cell: str) -> str:
    """What was written, of a cell that :func:`defuse` made; any other stays."""
    return _DEFUSED.sub(r"\1", cell)


def defused(frame: pl.DataFrame) -> pl.DataFrame:
    """All columns of text as :func:`defuse` makes them."""
    return frame.with_columns(pl.col(pl.String).str.replace(_RISKY, "'${1}"))
