"""A recorded device as a real protocol server again: it shows what it showed, with faults where wanted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

import msgspec
import polars as pl

from headrace.bench.device_recording import DeviceRecording, RecordedPoint
from headrace.model.errors import Misconfigured
from headrace.model.status import BAD_SENSOR_FAILURE
from headrace.model.time import US_PER_S, Clock
from headrace.sim.emulators import Emulator, Point, PointType, Value
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator

_TYPES: Final[dict[str, PointType]] = {
    "boolean": "bool", "bool": "bool", "int16": "int16", "uint16": "uint16", "int32": "int32",
    "uint32": "uint32", "int64": "int64", "uint64": "uint64", "float": "float32", "float32": "float32",
    "double": "float64", "float64": "float64", "string": "string",
}  # fmt: skip
_MODBUS: Final = ("unit_id", "addressing", "byte_order", "framing")
_DIGITS: Final = re.compile(r"-?\d+")
_ZEROS: Final[dict[str, Value]] = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}


class DeviceFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with a recorded device.

    Attributes:
        kind: ``off`` loses power, ``slow`` answers ``delay_s`` late, ``clock_step`` tells times ``offset_s``
            wrong, ``stuck`` shows the same value on, ``bad`` has no value.
        at_s, until_s: of the recording. addresses: with ``*``, of ``stuck`` and ``bad``.
    """

    kind: Literal["off", "slow", "clock_step", "stuck", "bad"]
    at_s: float
    until_s: float
    delay_s: float = 0.8
    offset_s: float = 90.0
    addresses: tuple[str, ...] = ("*",)


def device_emulator(recording: DeviceRecording, endpoint: str = "", **broker: Any) -> Emulator:
    """The device, not started.

    Args:
        endpoint: to listen on; empty: a free port of 127.0.0.1. Of MQTT that of the broker.
        broker: ``username``, ``password`` there.

    Raises:
        Misconfigured: APPS-2433 for a protocol that has no emulator for recordings.
    """
    device = recording.device
    points = [_point(n, each, recording) for n, each in enumerate(device.points)]
    if device.protocol == "modbus":
        options = {name: device.options[name] for name in _MODBUS if name in device.options}
        return ModbusEmulator(points, endpoint, **options)
    if device.protocol == "opcua":
        return OpcUaEmulator(points, endpoint)
    if device.protocol == "mqtt":
        told = {"timestamp": device.options["timestamp"]} if device.options.get("timestamp") else {}
        return MqttJsonEmulator(points, endpoint=endpoint, **told, **broker)
    raise Misconfigured(
        "APPS-2433",
        f"a recording of {device.protocol} cannot be shown again",
        "Use one of opcua, modbus or mqtt.",
    )


def _point(number: int, point: RecordedPoint, recording: DeviceRecording) -> Point:
    mine = recording.samples.filter(pl.col("point") == number)
    kind = _TYPES.get(point.data_type.lower())
    if kind is None:
        kind = _told_kind(mine)
    initial = _ZEROS.get(kind, 0)
    return Point(point.address, kind, initial, point.unit, point.writable)


def _told_kind(samples: pl.DataFrame) -> PointType:
    """What a point is whose device does not say it: digits beside a number are an integer too great for it."""
    numbers, texts = samples["value"].drop_nulls(), samples["text"].drop_nulls()
    if len(texts) and not len(numbers):
        return "string"
    has_digits = texts.str.contains(f"^(?:{_DIGITS.pattern})$").any()
    if not has_digits or not (numbers == numbers.round()).all():
        return "float64"
    return "int64" if (numbers < 2.0**63).all() else "uint64"


