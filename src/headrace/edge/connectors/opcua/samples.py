"""Decoded values into samples: which value belongs to which tag, and in what shape.

A *monitored item* is one node at one sampling interval. Most items have one tag that takes a scalar
as it is; those go through as columns. Items with an element, a field or a waveform are shaped here,
value by value.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from asyncua import ua

from headrace.edge.connectors.opcua.address import Address
from headrace.edge.connectors.opcua.decode import NO_TIME, Unusual, Values, beyond_float
from headrace.edge.connectors.opcua.structures import Structures, UnknownStructure
from headrace.model import status as codes
from headrace.model.desired import TagConfig
from headrace.model.sample import EXACT_INTEGER_MAX, make_batch
from headrace.model.time import to_us

OVERFLOW_MASK: Final = 0x0C80
OVERFLOW: Final = 0x0480
"""InfoType DataValue with the Overflow bit (OPC 10000-4, 7.39.1, table of InfoBits)."""
NOT_PLAIN: Final = -1
_TEXT_LIKE: Final = (ua.LocalizedText, ua.QualifiedName, ua.NodeId, ua.StatusCode)
"""Dataclasses of asyncua that are one value to us."""


@dataclass(frozen=True)
class Target:
    """A tag and the part of the node's value that it takes."""

    tag: TagConfig
    address: Address

    @property
    def is_plain(self) -> bool:
        return not (self.address.suffix or self.tag.sample_interval_us)


class Shape(Exception):
    """A value does not have the shape that the tag takes; the text says which it has."""


@dataclass
class _Rows:
    """Samples that were shaped one by one; ``order`` keeps the order of arrival."""

    order: list[npt.NDArray[np.int64]] = field(default_factory=list)
    tag_id: list[npt.NDArray[np.int64]] = field(default_factory=list)
    source_us: list[npt.NDArray[np.int64]] = field(default_factory=list)
    value: list[npt.NDArray[np.float64]] = field(default_factory=list)
    is_null: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    status: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    text: list[str | None] = field(default_factory=list)

    def add(
        self,
        order: int,
        tag_id: int,
        source_us: npt.NDArray[np.int64],
        value: npt.NDArray[np.float64],
        status: int,
        text: list[str | None],
        *,
        is_null: bool = False,
    ) -> None:
        n = len(value)
        self.order.append(np.full(n, order, np.int64))
        self.tag_id.append(np.full(n, tag_id, np.int64))
        self.source_us.append(source_us)
        self.value.append(value)
        self.is_null.append(np.full(n, is_null, np.bool_))
        self.status.append(np.full(n, status, np.uint32))
        self.text.extend(text)


@dataclass
class Samples:
    """What a set of values gives.

    Attributes:
        batch: the samples.
        tag_errors: tags whose value has the wrong shape.
        overflows: how many values say that the server's queue dropped older ones.
        without_source_time: how many values came without a source timestamp.
    """

    batch: pl.DataFrame
    tag_errors: dict[int, str]
    overflows: int
    without_source_time: int


