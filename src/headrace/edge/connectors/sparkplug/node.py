"""What a host application knows of one edge node between births. Data only; the rules are in session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from headrace.edge.connectors.sparkplug.schema import DataType
from headrace.edge.connectors.sparkplug.template import Match, Template, parts_of
from headrace.model.sample import Int64Array

# Types that need no sign, no range check, no exactness and no text handling.
_QUICK: Final = {
    DataType.DOUBLE: "double_value",
    DataType.FLOAT: "float_value",
    DataType.BOOLEAN: "boolean_value",
}


@dataclass(slots=True)
class KnownMetric:
    """One metric of the last birth.

    Attributes:
        tag_ids: the tags that are declared on it; none for an undeclared metric.
        quick: attribute that holds the value when it needs no further look, or "".
        last_us: timestamp of the newest live value that became a sample; -1 when there is none.
        shown, unit: the birth's value as text, and its ``engUnit`` property when it has one.
        watched: somebody waits for its next value.
    """

    device_id: str
    name: str
    datatype: int
    alias: int | None
    tag_ids: tuple[int, ...] = ()
    sample_interval_us: int = 0
    quick: str = ""
    last_us: int = -1
    shown: str = ""
    unit: str = ""
    watched: bool = False

    def identity(self) -> tuple[str, str, int]:
        """What an alias stands for."""
        return self.device_id, self.name, self.datatype


def quick_attribute(datatype: int) -> str:
    """The protobuf member that holds a type's value as it is; "" when it needs a closer look.

    Example:
        >>> quick_attribute(10), quick_attribute(3)
        ('double_value', '')
    """
    return _QUICK.get(DataType(datatype), "") if datatype in _QUICK else ""


_UNUSABLE: Final = -2
_UNDECLARED: Final = -1
_ALIAS_MAX: Final = 1 << 20
_TEMPLATES_MAX: Final = 8
_FORMER_MAX: Final = 1_000


class AliasTable:
    """Alias -> tag as arrays, for one device of one edge node; made from the births in force.

    Attributes:
        last_us: alias -> timestamp of its newest sample that came by this table; -1 for none.
        in_use: some came since the metrics were told.
    """

    def __init__(self, node: EdgeNode, device_id: str) -> None:
        mine = {a: m for a, m in node.alias.items() if m.device_id == device_id and a < _ALIAS_MAX}
        size = max(mine, default=0) + 1
        self._tag_id = np.full(size, _UNUSABLE, np.int64)
        self._datatype = np.zeros(size, np.int64)
        self.last_us = np.full(size, -1, np.int64)
        self.in_use = False
        self._templates: dict[int, Template] = {}
        self._unlike = 0
        for alias, metric in mine.items():
            if metric.quick and len(metric.tag_ids) < 2:
                self._tag_id[alias] = metric.tag_ids[0] if metric.tag_ids else _UNDECLARED
                self._datatype[alias] = metric.datatype

    def template(self, body: bytes) -> tuple[Template, Match] | None:
        """What a message has whose layout is known; a layout is learnt when it is met, at most
        :data:`_TEMPLATES_MAX` of them, and ever more rarely while messages do not repeat theirs."""
        for tail in (2, 3):  # the sequence number's tag, and one or two bytes
            known = self._templates.get(len(body) - tail)
            if known is not None and (match := known.match(body)) is not None:
                self._unlike = 0
                return known, match
        self._unlike += 1
        if self._unlike & (self._unlike - 1):
            return None
        learnt = self._learn(body)
        match = learnt.match(body) if learnt is not None else None
        return (learnt, match) if learnt is not None and match is not None else None

    def _learn(self, body: bytes) -> Template | None:
        found = parts_of(body)
        if found is None:
            return None
        parts, metrics = found
        tag_id = np.full(len(metrics), _UNUSABLE, np.int64)
        for datatype in {metric.datatype for metric in metrics}:
            rows = [at for at, metric in enumerate(metrics) if metric.datatype == datatype]
            alias = np.array([metrics[at].alias for at in rows], np.int64)
            tags = self.tags(alias, datatype)
            if tags is None:
                return None
            tag_id[rows] = tags
        made = Template(body, parts, metrics, tag_id)
        if made.size not in self._templates and len(self._templates) >= _TEMPLATES_MAX:
            del self._templates[next(iter(self._templates))]
        self._templates[made.size] = made
        return made

    def tags(self, alias: Int64Array, datatype: int) -> Int64Array | None:
        """Tag ids of metrics whose values say that they are of ``datatype``, -1 where none is
        declared; None when a metric needs a closer look."""
        if int(alias.max()) >= len(self._tag_id):
            return None
        tag_id: Int64Array = self._tag_id[alias]
        fits = (tag_id != _UNUSABLE) & (self._datatype[alias] == datatype)
        return tag_id if bool(fits.all()) else None


class Held(NamedTuple):
    """A message that cannot be used yet."""

    kind: str
    device_id: str
    payload: Any
    received_us: int


class Wanted(NamedTuple):
    """The tags on one metric."""

    tag_ids: tuple[int, ...]
    sample_interval_us: int


@dataclass
class EdgeNode:
    """State of one edge node.

    Attributes:
        online: between a valid NBIRTH and its NDEATH.
        next_seq: sequence number that the next message must have.
        metrics: device_id ("" for the node) -> metric name -> metric, of the last births.
        alias: alias -> metric, over the node and all its devices.
        birth_ms: time of the NBIRTH in force; former_alias: what the aliases meant before it.
        changed: aliases that once meant something else.
        overtaken_ms: time of an older NBIRTH that came after it; -1 for none.
        born: devices whose DBIRTH came after the last NBIRTH.
        awaited: devices that were born before the last NBIRTH -> when we give them up.
        reorder: messages out of sequence, by their number.
        rebirth_due: births were asked for, or will be as soon as the rate limit lets us.
        in_doubt: the sequence is broken: data may not be used before new births.
        orphans: messages after a definite gap, kept until births tell that they are still understood.
        old_alias: what the aliases meant when the orphans were sent.
        wanted: device_id -> metric name -> declared tags.
        tables: device_id -> its aliases as arrays.
        stale: tag_ids that were reported stale -> since when (our clock).
    """

    group_id: str
    edge_node_id: str
    online: bool = False
    bd_seq: int | None = None
    next_seq: int = 0
    metrics: dict[str, dict[str, KnownMetric]] = field(default_factory=dict)
    alias: dict[int, KnownMetric] = field(default_factory=dict)
    birth_ms: int = 0
    overtaken_ms: int = -1
    former_alias: dict[int, KnownMetric] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    born: set[str] = field(default_factory=set)
    awaited: dict[str, float] = field(default_factory=dict)
    reorder: dict[int, Held] = field(default_factory=dict)
    reorder_deadline_s: float = 0.0
    orphans: list[Held] = field(default_factory=list)
    old_alias: dict[int, KnownMetric] = field(default_factory=dict)
    rebirth_due: bool = False
    in_doubt: bool = False
    rebirth_not_before_s: float = 0.0
    rebirth_sent_s: float = float("-inf")
    rebirth_tries: int = 0
    wanted: dict[str, dict[str, Wanted]] = field(default_factory=dict)
    stale: dict[int, int] = field(default_factory=dict)
    undeclared: int = 0
    tables: dict[str, AliasTable] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.group_id}/{self.edge_node_id}"

    def table(self, device_id: str) -> AliasTable:
        """The device's aliases as arrays, made when they are first needed."""
        table = self.tables.get(device_id)
        if table is None:
            table = self.tables[device_id] = AliasTable(self, device_id)
        return table

    def drop_tables(self) -> None:
        """What aliases mean is about to change."""
        for device_id in self.tables:
            self.settle_table(device_id)
        self.tables.clear()

    def settle_table(self, device_id: str) -> None:
        """Tell the metrics what came by their table; before one of them is taken another way."""
        table = self.tables.get(device_id)
        if table is None or not table.in_use:
            return
        for alias in np.flatnonzero(table.last_us >= 0).tolist():
            metric = self.alias.get(alias)
            if metric is not None and metric.device_id == device_id:
                metric.last_us = int(table.last_us[alias])
        table.last_us.fill(-1)
        table.in_use = False

    def retire_aliases(self) -> None:
        """New births are about to say what aliases mean."""
        if self.alias:
            for alias, metric in self.alias.items():
                earlier = self.former_alias.get(alias)
                if earlier is not None and earlier.identity() != metric.identity():
                    self.changed.add(alias)
            # Births may have been incomplete: what they did not tell again keeps its former meaning.
            former = {**self.former_alias, **self.alias}
            too_many = len(former) > 2 * len(self.alias) + _FORMER_MAX
            self.former_alias = self.alias if too_many else former

    def tag_ids(self, device_id: str) -> list[int]:
        """The tags declared on a device, or on the node itself for ""."""
        return [each for wanted in self.wanted.get(device_id, {}).values() for each in wanted[0]]
