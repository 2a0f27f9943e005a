"""From a JSON message to samples: pure, no I/O, no clock.

Nothing is guessed: a field that is absent or of a wrong type never becomes a number. Text where a
number is expected (the tag has a unit, a scale, limits, or gave numbers before) is kept as text with
an Uncertain status.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from headrace.edge.connectors.mqtt.columns import Columns
from headrace.edge.connectors.mqtt.config import (
    MqttOptions,
    Pointer,
    TimeField,
    parse_address,
    parse_pointer,
    parse_time_field,
    quality_codes,
)
from headrace.model import status as codes
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import TagConfig
from headrace.model.time import to_us

ABSENT: Final = object()
_TIME_MAX_US: Final = 253_402_300_799_000_000  # the end of the year 9999
_decode_json = msgspec.json.Decoder().decode


@dataclass(slots=True)
class TagPlan:
    """One tag of a topic."""

    tag_id: int
    pointer: Pointer
    sample_interval_us: int
    numeric: bool


@dataclass
class Decoded:
    """What one message gave beside its samples."""

    tag_errors: dict[int, str] = field(default_factory=dict)
    notices: list[tuple[str, str]] = field(default_factory=list)


def resolve(document: Any, pointer: Pointer) -> Any:
    """The value a JSON pointer names, or :data:`ABSENT`.

    Example:
        >>> resolve({"a": [1, {"b": 2}]}, ("a", "1", "b"))
        2
    """
    for token in pointer:
        if isinstance(document, dict):
            document = document.get(token, ABSENT)
        elif isinstance(document, list):
            index = int(token) if token.isascii() and token.isdigit() else len(document)
            canonical = token == "0" or not token.startswith("0")
            document = document[index] if canonical and index < len(document) else ABSENT
        else:
            return ABSENT
    return document


def looks_numeric(tag: TagConfig) -> bool:
    """The tag's settings make sense for a number only."""
    return bool(
        tag.unit
        or tag.scale != 1.0
        or tag.offset != 0.0
        or tag.deadband
        or tag.sample_interval_us
        or tag.write_minimum is not None
        or tag.write_maximum is not None
    )


class JsonDecoder:
    """Decodes the messages of one connection.

    Args:
        name: the connection's name, for messages.
        tags: whose addresses were checked.
        options: of the connection.
    """

    def __init__(self, name: str, tags: Sequence[TagConfig], options: MqttOptions) -> None:
        what = f"connection {name!r}"
        self._name = name
        self._ignore_missing = options.missing_field == "ignore"
        self._time: TimeField | None = parse_time_field(options.timestamp, what)
        self._quality: Pointer = parse_pointer(options.quality, what)
        self._has_quality = bool(options.quality)
        self._quality_codes = quality_codes(options, what)
        self.topics: dict[str, list[TagPlan]] = {}
        for tag in tags:
            topic, pointer = parse_address(tag.address, f"tag {tag.path!r}")
            plan = TagPlan(tag.tag_id, pointer, tag.sample_interval_us, looks_numeric(tag))
            self.topics.setdefault(topic, []).append(plan)

    def decode(
        self, topic: str, payload: bytes, retained: bool, received_us: int, out: Columns
    ) -> Decoded:
        """Append the message's samples to ``out``; raises nothing, whatever the bytes are."""
        decoded = Decoded()
        plans = self.topics.get(topic, [])
        try:
            document = _decode_json(payload)
        except UNREADABLE as error:
            document = self._bare_text(topic, payload, plans, str(error), decoded)
        source_us, status = self._time_and_status(document, retained, received_us, topic, decoded)
        for plan in plans:
            value = resolve(document, plan.pointer)
            problem = self._append(plan, value, source_us, status, received_us, out)
            if problem:
                decoded.tag_errors[plan.tag_id] = problem
                bad = codes.BAD_TYPE_MISMATCH if "EDGE-4103" in problem else codes.BAD_NO_DATA
                out.add(plan.tag_id, source_us, None, bad, received_us)
        return decoded

    def _bare_text(
        self, topic: str, payload: bytes, plans: list[TagPlan], why: str, decoded: Decoded
    ) -> Any:
        """What a payload that is no JSON stands for: its text, when every tag wants the whole."""
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            text = ""
        if text and all(not plan.pointer for plan in plans):
            return text
        decoded.notices.append(
            ("EDGE-4101", f"a message on {topic!r} of {self._name!r} is not JSON: {why}")
        )
        return ABSENT

    def _time_and_status(
        self, document: Any, retained: bool, received_us: int, topic: str, decoded: Decoded
    ) -> tuple[int, int]:
        status = codes.GOOD
        if self._has_quality and document is not ABSENT:
            word = resolve(document, self._quality)
            text = str(word).lower() if not isinstance(word, float) else f"{word:g}"
            status = self._quality_codes.get(text, codes.UNCERTAIN)
        if self._time is None:
            # A retained message is as old as it likes: its arrival is no time of its value.
            if retained and codes.is_good(status):
                status = codes.UNCERTAIN_LAST_USABLE_VALUE
            return received_us, status
        source_us = _time_us(resolve(document, self._time.pointer), self._time.unit_us)
        if source_us is not None:
            return source_us, status
        if document is not ABSENT:
            decoded.notices.append(
                ("EDGE-4104", f"a message on {topic!r} of {self._name!r} has no valid timestamp")
            )
        return received_us, status if not codes.is_good(status) else codes.UNCERTAIN

    def _append(
        self,
        plan: TagPlan,
        value: Any,
        source_us: int,
        status: int,
        received_us: int,
        out: Columns,
    ) -> str:
        """Add the value's samples; gives the problem when there is none to add."""
        if plan.sample_interval_us:
            return _append_waveform(plan, value, source_us, status, received_us, out)
        if value is ABSENT and self._ignore_missing:
            return ""
        kind = type(value)
        if kind is float:
            out.add(plan.tag_id, source_us, value, status, received_us)
            plan.numeric = True
        elif kind is bool:
            out.add(plan.tag_id, source_us, float(value), status, received_us)
        elif kind is int:
            out.add_integer(plan.tag_id, source_us, value, status, received_us)
            plan.numeric = True
        elif kind is str:
            if plan.numeric and codes.is_good(status):
                status = codes.UNCERTAIN
            out.add_text(plan.tag_id, source_us, value, status, received_us)
        elif value is None or value is ABSENT:
            return f"EDGE-4102 the message has no field {_show(plan.pointer)}"
        else:
            return f"EDGE-4103 the field {_show(plan.pointer)} is an {_kind(value)}, not one value"
        return ""


