"""Decode Sparkplug NDATA: ours (session to batch) against a gateway's loop with a dict a metric.

Both take the same bytes in the same process, turn and turn about, and are checked to give the same
values. Prints one JSON line: metrics per second of CPU of both, which other work on the machine disturbs
less than seconds, and our ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from typing import Any

from headrace.edge.connectors.mqtt.columns import Gathered
from headrace.edge.connectors.sparkplug.config import MetricAddress, topic
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.edge.connectors.sparkplug.session import HostSession

NOW_MS = 1_700_000_000_000
DATA = topic("NDATA", "bench", "node")


def birth(metrics: int) -> bytes:
    payload = Payload(timestamp=NOW_MS, seq=0)
    payload.metrics.add(name="bdSeq", datatype=int(DataType.INT64), long_value=0)
    for alias in range(1, metrics + 1):
        payload.metrics.add(
            name=f"m{alias}", alias=alias, datatype=int(DataType.DOUBLE), double_value=float(alias)
        )
    body: bytes = payload.SerializeToString()
    return body


def messages(count: int, metrics: int) -> list[bytes]:
    made = []
    for number in range(count):
        payload = Payload(timestamp=NOW_MS + number, seq=(number + 1) % 256)
        for alias in range(1, metrics + 1):
            payload.metrics.add(
                alias=alias, timestamp=NOW_MS + number, double_value=number + alias / 7
            )
        made.append(payload.SerializeToString())
    return made


def ours(births: bytes, bodies: list[bytes], metrics: int) -> tuple[float, float]:
    """Seconds for all bodies to batches, and the sum of all values."""
    gathered = Gathered()
    session = HostSession("bench", gathered)
    declared = [(MetricAddress("bench", "node", "", f"m{n}"), n, 0) for n in range(1, metrics + 1)]
    session.declare(declared, 0.0, 0.0)
    session.receive(topic("NBIRTH", "bench", "node"), births, NOW_MS * 1_000, 0.0)
    gathered.columns.take()
    total = 0.0
    start = time.process_time()
    for number, body in enumerate(bodies):
        session.receive(DATA, body, NOW_MS * 1_000, 0.0)
        if number % 100 == 99:
            total += float(gathered.columns.take()["value"].sum())
    taken = time.process_time() - start
    return taken, total + float(gathered.columns.take()["value"].sum())


def peer(births: bytes, bodies: list[bytes]) -> tuple[float, float]:
    """The same in the usual way: a dict for each metric, as gateways hand them on."""
    names = {
        each.alias: (each.name, each.datatype)
        for each in Payload.FromString(births).metrics
        if each.HasField("alias")
    }
    kept: list[dict[str, Any]] = []
    total = 0.0
    start = time.process_time()
    for number, body in enumerate(bodies):
        payload = Payload.FromString(body)
        for metric in payload.metrics:
            name, datatype = names[metric.alias]
            which = metric.WhichOneof("value")
            kept.append(
                {
                    "topic": DATA,
                    "name": name,
                    "timestamp": metric.timestamp,
                    "datatype": datatype,
                    "value": None if metric.is_null else getattr(metric, which),
                    "is_historical": metric.is_historical,
                }
            )
        if number % 100 == 99:
            total += sum(each["value"] for each in kept)
            kept.clear()
    taken = time.process_time() - start
    return taken, total + sum(each["value"] for each in kept)


def compare(messages_of: int, metrics: int, rounds: int) -> dict[str, Any]:
    """Metrics a second of both, the best of some rounds."""
    births, bodies = birth(metrics), messages(messages_of, metrics)
    best_ours = best_peer = float("inf")
    for _ in range(rounds):
        gc.collect()
        seconds, sum_ours = ours(births, bodies, metrics)
        best_ours = min(best_ours, seconds)
        gc.collect()
        seconds, sum_peer = peer(births, bodies)
        best_peer = min(best_peer, seconds)
        assert abs(sum_ours - sum_peer) < 1e-6 * abs(sum_peer), "the two decoders disagree"
    count = messages_of * metrics
    return {
        "ours": round(count / best_ours),
        "peer": round(count / best_peer),
        "ratio": round(best_peer / best_ours, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--metrics", type=int, default=100, help="metrics a message")
    parser.add_argument("--small", type=int, default=24, help="metrics of a small message")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    result = {
        "name": "connector_sparkplug",
        "unit": "metrics per second of CPU",
        **compare(arguments.messages, arguments.metrics, arguments.rounds),
        "metrics_a_message": arguments.metrics,
        "small": compare(arguments.messages, arguments.small, arguments.rounds),
        "metrics_a_small_message": arguments.small,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
