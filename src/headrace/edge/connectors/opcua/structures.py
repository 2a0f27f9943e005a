"""Structures that only one server knows, decoded by that server's own definitions (OPC 10000-3, 8.48).

asyncua keeps such types in one table for the whole process, by node id. Two servers that use the same
node id for different structures would then decode each other's bytes. So each session learns its own,
and a structure whose bytes are not used up to the last one is refused instead of believed.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import unpack_uatype

BUILT_IN_MAX: Final = 25
ENUMERATION: Final = 29
NUMBER_OF_TYPES_MAX: Final = 500
DEPTH_MAX: Final = 16
ELEMENTS_MAX: Final = 1_000_000

Key = tuple[int, Any]
ReadDefinition = Callable[[ua.NodeId], Awaitable[Any]]
"""Gives the DataTypeDefinition of a data type, or None."""
ReadSupertype = Callable[[ua.NodeId], Awaitable[ua.NodeId | None]]


class UnknownStructure(Exception):
    """The structure cannot be decoded; the text says why."""


@dataclass(frozen=True)
class _Field:
    name: str
    data_type: Key
    is_array: bool
    is_optional: bool


@dataclass(frozen=True)
class _Structure:
    kind: ua.StructureType
    fields: tuple[_Field, ...]


class Structures:
    """The structures of one server, as far as its tags need them."""

    def __init__(self) -> None:
        self._built_in: dict[Key, int] = {}
        self._structures: dict[Key, _Structure] = {}
        self._by_encoding: dict[Key, Key] = {}

    async def learn(
        self, data_type: ua.NodeId, definition: ReadDefinition, supertype: ReadSupertype
    ) -> None:
        """Learn a data type and all that its fields are made of."""
        waiting = [data_type]
        while waiting:
            node = waiting.pop()
            key = _key(node)
            if key in self._structures or key in self._built_in:
                continue
            if len(self._structures) >= NUMBER_OF_TYPES_MAX:
                return
            told = None if _is_built_in(node) else await definition(node)
            if isinstance(told, ua.StructureDefinition):
                self._structures[key] = _structure(told)
                self._by_encoding[_key(told.DefaultEncodingId)] = key
                waiting += [field.DataType for field in told.Fields or []]
            else:
                self._built_in[key] = await _built_in_of(node, supertype)

    def decode(self, value: ua.ExtensionObject) -> dict[str, Any]:
        """Field names and values of a structure.

        Raises:
            UnknownStructure: nobody told what it is, or its bytes do not fit what was told.
        """
        key = self._by_encoding.get(_key(value.TypeId))
        if key is None or value.Body is None:
            raise UnknownStructure(f"a structure of the unknown type {value.TypeId.to_string()}")
        buffer = Buffer(value.Body)
        try:
            fields = self._structure(self._structures[key], buffer, 0)
        except (ua.UaError, struct.error, ValueError, KeyError, TypeError) as error:
            raise UnknownStructure(
                f"a structure that its definition does not fit: {error}"
            ) from error
        if len(buffer):
            raise UnknownStructure(f"a structure with {len(buffer)} bytes more than its definition")
        return fields

    def _structure(self, structure: _Structure, buffer: Buffer, depth: int) -> dict[str, Any]:
        if depth > DEPTH_MAX:
            raise UnknownStructure(f"a structure nested deeper than {DEPTH_MAX}")
        values: dict[str, Any] = dict.fromkeys(field.name for field in structure.fields)
        if structure.kind == ua.StructureType.Union:
            switch = _u32(buffer)
            if switch:
                if switch > len(structure.fields):
                    raise ValueError(f"a union has no field {switch}")
                chosen = structure.fields[switch - 1]
                values[chosen.name] = self._field(chosen, buffer, depth)
            return values
        has_mask = structure.kind == ua.StructureType.StructureWithOptionalFields
        mask, bit = (_u32(buffer) if has_mask else 0), 1
        for field in structure.fields:
            if field.is_optional and has_mask:
                present, bit = mask & bit, bit << 1
                if not present:
                    continue
            values[field.name] = self._field(field, buffer, depth)
        return values

    def _field(self, field: _Field, buffer: Buffer, depth: int) -> Any:
        if not field.is_array:
            return self._value(field.data_type, buffer, depth)
        count: int = struct.unpack("<i", buffer.read(4))[0]
        if count > min(ELEMENTS_MAX, len(buffer)):
            raise ValueError(f"{field.name} has {count} elements in {len(buffer)} bytes")
        return [self._value(field.data_type, buffer, depth) for _ in range(max(0, count))]

    def _value(self, data_type: Key, buffer: Buffer, depth: int) -> Any:
        structure = self._structures.get(data_type)
        if structure is not None:
            return self._structure(structure, buffer, depth + 1)
        built_in = self._built_in[data_type]
        if not built_in:
            raise ValueError(f"a field is of the unknown type {data_type}")
        return unpack_uatype(ua.VariantType(built_in), buffer)


def _structure(told: ua.StructureDefinition) -> _Structure:
    fields = tuple(
        _Field(
            name=field.Name or "",
            data_type=_key(field.DataType),
            is_array=field.ValueRank >= 1,
            is_optional=bool(field.IsOptional),
        )
        for field in told.Fields or []
    )
    # A field that may be of a subtype or a matrix is encoded in a way that we do not read: such a
    # structure gets a field of no known type, and is refused when it comes.
    if any(field.ValueRank > 1 for field in told.Fields or []) or told.StructureType.value > 2:
        fields = (_Field("", (0, 0), is_array=False, is_optional=False),)
    return _Structure(told.StructureType, fields)


async def _built_in_of(node: ua.NodeId, supertype: ReadSupertype) -> int:
    """The built-in type that a simple type is encoded as; 0 when there is none (OPC 10000-6, 5.1.5)."""
    current: ua.NodeId | None = node
    for _ in range(DEPTH_MAX):
        if current is None:
            return 0
        if _is_built_in(current):
            return int(current.Identifier)
        if not current.NamespaceIndex and current.Identifier == ENUMERATION:
            return int(ua.VariantType.Int32.value)
        current = await supertype(current)
    return 0


def _is_built_in(node: ua.NodeId) -> bool:
    identifier = node.Identifier
    return (
        not node.NamespaceIndex and isinstance(identifier, int) and 1 <= identifier <= BUILT_IN_MAX
    )


def _key(node: ua.NodeId) -> Key:
    return (node.NamespaceIndex, node.Identifier)


def _u32(buffer: Buffer) -> int:
    number: int = struct.unpack("<I", buffer.read(4))[0]
    return number