class TagTable:
    """ClientHandle -> tags. Handles are never used twice in a session."""

    def __init__(self, structures: Structures) -> None:
        self._structures = structures
        self._plain = np.full(64, NOT_PLAIN, np.int64)
        self._targets: dict[int, tuple[Target, ...]] = {}
        self._next = 0

    def add(self, targets: tuple[Target, ...]) -> int:
        """A new handle for an item that feeds these tags."""
        handle = self._next
        self._next += 1
        if handle >= len(self._plain):
            more = np.full(len(self._plain), NOT_PLAIN, np.int64)
            self._plain = np.concatenate([self._plain, more])
        self._targets[handle] = targets
        if len(targets) == 1 and targets[0].is_plain:
            self._plain[handle] = targets[0].tag.tag_id
        return handle

    def remove(self, handle: int) -> None:
        """Forget a handle; values that still come for it are dropped."""
        self._plain[handle] = NOT_PLAIN
        self._targets.pop(handle, None)

    def targets(self, handle: int) -> tuple[Target, ...]:
        """The tags of a handle; none when it was removed."""
        return self._targets.get(handle, ())

    def samples(self, values: Values, received_us: int) -> Samples:
        """The samples that the values are, in the order in which they came."""
        source_us = _source_times(values, received_us)
        known = values.handle < self._next
        tag_ids = np.full(len(values), NOT_PLAIN, np.int64)
        tag_ids[known] = self._plain[values.handle[known]]
        is_plain = tag_ids != NOT_PLAIN
        for i, _ in values.unusual:
            is_plain[i] = False
        errors: dict[int, str] = {}
        if is_plain.all():
            text = _texts(values.text, len(values)) if values.text else None
            batch = make_batch(
                tag_ids,
                source_us,
                values.value,
                status=values.status,
                received_timestamp_us=received_us,
                text=text,
                value_is_null=values.is_null,
            )
        else:
            rows = self._shape(values, source_us, is_plain, errors)
            batch = _join(values, source_us, tag_ids, is_plain, rows, received_us)
        missing = int(np.count_nonzero(values.source_us == NO_TIME))
        overflows = int(np.count_nonzero((values.status & OVERFLOW_MASK) == OVERFLOW))
        return Samples(batch, errors, overflows, missing)

    def _shape(
        self,
        values: Values,
        source_us: npt.NDArray[np.int64],
        is_plain: npt.NDArray[np.bool_],
        errors: dict[int, str],
    ) -> _Rows:
        rows = _Rows()
        unusual = dict(values.unusual)
        for i in np.flatnonzero(~is_plain):
            position = int(i)
            value: Any = unusual.get(position)
            if value is None and not values.is_null[position]:
                value = int(values.text[position]) if position in values.text else None
                value = float(values.value[position]) if value is None else value
            for target in self.targets(int(values.handle[position])):
                _shape_one(
                    rows,
                    self._structures,
                    target,
                    value,
                    position,
                    int(source_us[position]),
                    int(values.status[position]),
                    errors,
                )
        return rows


def _shape_one(
    rows: _Rows,
    structures: Structures,
    target: Target,
    value: Any,
    position: int,
    source_us: int,
    status: int,
    errors: dict[int, str],
) -> None:
    tag = target.tag
    at = np.array([source_us], np.int64)
    try:
        picked = pick(value, target.address, structures)
        if tag.sample_interval_us and picked is not None:
            numbers, text = _waveform(picked)
            steps = np.arange(1 - len(numbers), 1, dtype=np.int64) * tag.sample_interval_us
            rows.add(position, tag.tag_id, source_us + steps, numbers, status, text)
            return
        number, digits = scalar(picked)
    except Shape as error:
        errors[tag.tag_id] = f"EDGE-2012 {tag.path} ({tag.address}): {error}"
        number, digits, status = None, None, codes.BAD_CONFIGURATION_ERROR
    rows.add(
        position,
        tag.tag_id,
        at,
        np.array([0.0 if number is None else number], np.float64),
        status,
        [digits],
        is_null=number is None,
    )


def pick(value: Unusual | float | int | None, address: Address, structures: Structures) -> Any:
    """The part of a value that an address names; a structure comes as a dict of its fields.

    Raises:
        Shape: the value has no such element or field.
    """
    plain: Any = value.Value if isinstance(value, ua.Variant) else value
    if plain is None:
        return None
    if address.element is not None:
        if not isinstance(plain, np.ndarray | list | tuple):
            raise Shape(f"the value is {_kind(plain)}, not an array")
        if address.element >= len(plain):
            raise Shape(f"the array has {len(plain)} elements")
        plain = plain[address.element]
    for name in address.fields:
        held = _fields(plain, structures)
        if name not in held:
            raise Shape(f"{_kind(plain)} has no field {name}{_names(held)}")
        plain = held[name]
        if plain is None:
            return None
    held = _fields(plain, structures)
    if held:
        raise Shape(f"the value is {_kind(plain)}; take one field with #Field{_names(held)}")
    return plain


