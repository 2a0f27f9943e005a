"""Events that people marked, such as failures, and how episodes of a condition met them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.historian.times import parse_time
from headrace.model.errors import HeadraceError, Misconfigured

EVENTS_MAX: Final = 1_000
_COLUMNS: Final = ("time", "label", "end", "asset")


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to equipment, as somebody marked it.

    Attributes:
        at_us, end_us: source time at which it began and ended; ``end_us`` None: a moment.
        asset: path of the equipment; "" means any.
    """

    at_us: int
    end_us: int | None = None
    label: str = ""
    asset: str = ""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a condition held.

    Attributes:
        asset: path.
        start_us, end_us: source time at which it began and ended; ``end_us`` None: it held until the end of
            what was looked at.
        suppressed: the alarm was suppressed by design when it began, so nobody would have been told.
    """

    asset: str
    start_us: int
    end_us: int | None = None
    suppressed: bool = False


class MarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """A marked event with what met it.

    Attributes:
        lead_s: seconds from the first episode that met it to the event; negative when that began after it;
            None when none did.
    """

    mark: Mark
    lead_s: float | None = None


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """Episodes against events.

    Attributes:
        hits, misses: events that an episode met, and that none did.
        false_alarms: episodes that met no event.
        events: each with what met it, by time.
    """

    hits: int
    misses: int
    false_alarms: int
    events: tuple[MarkResult, ...]


def meet(
    episodes: pl.DataFrame,
    assets: Sequence[str],
    marks: Iterable[Mark],
    *,
    before_us: int,
    after_us: int,
    end_us: int,
) -> Met:
    """Which episodes met which events: those that hold at some time from ``before_us`` before an event to
    ``after_us`` after its end, on its equipment.

    Args:
        episodes: columns ``asset`` (a number in ``assets``), ``start_us``, ``end_us`` (null: open).
        end_us: of the time that was looked at; open episodes end there.

    Example:
        >>> found = pl.DataFrame({"asset": [0], "start_us": [40], "end_us": [50]})
        >>> met = meet(found, ["p"], [Mark(at_us=60), Mark(at_us=900)], before_us=20, after_us=0, end_us=1000)
        >>> met.hits, met.misses, met.false_alarms, met.events[0].lead_s
        (1, 1, 0, 2e-05)
    """
    asset, start_us = episodes["asset"].to_numpy(), episodes["start_us"].to_numpy()
    until_us = episodes["end_us"].fill_null(end_us).to_numpy()
    number_of = {path: number for number, path in enumerate(assets)}
    used = np.zeros(len(asset), np.bool_)
    results = []
    for mark in sorted(marks, key=lambda each: each.at_us):
        high = (mark.at_us if mark.end_us is None else mark.end_us) + after_us
        met = (start_us <= high) & (until_us > mark.at_us - before_us)
        if mark.asset:
            met &= asset == number_of.get(mark.asset, -1)
        used |= met
        lead_s = (mark.at_us - int(start_us[met].min())) / 1e6 if met.any() else None
        results.append(MarkResult(mark=mark, lead_s=lead_s))
    hits = sum(each.lead_s is not None for each in results)
    return Met(
        hits=hits,
        misses=len(results) - hits,
        false_alarms=int(np.count_nonzero(~used)),
        events=tuple(results),
    )


def read_marks(path: Path) -> list[Mark]:
    """Events from a CSV file; see :func:`parse_marks`.

    Raises:
        Misconfigured: HIST-2210 for a file that cannot be read, HIST-2211 for a line that does not fit.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            "HIST-2210", f"cannot read events from {path}: {error}", "Give a CSV file in UTF-8."
        ) from error
    return parse_marks(text, str(path))


def parse_marks(text: str, name: str = "events") -> list[Mark]:
    """Events from CSV with the columns ``time, label, end, asset``; only the time must be there.

    Args:
        name: of the text, for messages.

    Raises:
        Misconfigured: HIST-2210 without a column ``time`` or for too many events, HIST-2211 for a line
            that does not fit.

    Example:
        >>> parse_marks("time,label\\n1970-01-01T00:00:01Z,seized")[0].at_us
        1000000
    """
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    if lines and "time" not in lines[0]:
        raise Misconfigured(
            "HIST-2210",
            f"{name} has the columns {', '.join(map(str, lines[0]))}, and no time",
            f"Write a first line with {','.join(_COLUMNS)}; only time must be there.",
        )
    if len(lines) > EVENTS_MAX:
        raise Misconfigured(
            "HIST-2210", f"{name} has {len(lines):,} events", f"Give at most {EVENTS_MAX:,}."
        )
    return [_mark(name, number, line) for number, line in enumerate(lines, 2)]


def _mark(name: str, number: int, line: dict[str, str | None]) -> Mark:
    said = {column: (line.get(column) or "").strip() for column in _COLUMNS}
    try:
        at_us = parse_time(said["time"], 0)
        end_us = parse_time(said["end"], 0) if said["end"] else None
    except HeadraceError as error:
        raise Misconfigured(
            "HIST-2211",
            f"{name}, line {number}: {error.what}",
            "Write times as 2026-03-28T21:00:00Z.",
        ) from error
    if end_us is not None and end_us < at_us:
        raise Misconfigured(
            "HIST-2211", f"{name}, line {number}: the end is before the time", "Swap them."
        )
    return Mark(at_us=at_us, end_us=end_us, label=said["label"], asset=said["asset"])
