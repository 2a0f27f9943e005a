"""What a hook gets: the window or context, and through it all that the app may do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec
import polars as pl

from headrace.app.records import Asset, ValueEntry, WorkRequest
from headrace.model.calendar import PlantCalendar

T = TypeVar("T")
State = dict[str, Any]


class Hands(Protocol):
    """What stands behind a context; the runtime and the bench each have one."""

    def record(self, made: WorkRequest | ValueEntry) -> None:
        """Keep what a hook gives beside samples."""
        ...

    def history(
        self, type: str, quantities: Sequence[str], start_us: int, end_us: int, every: str
    ) -> pl.DataFrame:
        """The past of quantities."""
        ...

    def write(self, asset: str, quantity: str, value: float | str | bool) -> None:
        """Ask for a write to a device."""
        ...

    def call(self, service: str, body: bytes) -> bytes:
        """Ask a service of another app."""
        ...


@dataclass(kw_only=True)
class Context:
    """What each hook may see and do.

    Attributes:
        at_us: source time for which it runs, UTC microseconds. assets: all that the app is bound to.
        settings: name -> value. state: of this hook; kept when it returns.
        log: lines go to the console's page of the app. calendar: of the plant.
    """

    at_us: int
    assets: tuple[Asset, ...]
    settings: dict[str, float | str | bool]
    state: State
    log: logging.Logger
    hands: Hands = field(repr=False)
    calendar: PlantCalendar = field(default_factory=PlantCalendar, repr=False)

    def of_type(self, type: str) -> tuple[Asset, ...]:
        """The assets of one needed type."""
        return tuple(asset for asset in self.assets if asset.type == type)

    def propose(self, request: WorkRequest) -> None:
        """Propose work to people; the same hook at the same time proposes it once, whatever is killed."""
        self.hands.record(request)

    def value(self, entry: ValueEntry) -> None:
        """Add a line to the value ledger."""
        self.hands.record(entry)

    def history(
        self,
        quantities: Sequence[str],
        start_us: int,
        end_us: int,
        every: str = "1 min",
        *,
        type: str = "",
    ) -> pl.DataFrame:
        """The past of quantities: a frame as that of a window, with rows each ``every``.

        Args:
            type: needed type; may be left out in a window (it is the window's) and where the app has one.

        Raises:
            Refused: APPS-2204 when the manifest does not ask for ``permissions.history``.
            Transient: APPS-2205 when the historian does not answer.
        """
        own = type or self._own_type()
        return self.hands.history(own, quantities, start_us, end_us, every)

    def _own_type(self) -> str:
        return ""

    def write(self, asset: str, quantity: str, value: float | str | bool) -> None:
        """Write to a device, through the edge's guard, after the hook has returned.

        Raises:
            Refused: APPS-2206 when the manifest's ``permissions.writes`` does not name it.
        """
        self.hands.write(asset, quantity, value)

    def call(self, service: str, request: msgspec.Struct, answer: type[T]) -> T:
        """Ask a service of another app, ``app.service``.

        Raises:
            Refused: APPS-2207 when the manifest's ``permissions.calls`` does not name it.
            HeadraceError: what the service itself raised.
        """
        return msgspec.json.decode(
            self.hands.call(service, msgspec.json.encode(request)), type=answer
        )


@dataclass(kw_only=True)
class Window(Context):
    """The samples of all assets of one type over a stretch of time.

    Attributes:
        frame: rows by asset and time. Columns: ``asset`` (String), ``time`` (Datetime us UTC), one a
            quantity (Float64 in the manifest's unit; String where that is ``text``; null where it is not
            known or Bad), then ``<quantity>_status`` (UInt32, OPC UA StatusCode; BadNoData where none is).
        start_us, end_us: ``[start, end)`` in UTC microseconds. assets: those of this type alone.
        arrivals: where the hook asks for it, else empty: one row an asset and bound quantity, about samples
            that were received in the window, whatever their source time is. Columns: ``asset``, ``quantity``,
            ``samples`` and ``bad`` (how many, and how many of them Bad), ``gap_ms`` (the longest time
            without one, from the last before the window to its end; null: none ever came), ``silent_ms``
            (since the newest), ``delay_ms`` (median of received minus source time) and ``delay_span_ms``
            (greatest minus least of it; both null without samples).
    """

    frame: pl.DataFrame
    type: str
    start_us: int
    end_us: int
    arrivals: pl.DataFrame = field(default_factory=pl.DataFrame)

    def _own_type(self) -> str:
        return self.type
