"""The fields of every public function's PDU (Modbus Application Protocol V1.1b3, clause 6).

For writes, for diagnosis and for notices; reads on the hot path do not pass here. A PDU that does not
fit its function to the byte is refused with the reason, never half understood. ``encode_pdu`` of what
``decode_pdu`` gave is identical to the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

EXCEPTION_FLAG: Final = 0x80

FUNCTION_NAMES: Final[dict[int, str]] = {
    1: "Read Coils",
    2: "Read Discrete Inputs",
    3: "Read Holding Registers",
    4: "Read Input Registers",
    5: "Write Single Coil",
    6: "Write Single Register",
    7: "Read Exception Status",
    8: "Diagnostics",
    11: "Get Comm Event Counter",
    12: "Get Comm Event Log",
    15: "Write Multiple Coils",
    16: "Write Multiple Registers",
    17: "Report Server ID",
    20: "Read File Record",
    21: "Write File Record",
    22: "Mask Write Register",
    23: "Read/Write Multiple Registers",
    24: "Read FIFO Queue",
    43: "Encapsulated Interface Transport",
}

# A field is (name, kind). Kinds: B and H are big-endian unsigned integers; "counted" are bytes behind
# their own byte count; "rest" is all that is left; "read_items", "answer_items" and "write_items" are
# the lists of functions 20 and 21.
Layout = tuple[tuple[str, str], ...]
_READ: Final[Layout] = (("start", "H"), ("quantity", "H"))
_WRITE: Final[Layout] = (("address", "H"), ("value", "H"))
_MANY: Final[Layout] = (("start", "H"), ("quantity", "H"), ("values", "counted"))
_VALUES: Final[Layout] = (("values", "counted"),)
_MASK: Final[Layout] = (("address", "H"), ("and_mask", "H"), ("or_mask", "H"))

_REQUEST: Final[dict[int, Layout]] = {
    **dict.fromkeys((1, 2, 3, 4), _READ),
    **dict.fromkeys((5, 6), _WRITE),
    **dict.fromkeys((7, 11, 12, 17), ()),
    8: (("subfunction", "H"), ("payload", "rest")),
    **dict.fromkeys((15, 16), _MANY),
    20: (("items", "read_items"),),
    21: (("items", "write_items"),),
    22: _MASK,
    23: (
        ("read_start", "H"),
        ("read_quantity", "H"),
        ("write_start", "H"),
        ("write_quantity", "H"),
        ("values", "counted"),
    ),
    24: (("address", "H"),),
    43: (("mei_type", "B"), ("payload", "rest")),
}
_ANSWER: Final[dict[int, Layout]] = {
    **dict.fromkeys((1, 2, 3, 4, 12, 17, 23), _VALUES),
    **dict.fromkeys((5, 6), _WRITE),
    7: (("status", "B"),),
    8: (("subfunction", "H"), ("payload", "rest")),
    11: (("status", "H"), ("event_count", "H")),
    **dict.fromkeys((15, 16), _READ),
    20: (("items", "answer_items"),),
    21: (("items", "write_items"),),
    22: _MASK,
    24: (("byte_count", "H"), ("payload", "rest")),
    43: (("mei_type", "B"), ("payload", "rest")),
}
_QUANTITY_MAX: Final = {1: 2000, 2: 2000, 3: 125, 4: 125, 15: 1968, 16: 123}


class PduError(Exception):
    """Bytes that are not the PDU they claim to be; the text says why."""


@dataclass(frozen=True)
class Pdu:
    """A decoded PDU.

    Attributes:
        function: function code without the exception flag.
        fields: by name, as in the layouts above; integers, bytes, or tuples of dicts.
        exception: exception code of an answer that is one, else None.
    """

    function: int
    fields: dict[str, Any] = field(default_factory=dict)
    exception: int | None = None

    @property
    def name(self) -> str:
        """The standard's name of the function."""
        return FUNCTION_NAMES.get(self.function, f"function {self.function}")


def decode_pdu(pdu: bytes, *, answer: bool) -> Pdu:
    """The fields of a PDU.

    Args:
        pdu: function code and what follows.
        answer: whether a device sent it; requests and answers have different fields.

    Raises:
        PduError: why it is not a PDU of its function.

    Example:
        >>> decode_pdu(bytes.fromhex("0408d20002"), answer=False).fields
        {'start': 2258, 'quantity': 2}
    """
    if not pdu:
        raise PduError("it is empty")
    function = pdu[0]
    if answer and function & EXCEPTION_FLAG:
        if len(pdu) != 2:
            raise PduError(f"an exception has {len(pdu) - 1} bytes behind the function, not 1")
        return Pdu(function & ~EXCEPTION_FLAG, {}, pdu[1])
    layout = (_ANSWER if answer else _REQUEST).get(function)
    if layout is None:
        raise PduError(f"function {function} is not a public function")
    fields, at = _decode_fields(layout, pdu)
    if at != len(pdu):
        raise PduError(f"{len(pdu) - at} bytes are left over behind {FUNCTION_NAMES[function]}")
    decoded = Pdu(function, fields)
    _check(decoded, answer)
    return decoded


