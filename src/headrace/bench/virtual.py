"""The virtual site without protocols: the simulated works, its faults, and what an edge would store.

The samples are those that the connectors of the demo's devices give: as its devices round them, with the
marks of a lost device, each second. :mod:`headrace.sim.role` is the same with real protocol servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.bench.ground import SITE_FILE, Ground
from headrace.bench.laying import ids_of, load_files
from headrace.bench.scenario import Fault, Scenario
from headrace.model import status as st
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import concat_batches, make_batch
from headrace.model.time import US_PER_S, to_us
from headrace.sim.demo import TAG_FILE, site_text, tags_csv
from headrace.sim.demo_devices import DemoTag, demo_devices
from headrace.sim.emulators import Value
from headrace.sim.faults import Faults
from headrace.sim.plant.plant import Plant
from headrace.site.knowledge import apps_config

STEP_S: Final = 1.0
_PORT: Final = 1024


class DemoSite(NamedTuple):
    """The demo's site: its files, what its own formulas are, and path -> tag_id."""

    files: dict[str, bytes]
    config: AppsConfig
    ids: dict[str, int]


@cache
def demo_site() -> DemoSite:
    """The demo's own site file, as ``headrace up --demo`` writes it."""
    devices = demo_devices(Plant(1))
    ports = {device.name: _PORT + n for n, device in enumerate(devices)}
    files = {
        TAG_FILE: tags_csv(devices).encode(),
        SITE_FILE: site_text(Plant(1), devices, ports).encode(),
    }
    model = load_files(files)
    ids = ids_of(model)
    return DemoSite(files, apps_config(model, ids, {}), ids)


@dataclass(slots=True)
class _Rows:
    """Samples of one tag."""

    at_us: list[int] = field(default_factory=list)
    received_us: list[int] = field(default_factory=list)
    value: list[Value] = field(default_factory=list)
    status: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Device:
    """A device whose samples come each second, as an edge stores them."""

    protocol: str
    tags: Sequence[DemoTag]
    ids: dict[str, int]
    off: bool = False
    was_off: bool = False
    delay_s: float = 0.0
    offset_us: int = 0
    rows: dict[int, _Rows] = field(default_factory=dict)

    def set_off(self, off: bool) -> None:
        self.off = off

    def set_delay(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def set_clock_offset(self, offset_us: int) -> None:
        # A Modbus device tells no time: its samples have that of the edge.
        self.offset_us = 0 if self.protocol == "modbus" else offset_us

    def read(self, second: int, at_us: int, values: dict[str, Value]) -> None:
        """What the edge gets in this second."""
        if self.off:
            if not self.was_off and self.protocol != "mqtt":
                self._mark(at_us)
            self.was_off = True
            return
        self.was_off = False
        # A question to it waits for the answer before: the slower, the fewer samples.
        if second % (1 + int(2 * self.delay_s)):
            return
        for tag in self.tags:
            if tag.path in values:
                raw = tag.raw(values[tag.path])
                value = raw * tag.scale if isinstance(raw, int | float) else raw
                self._add(tag, at_us + self.offset_us, at_us, value, st.GOOD)

    def _mark(self, at_us: int) -> None:
        """What the edge writes into history of a lost device (ADR 0007)."""
        lost = self.protocol == "sparkplug"
        status = st.UNCERTAIN_LAST_USABLE_VALUE if lost else st.BAD_NO_COMMUNICATION
        for tag in self.tags:
            rows = self.rows.get(self.ids.get(tag.path, 0))
            if rows is not None:
                self._add(tag, at_us, at_us, rows.value[-1], status)

    def _add(self, tag: DemoTag, at_us: int, now_us: int, value: Value, status: int) -> None:
        tag_id = self.ids.get(tag.path)
        if tag_id is not None:
            rows = self.rows.setdefault(tag_id, _Rows())
            rows.at_us.append(at_us)
            rows.received_us.append(now_us + round(self.delay_s * US_PER_S))
            rows.value.append(value)
            rows.status.append(status)

    def batches(self) -> list[pl.DataFrame]:
        """All that came."""
        return [_batch(tag_id, rows) for tag_id, rows in self.rows.items()]


def _batch(tag_id: int, rows: _Rows) -> pl.DataFrame:
    status = np.array(rows.status, np.uint32)
    is_text = any(isinstance(each, str) for each in rows.value)
    number = (
        np.zeros(len(rows.value))
        if is_text
        else np.array([float(each) for each in rows.value], np.float64)
    )
    return make_batch(
        np.full(len(number), tag_id, np.int64),
        np.array(rows.at_us, np.int64),
        number,
        status=status,
        text=[
            None if code >= st.BAD else str(v)
            for v, code in zip(rows.value, rows.status, strict=True)
        ]
        if is_text
        else None,
        received_timestamp_us=np.array(rows.received_us, np.int64),
        value_is_null=(status >= st.BAD) | is_text,
    )


def start_of(scenario: Scenario) -> int:
    """UTC microseconds of the first second of the virtual site.

    Raises:
        Misconfigured: APPS-2404 when it is no time with a zone.
    """
    text = scenario.source.start
    try:
        return to_us(datetime.fromisoformat(text))
    except (ValueError, AssertionError) as error:
        raise Misconfigured(
            "APPS-2404",
            f"scenario {scenario.name}: source.start is {text!r}",
            "Write it as 2026-06-01T06:00:00Z.",
        ) from error


def virtual_ground(scenario: Scenario) -> Ground:
    """Run the simulated works with the scenario's faults.

    Raises:
        Misconfigured: APPS-2404 as of :func:`start_of`; SIM-1010 to SIM-1012 when a fault cannot be.
    """
    source, site, start_us = scenario.source, demo_site(), start_of(scenario)
    read = {tag_id for asset in site.config.assets for tag_id in asset.tags.values()}
    ids = {path: tag_id for path, tag_id in site.ids.items() if tag_id in read}
    plant = Plant(source.seed)
    devices = {each.name: _Device(each.protocol, each.tags, ids) for each in demo_devices(plant)}
    faults = Faults(plant, devices)
    seconds = round(source.duration_s)
    for second in range(1, seconds + 1):
        _switch(faults, scenario.fault, second)
        at_us = start_us + second * US_PER_S
        faults.before_step(STEP_S)
        values = faults.after_step(plant.step(STEP_S, at_us))
        for device in devices.values():
            device.read(second, at_us, values)
    samples = concat_batches([batch for each in devices.values() for batch in each.batches()])
    samples = samples.sort("received_timestamp", "source_timestamp", "tag_id", maintain_order=True)
    end_us = start_us + seconds * US_PER_S
    kinds = {tag.path: tag.data_type for each in devices.values() for tag in each.tags}
    return Ground(site.config, site.files, site.ids, samples, start_us, end_us, kinds=kinds)


def _switch(faults: Faults, script: Sequence[Fault], second: int) -> None:
    for each in script:
        if each.at_s <= second < each.at_s + 1:
            faults.start(each.name, each.target, each.parameters)
        elif each.until_s and each.until_s <= second < each.until_s + 1:
            acts = any((f.name, f.target) == (each.name, each.target) for f in faults.active)
            if acts:
                faults.stop(each.name, each.target)
