"""Writes docs/adr/README.md, the list of decisions, from the pages' own titles and status."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "adr"


def index() -> str:
    """The text of the list."""
    lines = ["# Decisions", "", "One page each: context, decision, consequences, status.", ""]
    for page in sorted(FOLDER.glob("0*.md")):
        text = page.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        status = next(line for line in text.splitlines() if line.startswith("Status: "))
        lines.append(f"- [{title}]({page.name}) ({status.removeprefix('Status: ').rstrip('.')})")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(index(), encoding="utf-8")
