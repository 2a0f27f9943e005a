"""Markup from Python, escaped by default: the console's static parts are plain HTML."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset(
    {"input", "br", "img", "hr", "meta", "link", "path", "circle", "rect", "line"}
)


class Markup(str):
    """Text that is already safe HTML."""


def tag(spec: str, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        spec: ``name.class.class``; no name means ``div``.
        children: Markup stays, anything else is escaped, None is left out.
        attributes: ``data_x`` becomes ``data-x``; None and False leave one out, True gives a bare one.

    Example:
        >>> tag("b.big", "1 < 2", title="x")
        '<b class="big" title="x">1 &lt; 2</b>'
    """
    name, *classes = spec.split(".")
    name = name or "div"
    extra = attributes.pop("cls", "")
    joined = " ".join([*classes, *([str(extra)] if extra else [])])
    parts = [f' class="{escape(joined)}"'] if joined else []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"')
    if name in _VOID:
        return Markup(f"<{name}{''.join(parts)}>")
    return Markup(f"<{name}{''.join(parts)}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after another, escaped where they are not Markup; lists are flattened."""
    pieces: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            pieces.append(child)
        elif isinstance(child, list | tuple):
            pieces.append(join(*child))
        elif child is not None:
            pieces.append(escape(str(child)))
    return Markup("".join(pieces))
