"""Begins an app from a template: a folder that passes its own check, tests and bench from the first minute."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from headrace.apps.package.manifest import is_id
from headrace.model.errors import Misconfigured, Refused
from headrace.security.files import write_whole

TEMPLATES: Final = ("formulas", "python", "model")


def begin_app(folder: Path, template: str, publisher: str = "") -> list[str]:
    """Write a new app; its id is the folder's name. Gives the names of its files.

    Args:
        folder: that is not there yet, or is empty. template: one of :data:`TEMPLATES`.
        publisher: whose it is going to be; "" is nobody's yet.

    Raises:
        Misconfigured: APPS-2062 for a template that there is not, APPS-2006 for a name that is no id.
        Refused: APPS-2032 when there is something in the folder.
    """
    app = folder.resolve().name
    if template not in TEMPLATES:
        raise Misconfigured(
            "APPS-2062", f"there is no template {template!r}", f"One of {', '.join(TEMPLATES)}."
        )
    for what, name in (("the app", app), *([("the publisher", publisher)] if publisher else [])):
        if not is_id(name):
            raise Misconfigured(
                "APPS-2006", f"{what} has the name {name!r}", "Use a-z 0-9 and -, a letter first."
            )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(
            "APPS-2032", f"there is something at {folder} already", "Name another folder."
        )
    words = {
        "@id@": app,
        "@word@": app.replace("-", "_"),
        "@title@": app.replace("-", " ").capitalize(),
        "@publisher@": publisher,
    }
    root = resources.files("headrace.apps.package").joinpath("templates", template)
    files = {name.replace("module.py", f"{words['@word@']}.py"): each for name, each in _all(root)}
    for name, source in files.items():
        text = source.read_text("utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        write_whole(folder / name, text.encode(), mode=0o644)
    return sorted(files)


def _all(folder: Traversable, above: str = "") -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _all(each, f"{above}{each.name}/")
        elif each.name.endswith(".txt"):
            found.append((above + each.name.removesuffix(".txt"), each))
    return found
