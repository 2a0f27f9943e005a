"""Writes ``docs/errors.md``: every error code in the source, with its class and its meaning.

Reads the syntax tree only; nothing is imported. ``python scripts/list_errors.py`` rewrites the page,
``--check`` exits with 1 when the page is old. ``tests/test_docs.py`` holds it.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "headrace"
PROBLEMS = SOURCE / "formula" / "problems.toml"
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"^[A-Z]{2,6}-\d{4}$")
TOLD = re.compile(r"^[A-Z]{2,6}-\d{4} \S")
CLASSES = ("Transient", "Terminal", "Refused", "Misconfigured", "Corrupt")
COLLECTED = ("Problem", "add", "at", "_note", "wrong", "__init__")
"""Calls that note a problem of the site file; together they are raised as one Misconfigured."""
ROOMS = {
    "MODEL": "The model: names, units, samples",
    "FORM": "Formulas",
    "BUS": "The bus and its broker",
    "EDGE": "The edge and its connectors",
    "HIST": "The historian",
    "SITE": "The site file and the registry",
    "ALARM": "Alarms and their notifications",
    "SEC": "Identity, policy, secrets",
    "APPS": "The apps role",
    "CONS": "The console and its REST API",
    "CLI": "The command line",
    "SIM": "The simulated site and replay",
}
HEAD = """\
# Error codes

Written by `python scripts/list_errors.py` from the source; do not edit by hand.

A code is stable API, its text is not. The class says what a caller can do: **Transient** try again;
**Terminal** trying again will not help; **Refused** the other side or our policy said no; **Misconfigured** a
setting is wrong; **Corrupt** data contradict their own checks and were not used; **notice** an event or a
line in a report, not raised. `{...}` stands for a value.
"""


@dataclass
class Entry:
    """All that the source says of one code."""

    classes: set[str] = field(default_factory=set)
    meanings: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)


def codes() -> dict[str, Entry]:
    """Code -> what the source says of it."""
    found: dict[str, Entry] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function, call, position in _uses(tree):
            code = call[position]
            entry = found.setdefault(code.value, Entry())  # type: ignore[attr-defined] # a constant
            entry.files.add(path.relative_to(SOURCE).as_posix())
            entry.classes.add(_class(function))
            others = [*call[position + 1 :], *call[:position]]
            texts = [_text(other, tree) for other in others]
            meaning = next((text for text in texts if " " in text.strip()), "")
            if meaning and meaning not in entry.meanings:
                entry.meanings.append(meaning)
        for text in _told(tree):
            code, _, meaning = text.partition(" ")
            entry = found.setdefault(code, Entry())
            entry.files.add(path.relative_to(SOURCE).as_posix())
            entry.classes.add("notice")
            if meaning not in entry.meanings:
                entry.meanings.append(meaning)
    for code, texts in tomllib.loads(PROBLEMS.read_text(encoding="utf-8")).items():
        entry = found[code]
        entry.classes, entry.meanings = {"Misconfigured"}, [texts["what"]]
    return found


def _told(tree: ast.Module) -> Iterator[str]:
    """Texts that begin with a code, such as the lines of a reading's tag errors."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
        elif not (isinstance(node, ast.Constant) and id(node) not in inner):
            continue
        text = _text(node, tree)
        if TOLD.match(text):
            yield text


def _uses(tree: ast.Module) -> Iterator[tuple[ast.expr | None, list[ast.expr], int]]:
    """(called function, arguments, position of the code in them) wherever a code stands."""
    seen: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = {word.arg: word.value for word in node.keywords}
            rest = [named[word] for word in ("text", "what", "remedy") if word in named]
            arguments = [*node.args]
            if "code" in named:
                arguments = [named["code"], *rest]
            yield from _in(node.func, [*arguments, *rest], seen)
        elif isinstance(node, ast.Tuple | ast.List):
            yield from _in(None, node.elts, seen)
    for node in ast.walk(tree):
        if _is_code(node) and id(node) not in seen:
            yield None, [node], 0  # type: ignore[list-item] # a constant is an expression


def _in(
    function: ast.expr | None, arguments: list[ast.expr], seen: set[int]
) -> Iterator[tuple[ast.expr | None, list[ast.expr], int]]:
    for position, argument in enumerate(arguments):
        if _is_code(argument) and id(argument) not in seen:
            seen.add(id(argument))
            yield function, arguments, position


def _is_code(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and bool(CODE.match(node.value))
    )


def _class(function: ast.expr | None) -> str:
    name = getattr(function, "id", getattr(function, "attr", ""))
    if name in COLLECTED:
        return "Misconfigured"
    return name if name in CLASSES else "notice"


def _text(node: ast.expr | None, tree: ast.Module) -> str:
    """The words of a literal, an f-string or a name's nearest earlier assignment."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{_short(part)}}}"
            for part in node.values
        )
    if isinstance(node, ast.Name):
        before = [
            assign
            for assign in ast.walk(tree)
            if isinstance(assign, ast.Assign)
            and isinstance(assign.targets[0], ast.Name)
            and assign.targets[0].id == node.id
            and assign.lineno <= node.lineno
        ]
        if before:
            return _text(max(before, key=lambda assign: assign.lineno).value, tree)
    if isinstance(node, ast.IfExp):
        return " / ".join(filter(None, (_text(node.body, tree), _text(node.orelse, tree))))
    return ""


def _short(node: ast.expr) -> str:
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    if isinstance(inner, ast.Name):
        return inner.id
    if isinstance(inner, ast.Attribute):
        return inner.attr
    return "..."


def page() -> str:
    """The whole page as Markdown."""
    found = codes()
    lines = [HEAD]
    rooms = sorted({code.partition("-")[0] for code in found}, key=[*ROOMS].index)
    for room in rooms:
        lines += [f"## {room}: {ROOMS[room]}", "", "| code | class | meaning | raised in |"]
        lines.append("|---|---|---|---|")
        for code in sorted(code for code in found if code.startswith(f"{room}-")):
            entry = found[code]
            meaning = "; ".join(_cell(text) for text in entry.meanings[:4]) or "told by the text"
            files = ", ".join(f"`{name}`" for name in sorted(entry.files))
            kinds = ", ".join(sorted(entry.classes))
            lines.append(f"| {code} | {kinds} | {meaning} | {files} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").rstrip(".;: ")


def main() -> int:
    """Rewrite the page, or with ``--check`` say whether it is up to date."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
