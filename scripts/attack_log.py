"""Writes ``docs/attacks.md``: every named attack of the tests, what it tries and what stops it.

Reads the syntax tree of ``tests/attacks/`` only; nothing is imported. ``python scripts/attack_log.py``
rewrites the page; ``tests/attacks/test_attack_log.py`` holds it.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "attacks"
PAGE = ROOT / "docs" / "attacks.md"
HEAD = """\
# Attempt log

Written by `python scripts/attack_log.py` from the tests; do not edit by hand. Each line is an attack that a
test carries out and that fails: what it tries, what stops it, its kind (STRIDE: **S**poofing, **T**ampering,
**R**epudiation, **I**nformation disclosure, **D**enial of service, **E**levation of privilege), and the
requirement of IEC 62443-3-3 that it holds. [security.md](security.md) says what is defended and what is not.
"""


class Entry(NamedTuple):
    """One attack of the log."""

    name: str
    tries: str
    stops: str
    stride: str
    requirement: str
    test: str


def entries() -> list[Entry]:
    """Every attack, by name."""
    found = [entry for path in sorted(FOLDER.glob("test_*.py")) for entry in _of_file(path)]
    found += _elsewhere(FOLDER / "attack_log.py")
    return sorted(found)


def _of_file(path: Path) -> list[Entry]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            is_call = isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)
            if is_call and decorator.func.id == "attack":
                given = {each.arg: ast.literal_eval(each.value) for each in decorator.keywords}
                name = ast.literal_eval(decorator.args[0])
                place = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                found.append(Entry(name=name, **given, test=place))
    return found


def _elsewhere(path: Path) -> list[Entry]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "ELSEWHERE":
            assert node.value is not None
            return [Entry(*row) for row in ast.literal_eval(node.value)]
    raise SystemExit(f"{path} has no ELSEWHERE")


def page() -> str:
    """The page as it should be."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries():
        groups[entry.name.partition("/")[0]].append(entry)
    lines = [HEAD, f"{sum(map(len, groups.values()))} attacks in {len(groups)} groups.", ""]
    for group, members in sorted(groups.items()):
        lines += [f"## {group}", ""]
        lines += ["| attack | tries | what stops it | kind | holds | test |"]
        lines += ["|---|---|---|---|---|---|"]
        for each in members:
            name = each.name.partition("/")[2]
            lines.append(
                f"| {name} | {each.tries} | {each.stops} | {each.stride} | {each.requirement} | "
                f"`{each.test.removeprefix('tests/')}` |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
