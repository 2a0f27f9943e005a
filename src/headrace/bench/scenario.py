"""Scenario files: what an app, a site file or a connector meets on the bench, and what must happen.

Plain data and its checks; nothing runs here. Times are seconds from the scenario's begin (``_s``), names
of assets and alarms may hold ``*``.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Protocol = Literal["", "opcua", "modbus", "mqtt", "sparkplug", "site"]
HostileKind = Literal["late", "bad", "missing", "doubled", "clock_step", "crash"]


class Bind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which assets of the scenario's site an app's needed type is bound to, as in a site file.

    Attributes:
        type: of the site; empty: that with the name of the needed type's package.
        quantities, relations: the app's -> the site's, where they are not named alike.
        attributes: the app's -> the site's, or a number. assets: paths with ``*``; empty: all of the type.
        settings: path of an asset -> setting -> value.
    """

    type: str = ""
    quantities: dict[str, str] = {}
    attributes: dict[str, str | float] = {}
    relations: dict[str, str] = {}
    assets: list[str] = []
    settings: dict[str, dict[str, float | str | bool]] = {}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault of the virtual site; see :data:`headrace.sim.faults.KINDS`.

    Attributes:
        at_s, until_s: when it begins and ends; 0: it stays.
    """

    name: str
    target: str
    at_s: float
    until_s: float = 0.0
    parameters: dict[str, float] = {}


class Column(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A column of a recording, as a quantity of an asset; ``condition`` and ``text`` are units too."""

    column: str
    unit: str = ""


class RecordedAsset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An asset that a recording is of.

    Attributes:
        key: its rows, of a recording with ``key_column``; empty: all rows.
        quantities: the site's name -> column. attributes: name -> value. units: of attributes, where they
            have one.
    """

    path: str
    type: str
    key: str = ""
    quantities: dict[str, Column]
    attributes: dict[str, float | str] = {}
    units: dict[str, str] = {}


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one tag stands in its device, where samples go through a protocol.

    Attributes:
        address, scale, offset, deadband: as the edge reads it; left out: as in the site file, or the
            bench's own.
        shown, shown_scale, shown_offset: where and how the device really shows it, as its manual says;
            left out: as the edge reads it.
    """

    address: str = ""
    scale: float | None = None
    offset: float | None = None
    deadband: float | None = None
    shown: str = ""
    shown_scale: float | None = None
    shown_offset: float | None = None


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the scenario an app trains a model on; hooks find the model from its end on.

    Attributes:
        type: needed type of the app. assets: paths; empty: all bound ones.
        from_s, until_s: the part. held_out: share of it, its last, marked as held out.
        every_s: distance of rows. seed: what the app gets as its setting ``seed``.
    """

    type: str
    until_s: float
    from_s: float = 0.0
    held_out: float = 0.2
    every_s: float = 60.0
    assets: list[str] = []
    seed: int = 0


class LearnedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model of the app comes from.

    Attributes:
        file: ONNX, below the scenario's folder. inputs: names of its columns, in order.
        train: instead of a file, by the app's own hook.
    """

    file: str = ""
    inputs: list[str] = []
    train: Training | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where samples come from.

    Attributes:
        kind: ``virtual`` is the simulated works with its demo site, ``recording`` a file.
        seed: of the works. duration_s: of the works; of a recording at most so much of it, 0: all.
        start: ISO 8601 with a zone, of the works' first second; a recording has its own times.
        file: of a recording, below the scenario's folder; ``data:`` before it is below the folder in the
            environment's HEADRACE_DATA. sha256: of it; empty: any.
        time_column, time_format, time_zone, key_column, interval_s: see
            :class:`headrace.sim.replay.loader.LoadOptions`.
        label: column that is above 0 where something is wrong.
        skip_rows: of the recording, from its begin.
        site: a site file below the scenario's folder, instead of ``[[asset]]``: its own formulas and alarms
            run where no app is benched. columns: path of a tag there -> column.
        protocol: by which the samples come through real servers and connectors: one for all devices, or
            ``site``, each connection of the site file by its own; empty: straight to the platform.
    """

    kind: Literal["virtual", "recording"] = "virtual"
    seed: int = 1
    duration_s: float = 0.0
    start: str = "2026-06-01T06:00:00Z"
    file: str = ""
    sha256: str = ""
    time_column: str = ""
    time_format: str = ""
    time_zone: str = "UTC"
    key_column: str = ""
    interval_s: float = 1.0
    label: str = ""
    skip_rows: int = 0
    site: str = ""
    columns: dict[str, str] = {}
    protocol: Protocol = ""


class Hostile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong between a device and the platform.

    Attributes:
        kind: ``late`` samples arrive ``delay_s`` after they should, ``bad`` ones have no value, ``missing``
            ones never arrive, ``doubled`` ones arrive twice, ``clock_step`` gives samples a source time
            that is ``offset_s`` wrong, ``crash`` kills the platform at ``at_s`` for ``delay_s``.
        at_s, until_s: of a time; 0: to the end.
        share: of the samples, 0 to 1; by a random number of the scenario's seed.
        tags: ``asset/quantity`` with ``*`` whose samples are touched.
    """

    kind: HostileKind
    at_s: float = 0.0
    until_s: float = 0.0
    share: float = 1.0
    delay_s: float = 0.0
    offset_s: float = 0.0
    tags: tuple[str, ...] = ("*",)


