"""The Sparkplug B payload as protobuf descriptors, built from the published field numbers.

Sparkplug 3.0, chapter 6.4. Members that we never look into (metadata, data sets, templates) are
declared as ``bytes``: the wire form is the same, they survive a round trip, and cost no parsing. All
types are proto2, as the specification has them: what is absent differs from what is zero.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

_PACKAGE: Final = "headrace.sparkplug"


class DataType(IntEnum):
    """Metric and property types (6.4.16)."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTYSET = 20
    PROPERTYSETLIST = 21
    INT8ARRAY = 22
    INT16ARRAY = 23
    INT32ARRAY = 24
    INT64ARRAY = 25
    UINT8ARRAY = 26
    UINT16ARRAY = 27
    UINT32ARRAY = 28
    UINT64ARRAY = 29
    FLOATARRAY = 30
    DOUBLEARRAY = 31
    BOOLEANARRAY = 32
    STRINGARRAY = 33
    DATETIMEARRAY = 34


# (number, name, type, or the name of one of our own messages)
_Member = tuple[int, str, Any]
_VALUE: Final = "value"
_MESSAGES: Final[dict[str, tuple[list[_Member], list[_Member], frozenset[str]]]] = {
    # message: (plain members, members of the value's oneof, names of repeated members)
    "PropertyValue": (
        [(1, "type", Field.TYPE_UINT32), (2, "is_null", Field.TYPE_BOOL)],
        [
            (3, "int_value", Field.TYPE_UINT32),
            (4, "long_value", Field.TYPE_UINT64),
            (5, "float_value", Field.TYPE_FLOAT),
            (6, "double_value", Field.TYPE_DOUBLE),
            (7, "boolean_value", Field.TYPE_BOOL),
            (8, "string_value", Field.TYPE_STRING),
            (9, "propertyset_value", Field.TYPE_BYTES),
            (10, "propertysets_value", Field.TYPE_BYTES),
        ],
        frozenset(),
    ),
    "PropertySet": (
        [(1, "keys", Field.TYPE_STRING), (2, "values", "PropertyValue")],
        [],
        frozenset({"keys", "values"}),
    ),
    "Metric": (
        [
            (1, "name", Field.TYPE_STRING),
            (2, "alias", Field.TYPE_UINT64),
            (3, "timestamp", Field.TYPE_UINT64),
            (4, "datatype", Field.TYPE_UINT32),
            (5, "is_historical", Field.TYPE_BOOL),
            (6, "is_transient", Field.TYPE_BOOL),
            (7, "is_null", Field.TYPE_BOOL),
            (8, "metadata", Field.TYPE_BYTES),
            (9, "properties", "PropertySet"),
        ],
        [
            (10, "int_value", Field.TYPE_UINT32),
            (11, "long_value", Field.TYPE_UINT64),
            (12, "float_value", Field.TYPE_FLOAT),
            (13, "double_value", Field.TYPE_DOUBLE),
            (14, "boolean_value", Field.TYPE_BOOL),
            (15, "string_value", Field.TYPE_STRING),
            (16, "bytes_value", Field.TYPE_BYTES),
            (17, "dataset_value", Field.TYPE_BYTES),
            (18, "template_value", Field.TYPE_BYTES),
        ],
        frozenset(),
    ),
    "Payload": (
        [
            (1, "timestamp", Field.TYPE_UINT64),
            (2, "metrics", "Metric"),
            (3, "seq", Field.TYPE_UINT64),
            (4, "uuid", Field.TYPE_STRING),
            (5, "body", Field.TYPE_BYTES),
        ],
        [],
        frozenset({"metrics"}),
    ),
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="headrace/sparkplug.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, (plain, values, repeated) in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if values:
            message.oneof_decl.add(name=_VALUE)
        for number, member, kind in (*plain, *values):
            entry = message.field.add(number=number, name=member)
            many = member in repeated
            entry.label = Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                entry.type = Field.TYPE_MESSAGE
                entry.type_name = f".{_PACKAGE}.{kind}"
            else:
                entry.type = kind
            if (number, member, kind) in values:
                entry.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES: Final = _build()
Payload: Final[Any] = _CLASSES["Payload"]
Metric: Final[Any] = _CLASSES["Metric"]
