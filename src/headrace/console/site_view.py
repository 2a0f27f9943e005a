"""The site as pages show it: an immutable snapshot of tags and equipment, and its live roll-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
import numpy as np

from headrace.console.live import NEVER_US, LiveValues, SlotArray
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import Int64Array
from headrace.model.time import US_PER_MS, US_PER_S
from headrace.site.model import DERIVED

UnitState = Literal["good", "warn", "bad", "stale", "idle"]
STALE_AFTER_US: Final = 10 * US_PER_S
STALE_INTERVALS: Final = 5
NEVER_OLD_US: Final = 1 << 62
AHEAD_US: Final = 60 * US_PER_S


class TagView(msgspec.Struct, frozen=True, kw_only=True):
    """One tag as pages and REST show it.

    ``unit_path`` is the equipment that it belongs to: its path without the last token.
    """

    tag_id: int
    path: str
    unit: str = ""
    title: str = ""
    title_zh: str = ""
    description: str = ""
    connection: str = ""
    address: str = ""
    group: str = "default"
    asset_type: str = ""
    edge: str = "local"
    scan_interval_ms: int = 1000
    sample_interval_us: int = 0
    writable: bool = False
    write_minimum: float | None = None
    write_maximum: float | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def derived(self) -> bool:
        """A formula gives it, which ``address`` names; it has no pace of its own."""
        return self.connection == DERIVED

    @property
    def unit_path(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class UnitView:
    """Equipment that has tags of its own: one tile of the overview.

    Attributes:
        slots: live slots of the tags by which it is judged: the measured ones.
        stale_us: age in microseconds from which a value of each of them is stale, same order.
    """

    path: str
    title: str
    title_zh: str
    asset_type: str
    tags: tuple[TagView, ...]
    slots: SlotArray
    stale_us: Int64Array

    @property
    def area(self) -> str:
        return self.path.partition("/")[0]


@dataclass(frozen=True)
class UnitLive:
    """How a unit does now: counts of its tags by what their newest sample says."""

    state: UnitState
    tags: int
    good: int
    uncertain: int
    bad: int
    stale: int
    never: int
    newest_us: int


@dataclass(frozen=True)
class SiteView:
    """A snapshot; a change of the site makes a new one."""

    enterprise: str = ""
    name: str = ""
    title: str = ""
    title_zh: str = ""
    time_zone: str = "UTC"
    tags: tuple[TagView, ...] = ()
    units: tuple[UnitView, ...] = ()
    titles: dict[str, tuple[str, str]] = field(default_factory=dict)
    quantities: dict[str, list[str]] = field(default_factory=dict)
    by_id: dict[int, TagView] = field(default_factory=dict)
    by_path: dict[str, TagView] = field(default_factory=dict)
    fingerprint: str = ""
    apps: AppsConfig | None = None

    def unit(self, path: str) -> UnitView | None:
        """The unit at a path, or None."""
        return next((unit for unit in self.units if unit.path == path), None)

    def below(self, path: str) -> list[TagView]:
        """All tags at or below an equipment path; "" gives all."""
        prefix = f"{path}/" if path else ""
        return [tag for tag in self.tags if tag.path.startswith(prefix)]

    def in_type_order(self, tags: list[TagView]) -> list[TagView]:
        """Tags by equipment; those of an asset in the order of its type's quantities, others after."""
        place = {
            (kind, name): number
            for kind, names in self.quantities.items()
            for number, name in enumerate(names)
        }
        last = len(place)
        return sorted(
            tags,
            key=lambda tag: (
                tag.unit_path,
                place.get((tag.asset_type, tag.name), last),
                tag.path,
            ),
        )

    def title_of(self, path: str, language: str) -> str:
        """Title of equipment, or its name made readable."""
        english, chinese = self.titles.get(path, ("", ""))
        chosen = chinese if language == "zh" and chinese else english
        return chosen or readable(path.rpartition("/")[2])


def readable(name: str) -> str:
    """A name as a person would write it.

    Example:
        >>> readable("spindle_load")
        'Spindle load'
    """
    words = name.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:]


def build_view(
    tags: list[TagView],
    titles: dict[str, tuple[str, str]],
    live: LiveValues,
    fingerprint: str = "",
    **site: Any,
) -> SiteView:
    """A snapshot from tags and titles; every tag gets its live slot."""
    tags = sorted(tags, key=lambda tag: tag.path)
    grouped: dict[str, list[TagView]] = {}
    for tag in tags:
        grouped.setdefault(tag.unit_path, []).append(tag)
    units = []
    for path, members in grouped.items():
        english, chinese = titles.get(path, ("", ""))
        # A tile tells of the equipment: a sum of this shift is Uncertain for hours after one gap.
        judged = [tag for tag in members if not tag.derived] or members
        units.append(
            UnitView(
                path=path,
                title=english or readable(path.rpartition("/")[2]),
                title_zh=chinese or english or readable(path.rpartition("/")[2]),
                asset_type=next((tag.asset_type for tag in members if tag.asset_type), ""),
                tags=tuple(members),
                slots=live.slots([tag.tag_id for tag in judged]),
                stale_us=_stale_us(judged),
            )
        )
    # Every tag has a slot, also where its unit is not judged by it.
    live.slots([tag.tag_id for tag in tags])
    return SiteView(
        tags=tuple(tags),
        units=tuple(units),
        titles=titles,
        by_id={tag.tag_id: tag for tag in tags},
        by_path={tag.path: tag for tag in tags},
        fingerprint=fingerprint,
        **site,
    )


def _stale_us(tags: list[TagView]) -> Int64Array:
    intervals = np.array([tag.scan_interval_ms for tag in tags], np.int64)
    stale_us = np.maximum(STALE_AFTER_US, intervals * US_PER_MS * STALE_INTERVALS)
    # A result per shift is eight hours old and right; `max_age` makes one Uncertain that should not be.
    return np.where([tag.derived for tag in tags], np.int64(NEVER_OLD_US), stale_us)


def roll_up(unit: UnitView, live: LiveValues, now_us: int) -> UnitLive:
    """A unit's state from the newest samples of its tags.

    The worst counts, except that a unit whose every value is old is ``stale`` and one that never had
    a sample is ``idle``. Age is measured from the edge's receive time, so that a device with a wrong
    clock is not called stale.
    """
    received = live.received_us[unit.slots]
    never = live.source_us[unit.slots] == NEVER_US
    stale = ~never & (now_us - received > unit.stale_us)
    severity = live.status[unit.slots] >> 30
    counted = ~never & ~stale
    good = int((counted & (severity == 0)).sum())
    uncertain = int((counted & (severity == 1)).sum())
    bad = int((counted & (severity >= 2)).sum())
    stale_count, never_count = int(stale.sum()), int(never.sum())
    newest = int(received[~never].max()) if never_count < len(never) else 0
    if never_count == len(never):
        state: UnitState = "idle"
    elif not counted.any():
        state = "stale"
    elif bad:
        state = "bad"
    elif uncertain or stale_count:
        state = "warn"
    else:
        state = "good"
    return UnitLive(state, len(never), good, uncertain, bad, stale_count, never_count, newest)
