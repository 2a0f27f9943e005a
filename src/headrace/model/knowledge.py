"""What engineers wrote, as the apps role runs it: asset types with their formulas and alarms, the assets
they serve, and the plant calendar. Plain data that travels on the bus.

It lives in the ``desired`` bucket as ``apps``. A name of a formula means, in this order, a quantity of the
asset's type, an attribute, or an earlier formula of the type; ``relation.name`` means that of the asset
that the relation leads to.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from headrace.model.calendar import PlantCalendar

FormulaState = Literal["live", "shadow", "off"]
Placement = Literal["edge", "platform"]
LOCAL_EDGE: Final = "local"
"""The edge on the platform's own machine: what is placed on it, the platform's apps role evaluates."""


APP_DOT: Final = "."
"""Stands in the name of an asset type as an app sees it, ``<app>.<its type>``; a site file has no such name."""


def given_name(asset_type: str, name: str) -> str:
    """The last part of the path of what a formula or an alarm gives on an asset; of an app's it begins with
    the app's word, so that apps and the site never meet.

    Example:
        >>> given_name("pump", "load"), given_name("pump_efficiency.pump", "load")
        ('load', 'pump_efficiency_load')
    """
    word, dot, _ = asset_type.rpartition(APP_DOT)
    return f"{word}_{name}" if dot else name


def connection_of(asset_type: str) -> str:
    """What stands for the connection of results of a type, in subjects and books.

    Example:
        >>> connection_of("pump_efficiency.pump")
        'pump_efficiency-pump'
    """
    return asset_type.replace(APP_DOT, "-")


class FormulaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One formula or alarm of an asset type.

    Attributes:
        asset_type: whose assets it serves.
        name: unique in its type.
        kind: ``formula`` gives a derived tag on each asset, ``alarm`` has states.
        text: the whole statement, as written.
        line: of its first character in the text of the type's formulas, from 1.
        version: counts up from 1 with each other text of this name.
        start_us: source time from which this version gives the results; earlier ones are of the
            versions before it. 0: from the beginning.
        state: ``shadow`` is evaluated and kept apart, and nobody is told.
        placement: ``edge`` is evaluated where its inputs are read; see ``edges`` of :class:`AssetConfig`.
        moved_us: source time from which that holds, its results before are of where it was; 0: always.
    """

    asset_type: str
    name: str
    kind: Literal["formula", "alarm"] = "formula"
    text: str
    line: int = 1
    version: int = 1
    start_us: int = 0
    state: FormulaState = "live"
    placement: Placement = "platform"
    moved_us: int = 0


class AssetTypeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of asset.

    Attributes:
        quantities: name -> unit; the unit ``text`` is a quantity of texts, ``condition`` one that is
            true or false.
        attributes: name -> unit (or ``text``) of what each asset has once, such as ``rated_power``.
        relations: name -> asset type that it leads to, such as ``upstream = "pump"``.
        max_age_us: quantity -> how long a value counts as new; then it is Uncertain. Of others for ever.
        converted: quantities whose tags are in other units on some assets; see ``conversions`` there.
    """

    name: str
    title: str = ""
    title_zh: str = ""
    quantities: dict[str, str] = {}
    attributes: dict[str, str] = {}
    relations: dict[str, str] = {}
    max_age_us: dict[str, int] = {}
    converted: tuple[str, ...] = ()


class AssetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An asset, with the tags that its quantities are.

    Attributes:
        tags: quantity -> tag_id of the tag below it that is named so; a quantity without a tag is missing.
        attributes: in the units of its type.
        relations: relation -> path of another asset.
        outputs: formula -> tag_id of the derived tag ``<path>/<formula>``.
        edges: formula -> edge on a machine of its own that evaluates it here; of others the platform does.
        left: formula -> edge that evaluated it here before it moved to the platform.
        conversions: quantity -> (factor, offset) so that ``value = tag's value * factor + offset``; of others
            the tag has the quantity's unit.
    """

    path: str
    type: str
    title: str = ""
    title_zh: str = ""
    tags: dict[str, int] = {}
    attributes: dict[str, float | str] = {}
    relations: dict[str, str] = {}
    outputs: dict[str, int] = {}
    edges: dict[str, str] = {}
    left: dict[str, str] = {}
    conversions: dict[str, tuple[float, float]] = {}


class AppsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that the apps role runs.

    Example:
        >>> AppsConfig(enterprise="acme", site="mill").assets
        ()
    """

    enterprise: str
    site: str
    calendar: PlantCalendar = PlantCalendar()
    types: tuple[AssetTypeConfig, ...] = ()
    assets: tuple[AssetConfig, ...] = ()
    formulas: tuple[FormulaConfig, ...] = ()

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex; equal content has an equal hash."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
