"""The demo in process: simulated machines, faults, and what the site file's formulas and alarms make of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import polars as pl

from headrace.formula.activity import OFF, ON, Activity, rows_of
from headrace.formula.binding import bind
from headrace.formula.bound import Bound
from headrace.formula.evaluate import SCHEMA
from headrace.formula.stream import Stream
from headrace.model import status as st
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import make_batch
from headrace.sim.demo import TAG_FILE, site_text, tags_csv
from headrace.sim.demo_devices import DemoTag, demo_devices
from headrace.sim.emulators import Value
from headrace.sim.faults import Faults
from headrace.sim.plant.plant import Plant
from headrace.site.file import load_site
from headrace.site.knowledge import apps_config

SECOND = 1_000_000
START_US = 1_780_000_000 * SECOND
GO_S = 30
DEVICES = demo_devices(Plant(1))


class Event(NamedTuple):
    """A fault on a target from one second to another one of the run."""

    start_s: int
    stop_s: int
    name: str
    target: str
    parameters: dict[str, float] = {}  # noqa: RUF012 # a NamedTuple's default, never changed


class Raised(NamedTuple):
    """An alarm: on which machine, and from and to which second of the run; inf when it did not end."""

    asset: str
    alarm: str
    start_s: float
    end_s: float

    @property
    def name(self) -> str:
        """Such as ``pump_1.cavitation``."""
        return f"{self.asset.rpartition('/')[2]}.{self.alarm}"


@cache
def demo_config() -> AppsConfig:
    """What the apps role would run, of the demo's own site file."""
    with TemporaryDirectory() as folder:
        ports = {device.name: 1024 + n for n, device in enumerate(DEVICES)}
        Path(folder, TAG_FILE).write_text(tags_csv(DEVICES))
        Path(folder, "site.toml").write_text(site_text(Plant(1), DEVICES, ports))
        model = load_site(Path(folder, "site.toml"))
    paths = [tag.path for tag in model.tags]
    paths += [
        f"{asset.path}/{formula.name}"
        for asset in model.assets
        for kind in model.asset_types
        for formula in kind.formulas
        if kind.name == asset.type
    ]
    return apps_config(model, {path: n for n, path in enumerate(dict.fromkeys(paths), 1)}, {})


@cache
def tag_ids() -> dict[str, int]:
    return {
        f"{asset.path}/{name}": tag_id
        for asset in demo_config().assets
        for name, tag_id in asset.tags.items()
    }


@dataclass(slots=True)
class _Device:
    """A device whose samples come each second, as an edge stores them."""

    protocol: str
    tags: Sequence[DemoTag]
    off: bool = False
    was_off: bool = False
    period_s: int = 1
    offset_us: int = 0
    rows: dict[int, tuple[list[int], list[Value], list[int]]] = field(default_factory=dict)
    last: dict[int, Value] = field(default_factory=dict)

    def set_off(self, off: bool) -> None:
        self.off = off

    def set_delay(self, delay_s: float) -> None:
        self.period_s = 1 + int(2 * delay_s)

    def set_clock_offset(self, offset_us: int) -> None:
        # A Modbus device tells no time: its samples have that of the edge.
        self.offset_us = 0 if self.protocol == "modbus" else offset_us

    def read(self, second: int, values: dict[str, Value]) -> None:
        at_us = START_US + second * SECOND
        if self.off:
            if not self.was_off and self.protocol != "mqtt":
                self._mark(at_us)
            self.was_off = True
            return
        self.was_off = False
        if second % self.period_s:
            return
        for tag in self.tags:
            if tag.path in values:
                raw = tag.raw(values[tag.path])
                value = raw * tag.scale if isinstance(raw, int | float) else raw
                self._add(tag, at_us + self.offset_us, value, st.GOOD)

    def _mark(self, at_us: int) -> None:
        """What the edge writes into history of a lost device."""
        lost = self.protocol == "sparkplug"
        status = st.UNCERTAIN_LAST_USABLE_VALUE if lost else st.BAD_NO_COMMUNICATION
        for tag in self.tags:
            if (value := self.last.get(tag_ids().get(tag.path, 0))) is not None:
                self._add(tag, at_us, value, status)

    def _add(self, tag: DemoTag, at_us: int, value: Value, status: int) -> None:
        tag_id = tag_ids().get(tag.path)
        if tag_id is not None:
            at, values, statuses = self.rows.setdefault(tag_id, ([], [], []))
            at.append(at_us)
            values.append(value)
            statuses.append(status)
            self.last[tag_id] = value

    def taken(self) -> Iterable[pl.DataFrame]:
        """What came since the last time."""
        for tag_id, (at, values, statuses) in self.rows.items():
            text = [each if isinstance(each, str) else None for each in values]
            number = [np.nan if isinstance(each, str) else float(each) for each in values]
            bad = np.array(statuses) >= st.BAD
            yield make_batch(
                np.full(len(at), tag_id), np.array(at), np.array(number),
                status=np.array(statuses, np.uint32), text=text,
                received_timestamp_us=np.array(at),
                value_is_null=bad | np.isnan(number),
            )  # fmt: skip
        self.rows.clear()


