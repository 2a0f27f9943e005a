"""The types that values have in registers, and the orders of their bytes. Pure, no numpy.

Modbus knows only bits and 16-bit registers (Modbus Application Protocol V1.1b3, clause 4.2, which
also makes a register big-endian). Everything wider is the vendor's choice, so each address says it.
For a 32-bit value whose bytes are A (most significant) to D::

    order   register n   register n+1
    ABCD    A B          C D             big-endian, what the standard would do
    CDAB    C D          A B             words swapped
    BADC    B A          D C             bytes swapped in each register
    DCBA    D C          B A             little-endian

64-bit values have four words in the same sense; in 16-bit values only the byte swap remains. The
characters of a string stay in the order of their registers; BADC and DCBA swap each pair.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final, Literal

from headrace.model.errors import Misconfigured

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Kind = Literal["coil", "bit", "int", "uint", "float", "bcd", "string"]
ORDERS: Final[tuple[Order, ...]] = ("ABCD", "CDAB", "BADC", "DCBA")
STRING_BYTES_MAX: Final = 250

TYPE_NAMES: Final = (
    "bool, int16, uint16, int32, uint32, int64, uint64, float32, float64, "
    "string<bytes>, bcd16, bcd32, bit<0..15>"
)


@dataclass(frozen=True, slots=True)
class DataType:
    """One type of the address grammar.

    Attributes:
        name: as in an address: ``float32``, ``string16``, ``bit3``.
        kind: what family it is of; ``coil`` is a bit of the coil and discrete tables.
        size: bytes in the device; 0 for a coil.
        bit: which bit of the register, for kind ``bit``; 0 is the least significant.
    """

    name: str
    kind: Kind
    size: int
    bit: int = 0

    @property
    def registers(self) -> int:
        """How many registers (for a coil: bits) it takes."""
        return (self.size + 1) // 2 or 1

    @property
    def numpy(self) -> str:
        """Its big-endian numpy type; BCD and bits as the unsigned integer that holds them."""
        letter = {"int": "i", "float": "f"}.get(self.kind, "u")
        return f">{letter}{self.size}"


_FIXED: Final[dict[str, DataType]] = {
    each.name: each
    for each in (
        DataType("bool", "coil", 0),
        DataType("int16", "int", 2),
        DataType("uint16", "uint", 2),
        DataType("int32", "int", 4),
        DataType("uint32", "uint", 4),
        DataType("int64", "int", 8),
        DataType("uint64", "uint", 8),
        DataType("float32", "float", 4),
        DataType("float64", "float", 8),
        DataType("bcd16", "bcd", 2),
        DataType("bcd32", "bcd", 4),
    )
}
BOOL: Final = _FIXED["bool"]
UINT16: Final = _FIXED["uint16"]
_SIZED: Final = re.compile(r"^(string|bit)<?(\d{1,4})>?$")
_FLOAT_FORMAT: Final = {4: ">f", 8: ">d"}


def find_type(name: str) -> DataType | None:
    """The type with this name, or None.

    Example:
        >>> find_type("string16").registers, find_type("bit16")
        (8, None)
    """
    if found := _FIXED.get(name):
        return found
    sized = _SIZED.match(name)
    if sized is None:
        return None
    number = int(sized[2])
    if sized[1] == "string" and 1 <= number <= STRING_BYTES_MAX:
        return DataType(f"string{number}", "string", number)
    if sized[1] == "bit" and number <= 15:
        return DataType(f"bit{number}", "bit", 2, number)
    return None


def permutation(data_type: DataType, order: Order) -> tuple[int, ...]:
    """Where in the device's bytes each byte of the big-endian value is.

    Example:
        >>> permutation(find_type("float32"), "CDAB")
        (2, 3, 0, 1)
        >>> permutation(find_type("uint16"), "DCBA")
        (1, 0)
    """
    size = 2 * data_type.registers
    words = [(at, at + 1) for at in range(0, size, 2)]
    if order in ("CDAB", "DCBA") and data_type.kind != "string":
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [(low, high) for high, low in words]
    return tuple(at for word in words for at in word)


def encode(data_type: DataType, order: Order, value: float | str, encoding: str) -> bytes:
    """The register bytes of a value, in the order in which the device keeps them.

    Args:
        data_type: any but a coil or a bit, which are not whole registers.
        order: byte order.
        value: a number; for integers also their decimal digits, exact above 2**53; text for strings.
        encoding: of strings.

    Raises:
        Misconfigured: EDGE-3032 when the type cannot hold the value.

    Example:
        >>> encode(find_type("float32"), "CDAB", 1.0, "utf-8").hex()
        '00003f80'
    """
    if data_type.kind == "string":
        natural = _encode_text(data_type, value, encoding)
    elif data_type.kind == "float":
        natural = _encode_float(data_type, value)
    else:
        natural = _encode_integer(data_type, value)
    device = bytearray(len(natural))
    for at, source in enumerate(permutation(data_type, order)):
        device[source] = natural[at]
    return bytes(device)


def _encode_text(data_type: DataType, value: float | str, encoding: str) -> bytes:
    if not isinstance(value, str):
        raise _cannot_hold(data_type, value, "it takes text")
    try:
        text = value.encode(encoding)
    except UnicodeEncodeError as error:
        raise _cannot_hold(data_type, value, f"{encoding} has not all its characters") from error
    if len(text) > data_type.size or "\0" in value:
        raise _cannot_hold(data_type, value, f"it takes {data_type.size} bytes without a NUL")
    return text.ljust(2 * data_type.registers, b"\0")


def _encode_float(data_type: DataType, value: float | str) -> bytes:
    if isinstance(value, str):
        raise _cannot_hold(data_type, value, "it takes a number")
    try:
        return struct.pack(_FLOAT_FORMAT[data_type.size], value)
    except OverflowError as error:
        raise _cannot_hold(data_type, value, "it is too great") from error


def whole_number(data_type: DataType, value: float | str) -> int:
    """The value as an exact integer.

    Raises:
        Misconfigured: EDGE-3032 when it is not whole.
    """
    try:
        number = int(value)
    except (ValueError, OverflowError) as error:
        raise _cannot_hold(data_type, value, "it takes whole numbers") from error
    if not isinstance(value, str) and number != value:
        raise _cannot_hold(data_type, value, "it takes whole numbers")
    return number


def _encode_integer(data_type: DataType, value: float | str) -> bytes:
    number = whole_number(data_type, value)
    signed = data_type.kind == "int"
    bits = 8 * data_type.size
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if data_type.kind == "bcd":
        high = 10 ** (2 * data_type.size) - 1
    if not low <= number <= high:
        raise _cannot_hold(data_type, value, f"it takes {low} to {high}")
    if data_type.kind == "bcd":
        return bytes.fromhex(f"{number:0{2 * data_type.size}d}")
    return number.to_bytes(data_type.size, "big", signed=signed)


def _cannot_hold(data_type: DataType, value: object, why: str) -> Misconfigured:
    return Misconfigured(
        "EDGE-3032",
        f"{data_type.name} cannot hold {value!r}: {why}",
        "Write a value of the tag's type; nothing was written.",
    )
