"""Captured TCP streams: pcap and pcapng, IPv4 and IPv6, put together by sequence number."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

Stream = tuple[bytes, int, bytes, int]
"""Source address and port, destination address and port."""

_PCAPNG = b"\x0a\x0d\x0d\x0a"
_LINK_HEADER = {0: 4, 1: 14, 101: 0, 113: 16}
"""Bytes before the IP header: loopback, Ethernet, raw, Linux cooked."""


def packets(path: Path) -> Iterator[tuple[int, bytes]]:
    """(link type, frame) of every packet in the file."""
    data = path.read_bytes()
    yield from _pcapng(data) if data.startswith(_PCAPNG) else _pcap(data)


def _pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = "<" if data[0] in (0xD4, 0x4D) else ">"
    link = struct.unpack_from(f"{order}I", data, 20)[0]
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack_from(f"{order}I", data, at + 8)[0]
        yield link, data[at + 16 : at + 16 + length]
        at += 16 + length


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    order, at = "<", 0
    links: list[int] = []
    while at + 12 <= len(data):
        if data[at : at + 4] == _PCAPNG:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, length = struct.unpack_from(f"{order}II", data, at)
        if kind == 1:
            links.append(struct.unpack_from(f"{order}H", data, at + 8)[0])
        elif kind == 6:
            interface, _, _, captured = struct.unpack_from(f"{order}4I", data, at + 8)
            yield links[interface], data[at + 28 : at + 28 + captured]
        at += length


def _segment(link: int, frame: bytes) -> tuple[Stream, int, int, bytes] | None:
    """Stream, sequence number, flags and payload of a TCP packet."""
    ip = frame[_LINK_HEADER[link] :]
    if not ip:
        return None
    if ip[0] >> 4 == 4 and ip[9] == 6:
        head, end = (ip[0] & 15) * 4, struct.unpack_from(">H", ip, 2)[0]
        source, target = ip[12:16], ip[16:20]
    elif ip[0] >> 4 == 6 and ip[6] == 6:
        head, end = 40, 40 + struct.unpack_from(">H", ip, 4)[0]
        source, target = ip[8:24], ip[24:40]
    else:
        return None
    tcp = ip[head:end]
    from_port, to_port, sequence = struct.unpack_from(">HHI", tcp)
    return (source, from_port, target, to_port), sequence, tcp[13], tcp[(tcp[12] >> 4) * 4 :]


def tcp_streams(path: Path) -> dict[Stream, bytes]:
    """The bytes of each direction of each connection, in order, each byte once."""
    parts: dict[Stream, dict[int, bytes]] = {}
    for link, frame in packets(path):
        segment = _segment(link, frame)
        if segment is None:
            continue
        stream, sequence, flags, payload = segment
        number, key = 0, stream
        # A new SYN on the same ports is another connection.
        while flags & 2 and key in parts and payload == b"" and sequence not in parts[key]:
            number += 1
            key = (stream[0], stream[1], stream[2] + bytes([number]), stream[3])
        if payload:
            held = parts.setdefault(key, {})
            if len(payload) > len(held.get(sequence, b"")):
                held[sequence] = payload
    return {stream: _join(held) for stream, held in parts.items()}


def _join(held: dict[int, bytes]) -> bytes:
    joined, at = bytearray(), min(held)
    for sequence in sorted(held):
        payload = held[sequence]
        if sequence + len(payload) <= at:
            continue
        joined += payload[max(0, at - sequence) :]
        at = sequence + len(payload)
    return bytes(joined)
