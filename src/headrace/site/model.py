"""The checked content of a site file, as frozen plain data. No I/O here."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

import msgspec

from headrace.model.app_manifest import AppManifest
from headrace.model.calendar import PlantCalendar
from headrace.model.desired import Rule, WindowFunction
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import FormulaState, Placement
from headrace.model.notify import NotifyConfig
from headrace.model.zones import ZoneMap

DERIVED: Final = "formula"
"""What stands for the connection of a derived tag; no connection has this name."""

PLAIN_UNITS: Final = ("text", "condition")
"""What stands for the unit of a quantity that is no number."""

Level = Literal["site", "area", "work_center", "work_unit", "equipment"]
LEVELS: Final[tuple[Level, ...]] = ("site", "area", "work_center", "work_unit")


def level_of(path: str) -> Level:
    """The ISA-95 level (IEC 62264-1, 5.3) of an equipment path; deeper than a work unit is plain
    ``equipment``, the site itself has the empty path.

    Example:
        >>> level_of("utilities/pumping")
        'work_center'
    """
    depth = len(path.split("/")) if path else 0
    return LEVELS[depth] if depth < len(LEVELS) else "equipment"


def parent_of(path: str) -> str:
    """The path one level up; "" is the site.

    Example:
        >>> parent_of("utilities/pumping"), parent_of("utilities")
        ('utilities', '')
    """
    return path.rpartition("/")[0]


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong in a site file.

    Attributes:
        file: name as written, relative to the site file's folder.
        line: line (row, in a spreadsheet) counted from 1; 0 when it belongs to the whole file.
        field: what is wrong there, for example ``connection.plc_1.endpoint`` or ``unit``.
        code: stable error code.
        what: what is wrong, with the value.
        remedy: what to change.
        column: of the first wrong character in a formula, from 1; else 0.
        caret: of a formula the line, and below it what is wrong in it.
        what_zh, remedy_zh: of a formula the same in Chinese.
    """

    file: str
    line: int
    field: str
    code: str
    what: str
    remedy: str
    column: int = 0
    caret: str = ""
    what_zh: str = ""
    remedy_zh: str = ""

    def in_chinese(self) -> Problem:
        """The same with its Chinese words, where it has some."""
        if not self.what_zh:
            return self
        return msgspec.structs.replace(self, what=self.what_zh, remedy=self.remedy_zh)

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}" if self.column else f"{self.line}"
        return f"{self.file}:{place} {self.field}: {self.code} {self.what}. {self.remedy}"


class SiteProblems(Misconfigured):
    """A site file that was not accepted; ``problems`` holds every reason, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            "SITE-1000",
            f"the site file has problems: {first.field}: {first.what}{more}",
            first.remedy,
            where=f"{first.file}:{first.line}",
        )
        self.problems = problems

    def as_dict(self) -> dict[str, Any]:
        return {
            **super().as_dict(),
            "class": "Misconfigured",
            "problems": msgspec.to_builtins(self.problems),
        }


class Equipment(msgspec.Struct, frozen=True, kw_only=True):
    """An area, work center, work unit or deeper equipment (ISA-95), implied by paths or declared."""

    path: str
    level: Level
    title: str = ""
    title_zh: str = ""


class Formula(msgspec.Struct, frozen=True, kw_only=True):
    """A statement of an asset type: a formula or an alarm.

    Attributes:
        line: of its first character in the type's text, from 1.
        start_us: from when its text gives results, when the file says so.
        placement: where it is evaluated.
    """

    name: str
    kind: Literal["formula", "alarm"] = "formula"
    text: str
    line: int = 1
    state: FormulaState = "live"
    start_us: int | None = None
    placement: Placement = "platform"


class AssetType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of asset; see :class:`headrace.model.knowledge.AssetTypeConfig`. ``titles``: formula ->
    what its derived tags are called, in English and Chinese. ``package``: the kind of the catalog that it
    is, such as ``pump``, by which apps find it."""

    name: str
    title: str = ""
    title_zh: str = ""
    quantities: dict[str, str] = {}
    attributes: dict[str, str] = {}
    relations: dict[str, str] = {}
    max_age_us: dict[str, int] = {}
    formulas: tuple[Formula, ...] = ()
    titles: dict[str, tuple[str, str]] = {}
    package: str = ""


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """Equipment of an asset type; tags below it that are named as its quantities are them.

    Attributes:
        attributes: in the units of its type. relations: name -> path of another asset.
    """

    path: str
    type: str
    title: str = ""
    title_zh: str = ""
    attributes: dict[str, float | str] = {}
    relations: dict[str, str] = {}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A tag group; raw samples older than ``retention_days`` are removed, 0 keeps them for ever."""

    name: str
    retention_days: int = 0


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the site file declares it; see ``model.desired.ConnectionConfig``."""

    name: str
    protocol: str
    endpoint: str
    edge: str = "local"
    enabled: bool = True
    title: str = ""
    title_zh: str = ""
    options: dict[str, Any] = {}


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """One protection as the site file declares it.

    Attributes:
        tags: patterns of tag paths. paths: the tags that they chose.
        function, window_s: of ``aggregated``. key: of ``encrypted``. keep_mb: of what stays.
    """

    name: str
    rule: Rule
    tags: tuple[str, ...]
    paths: tuple[str, ...] = ()
    function: WindowFunction = "mean"
    window_s: float = 60.0
    key: str = ""
    keep_mb: int = 256