def encode_pdu(pdu: Pdu, *, answer: bool) -> bytes:
    """The bytes of a PDU.

    Example:
        >>> encode_pdu(Pdu(6, {"address": 1, "value": 3}), answer=False).hex()
        '0600010003'
    """
    if pdu.exception is not None:
        return bytes((pdu.function | EXCEPTION_FLAG, pdu.exception))
    layout = (_ANSWER if answer else _REQUEST)[pdu.function]
    parts = [bytes((pdu.function,))]
    for name, kind in layout:
        value = pdu.fields[name]
        if kind in "BH":
            parts.append(struct.pack(f">{kind}", value))
        elif kind == "rest":
            parts.append(value)
        else:
            body = value if kind == "counted" else b"".join(_encode_item(kind, i) for i in value)
            parts.append(bytes((len(body),)) + body)
    return b"".join(parts)


def _decode_fields(layout: Layout, pdu: bytes) -> tuple[dict[str, Any], int]:
    fields: dict[str, Any] = {}
    at = 1
    for name, kind in layout:
        if kind in "BH":
            size = struct.calcsize(kind)
            fields[name] = int.from_bytes(_take(pdu, at, size, name), "big")
        elif kind == "rest":
            size = len(pdu) - at
            fields[name] = pdu[at:]
        else:
            count = _take(pdu, at, 1, f"the byte count of {name}")[0]
            size = 1 + count
            body = _take(pdu, at + 1, count, name)
            fields[name] = body if kind == "counted" else _decode_items(kind, body)
        at += size
    return fields, at


def _take(pdu: bytes, at: int, size: int, what: str) -> bytes:
    taken = pdu[at : at + size]
    if len(taken) != size:
        raise PduError(f"it ends {size - len(taken)} bytes short of {what}")
    return taken


def _decode_items(kind: str, body: bytes) -> tuple[dict[str, Any], ...]:
    items: list[dict[str, Any]] = []
    at = 0
    while at < len(body):
        if kind == "answer_items":
            length = _take(body, at, 1, "a file response length")[0]
            chunk = _take(body, at + 1, max(length, 1), "a file response")
            items.append({"reference_type": chunk[0], "data": chunk[1:]})
            at += 1 + max(length, 1)
            continue
        head = struct.unpack(">BHHH", _take(body, at, 7, "a file record"))
        item: dict[str, Any] = dict(
            zip(("reference_type", "file", "record", "length"), head, strict=True)
        )
        at += 7
        if kind == "write_items":
            item["data"] = _take(body, at, 2 * head[3], "a file record's data")
            at += 2 * head[3]
        items.append(item)
    return tuple(items)


def _encode_item(kind: str, item: dict[str, Any]) -> bytes:
    if kind == "answer_items":
        data: bytes = item["data"]
        return bytes((len(data) + 1, item["reference_type"])) + data
    head = struct.pack(
        ">BHHH", item["reference_type"], item["file"], item["record"], item["length"]
    )
    return head + bytes(item.get("data", b""))


def _check(pdu: Pdu, answer: bool) -> None:
    """What the standard demands of the values, beside the lengths."""
    fields = pdu.fields
    quantity_max = _QUANTITY_MAX.get(pdu.function)
    if quantity_max and "quantity" in fields and not 1 <= fields["quantity"] <= quantity_max:
        raise PduError(f"quantity {fields['quantity']} is not 1 to {quantity_max}")
    if pdu.function == 5 and fields["value"] not in (0, 0xFF00):
        raise PduError(f"a coil is set to {fields['value']:#06x}, not 0x0000 or 0xff00")
    counted = len(fields.get("values", b""))
    if answer:
        if pdu.function in (3, 4, 23) and counted % 2:
            raise PduError(f"{counted} bytes are no whole registers")
        return
    wanted = {
        15: (fields.get("quantity", 0) + 7) // 8,
        16: 2 * fields.get("quantity", 0),
        23: 2 * fields.get("write_quantity", 0),
    }.get(pdu.function)
    if wanted is not None and counted != wanted:
        raise PduError(f"{counted} bytes of values, but the quantity needs {wanted}")