def _append_waveform(
    plan: TagPlan, value: Any, source_us: int, status: int, received_us: int, out: Columns
) -> str:
    if value is ABSENT or value is None:
        return f"EDGE-4102 the message has no field {_show(plan.pointer)}"
    if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
        return f"EDGE-4103 the field {_show(plan.pointer)} is not an array of numbers"
    first_us = source_us - (len(value) - 1) * plan.sample_interval_us
    for index, each in enumerate(value):
        at_us = first_us + index * plan.sample_interval_us
        if type(each) is int:
            out.add_integer(plan.tag_id, at_us, each, status, received_us)
        else:
            out.add(plan.tag_id, at_us, each, status, received_us)
    return ""


def _time_us(value: Any, unit_us: float) -> int | None:
    if unit_us == 0.0:
        if not isinstance(value, str):
            return None
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        return to_us(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
    if type(value) is int:
        at_us = value * int(unit_us)
    elif type(value) is float and math.isfinite(value):
        at_us = round(value * unit_us)
    else:
        return None
    return at_us if 0 <= at_us <= _TIME_MAX_US else None


def _show(pointer: Pointer) -> str:
    return "/" + "/".join(pointer) if pointer else "(the payload)"


def _kind(value: Any) -> str:
    return "array" if isinstance(value, list) else "object"


def leaves(document: Any, limit: int, prefix: str = "") -> list[tuple[str, Any]]:
    """(pointer, value) of every single value in a document, and of arrays of numbers, as far as
    ``limit``.

    Example:
        >>> leaves({"a": 1, "b": {"c/d": True}}, 10)
        [('/a', 1), ('/b/c~1d', True)]
    """
    if isinstance(document, dict):
        found: list[tuple[str, Any]] = []
        for key, value in document.items():
            token = str(key).replace("~", "~0").replace("/", "~1")
            found += leaves(value, limit - len(found), f"{prefix}/{token}")
            if len(found) >= limit:
                break
        return found[:limit]
    if isinstance(document, list) and not all(type(each) in (int, float) for each in document):
        found = []
        for index, value in enumerate(document):
            found += leaves(value, limit - len(found), f"{prefix}/{index}")
            if len(found) >= limit:
                break
        return found[:limit]
    return [(prefix, document)]


def nest(pointer: Pointer, value: Any) -> Any:
    """The smallest JSON document that has ``value`` at the pointer.

    Example:
        >>> nest(("a", "b"), 1)
        {'a': {'b': 1}}
    """
    for token in reversed(pointer):
        value = {token: value}
    return value
