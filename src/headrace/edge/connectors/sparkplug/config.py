"""Settings of a Sparkplug host application, topics and the grammar of addresses; no I/O.

An address is ``<group_id>/<edge_node_id>[/<device_id>]#<metric name>``; a metric's name may contain
``/`` and ``#``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.edge.connectors.mqtt.config import MqttSessionOptions
from headrace.model.errors import Misconfigured

NAMESPACE: Final = "spBv1.0"
REBIRTH: Final = "Node Control/Rebirth"
BD_SEQ: Final = "bdSeq"
NODE_TYPES: Final = frozenset({"NBIRTH", "NDEATH", "NDATA", "NCMD"})
DEVICE_TYPES: Final = frozenset({"DBIRTH", "DDEATH", "DDATA", "DCMD"})


class SparkplugOptions(MqttSessionOptions, frozen=True, kw_only=True):
    """Settings of a Sparkplug B connection.

    Attributes:
        host_id: our Sparkplug Host ID; "" makes it ``<edge identity>-<connection>``. Edge nodes that
            have us as their primary host name it.
        groups: group_ids to subscribe to; none means all that the broker has.
        reorder_timeout_ms: how long a message out of sequence waits for the missing one (5.15.1).
        rebirth_interval_ms: shortest time between two rebirth requests to one edge node.
        startup_rebirth_ms: how long declared edge nodes get to send births of their own accord after
            we connected, before we ask.
        write_timeout_s: how long a write waits for the edge node to echo the value.
        browse_listen_s: how long a browse waits for births of nodes that it does not know yet.
    """

    host_id: str = ""
    groups: tuple[str, ...] = ()
    reorder_timeout_ms: int = 2_000
    rebirth_interval_ms: int = 10_000
    startup_rebirth_ms: int = 1_000
    write_timeout_s: float = 5.0
    browse_listen_s: float = 3.0


class MetricAddress(NamedTuple):
    """Where a metric is; ``device_id`` is "" for a metric of the edge node itself."""

    group_id: str
    edge_node_id: str
    device_id: str
    metric: str


def check_id(text: str, what: str) -> str:
    """The id itself when it may stand in a topic (4.1).

    Raises:
        Misconfigured: EDGE-4005.
    """
    if not text or any(sign in text for sign in "+#/\0"):
        raise Misconfigured(
            "EDGE-4005", f"{what} has the id {text!r}", "An id is not empty and has no / + or #."
        )
    return text


def parse_address(address: str, what: str) -> MetricAddress:
    """The parts of an address.

    Raises:
        Misconfigured: EDGE-4003 when it does not follow the grammar, EDGE-4005 for a wrong id.

    Example:
        >>> parse_address("hall/node_1/meter_3#power/total", "tag x")
        MetricAddress(group_id='hall', edge_node_id='node_1', device_id='meter_3', metric='power/total')
    """
    where, mark, metric = address.partition("#")
    ids = where.split("/")
    if not mark or not metric or len(ids) not in (2, 3):
        raise Misconfigured(
            "EDGE-4003",
            f"{what} has the address {address!r}",
            "Use <group_id>/<edge_node_id>[/<device_id>]#<metric name>.",
        )
    for each in ids:
        check_id(each, what)
    return MetricAddress(ids[0], ids[1], ids[2] if len(ids) == 3 else "", metric)


def topic(kind: str, group_id: str, edge_node_id: str, device_id: str = "") -> str:
    """A Sparkplug topic (4.1).

    Example:
        >>> topic("DDATA", "hall", "node_1", "meter_3")
        'spBv1.0/hall/DDATA/node_1/meter_3'
    """
    below = f"/{device_id}" if device_id else ""
    return f"{NAMESPACE}/{group_id}/{kind}/{edge_node_id}{below}"


def state_topic(host_id: str) -> str:
    """Where a host application says whether it is online (4.8)."""
    return f"{NAMESPACE}/STATE/{host_id}"