def _fields(value: Any, structures: Structures) -> dict[str, Any]:
    """The fields of a structure; empty when the value is none."""
    if isinstance(value, ua.Variant | ua.DataValue):
        value = value.Value.Value if isinstance(value, ua.DataValue) else value.Value
    if isinstance(value, dict):
        return value
    if isinstance(value, ua.ExtensionObject):
        try:
            return structures.decode(value)
        except UnknownStructure as error:
            raise Shape(f"the value is {error}") from error
    if is_dataclass(value) and not isinstance(value, _TEXT_LIKE):
        return {f.name: getattr(value, f.name) for f in fields(value) if f.name != "Encoding"}
    return {}


def scalar(value: Any) -> tuple[float | None, str | None]:
    """Number and text of one scalar, by the rules of the sample model.

    Raises:
        Shape: the value is an array or a structure.
    """
    if isinstance(value, ua.Variant):
        value = value.Value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return None, None
    if isinstance(value, bool | int):
        return float(value), str(value) if abs(value) > EXACT_INTEGER_MAX else None
    if isinstance(value, float):
        return value, None
    if isinstance(value, datetime):
        at = value if value.tzinfo else value.replace(tzinfo=UTC)
        return float(to_us(at)), at.astimezone(UTC).isoformat(timespec="microseconds")
    return None, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, ua.LocalizedText):
        return _text(value.Text or "")
    if isinstance(value, ua.QualifiedName):
        return _text(value.to_string())
    if isinstance(value, ua.NodeId):
        return _text(value.to_string())
    if isinstance(value, ua.StatusCode):
        return str(value.name)
    if isinstance(value, np.ndarray | list | tuple):
        raise Shape(
            f"the value is an array of {len(value)}; take one element with [0], or set "
            "sample_interval_us for a waveform"
        )
    raise Shape(f"the value is {_kind(value)}")


def _waveform(value: Any) -> tuple[npt.NDArray[np.float64], list[str | None]]:
    if not isinstance(value, np.ndarray | list | tuple):
        raise Shape(f"the value is {_kind(value)}, not an array of samples")
    numbers = np.asarray(value)
    if numbers.ndim != 1 or numbers.dtype.kind not in "fiub":
        raise Shape(f"the array is no row of numbers but {_kind(value)}")
    text: list[str | None] = [None] * len(numbers)
    for i in beyond_float(numbers):
        text[i] = str(numbers[i])
    return numbers.astype(np.float64), text


def _kind(value: Any) -> str:
    return "a structure" if isinstance(value, dict) else f"a {type(value).__name__}"


def _names(held: dict[str, Any]) -> str:
    return f" (fields: {', '.join(held)})" if held else ""


def _source_times(values: Values, received_us: int) -> npt.NDArray[np.int64]:
    source = np.where(values.source_us == NO_TIME, values.server_us, values.source_us)
    return np.where(source == NO_TIME, received_us, source)


def _texts(text: dict[int, str], n: int) -> pl.Series:
    """The text column of n samples, of which few have one."""
    column = pl.Series("text", [None], dtype=pl.String).new_from_index(0, n)
    return column.scatter(list(text), list(text.values())) if text else column


def _join(
    values: Values,
    source_us: npt.NDArray[np.int64],
    tag_ids: npt.NDArray[np.int64],
    is_plain: npt.NDArray[np.bool_],
    rows: _Rows,
    received_us: int,
) -> pl.DataFrame:
    positions = np.flatnonzero(is_plain)
    order = np.concatenate([positions, *rows.order])
    sorting = np.argsort(order, kind="stable")
    plain_text = _texts(values.text, len(values)).gather(pl.Series(positions))
    texts = pl.concat([plain_text, pl.Series("text", rows.text, dtype=pl.String)])
    return make_batch(
        np.concatenate([tag_ids[positions], *rows.tag_id])[sorting],
        np.concatenate([source_us[positions], *rows.source_us])[sorting],
        np.concatenate([values.value[positions], *rows.value])[sorting],
        status=np.concatenate([values.status[positions], *rows.status])[sorting],
        received_timestamp_us=received_us,
        text=texts.gather(pl.Series(sorting)),
        value_is_null=np.concatenate([values.is_null[positions], *rows.is_null])[sorting],
    )
