"""Writes the table of states into docs/alarms.md, from the machine's own table."""

from __future__ import annotations

from pathlib import Path

from headrace.alarms.machine import as_markdown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "alarms.md"
BEGIN, END = "<!-- table: python scripts/alarm_table.py -->\n", "<!-- end -->"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{as_markdown()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
