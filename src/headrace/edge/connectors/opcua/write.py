"""Writing a value in the node's own type, and reading it back (OPC 10000-4, 5.11.4)."""

from __future__ import annotations

import math
import struct
from typing import Final

from asyncua import ua

from headrace.edge.connectors.opcua.samples import Shape, Target, scalar
from headrace.edge.connectors.opcua.session import DRIVER_ERRORS, Session, status_name
from headrace.edge.connectors.opcua.subscription import resolve
from headrace.model.desired import TagConfig
from headrace.model.errors import Misconfigured, Refused, Transient

_INTEGERS: Final[dict[ua.VariantType, tuple[int, int]]] = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
_TRUE: Final = frozenset({"1", "true", "on"})
_FALSE: Final = frozenset({"0", "false", "off"})


async def write(session: Session, tag: TagConfig, value: float | str) -> float | str:
    """Write one whole value and give what the server then holds.

    Raises:
        Misconfigured: EDGE-2015 the node's type cannot hold the value; nothing was written.
        Refused: EDGE-2014 the server said no.
        Transient: EDGE-2016 no answer: whether it was written is unknown.
    """
    try:
        target, node_id = await _find(session, tag)
        kind = await _type_of(session, tag, node_id)
    except DRIVER_ERRORS as error:
        raise session.explain(error, f"cannot write {tag.path}, nothing was written") from error
    variant = ua.Variant(convert(tag, value, kind), kind)
    request = ua.WriteRequest()
    request.Parameters.NodesToWrite = [
        ua.WriteValue(
            NodeId=node_id,
            AttributeId=ua.AttributeIds.Value,
            # Value alone: many servers refuse to have status or time written (5.11.4.2).
            Value=ua.DataValue(variant, StatusCode=None),
        )
    ]
    try:
        result = (await session.call(request, ua.WriteResponse)).Results[0]
        if not result.is_good():
            raise _refused(tag, target, value, result.value)
        back = (await session.read_attributes([(node_id, ua.AttributeIds.Value)]))[0]
    except ua.UaStatusCodeError as error:
        raise _refused(tag, target, value, error.code) from error
    except DRIVER_ERRORS as error:
        raise Transient(
            "EDGE-2016",
            f"no answer while writing {value!r} to {tag.path} ({tag.address}): whether it was "
            "written is unknown",
            "Read the tag before you write again.",
        ) from error
    return _read_back(tag, back)


async def _find(session: Session, tag: TagConfig) -> tuple[Target, ua.NodeId]:
    resolved = await resolve(session, (tag,))
    if resolved.failures:
        raise Misconfigured("EDGE-2015", resolved.failures[0].why, "Check the tag's address.")
    target, node_id = resolved.targets[0]
    if target.address.suffix:
        raise Misconfigured(
            "EDGE-2015",
            f"tag {tag.path} is a part of a value ({tag.address}), only whole values can be written",
            "Address a node of its own for writing.",
        )
    return target, node_id


async def _type_of(session: Session, tag: TagConfig, node_id: ua.NodeId) -> ua.VariantType:
    """The built-in type to write: from the node's DataType, else from its value."""
    data_type, value = await session.read_attributes(
        [(node_id, ua.AttributeIds.DataType), (node_id, ua.AttributeIds.Value)]
    )
    if data_type.StatusCode is not None and not data_type.StatusCode.is_good():
        raise Misconfigured(
            "EDGE-2015",
            f"the server does not know the node of {tag.path} ({tag.address}): "
            f"{data_type.StatusCode.name}",
            "Check the tag's address.",
        )
    variant = value.Value
    if variant is not None and variant.is_array:
        raise Misconfigured(
            "EDGE-2015",
            f"the node of {tag.path} ({tag.address}) is an array",
            "Only single values can be written.",
        )
    declared = data_type.Value.Value if data_type.Value is not None else None
    if isinstance(declared, ua.NodeId) and not declared.NamespaceIndex:
        identifier = declared.Identifier
        if isinstance(identifier, int) and 1 <= identifier <= 12:
            return ua.VariantType(identifier)
    if variant is not None and variant.VariantType.value in range(1, 13):
        return ua.VariantType(variant.VariantType.value)
    raise Misconfigured(
        "EDGE-2015",
        f"the node of {tag.path} ({tag.address}) has a type that cannot be written: "
        f"{declared.to_string() if isinstance(declared, ua.NodeId) else 'unknown'}",
        "Numbers, Booleans and strings can be written.",
    )


def convert(tag: TagConfig, value: float | str, kind: ua.VariantType) -> bool | int | float | str:
    """The value in the node's type, unchanged in meaning.

    Raises:
        Misconfigured: EDGE-2015 the type cannot hold it.
    """
    if kind == ua.VariantType.String:
        return value if isinstance(value, str) else f"{value:g}"
    if kind == ua.VariantType.Boolean:
        word = str(int(value) if isinstance(value, float) and value.is_integer() else value)
        if word.lower() not in _TRUE | _FALSE:
            raise _cannot_hold(tag, value, kind)
        return word.lower() in _TRUE
    if kind in _INTEGERS:
        return _integer(tag, value, kind)
    try:
        number = float(value)
    except ValueError as error:
        raise _cannot_hold(tag, value, kind) from error
    if kind == ua.VariantType.Float and math.isfinite(number):
        try:
            struct.pack("<f", number)
        except OverflowError as error:
            raise _cannot_hold(tag, value, kind) from error
    return number


def _integer(tag: TagConfig, value: float | str, kind: ua.VariantType) -> int:
    low, high = _INTEGERS[kind]
    try:
        if isinstance(value, str) or float(value).is_integer():
            number = int(value)
        else:
            raise _cannot_hold(tag, value, kind)
    except (ValueError, OverflowError) as error:
        raise _cannot_hold(tag, value, kind) from error
    if not low <= number <= high:
        raise _cannot_hold(tag, value, kind)
    return number


def _cannot_hold(tag: TagConfig, value: float | str, kind: ua.VariantType) -> Misconfigured:
    bounds = _INTEGERS.get(kind)
    return Misconfigured(
        "EDGE-2015",
        f"{value!r} does not fit into {tag.path}: its node is of type {kind.name}",
        f"Write a whole number from {bounds[0]} to {bounds[1]}."
        if bounds
        else f"Write a value of type {kind.name}.",
    )


def _refused(tag: TagConfig, target: Target, value: float | str, code: int) -> Refused:
    return Refused(
        "EDGE-2014",
        f"the server refused {value!r} for {tag.path} ({target.tag.address}): {status_name(code)}",
        "Check that the node is writable for this user.",
    )


def _read_back(tag: TagConfig, back: ua.DataValue) -> float | str:
    try:
        number, text = scalar(back.Value)
    except Shape as error:
        raise Refused("EDGE-2014", f"{tag.path} was written, but reads back as {error}") from error
    if text is not None:
        return text
    if number is None:
        code = back.StatusCode.value if back.StatusCode is not None else 0
        raise Refused(
            "EDGE-2014",
            f"{tag.path} was written, but reads back without a value ({status_name(code)})",
            "Look at the device.",
        )
    return number
