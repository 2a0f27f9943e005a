"""The settings of a Modbus connection, checked without any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from headrace.edge.connectors.modbus.address import Address, Addressing, Grammar, Range
from headrace.edge.connectors.modbus.datatype import Order
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured

Framing = Literal["tcp", "rtu_over_tcp"]
PORT = 502
_TICKS_US = {"us": 1.0, "ms": 1_000.0, "s": 1_000_000.0}


class ModbusOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a Modbus connection.

    Attributes:
        framing: ``tcp`` (MBAP header), or ``rtu_over_tcp`` (serial frames with CRC through a
            converter).
        unit_id: unit of addresses that name none; 255 or 1 for devices with an own IP address.
        timeout_s: how long the device may take for one answer, and the connection to open.
        addressing: how tag addresses count registers: ``zero_based``, ``one_based``, ``modicon``.
        byte_order: of values wider than a byte whose address names none.
        string_encoding: of ``string<N>`` values.
        registers_max: registers in one read; lower it for devices that take fewer than 125.
        bits_max: coils or discrete inputs in one read, at most 2000.
        gap_max: registers that nobody asked for, read along to save a request.
        forbidden: ranges that are never read, not even in a gap: ``["holding:100-119"]``.
        requests_in_flight: requests sent before the first answer came (``tcp`` only); 1 is one at a
            time, 0 finds out what the device bears and stays below it (pipelining.py).
        timestamp: the device's own clock of the values, ``holding:0:uint64@us`` (or ``@ms``, ``@s``
            since 1970 UTC). It is read in the same block as the values and is their source timestamp.
        record_sequence: address of a record's number. The device keeps a record until its number
            was written to ``record_acknowledge``; each record is given once.
        record_acknowledge: address to which the number of a durable record is written.
        bit_write: ``mask_write`` (function 22, atomic in the device) or ``read_modify_write``, for
            devices without it, which may undo what the device changed in between.
        write_multiple_only: write single coils and registers with functions 15 and 16 too.
    """

    framing: Framing = "tcp"
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0
    addressing: Addressing = "zero_based"
    byte_order: Order = "ABCD"
    string_encoding: Literal["utf-8", "latin-1", "gb18030"] = "utf-8"
    registers_max: Annotated[int, msgspec.Meta(ge=1, le=125)] = 125
    bits_max: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 2000
    gap_max: Annotated[int, msgspec.Meta(ge=0, le=124)] = 16
    forbidden: tuple[str, ...] = ()
    requests_in_flight: Annotated[int, msgspec.Meta(ge=0, le=32)] = 0
    timestamp: str = ""
    record_sequence: str = ""
    record_acknowledge: str = ""
    bit_write: Literal["mask_write", "read_modify_write"] = "mask_write"
    write_multiple_only: bool = False


@dataclass(frozen=True)
class ModbusSettings:
    """A connection's settings after the check: everything is parsed.

    Attributes:
        host, port: where to connect.
        options: as given.
        grammar: how tag addresses are read.
        forbidden: parsed ranges.
        timestamp: address of the device's clock, and microseconds in one of its ticks.
        record: addresses of the record's number and of its acknowledgement.
    """

    name: str
    host: str
    port: int
    options: ModbusOptions
    grammar: Grammar
    forbidden: tuple[Range, ...]
    timestamp: tuple[Address, float] | None
    record: tuple[Address, Address] | None

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"


def parse_settings(connection: ConnectionConfig) -> ModbusSettings:
    """The parsed settings of a connection; its tags are not looked at.

    Raises:
        Misconfigured: EDGE-3040 for a wrong option, EDGE-3041 for a wrong endpoint, EDGE-3050 for
            a wrong address in an option.
    """
    host, port = parse_endpoint(connection.endpoint, connection.name)
    try:
        options = msgspec.convert(connection.options, ModbusOptions)
    except msgspec.ValidationError as error:
        raise _wrong_option(connection.name, str(error)) from error
    grammar = Grammar(options.addressing, options.unit_id, options.byte_order)
    if options.framing == "rtu_over_tcp":
        if options.requests_in_flight > 1:
            raise _wrong_option(
                connection.name, "requests_in_flight is above 1, but a serial line takes one"
            )
        if not 1 <= options.unit_id <= 247:
            raise _wrong_option(
                connection.name,
                f"unit_id is {options.unit_id}, but units on a serial line are 1 to 247",
            )
    return ModbusSettings(
        connection.name,
        host,
        port,
        options,
        grammar,
        tuple(grammar.parse_range(text) for text in options.forbidden),
        _timestamp(connection.name, options, grammar),
        _record(connection.name, options, grammar),
    )


def parse_endpoint(endpoint: str, name: str) -> tuple[str, int]:
    """Host and port of ``host[:port]`` or ``[ipv6][:port]``; the port is 502 when there is none.

    Raises:
        Misconfigured: EDGE-3041.

    Example:
        >>> parse_endpoint("10.0.0.7", "plc"), parse_endpoint("[::1]:1502", "plc")
        (('10.0.0.7', 502), ('::1', 1502))
    """
    if endpoint.startswith("["):
        host, _, tail = endpoint[1:].partition("]")
        colon, port = tail[:1], tail[1:]
    else:
        host, colon, port = endpoint.partition(":")
    good_host = host and not any(letter in host for letter in " /@,;\t\n")
    good_port = colon == "" or (
        colon == ":" and port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535
    )
    if not good_host or not good_port:
        raise Misconfigured(
            "EDGE-3041",
            f"the connection {name} has the endpoint {endpoint!r}",
            "Write host:port, for example 192.168.0.10:502.",
        )
    return host, int(port) if colon else PORT


def _timestamp(name: str, options: ModbusOptions, grammar: Grammar) -> tuple[Address, float] | None:
    if not options.timestamp:
        return None
    text, _, tick = options.timestamp.partition("@")
    if tick not in _TICKS_US:
        raise _wrong_option(name, f"timestamp {options.timestamp!r} does not end in @us, @ms or @s")
    address = grammar.parse(text)
    if address.data_type.kind not in ("int", "uint", "float", "bcd"):
        raise _wrong_option(name, f"timestamp {options.timestamp!r} is not a number")
    return address, _TICKS_US[tick]


def _record(name: str, options: ModbusOptions, grammar: Grammar) -> tuple[Address, Address] | None:
    if bool(options.record_sequence) != bool(options.record_acknowledge):
        raise _wrong_option(name, "record_sequence and record_acknowledge go together")
    if not options.record_sequence:
        return None
    sequence = grammar.parse(options.record_sequence)
    acknowledge = grammar.parse(options.record_acknowledge)
    if any(each.data_type.kind not in ("int", "uint") for each in (sequence, acknowledge)):
        raise _wrong_option(name, "record_sequence and record_acknowledge must be whole numbers")
    if acknowledge.table != "holding" or acknowledge.data_type.size < sequence.data_type.size:
        raise _wrong_option(
            name,
            "record_acknowledge must be in the holding table and as wide as record_sequence",
        )
    return sequence, acknowledge


def _wrong_option(name: str, why: str) -> Misconfigured:
    return Misconfigured(
        "EDGE-3040",
        f"the Modbus connection {name} has a wrong option: {why}",
        "Correct it; the options are listed in the documentation of the Modbus connector.",
    )
