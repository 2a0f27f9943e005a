"""What a host application knows of one edge node between births. Data only; the rules are in session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from headrace.edge.connectors.sparkplug.schema import DataType

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
        born: devices whose DBIRTH came after the last NBIRTH.
        awaited: devices that were born before the last NBIRTH -> when we give them up.
        reorder: messages out of sequence, by their number.
        rebirth_due: births were asked for, or will be as soon as the rate limit lets us.
        in_doubt: the sequence is broken: data may not be used before new births.
        orphans: messages after a definite gap, kept until births tell that they are still understood.
        old_alias: what the aliases meant when the orphans were sent.
        wanted: device_id -> metric name -> declared tags.
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
    former_alias: dict[int, KnownMetric] = field(default_factory=dict)
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

    @property
    def title(self) -> str:
        return f"{self.group_id}/{self.edge_node_id}"

    def tag_ids(self, device_id: str) -> list[int]:
        """The tags declared on a device, or on the node itself for ""."""
        return [each for wanted in self.wanted.get(device_id, {}).values() for each in wanted[0]]
