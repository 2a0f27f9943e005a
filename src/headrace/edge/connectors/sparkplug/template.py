"""Messages that repeat their layout: what is fixed is compared at once, what is free is cut out at once.

An edge node that reports the same metrics each time sends the same bytes each time, but for the time, the
sequence number and the values. A :class:`Template` knows from one message which bytes are which. The fixed
ones of the next message, and the message's time in each metric, are checked as one great integer::

    08 <time> (12 <length> 10 <alias> 18 <time> [20 <datatype>] 69 <double>)* 18 <seq>
    ..            ........ ..........    ...... ..............                 ..       must be as before
       tttttt                            tttttt                                         must be alike
                                                                   dddddddd      sss    free

So a message of 24 metrics costs a few microseconds instead of one for each metric. Metrics with a time of
their own, and whatever else does not fit, are left to :mod:`headrace.edge.connectors.sparkplug.wire`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from headrace.edge.connectors.sparkplug.wire import (
    SEQ,
    TIMESTAMP,
    VALUES,
    Layout,
    layout_at,
    varint,
)
from headrace.model.sample import Int64Array

BYTES_MAX: Final = 4_096
_AT_BYTES_MAX: Final = 7


class Metric(NamedTuple):
    """One metric of a message: its alias, and the type that its value says."""

    alias: int
    datatype: int


class Match(NamedTuple):
    """What a message has that fits a template; ``values`` are of the declared metrics, in order."""

    timestamp_ms: int
    seq: int
    values: tuple[float, ...]


class Template:
    """One layout.

    Args:
        body: a message that has it.
        parts: where each metric begins, and its layout.
        tag_id: int64, shape (n,), of each metric; -1 where none is declared.

    Attributes:
        size: bytes before the sequence number.
        alias: of the declared metrics, int64, shape (n,).
        tag_bytes: the declared tags' ids as int64.
        undeclared: how many metrics are no tags.
    """

    def __init__(
        self,
        body: bytes,
        parts: list[tuple[int, Layout]],
        metrics: list[Metric],
        tag_id: Int64Array,
    ) -> None:
        first, last = parts[0][0], parts[-1]
        self.size = last[0] + last[1].size
        declared = tag_id >= 0
        aliases: Int64Array = np.array([metric.alias for metric in metrics], np.int64)
        self.alias: Int64Array = aliases[declared]
        self.tag_bytes = tag_id[declared].tobytes()
        self.undeclared = len(tag_id) - int(declared.sum())
        width = first - 1
        mask = bytearray(b"\xff" * self.size)
        mask[1:first] = bytes(width)
        times = bytearray(self.size)
        cut, at = "<", 0
        for (start, layout), wanted in zip(parts, declared.tolist(), strict=True):
            dtype, _ = VALUES[layout.kind]
            value, bytes_ = start + layout.value, int(dtype[-1])
            mask[value : value + bytes_] = bytes(bytes_)
            times[start + layout.at[0]] = 1
            if wanted:
                cut += f"{value - at}x{'d' if bytes_ == 8 else 'f'}"
                at = value + bytes_
        self._mask = int.from_bytes(mask, "little")
        self._times = int.from_bytes(times, "little")
        self._time_end = first
        time = int.from_bytes(body[1:first], "little")
        self._more = int.from_bytes(b"\x80" * width, "little")
        self._more_set = int.from_bytes(b"\x80" * (width - 1), "little")
        whole = int.from_bytes(body[: self.size], "little")
        self._fixed = (whole & self._mask) - self._times * time
        self._cut = struct.Struct(cut)

    def match(self, body: bytes) -> Match | None:
        """What the message has, or None when it has another layout."""
        time = int.from_bytes(body[1 : self._time_end], "little")
        whole = int.from_bytes(body[: self.size], "little")
        if whole & self._mask != self._fixed + self._times * time:
            return None
        if time & self._more != self._more_set:
            return None
        seq, end = varint(body, self.size + 1)
        if body[self.size] != SEQ or end != len(body):
            return None
        return Match(varint(body, 1)[0], seq, self._cut.unpack_from(body))


def parts_of(body: bytes) -> tuple[list[tuple[int, Layout]], list[Metric]] | None:
    """Where the metrics of a message are, when a template can be made of it; raises nothing."""
    if not 4 <= len(body) <= BYTES_MAX or body[0] != TIMESTAMP:
        return None
    timestamp, first = varint(body, 1)
    if timestamp <= 0 or first - 1 > _AT_BYTES_MAX:
        return None
    parts: list[tuple[int, Layout]] = []
    metrics: list[Metric] = []
    at = first
    while at < len(body) and body[at] != SEQ:
        layout = layout_at(body, at) if body[at] == 0x12 else None
        if layout is None or body[at + layout.at[0] : at + layout.at[1]] != body[1:first]:
            return None
        alias, _ = varint(body, at + layout.alias[0])
        datatype = VALUES[layout.kind][1]
        if layout.states_type and body[at + layout.value - 2] != datatype:
            return None
        parts.append((at, layout))
        metrics.append(Metric(alias, datatype))
        at += layout.size
    return (parts, metrics) if parts and at < len(body) else None