def run(events: Sequence[Event], seconds: int, seed: int = 1) -> list[Raised]:
    """The alarms of a run."""
    devices = {device.name: _Device(device.protocol, device.tags) for device in DEVICES}
    plant = Plant(seed)
    faults = Faults(plant, devices)
    config = demo_config()
    bounds = bind(config).bound
    stream = Stream(bounds, config.calendar)
    found: dict[str, list[pl.DataFrame]] = {bound.key: [] for bound in bounds}
    for second in range(1, seconds + 1):
        for event in events:
            if second == event.start_s:
                faults.start(event.name, event.target, event.parameters)
            elif second == event.stop_s and any(
                each.target == event.target and each.name == event.name for each in faults.active
            ):
                faults.stop(event.name, event.target)
        faults.before_step(1.0)
        values = faults.after_step(plant.step(1.0, START_US + second * SECOND))
        for device in devices.values():
            device.read(second, values)
        if second % GO_S == 0 or second == seconds:
            for device in devices.values():
                for batch in device.taken():
                    stream.put(batch)
            for bound, rows in stream.advance(START_US + second * SECOND + 1).results:
                if bound.role != "formula":
                    found[bound.key].append(rows)
    return raised_of(bounds, found)


def raised_of(bounds: Sequence[Bound], found: dict[str, list[pl.DataFrame]]) -> list[Raised]:
    """When each alarm was active, of all results; while one is suppressed by design it does not count."""
    by_key = {bound.key: bound for bound in bounds}
    results: list[Raised] = []
    for key, bound in by_key.items():
        if bound.role != "alarm":
            continue
        frames = [(0, ON, _newest(found[key]))]
        has_off = f"{key}/off" in by_key
        if has_off:
            frames.append((0, OFF, _newest(found[f"{key}/off"])))
        activity = Activity(np.full(len(bound.assets), has_off))
        changes = activity.take(rows_of(frames)[0])
        hidden = _newest(found.get(f"{key}/suppressed", []))
        for number, asset in enumerate(bound.assets):
            mine = changes.active_changed & (changes.alarm == number)
            times = (changes.at_us[mine] - START_US) / SECOND
            for start, end in zip(times[::2], [*times[1::2], np.inf], strict=False):
                # A clock that goes back gives samples from before the run; what it missed then is none.
                if start > 0 and not _is_hidden(hidden, number, start):
                    results.append(Raised(asset, key.split(".")[1], float(start), float(end)))
    return sorted(results, key=lambda raised: raised.start_s)


def _newest(frames: list[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
    whole = whole.unique(["asset", "at_us"], keep="last", maintain_order=True)
    return whole.filter(pl.col("status") != st.RETRACTED).sort("asset", "at_us")


def _is_hidden(hidden: pl.DataFrame, asset: int, start_s: float) -> bool:
    at_us = START_US + int(start_s * SECOND)
    held = hidden.filter(pl.col("asset") == asset, pl.col("at_us") <= at_us).tail(1)
    return bool(held.height and held["value"][0] == 1.0)
