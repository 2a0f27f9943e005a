"""A tiny reader of pcap and pcapng files: the TCP payloads of one port, in order of each direction.

Only what the Modbus captures need: Ethernet, Linux cooked and loopback links, IPv4, TCP. Segments are
put in the order of their sequence numbers; repeated bytes are dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_IP_OFFSET = {1: 14, 113: 16, 0: 4, 101: 0}


@dataclass
class Direction:
    """What one side of a TCP connection sent.

    Attributes:
        chunks: contiguous payloads; a new one begins where bytes are missing from the capture.
    """

    chunks: list[bytes] = field(default_factory=list)
    next_sequence: int | None = None

    def add(self, sequence: int, payload: bytes) -> None:
        if self.next_sequence is None or (sequence - self.next_sequence) % 2**32 < 2**31:
            if self.next_sequence == sequence:
                self.chunks[-1] += payload
            else:
                self.chunks.append(payload)
            self.next_sequence = (sequence + len(payload)) % 2**32


def directions(file: Path, port: int) -> dict[tuple[bytes, int, bytes, int], Direction]:
    """(source, port, destination, port) -> what was sent, for connections of a server port."""
    found: dict[tuple[bytes, int, bytes, int], Direction] = {}
    for link, packet in _packets(file.read_bytes()):
        segment = _segment(link, packet)
        if segment is None or port not in (segment[0][1], segment[0][3]):
            continue
        key, sequence, payload = segment
        if payload:
            found.setdefault(key, Direction()).add(sequence, payload)
    return found


def _segment(link: int, packet: bytes) -> tuple[tuple[bytes, int, bytes, int], int, bytes] | None:
    at = _IP_OFFSET.get(link)
    if at is None or len(packet) < at + 20 or packet[at] >> 4 != 4 or packet[at + 9] != 6:
        return None
    header = 4 * (packet[at] & 15)
    total = struct.unpack_from(">H", packet, at + 2)[0] or len(packet) - at
    tcp = packet[at + header : at + total]
    if len(tcp) < 20:
        return None
    source, destination, sequence = struct.unpack_from(">HHI", tcp)
    key = (packet[at + 12 : at + 16], source, packet[at + 16 : at + 20], destination)
    return key, sequence, tcp[4 * (tcp[12] >> 4) :]


def _packets(raw: bytes) -> Iterator[tuple[int, bytes]]:
    if raw[:4] == b"\x0a\x0d\x0d\x0a":
        yield from _pcapng_packets(raw)
        return
    order = "<" if raw[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link = struct.unpack_from(f"{order}I", raw, 20)[0]
    at = 24
    while at + 16 <= len(raw):
        size = struct.unpack_from(f"{order}I", raw, at + 8)[0]
        yield link, raw[at + 16 : at + 16 + size]
        at += 16 + size


def _pcapng_packets(raw: bytes) -> Iterator[tuple[int, bytes]]:
    order, at = "<", 0
    links: list[int] = []
    while at + 12 <= len(raw):
        if raw[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if raw[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
        kind, size = struct.unpack_from(f"{order}II", raw, at)
        if kind == 1:
            links.append(struct.unpack_from(f"{order}H", raw, at + 8)[0])
        elif kind == 6:
            interface, _, _, captured = struct.unpack_from(f"{order}IIII", raw, at + 8)
            yield links[interface], raw[at + 28 : at + 28 + captured]
        at += size
