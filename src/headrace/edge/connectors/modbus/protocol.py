"""Modbus frames and protocol data units, without I/O.

A frame of Modbus TCP (Modbus Messaging on TCP/IP V1.0b, clause 3.1.3)::

    0       2       4       6      7
    +-------+-------+-------+------+-----------------+
    | trans | 0     | bytes | unit | PDU             |
    +-------+-------+-------+------+-----------------+
                      from here ^ on: 1 + PDU

and of RTU (Modbus over Serial Line V1.02, clause 2.5.1), which tells no length: it follows from the
function code, and for reads from the byte count::

    0      1                 n-2
    +------+-----------------+-----+
    | unit | PDU             | CRC |   CRC-16, low byte first
    +------+-----------------+-----+

A PDU is a function code and its fields. Reads, the hot path, are built and cut here without any
further object; :mod:`headrace.edge.connectors.modbus.pdu` knows the fields of all functions.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from headrace.edge.connectors.modbus.address import Table

READ_FUNCTION: Final[dict[Table, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
EXCEPTION_FLAG: Final = 0x80
PDU_BYTES_MAX: Final = 253
_MBAP: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_RTU_FIXED: Final = {5: 8, 6: 8, 7: 5, 8: 8, 11: 8, 15: 8, 16: 8, 22: 10}
_RTU_COUNTED: Final = (1, 2, 3, 4, 12, 17, 20, 21, 23)


class FrameError(Exception):
    """The byte stream cannot be Modbus frames any more; only a new connection helps."""


class Request(NamedTuple):
    """One request to a unit."""

    unit: int
    pdu: bytes


class Frame(NamedTuple):
    """One received frame; ``transaction`` is 0 where the framing has none."""

    transaction: int
    unit: int
    pdu: bytes


def read_request(table: Table, start: int, count: int) -> bytes:
    """The PDU that reads ``count`` registers or bits from ``start``.

    Example:
        >>> read_request("holding", 2, 5).hex()
        '0300020005'
    """
    return _READ.pack(READ_FUNCTION[table], start, count)


def tcp_frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A PDU with its MBAP header.

    Example:
        >>> tcp_frame(1, 255, bytes.fromhex("0408d20002")).hex()
        '000100000006ff0408d20002'
    """
    return _MBAP.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    """A PDU as RTU frame.

    Example:
        >>> rtu_frame(1, bytes.fromhex("030000000a")).hex()
        '01030000000ac5cd'
    """
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC: Final = _crc_table()


def crc16(body: bytes) -> int:
    """CRC-16 of serial Modbus: reflected polynomial 0xA001, starting at 0xFFFF.

    Example:
        >>> hex(crc16(bytes.fromhex("01030000000a")))
        '0xcdc5'
    """
    crc = 0xFFFF
    table = _CRC
    for byte in body:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


class TcpFramer:
    """Cuts a stream of bytes into Modbus TCP frames, however it was chopped on the way.

    Example:
        >>> TcpFramer().feed(bytes.fromhex("0001000000050103021234"))[0].pdu.hex()
        '03021234'
    """

    def __init__(self) -> None:
        self._rest = b""

    def reset(self) -> None:
        """Nothing to forget: transaction ids tell stale answers."""

    def feed(self, received: bytes) -> list[Frame]:
        """The frames that are complete now.

        Raises:
            FrameError: the protocol id is not 0 or the length cannot be.
        """
        if self._rest:
            received = self._rest + received
        frames: list[Frame] = []
        at, end = 0, len(received)
        while end - at >= 7:
            transaction, protocol, length, unit = _MBAP.unpack_from(received, at)
            if protocol or not 2 <= length <= PDU_BYTES_MAX + 1:
                raise FrameError(
                    f"an MBAP header has protocol {protocol} and length {length}, "
                    "not protocol 0 and length 2 to 254"
                )
            behind = at + 6 + length
            if behind > end:
                break
            frames.append(Frame(transaction, unit, received[at + 7 : behind]))
            at = behind
        self._rest = received[at:] if at < end else b""
        return frames


class RtuFramer:
    """Cuts a stream of bytes into RTU frames of answers; lengths follow from the function codes.

    Example:
        >>> RtuFramer().feed(rtu_frame(1, bytes.fromhex("03021234")))[0].pdu.hex()
        '03021234'
    """

    def __init__(self, requests: bool = False) -> None:
        self._rest = b""
        self._requests = requests

    def reset(self) -> None:
        """Forget a part of a frame; done before each request, as a serial line's silence does."""
        self._rest = b""

    def feed(self, received: bytes) -> list[Frame]:
        """The frames that are complete now.

        Raises:
            FrameError: a CRC is wrong or the function code is unknown.
        """
        received = self._rest + received
        frames: list[Frame] = []
        at = 0
        size = rtu_size(received, self._requests)
        while size is not None and at + size <= len(received):
            body, crc = received[at : at + size - 2], received[at + size - 2 : at + size]
            if crc16(body) != int.from_bytes(crc, "little"):
                raise FrameError(f"the CRC of the frame {received[at : at + size].hex()} is wrong")
            frames.append(Frame(0, body[0], body[1:]))
            at += size
            size = rtu_size(received[at:], self._requests)
        self._rest = received[at:]
        return frames


def rtu_size(received: bytes, request: bool = False) -> int | None:
    """Bytes of the RTU frame that begins here, None while that cannot be told yet.

    Raises:
        FrameError: the function code is not one whose length is known.

    Example:
        >>> rtu_size(bytes.fromhex("010302"))
        7
    """
    if len(received) < 2:
        return None
    function = received[1]
    if request:
        return _rtu_request_size(received, function)
    if function & EXCEPTION_FLAG:
        return 5
    if function in _RTU_FIXED:
        return _RTU_FIXED[function]
    if function in _RTU_COUNTED:
        return None if len(received) < 3 else 5 + received[2]
    raise FrameError(f"an RTU answer has the unknown function code {function}")


def _rtu_request_size(received: bytes, function: int) -> int | None:
    if function in (1, 2, 3, 4, 5, 6, 8):
        return 8
    if function in (7, 11, 12, 17):
        return 4
    if function == 22:
        return 10
    at = {15: 6, 16: 6, 20: 2, 21: 2, 23: 10}.get(function)
    if at is None:
        raise FrameError(f"an RTU request has the unknown function code {function}")
    return None if len(received) <= at else at + 3 + received[at]
