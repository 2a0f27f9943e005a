"""The address grammar: ``[unit/]table:register[:type[:order]]``. Pure.

::

    holding:12              register 12 (zero-based, as on the wire) as uint16
    holding:12:float32      registers 12 and 13, big-endian
    3/input:0:int64:DCBA    unit 3, four registers, little-endian
    holding:7:bit3          bit 3 of register 7, 0 is the least significant
    holding:20:string16     16 bytes of text
    coil:5    discrete:0    one bit

Tag lists count in three ways; the connection's option ``addressing`` says which:

============ =========================== =====================================================
zero_based   ``holding:12:float32``      as on the wire
one_based    ``holding:13:float32``      the first register is 1
modicon      ``40013:float32``           table digit (0 coil, 1 discrete, 3 input, 4 holding), then
                                         the one-based register in 4 or 5 digits
============ =========================== =====================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from headrace.edge.connectors.modbus.datatype import (
    BOOL,
    ORDERS,
    TYPE_NAMES,
    UINT16,
    DataType,
    Order,
    find_type,
)
from headrace.model.errors import Misconfigured

Table = Literal["coil", "discrete", "input", "holding"]
Addressing = Literal["zero_based", "one_based", "modicon"]
TABLES: Final[tuple[Table, ...]] = get_args(Table)
BIT_TABLES: Final = ("coil", "discrete")
REGISTER_MAX: Final = 0xFFFF
_MODICON: Final[dict[str, Table]] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_DIGIT: Final = {table: digit for digit, table in _MODICON.items()}
_MODICON_REGISTER: Final = re.compile(r"^[0134]\d{4,5}$")


@dataclass(frozen=True, slots=True)
class Address:
    """Where one value is in a device.

    Attributes:
        unit: unit identifier, 0 to 255.
        table: which of the four tables.
        register: zero-based, as on the wire; for coils and discrete inputs the bit's number.
        data_type: what the registers mean.
        order: byte order.
    """

    unit: int
    table: Table
    register: int
    data_type: DataType
    order: Order

    @property
    def count(self) -> int:
        """How many registers or bits it takes."""
        return self.data_type.registers


@dataclass(frozen=True, slots=True)
class Range:
    """Registers ``first`` to ``last`` of a table, both included, zero-based."""

    unit: int
    table: Table
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Grammar:
    """How one connection's addresses are read.

    Attributes:
        addressing: how registers are counted.
        unit: unit of addresses that name none.
        order: byte order of addresses that name none.
    """

    addressing: Addressing = "zero_based"
    unit: int = 1
    order: Order = "ABCD"

    def parse(self, text: str) -> Address:
        """The address that the text means.

        Raises:
            Misconfigured: EDGE-3050, naming the address and what is allowed.

        Example:
            >>> Grammar("modicon").parse("40013:float32").register
            12
        """
        unit, rest = self._unit(text)
        fields = rest.split(":")
        if self.addressing == "modicon":
            table, register = self._modicon(text, fields.pop(0))
        else:
            if len(fields) < 2:
                raise _wrong(text, "it has no register", "Write table:register[:type[:order]].")
            table = _table(text, fields.pop(0))
            register = self._register(text, fields.pop(0))
        data_type, order = self._type(text, table, fields)
        if register + data_type.registers - 1 > REGISTER_MAX:
            raise _wrong(text, "it ends behind register 65535", "Choose a lower register.")
        return Address(unit, table, register, data_type, order)

    def parse_range(self, text: str) -> Range:
        """A range such as ``holding:0-199`` or ``3/40001-40200``; one register is a range too.

        Raises:
            Misconfigured: EDGE-3050.

        Example:
            >>> Grammar().parse_range("holding:0-199").last
            199
        """
        unit, rest = self._unit(text)
        first_text, dash, last_text = rest.partition("-")
        if self.addressing == "modicon":
            table, first = self._modicon(text, first_text)
            other, last = self._modicon(text, last_text) if dash else (table, first)
            if other != table:
                raise _wrong(text, "it begins and ends in different tables", "Use one table.")
        else:
            name, _, number = first_text.partition(":")
            table = _table(text, name)
            first = self._register(text, number)
            last = self._register(text, last_text) if dash else first
        if last < first:
            raise _wrong(text, "it ends before it begins", "Write the lower register first.")
        return Range(unit, table, first, last)

    def format(self, address: Address) -> str:
        """The text of an address, without what is the connection's default.

        Example:
            >>> Grammar("one_based").format(Grammar().parse("holding:12:float32"))
            'holding:13:float32'
        """
        default = BOOL if address.table in BIT_TABLES else UINT16
        text = self.format_register(address.unit, address.table, address.register)
        if address.data_type != default or address.order != self.order:
            text += f":{address.data_type.name}"
        return text + (f":{address.order}" if address.order != self.order else "")

    def format_register(self, unit: int, table: Table, register: int) -> str:
        """The text of a register: ``holding:12``, ``40013``."""
        prefix = "" if unit == self.unit else f"{unit}/"
        if self.addressing == "modicon":
            return f"{prefix}{self._modicon_text(table, register)}"
        return f"{prefix}{table}:{register + (self.addressing == 'one_based')}"

    def format_range(self, wanted: Range) -> str:
        """The text of a range, as ``parse_range`` reads it."""
        first = self.format_register(wanted.unit, wanted.table, wanted.first)
        if self.addressing == "modicon":
            return f"{first}-{self._modicon_text(wanted.table, wanted.last)}"
        return f"{first}-{wanted.last + (self.addressing == 'one_based')}"

    def _modicon_text(self, table: Table, register: int) -> str:
        width = 4 if register < 9999 else 5
        return f"{_DIGIT[table]}{register + 1:0{width}d}"

    def _unit(self, text: str) -> tuple[int, str]:
        name, slash, rest = text.partition("/")
        if not slash:
            return self.unit, text
        if not (name.isascii() and name.isdigit() and int(name) <= 255):
            raise _wrong(text, f"{name!r} is no unit", "Write a unit of 0 to 255 before the slash.")
        return int(name), rest

    def _modicon(self, text: str, number: str) -> tuple[Table, int]:
        if not _MODICON_REGISTER.match(number):
            raise _wrong(
                text,
                f"{number!r} is not a register such as 40001",
                "Write 0, 1, 3 or 4 and the register in 4 or 5 digits, or change the "
                "connection's addressing.",
            )
        register = int(number[1:]) - 1
        if not 0 <= register <= REGISTER_MAX:
            raise _wrong(text, f"{number!r} is outside 1 to 65536", "Count from 1, as in 40001.")
        return _MODICON[number[0]], register

    def _register(self, text: str, number: str) -> int:
        base = int(self.addressing == "one_based")
        if not (number.isascii() and number.isdigit() and len(number) <= 5):
            raise _wrong(
                text, f"{number!r} is no register", f"Write a register of {base} to {base + 65535}."
            )
        register = int(number) - base
        if not 0 <= register <= REGISTER_MAX:
            raise _wrong(
                text,
                f"register {number} is outside {base} to {base + 65535}",
                f"The connection's addressing is {self.addressing}; correct the register.",
            )
        return register

    def _type(self, text: str, table: Table, fields: list[str]) -> tuple[DataType, Order]:
        if len(fields) > 2:
            raise _wrong(text, "it has too many parts", "Write table:register[:type[:order]].")
        bits = table in BIT_TABLES
        data_type = find_type(fields[0]) if fields else (BOOL if bits else UINT16)
        if data_type is None:
            raise _wrong(text, f"{fields[0]!r} is no type", f"Types are {TYPE_NAMES}.")
        if bits != (data_type.kind == "coil"):
            raise _wrong(
                text,
                f"a {table} is no {data_type.name}",
                "Coils and discrete inputs are bool; for a bit of a register write bit<0..15>.",
            )
        if len(fields) == 2 and fields[1] not in ORDERS:
            raise _wrong(
                text, f"{fields[1]!r} is no byte order", f"Orders are {', '.join(ORDERS)}."
            )
        order = next((each for each in ORDERS if fields[1:] == [each]), self.order)
        return data_type, order


def check_any(text: str) -> None:
    """Check an address whose connection, and so its way to count, is not known.

    Raises:
        Misconfigured: EDGE-3050 when no addressing could take it.
    """
    bare = text.rpartition("/")[2].partition(":")[0]
    if _MODICON_REGISTER.match(bare):
        Grammar("modicon").parse(text)
        return
    try:
        Grammar("zero_based").parse(text)
    except Misconfigured:
        try:
            Grammar("one_based").parse(text)
            return
        except Misconfigured:
            pass
        raise


def _table(text: str, name: str) -> Table:
    for table in TABLES:
        if name == table:
            return table
    hint = "; set the connection's addressing to modicon" if _MODICON_REGISTER.match(name) else ""
    raise _wrong(text, f"{name!r} is no table", f"Tables are {', '.join(TABLES)}{hint}.")


def _wrong(text: str, why: str, remedy: str) -> Misconfigured:
    return Misconfigured("EDGE-3050", f"cannot use the Modbus address {text!r}: {why}", remedy)
