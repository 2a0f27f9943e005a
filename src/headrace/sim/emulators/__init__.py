"""Device emulators: real protocol servers (for MQTT: real clients of a broker) on loopback.

The demo site and ``headrace replay`` set their points; the edge meets them by the same door as any
device. One file a protocol: :mod:`opcua`, :mod:`modbus`, :mod:`mqtt` (plain JSON), :mod:`sparkplug`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Value = float | int | bool | str
PointType = Literal[
    "bool",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
    "string",
]


@dataclass(frozen=True)
class Point:
    """One thing that a device shows.

    Attributes:
        address: exactly the text that a tag's ``address`` has for it.
        data_type: what the device says its type is.
        initial: value before the first update; a list makes an array of that length.
        unit: engineering unit that the device declares, where its protocol can.
        writable: whether clients may write it.
    """

    address: str
    data_type: PointType = "float64"
    initial: Value | Sequence[float] = 0.0
    unit: str = ""
    writable: bool = False


WriteHandler = Callable[[str, Value], None]


class Emulator(Protocol):
    """One device. Constructed as ``XEmulator(points, endpoint=..., on_write=..., **own settings)``.

    Attributes:
        endpoint: what goes into a connection's ``endpoint``.
        delay_s: set above 0 to make it a slow device: every answer waits that long.
        clock_offset_us: added to every time that the device itself tells.
    """

    endpoint: str
    delay_s: float
    clock_offset_us: int

    async def start(self) -> None:
        """Listen (or connect); returns when a client can be served."""
        ...

    async def update(
        self,
        values: Mapping[str, Value | Sequence[float]],
        source_timestamp_us: int,
        status: Mapping[str, int] | None = None,
    ) -> None:
        """Set points at once, as one atomic change with one device time.

        Args:
            values: address -> value (a sequence for arrays).
            source_timestamp_us: the device's time of this change, UTC microseconds.
            status: address -> StatusCode where it is not Good; protocols without quality show a
                Bad point in their own way (a Modbus exception, a null metric, a missing field).
        """
        ...

    async def stop(self) -> None:
        """Close hard, as a power cut would: no goodbye messages, all sockets gone."""
        ...