class Tag(msgspec.Struct, frozen=True):
    """A tag as declared. ``id`` 0: the registry gives it its permanent one. ``was``: earlier paths.

    See ``model.desired.TagConfig`` for the other fields. The order of fields is that of the columns
    of an exported tag list.
    """

    path: str
    connection: str
    address: str
    unit: str = ""
    title: str = ""
    title_zh: str = ""
    description: str = ""
    scan_interval_ms: int = 1000
    scale: float = 1.0
    offset: float = 0.0
    deadband: float = 0.0
    group: str = "default"
    writable: bool = False
    write_minimum: float | None = None
    write_maximum: float | None = None
    sample_interval_us: int = 0
    id: int = 0
    was: tuple[str, ...] = ()


SettingValue = float | str | bool
"""What a plant may set of an app."""


class AppBind(msgspec.Struct, frozen=True, kw_only=True):
    """``[app.ID.bind.TYPE]``: what an app's needed type is on this site.

    Attributes:
        needed: the app's own name of the type. type: that of the site file. line: of the site file.
        quantities: the app's name -> that of the site's type; of others both are called alike.
        attributes: the app's name -> the site's. values: what every asset has of the others.
        relations: the app's name -> the site's.
        assets: paths of those that the patterns of the site file choose.
        settings: path of an asset -> setting -> value.
    """

    needed: str
    type: str
    line: int = 0
    quantities: dict[str, str] = {}
    attributes: dict[str, str] = {}
    values: dict[str, float | str] = {}
    relations: dict[str, str] = {}
    assets: tuple[str, ...] = ()
    settings: dict[str, dict[str, SettingValue]] = {}


class AppAsset(msgspec.Struct, frozen=True, kw_only=True):
    """An asset as an app sees it.

    Attributes:
        type: the app's own name of it.
        tags: the app's quantity -> path of a tag. units: quantity -> unit of that tag.
        conversions: see :class:`headrace.model.knowledge.AssetConfig`.
        attributes: in the manifest's units. settings: what it has for itself.
    """

    path: str
    type: str
    title: str = ""
    title_zh: str = ""
    tags: dict[str, str] = {}
    units: dict[str, str] = {}
    conversions: dict[str, tuple[float, float]] = {}
    attributes: dict[str, float | str] = {}
    relations: dict[str, str] = {}
    settings: dict[str, SettingValue] = {}


class Unserved(msgspec.Struct, frozen=True, kw_only=True):
    """An asset of a bound type that an app cannot serve, and why."""

    path: str
    type: str
    why: str


class SiteApp(msgspec.Struct, frozen=True, kw_only=True):
    """``[app.ID]``: an installed app on this site.

    Attributes:
        sha256: of the package file, hex.
        enabled: false keeps all it has and runs nothing.
        settings: of the whole app, the manifest's defaults filled in.
        placement: ``platform`` or ``edge``, as the site file says, else as the manifest does.
        types: the app's needed types as asset types ``<word>.<type>``, with its formulas.
        assets, unserved: of all its types, in the order of the site file.
    """

    manifest: AppManifest
    sha256: str
    enabled: bool = True
    placement: Placement = "platform"
    settings: dict[str, SettingValue] = {}
    bind: tuple[AppBind, ...] = ()
    types: tuple[AssetType, ...] = ()
    assets: tuple[AppAsset, ...] = ()
    unserved: tuple[Unserved, ...] = ()


class SiteModel(msgspec.Struct, frozen=True, kw_only=True):
    """All that a site file and its tag files say, checked.

    Attributes:
        equipment: every area, work center, work unit and below, by path.
        tag_files: the tag lists that it came from, relative to the site file.
        derived: the tags that its formulas and its apps give; no connection reads them.
        on_edges: of these the ones that an edge on its own machine evaluates: path -> edge.
    """

    enterprise: str
    name: str
    title: str = ""
    title_zh: str = ""
    time_zone: str = "UTC"
    tag_files: tuple[str, ...] = ()
    equipment: tuple[Equipment, ...] = ()
    asset_types: tuple[AssetType, ...] = ()
    assets: tuple[Asset, ...] = ()
    groups: tuple[Group, ...] = ()
    connections: tuple[Connection, ...] = ()
    tags: tuple[Tag, ...] = ()
    calendar: PlantCalendar = PlantCalendar()
    derived: tuple[Tag, ...] = ()
    on_edges: dict[str, str] = {}
    notify: NotifyConfig = NotifyConfig()
    protections: tuple[Protection, ...] = ()
    zones: ZoneMap = ZoneMap()
    apps: tuple[SiteApp, ...] = ()

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex; equal content has an equal hash."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def nearest_asset(tag_path: str, by_path: dict[str, Asset]) -> Asset | None:
    """The asset with the longest path that ``tag_path`` lies in, or None."""
    place = parent_of(tag_path)
    while place:
        if place in by_path:
            return by_path[place]
        place = parent_of(place)
    return None
