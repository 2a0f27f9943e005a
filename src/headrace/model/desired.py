"""Desired state: what each edge should run, as plain data that travels on the bus.

A site file is checked, its tags get their permanent ids, and the result is cut into one
:class:`EdgeConfig` an edge. The edge runs exactly that and reports its hash back.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from headrace.model.deployment import AppDeployment
from headrace.model.knowledge import AppsConfig
from headrace.model.zones import ZoneMap


class TagConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One tag as an edge needs it.

    Attributes:
        tag_id: permanent id.
        path: ``area/work_center/work_unit/name``; for messages only.
        address: where the value is in the device, in the connector's own grammar.
        scan_interval_ms: poll period, or sampling interval of a subscription.
        scale, offset: the sample's value is ``raw * scale + offset``.
        deadband: absolute; a Good value that moved by no more than this since the last
            published one is filtered. 0 publishes every value.
        unit: engineering unit after scaling (UCUM-like text, for example ``m3/h``).
        group: tag group, for retention and encodings.
        writable: may be written at all; else every write is refused.
        write_minimum, write_maximum: envelope of writes, in engineering units.
        sample_interval_us: for a value that is an array of consecutive samples (a waveform): the
            time between its elements; the source timestamp belongs to the last element. 0: no array.
    """

    tag_id: int
    path: str
    address: str
    scan_interval_ms: int = 1000
    scale: float = 1.0
    offset: float = 0.0
    deadband: float = 0.0
    unit: str = ""
    group: str = "default"
    writable: bool = False
    write_minimum: float | None = None
    write_maximum: float | None = None
    sample_interval_us: int = 0


Rule = Literal["stays", "aggregated", "encrypted", "leaves"]
WindowFunction = Literal["mean", "minimum", "maximum", "sum", "count"]


class ProtectionRule(msgspec.Struct, frozen=True, kw_only=True):
    """What of some tags of a connection may leave the edge; see docs/protection.md.

    Attributes:
        name: of the protection in the site file.
        rule: ``stays``, ``aggregated`` or ``encrypted``; a tag without a rule leaves.
        tag_ids: at least one.
        function, window_ms: of ``aggregated``: what of each window leaves.
        key: of ``encrypted``: name of the tenant's key on the edge.
        keep_bytes: how much of what stays the edge keeps.
    """

    name: str
    rule: Rule
    tag_ids: tuple[int, ...]
    function: WindowFunction = "mean"
    window_ms: int = 0
    key: str = ""
    keep_bytes: int = 256 << 20


class ConnectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One connection to one device or foreign broker.

    Attributes:
        name: unique in the site.
        protocol: entry-point name of the connector (``modbus``, ``opcua``, ``mqtt``, ``sparkplug``).
        endpoint: address in the protocol's own form (``127.0.0.1:502``, ``opc.tcp://...``,
            ``mqtt://host:port`` or ``broker`` for the platform's own MQTT listener).
        options: the connector's own settings; its ``options`` struct checks them.
        tags: what to read and write there.
        enabled: false keeps the connection known but closed.
        protection: what of its tags may leave the edge.
    """

    name: str
    protocol: str
    endpoint: str
    options: dict[str, Any] = {}
    tags: tuple[TagConfig, ...] = ()
    enabled: bool = True
    protection: tuple[ProtectionRule, ...] = ()

    @property
    def session_key(self) -> tuple[str, str, bytes, bool]:
        """What forces a new session when it changes; tags do not."""
        return (
            self.protocol,
            self.endpoint,
            msgspec.json.encode(self.options, order="sorted"),
            self.enabled,
        )


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that one edge runs.

    Attributes:
        secrets: what options refer to as ``secret:NAME``: name -> box sealed to this edge's key
            (:mod:`headrace.security.sealing`). Nothing that travels here can be read on the way.
        apps: formulas that it evaluates itself, with what they need to be understood; None for none.
        zones: what lies in which zone, and what may cross; it opens and writes nothing else.
        deployments: apps with Python that run on its machine, with the assets that they serve there.

    Example:
        >>> EdgeConfig(enterprise="acme", site="mill", edge="local").content_hash()[:8]
        '29866a04'
    """

    enterprise: str
    site: str
    edge: str
    connections: tuple[ConnectionConfig, ...] = ()
    secrets: dict[str, str] = {}
    apps: AppsConfig | None = None
    zones: ZoneMap = ZoneMap()
    deployments: tuple[AppDeployment, ...] = ()

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex; equal content has an equal hash."""
        told = msgspec.to_builtins(self, order="sorted")
        if self.apps is None:  # as edges say it that know of no formulas
            del told["apps"]
        if not self.deployments:
            del told["deployments"]
        return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()


class TagGroupConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the historian treats a group of tags.

    Attributes:
        retention_days: raw samples older than this are removed; 0 keeps them for ever.
    """

    retention_days: int = 0


class HistorianConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the historian must know of the site; lives in the ``desired`` bucket as ``historian``.

    Attributes:
        groups: tag groups by name; ``default`` always exists.
        tag_groups: tag_id -> group name, for tags outside ``default``.
        stop_free_bytes_min: below this much free disk the writer stops committing and says so; the
            log keeps what arrives until it is full, and nothing that was acknowledged is dropped.
    """

    groups: dict[str, TagGroupConfig] = msgspec.field(
        default_factory=lambda: {"default": TagGroupConfig()}
    )
    tag_groups: dict[int, str] = {}
    stop_free_bytes_min: int = 1 << 30
