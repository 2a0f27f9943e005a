"""A part of a page that is asked for again and again, and drawn anew only when what it shows changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from nicegui import ui

from headrace.console.error_words import error_markup
from headrace.console.pages.shell import Visit, html
from headrace.model.errors import HeadraceError

T = TypeVar("T")
REFRESH_S: Final = 2.0


class Refreshed(Generic[T]):
    """One such part; what somebody types into it is lost when it is drawn anew, so it holds buttons only.

    Args:
        ask: gives what is shown; an error of ours is shown in its place.
        draw: draws it, inside the part.
        classes: of the part.
    """

    def __init__(
        self,
        visit: Visit,
        ask: Callable[[], Awaitable[T]],
        draw: Callable[[T], None],
        classes: str = "hr-stack",
    ) -> None:
        self._visit = visit
        self._ask = ask
        self._draw = draw
        self._drawn: object = self  # like nothing that is asked for
        self._body = ui.element("div").classes(classes)

    async def begin(self) -> None:
        """Draw it, and look again each :data:`REFRESH_S`."""
        await self.refresh()
        ui.timer(REFRESH_S, self.refresh)

    def begin_soon(self) -> None:
        """The same without keeping the page waiting for the first answer."""
        ui.timer(0.05, self.refresh, once=True)
        ui.timer(REFRESH_S, self.refresh)

    async def refresh(self) -> None:
        """Look once, and draw when something changed."""
        try:
            found: T | None = await self._ask()
            error = None
        except HeadraceError as failed:
            found, error = None, failed
        state = (error.code, error.what) if error is not None else found
        if state == self._drawn:
            return
        self._drawn = state
        self._body.clear()
        with self._body:
            if error is not None:
                html(error_markup(self._visit.texts, error))
            elif found is not None:
                self._draw(found)
