"""Small interactive parts that pages share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from headrace.console.pages.shell import html
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag


def button(
    text: str,
    handler: Callable[..., Any],
    kind: str = "",
    *,
    icon_name: str = "",
    small: bool = False,
) -> ui.element:
    """A button in the console's own look.

    Args:
        handler: sync or async, without arguments.
        kind: ``primary``, ``danger`` or nothing.
    """
    classes = f"hr-btn {kind} {'small' if small else ''}"
    content = join(icon(icon_name, 16) if icon_name else None, text)
    return (
        html(content, tag_name="button")
        .classes(classes)
        .props("type=button")
        .on("click", handler, [])
    )


def busy_button(text: str, handler: Callable[[], Awaitable[Any]], kind: str = "") -> ui.element:
    """A button for what takes a while: it says so, and takes no second click until it is done."""
    made: ui.element

    async def act() -> None:
        made.props("disabled aria-busy=true")
        try:
            await handler()
        finally:
            if not made.is_deleted:
                made.props(remove="disabled aria-busy")

    made = button(text, act, kind)
    return made


def diff_markup(diff: str) -> Markup:
    """A unified diff with added, removed and place lines coloured; the sign stays in front."""

    def line(text: str) -> Markup:
        kind = {"+": "add", "-": "del", "@": "at"}.get(text[:1], "")
        return tag("span", text, cls=kind)

    shown = [text for text in diff.splitlines() if not text.startswith(("---", "+++"))]
    return join([join(line(text), "\n") for text in shown])
