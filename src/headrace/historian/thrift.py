"""Thrift's compact protocol, as far as the headers and the footer of a Parquet file need it.

Source: Apache Thrift, ``doc/specs/thrift-compact-protocol.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

_TRUE: Final = 1
_FALSE: Final = 2
_I16: Final = 4
_I32: Final = 5
_I64: Final = 6
_BINARY: Final = 8
_LIST: Final = 9
_STRUCT: Final = 12
_SHORT_LIST_MAX: Final = 14


def varint(number: int) -> bytes:
    """An unsigned number in groups of seven bits, lowest first.

    Args:
        number: 0 or above.

    Example:
        >>> varint(300).hex()
        'ac02'
    """
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """A signed number: small ones of either sign are short.

    Example:
        >>> zigzag(-1).hex(), zigzag(1).hex()
        ('01', '02')
    """
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


class Struct:
    """One struct under construction; fields are added in ascending order of their number.

    Example:
        >>> bytes(Struct().i32(1, 3).binary(4, b"x")).hex()
        '150638017800'
        >>> bytes(Struct().struct(2, Struct())).hex()
        '2c0000'
    """

    def __init__(self) -> None:
        self._out = bytearray()
        self._last = 0

    def __bytes__(self) -> bytes:
        return bytes(self._out) + b"\x00"

    def boolean(self, field: int, value: bool) -> Self:
        """Add a bool."""
        self._head(field, _TRUE if value else _FALSE)
        return self

    def i16(self, field: int, value: int) -> Self:
        """Add a 16-bit integer."""
        return self._number(field, _I16, value)

    def i32(self, field: int, value: int) -> Self:
        """Add a 32-bit integer, or an enumeration's number."""
        return self._number(field, _I32, value)

    def i64(self, field: int, value: int) -> Self:
        """Add a 64-bit integer."""
        return self._number(field, _I64, value)

    def binary(self, field: int, value: bytes) -> Self:
        """Add bytes, or text as UTF-8."""
        self._head(field, _BINARY)
        self._out += varint(len(value)) + value
        return self

    def struct(self, field: int, value: Struct) -> Self:
        """Add a struct."""
        self._head(field, _STRUCT)
        self._out += bytes(value)
        return self

    def structs(self, field: int, values: Sequence[Struct]) -> Self:
        """Add a list of structs."""
        return self._list(field, _STRUCT, [bytes(value) for value in values])

    def i32s(self, field: int, values: Sequence[int]) -> Self:
        """Add a list of 32-bit integers."""
        return self._list(field, _I32, [zigzag(value) for value in values])

    def binaries(self, field: int, values: Sequence[bytes]) -> Self:
        """Add a list of bytes."""
        return self._list(field, _BINARY, [varint(len(value)) + value for value in values])

    def _number(self, field: int, kind: int, value: int) -> Self:
        self._head(field, kind)
        self._out += zigzag(value)
        return self

    def _list(self, field: int, kind: int, encoded: list[bytes]) -> Self:
        self._head(field, _LIST)
        if len(encoded) <= _SHORT_LIST_MAX:
            self._out.append(len(encoded) << 4 | kind)
        else:
            self._out += bytes([0xF0 | kind]) + varint(len(encoded))
        self._out += b"".join(encoded)
        return self

    def _head(self, field: int, kind: int) -> None:
        step = field - self._last
        assert 0 < step < 16, "fields ascend, by less than 16"
        self._last = field
        self._out.append(step << 4 | kind)