class DeviceReplay:
    """Shows a recording moment after moment through its emulator.

    Args:
        emulator: of :func:`device_emulator`, started. faults: by the recording's time.
    """

    def __init__(
        self, recording: DeviceRecording, emulator: Emulator, faults: Sequence[DeviceFault] = ()
    ) -> None:
        self._device = recording.device
        self._emulator = emulator
        self._faults = faults
        self._is_off = False
        self._held: dict[str, Value] = {}
        self._kinds = [_point(n, p, recording).data_type for n, p in enumerate(self._device.points)]
        self._moments = _moments(recording)
        self._begin_us = self._moments[0][0] if self._moments else 0

    @property
    def moments(self) -> list[float]:
        """Second of each moment at which the device showed something."""
        return [(at_us - self._begin_us) / US_PER_S for at_us, _ in self._moments]

    async def step(self, number: int) -> None:
        """Show the moment of this number."""
        at_us, rows = self._moments[number]
        second = (at_us - self._begin_us) / US_PER_S
        acts = [each for each in self._faults if each.at_s <= second < each.until_s]
        kinds = {each.kind: each for each in acts}
        slow, step = kinds.get("slow"), kinds.get("clock_step")
        self._emulator.delay_s = slow.delay_s if slow else 0.0
        self._emulator.clock_offset_us = round(step.offset_s * US_PER_S) if step else 0
        if ("off" in kinds) != self._is_off:
            self._is_off = "off" in kinds
            await (self._emulator.stop() if self._is_off else self._emulator.start())
        if not self._is_off:
            values, status = self._shown(rows, acts)
            await self._emulator.update(values, int(rows["at_us"][-1]), status)

    async def run(self, clock: Clock, speed: float = 1.0) -> None:
        """Show all of it, as fast as it was recorded, times ``speed``."""
        begin_s = clock.monotonic_s()
        for number, second in enumerate(self.moments):
            wait_s = begin_s + second / speed - clock.monotonic_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self.step(number)

    def _shown(
        self, rows: pl.DataFrame, acts: Sequence[DeviceFault]
    ) -> tuple[dict[str, Value], Mapping[str, int]]:
        values: dict[str, Value] = {}
        status: dict[str, int] = {}
        for number, value, text, code in rows.select("point", "value", "text", "status").rows():
            address = self._device.points[number].address
            wrong = {f.kind for f in acts if any(fnmatchcase(address, p) for p in f.addresses)}
            known = _exact(value, text)
            if code:
                status[address] = code
            if "bad" in wrong:
                status[address] = BAD_SENSOR_FAILURE
            if known is None:
                known = self._held.get(address, _ZEROS.get(self._kinds[number], 0))
            shown = _typed(known, self._kinds[number])
            if "stuck" in wrong:
                shown = self._held.get(address, shown)
            self._held[address] = values[address] = shown
        return values, status


def last_values(recording: DeviceRecording) -> dict[str, Value]:
    """Address -> what the device showed of it last; of those that it ever showed.

    Raises:
        Misconfigured: APPS-2435 when it never showed anything.
    """
    found: dict[str, Value] = {}
    rows = recording.samples.filter(pl.col("value").is_not_null() | pl.col("text").is_not_null())
    for number, value, text in (
        rows.group_by("point", maintain_order=True).last().select("point", "value", "text").rows()
    ):
        point = recording.device.points[number]
        kind = _point(number, point, recording).data_type
        known = _exact(value, text)
        assert known is not None, "rows without both are left out"
        found[point.address] = _typed(known, kind)
    if not found:
        raise Misconfigured(
            "APPS-2435", "the recorded device never showed a value", "Record it while it works."
        )
    return found


def _moments(recording: DeviceRecording) -> list[tuple[int, pl.DataFrame]]:
    """(arrival, rows) of what the device showed at once: of each point one value.

    A register has no time of its own, so all that one poll read belongs together; elsewhere each time does.
    """
    nth = pl.col("point").cum_count().over("exchange", "point").alias("nth")
    keys = ["exchange", "nth", *(["at_us"] if recording.device.protocol != "modbus" else [])]
    rows = recording.samples.with_columns(nth)
    return [
        (int(each["received_us"][0]), each) for _, each in rows.group_by(keys, maintain_order=True)
    ]


def _exact(value: float | None, text: str | None) -> float | str | None:
    """What a sample says: of an integer that is too great for a float its digits; None when nothing."""
    if value is None:
        return text
    is_digits = text is not None and _DIGITS.fullmatch(text) is not None
    return int(text or "") if is_digits else value


def _typed(value: float | str, kind: PointType) -> Value:
    if kind == "string" or isinstance(value, str):
        return str(value)
    if kind == "bool":
        return bool(value)
    return float(value) if kind.startswith("float") else int(value)