class _Must(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """What must happen, by its ``kind``."""


class MustAlarm(_Must, frozen=True, kw_only=True, tag="alarm"):
    """An alarm comes up on an asset, at ``from_s`` at the earliest and ``within_s`` after it."""

    asset: str
    alarm: str = "*"
    from_s: float
    within_s: float


class MustQuiet(_Must, frozen=True, kw_only=True, tag="quiet"):
    """No alarm comes up there in this time, but those of ``without`` (``asset/alarm`` with ``*``)."""

    asset: str = "*"
    alarm: str = "*"
    from_s: float = 0.0
    until_s: float = 0.0
    without: list[str] = []


class MustValue(_Must, frozen=True, kw_only=True, tag="value"):
    """Values of a formula or an output lie in bounds.

    Attributes:
        share: of the samples in this time, at least. samples: that there must be, at least.
        is_good: the samples' status must be Good too.
    """

    asset: str
    name: str
    from_s: float = 0.0
    until_s: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    share: float = 1.0
    samples: int = 1
    is_good: bool = False


class MustFind(_Must, frozen=True, kw_only=True, tag="find"):
    """What is labelled is found, and little else.

    Attributes:
        alarm: names of alarms that are active where something is found; empty: ``name`` above ``threshold``.
        recall, precision: of seconds, at least. episodes: share of labelled times with a finding in them.
        false_share: of the seconds that are not labelled, at most.
    """

    asset: str
    alarm: str = ""
    name: str = ""
    threshold: float = 0.5
    from_s: float = 0.0
    recall: float = 0.0
    precision: float = 0.0
    episodes: float = 0.0
    false_share: float = 1.0


class MustPropose(_Must, frozen=True, kw_only=True, tag="propose"):
    """The app proposes work on an asset, or enters a value, in this time.

    Attributes:
        what: ``work_request`` or ``value_entry``.
    """

    asset: str
    what: Literal["work_request", "value_entry"] = "work_request"
    from_s: float = 0.0
    within_s: float
    at_least: int = 1


class MustKeep(_Must, frozen=True, kw_only=True, tag="keep"):
    """Ceilings.

    Attributes:
        rows_per_s: samples that the app gives, of the busiest ten seconds of source time; 0: the budget of
            its manifest. cpu_ms_per_s: of computing for a second of source time, mean.
        turn_ms: of one turn of the platform, all but one of a hundred. memory_mb: at the end.
        late_s: from an input's source time until its result is out, by the scenario's clock.
    """

    rows_per_s: float = 0.0
    cpu_ms_per_s: float = 0.0
    turn_ms: float = 0.0
    memory_mb: float = 0.0
    late_s: float = 0.0


Must = MustAlarm | MustQuiet | MustValue | MustFind | MustPropose | MustKeep


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of a scenario file.

    Attributes:
        name: unique among those of an app. title: what it tries, in one line.
        extends: scenario whose fields this one takes where it has none: ``demo/cavitation``, or a file.
        asset: assets of a recording. bind: the app's needed types.
        wire: path of a tag -> how it stands in its device, with ``source.protocol``.
        model: name -> where the app's model comes from; its score hooks give nothing without one.
        types: where no app is benched, formulas of these asset types of the site run; empty: all.
        turn_s: how often the platform goes on.
        warm_up_s: in which nothing is judged by ``quiet``, as learning takes its time.
    """

    name: str
    title: str = ""
    extends: str = ""
    source: Source = Source()
    asset: list[RecordedAsset] = []
    bind: dict[str, Bind] = {}
    wire: dict[str, Wire] = {}
    model: dict[str, LearnedModel] = {}
    settings: dict[str, float | str | bool] = {}
    types: list[str] = []
    fault: list[Fault] = []
    hostile: list[Hostile] = []
    must: list[Must] = []
    turn_s: float = 5.0
    warm_up_s: float = 0.0

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
