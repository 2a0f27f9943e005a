"""The write guard: what may be written to a device, and how. Pure.

Nothing is written to a device outside its envelope. A write must name a tag that the site file
declares writable; a number must be finite and within the tag's envelope, in engineering units. The
raw value that goes to the device is ``(value - offset) / scale``.
"""

from __future__ import annotations

import math

from headrace.model.desired import TagConfig
from headrace.model.errors import Misconfigured, Refused


def raw_value(tag: TagConfig, value: float | str) -> float | str:
    """The raw value to write.

    Args:
        value: engineering units, or text for a text tag.

    Raises:
        Refused: EDGE-1020 the tag is not writable, EDGE-1021 outside its envelope.
        Misconfigured: EDGE-1022 not a finite number, or text for a scaled or bounded tag.

    Example:
        >>> raw_value(TagConfig(tag_id=1, path="a/b", address="x", writable=True, scale=0.1), 5.0)
        50.0
    """
    if not tag.writable:
        raise Refused(
            "EDGE-1020",
            f"{tag.path} is not writable",
            "Set writable = true and an envelope for this tag in the site file.",
        )
    bounded = tag.write_minimum is not None or tag.write_maximum is not None
    if isinstance(value, str):
        if bounded or tag.scale != 1.0 or tag.offset != 0.0:
            raise Misconfigured(
                "EDGE-1022", f"{tag.path} takes a number, not the text {value!r}", "Write a number."
            )
        return value
    if not math.isfinite(value):
        raise Misconfigured(
            "EDGE-1022", f"{tag.path} cannot be set to {value}", "Write a finite number."
        )
    low = -math.inf if tag.write_minimum is None else tag.write_minimum
    high = math.inf if tag.write_maximum is None else tag.write_maximum
    if not low <= value <= high:
        raise Refused(
            "EDGE-1021",
            f"{value} {tag.unit} for {tag.path} is outside its envelope [{low}, {high}]",
            "Write a value inside the envelope, or have the envelope changed in the site file.",
        )
    return (value - tag.offset) / tag.scale


def engineering_value(tag: TagConfig, raw: float | str) -> float | str:
    """What was read back, in engineering units."""
    return raw if isinstance(raw, str) else raw * tag.scale + tag.offset
