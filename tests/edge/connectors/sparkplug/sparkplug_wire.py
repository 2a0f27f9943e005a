"""An edge node's side of the wire for tests: payloads as an edge node would make them."""

from __future__ import annotations

from typing import Any

from headrace.edge.connectors.mqtt.columns import Gathered
from headrace.edge.connectors.sparkplug.config import MetricAddress
from headrace.edge.connectors.sparkplug.payload import set_value
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.edge.connectors.sparkplug.session import HostSession

NOW_US = 1_700_000_000_000_000
NODE = "spBv1.0/hall/{}/node_1"
DEVICE = "spBv1.0/hall/{}/node_1/{}"


def payload(
    seq: int | None, *metrics: dict[str, Any], timestamp_ms: int = NOW_US // 1_000
) -> bytes:
    """A payload; each metric has protobuf fields, and ``value`` with ``datatype`` or ``of``."""
    message = Payload(timestamp=timestamp_ms)
    if seq is not None:
        message.seq = seq
    for fields in metrics:
        fields = dict(fields)
        value, of = fields.pop("value", None), fields.pop("of", None)
        entry = message.metrics.add(**fields)
        if value is not None:
            set_value(entry, of or fields["datatype"], value, "test")
    return bytes(message.SerializeToString())


def bd_seq(number: int) -> dict[str, Any]:
    return {"name": "bdSeq", "datatype": int(DataType.INT64), "value": number}


def birth_metric(
    name: str, alias: int, value: Any, datatype: int = DataType.DOUBLE
) -> dict[str, Any]:
    return {"name": name, "alias": alias, "datatype": int(datatype), "value": value}


def datum(alias: int, value: Any, datatype: int = DataType.DOUBLE, **more: Any) -> dict[str, Any]:
    return {"alias": alias, "value": value, "of": int(datatype), **more}


class Bench:
    """A host session with its output at hand and a clock that the test moves."""

    def __init__(self, *tags: tuple[str, str, int]) -> None:
        self.out = Gathered()
        self.session = HostSession(
            "scada", self.out, reorder_timeout_s=2.0, rebirth_interval_s=10.0
        )
        self.now_s = 100.0
        declared = [
            (MetricAddress("hall", "node_1", device, metric), tag_id, 0)
            for device, metric, tag_id in tags
        ]
        self.session.declare(declared, self.now_s, 1.0)

    def node(self, kind: str, body: bytes) -> None:
        self.session.receive(NODE.format(kind), body, NOW_US, self.now_s)

    def device(self, kind: str, device_id: str, body: bytes) -> None:
        self.session.receive(DEVICE.format(kind, device_id), body, NOW_US, self.now_s)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.session.tick(NOW_US, self.now_s)

    def samples(self) -> list[tuple[int, Any]]:
        """(tag_id, number or text) gathered since the last call."""
        batch = self.out.columns.take()
        return [
            (row["tag_id"], row["value"] if row["text"] is None else row["text"])
            for row in batch.iter_rows(named=True)
        ]

    def rebirths(self) -> int:
        """Rebirth requests since the last call."""
        count = 0
        for message in self.session.outbox:
            if "/NCMD/" in message.topic:
                body = Payload.FromString(message.payload)
                names = [each.name for each in body.metrics if each.boolean_value]
                count += names == ["Node Control/Rebirth"]
        self.session.outbox.clear()
        return count

    def codes(self) -> list[str]:
        """Codes of the notices since the last call."""
        found = [code for code, _ in self.out.notices]
        self.out.notices.clear()
        return found

    def stale(self) -> set[int]:
        """Tags that went stale since the last call."""
        found = set(self.out.stale)
        self.out.stale.clear()
        return found
