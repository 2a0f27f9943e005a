"""Writes: one value, read back and compared to the bit.

======================== ============================ ===========================================
what                     function                     with ``write_multiple_only``
======================== ============================ ===========================================
a coil                   5 Write Single Coil          15 Write Multiple Coils
one register             6 Write Single Register      16 Write Multiple Registers
several registers        16 Write Multiple Registers  16
a bit of a register      22 Mask Write Register       22 (or read, modify, write by option)
======================== ============================ ===========================================
"""

from __future__ import annotations

from headrace.edge.connectors.modbus.address import Address
from headrace.edge.connectors.modbus.columns import ColumnDecoder, Place
from headrace.edge.connectors.modbus.config import ModbusOptions, ModbusSettings
from headrace.edge.connectors.modbus.datatype import encode, permutation, whole_number
from headrace.edge.connectors.modbus.pdu import Pdu, PduError, decode_pdu, encode_pdu
from headrace.edge.connectors.modbus.protocol import Request, read_request
from headrace.edge.connectors.modbus.session import ModbusSession
from headrace.edge.connectors.modbus.statuses import ILLEGAL_FUNCTION, meaning
from headrace.model.errors import Misconfigured, Refused, Transient


class RegisterWriter:
    """Writes values through one session.

    Args:
        session: an open session.
        settings: of the connection.
    """

    def __init__(self, session: ModbusSession, settings: ModbusSettings) -> None:
        self._session = session
        self._settings = settings

    async def write(self, address: Address, value: float | str, what: str) -> float | str:
        """Write, read back, compare.

        Args:
            address: where; coils and holding registers only.
            value: raw value; integers above 2**53 as decimal digits.
            what: the tag, for messages.

        Returns:
            What the device has now; integers above 2**53 as decimal digits.

        Raises:
            Misconfigured: EDGE-3032, EDGE-3033 the address or its type cannot take the value.
            Refused: EDGE-3030 the device answered an exception, EDGE-3031 it has another value.
            Transient: EDGE-3034 no answer; whether it was written is unknown.
        """
        if address.table not in ("coil", "holding"):
            raise Misconfigured(
                "EDGE-3033",
                f"cannot write {what}: the {address.table} table is read-only",
                "Use an address of the coil or holding table.",
            )
        wanted = _wanted_bytes(address, value, self._settings.options.string_encoding)
        if address.data_type.kind == "bit":
            await self._write_bit(address, bool(wanted[0]), what)
        else:
            await self._ask(address, _write_request(address, wanted, self._settings.options), what)
        raw = await self._read(address, what)
        have = _bit(address, raw) if address.data_type.kind == "bit" else raw
        decoded = self._decode(address, raw)
        if have != wanted:
            raise Refused(
                "EDGE-3031",
                f"{what} has {decoded!r} after {value!r} was written",
                "The device limits or overwrites the value; look at its logic.",
            )
        return decoded

    async def write_sequence(self, address: Address, number: int, what: str) -> None:
        """Write a record's number to its acknowledge register; no read-back, the device may clear it.

        Raises:
            Refused, Transient: as ``write``.
        """
        wanted = encode(address.data_type, address.order, number, "ascii")
        await self._ask(address, _write_request(address, wanted, self._settings.options), what)

    async def _write_bit(self, address: Address, on: bool, what: str) -> None:
        mask = 1 << _wire_bit(address)
        if self._settings.options.bit_write == "read_modify_write":
            old = int.from_bytes(await self._read(address, what), "big")
            new = old | mask if on else old & ~mask
            request = _write_request(address, new.to_bytes(2, "big"), self._settings.options)
        else:
            fields = {"address": address.register, "and_mask": ~mask & 0xFFFF}
            request = Pdu(22, {**fields, "or_mask": mask if on else 0})
        await self._ask(address, request, what)

    async def _read(self, address: Address, what: str) -> bytes:
        request = read_request(address.table, address.register, address.count)
        answer = await self._exchange(address.unit, request, what)
        raw: bytes = answer.fields["values"]
        if address.table == "coil":
            return bytes((raw[0] & 1,)) if raw else b""
        return raw

    async def _ask(self, address: Address, request: Pdu, what: str) -> None:
        answer = await self._exchange(address.unit, encode_pdu(request, answer=False), what)
        echo = {name: request.fields[name] for name in answer.fields if name in request.fields}
        if answer.fields != echo:
            raise Transient(
                "EDGE-3034",
                f"the device confirmed {answer.fields}, not the write of {what}",
                "Whether it was written is unknown; read the tag before you write again.",
            )

    async def _exchange(self, unit: int, request: bytes, what: str) -> Pdu:
        try:
            (answer,) = await self._session.exchange([Request(unit, request)])
            if answer is None:
                raise TimeoutError
            decoded = decode_pdu(answer.pdu, answer=True)
        except (TimeoutError, Transient, PduError) as error:
            raise Transient(
                "EDGE-3034",
                f"no good answer to the write of {what}; whether it was written is unknown "
                f"({error or f'unit {unit} is silent'})",
                "Read the tag before you write again.",
            ) from error
        if decoded.exception is not None:
            raise _refused(decoded.exception, request[0], unit, what)
        return decoded

    def _decode(self, address: Address, raw: bytes) -> float | str:
        encoding = self._settings.options.string_encoding
        places = [Place(0, address.data_type, address.order)]
        columns = ColumnDecoder(places, encoding).decode(raw)
        text = columns.text[0] if columns.text else None
        return text if text is not None else float(columns.value[0])


def _refused(code: int, function: int, unit: int, what: str) -> Refused:
    known = meaning(code)
    remedy = known.remedy
    if code == ILLEGAL_FUNCTION and function == 22:
        remedy = "Set bit_write to read_modify_write when nothing else writes that register."
    return Refused(
        "EDGE-3030",
        f"cannot write {what}: unit {unit} answered '{known.text}' (Modbus exception {code}) "
        f"to function {function}",
        remedy,
    )


def _wanted_bytes(address: Address, value: float | str, encoding: str) -> bytes:
    """What the device must show afterwards: register bytes, or one byte for a bit."""
    kind = address.data_type.kind
    if kind not in ("coil", "bit"):
        return encode(address.data_type, address.order, value, encoding)
    number = whole_number(address.data_type, value)
    if number not in (0, 1):
        raise Misconfigured(
            "EDGE-3032",
            f"{address.data_type.name} cannot hold {value!r}: it takes 0 or 1",
            "Write 0 or 1; nothing was written.",
        )
    return bytes((number,))


def _wire_bit(address: Address) -> int:
    """The bit's number in the register as the standard sends it."""
    swapped = permutation(address.data_type, address.order) == (1, 0)
    return address.data_type.bit ^ (8 if swapped else 0)


def _bit(address: Address, raw: bytes) -> bytes:
    return bytes((int.from_bytes(raw, "big") >> _wire_bit(address) & 1,))


def _write_request(address: Address, wanted: bytes, options: ModbusOptions) -> Pdu:
    many = options.write_multiple_only
    if address.table == "coil":
        if many:
            return Pdu(15, {"start": address.register, "quantity": 1, "values": wanted})
        return Pdu(5, {"address": address.register, "value": 0xFF00 if wanted[0] else 0})
    if len(wanted) == 2 and not many:
        return Pdu(6, {"address": address.register, "value": int.from_bytes(wanted, "big")})
    fields = {"start": address.register, "quantity": len(wanted) // 2, "values": wanted}
    return Pdu(16, fields)
