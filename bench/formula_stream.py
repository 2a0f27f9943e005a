"""Formulas as samples come: 2,000 assets with 10 formulas each, five inputs a second, on one core.

The peer evaluates the same formulas each second with plain Polars over the windows, as one would write it
without a stream. Prints one JSON line; ``real_time`` is seconds of input worked off in a second.

    POLARS_MAX_THREADS=1 taskset -c 0 python bench/formula_stream.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl

from headrace.formula.bound import Bound
from headrace.formula.check import Quantity, compile_formula
from headrace.formula.steps import Constant
from headrace.formula.stream import Stream
from headrace.model.calendar import PlantCalendar, Shift
from headrace.model.sample import make_batch

US = 1_000_000
START_US = 1_767_247_200 * US  # a full hour in which a shift begins
INPUTS = {"flow": "m3/h", "power": "kW", "temperature": "Cel", "vibration": "mm/s", "counter": "1"}
FORMULAS = (
    "power / flow -> kW.h/m3",
    "power / rated -> %",
    "temperature > 80 degC or vibration > 7 mm/s",
    "temperature > 80 degC for 5 min",
    "mean(flow, 1 min)",
    "mean(power, 15 min)",
    "max(temperature, 5 min)",
    "slope(vibration, 5 min)",
    "integral(power) per hour",
    "delta(counter, rollover 65536) per shift",
)
CALENDAR = PlantCalendar(
    time_zone="UTC",
    shifts=tuple(
        Shift(name=name, start=start, end=end)
        for name, start, end in (
            ("early", "06:00", "14:00"),
            ("late", "14:00", "22:00"),
            ("night", "22:00", "06:00"),
        )
    ),
)


def bounds_of(assets: int) -> list[Bound]:
    names = {name: Quantity(unit=unit) for name, unit in INPUTS.items()}
    names["rated"] = Quantity(unit="kW", constant=True)
    paths = tuple(f"mill/pump_{at}" for at in range(assets))
    made = []
    for at, text in enumerate(FORMULAS):
        plan = compile_formula(text, names, calendar=CALENDAR, calendar_names=CALENDAR.names())
        inputs = {
            name: 1 + 10 * np.arange(assets) + list(INPUTS).index(name)
            for name in plan.inputs
            if name != "rated"
        }
        attributes = {"rated": Constant(np.full(assets, 30.0))} if "rated" in plan.inputs else {}
        outputs = 1_000_000 * (1 + at) + np.arange(assets)
        made.append(Bound(f"pump.f{at}", "formula", plan, paths, inputs, outputs, attributes))
    return made


class Plant:
    """Walks of all inputs of all assets, one sample a second, each asset at its own time in the second."""

    def __init__(self, assets: int) -> None:
        self._generator = np.random.default_rng(7)
        self._phase = np.sort(self._generator.integers(0, US, assets))
        self._tag = (1 + 10 * np.arange(assets)[:, None] + np.arange(len(INPUTS))).ravel()
        self._value = np.tile([40.0, 20.0, 79.0, 5.0, 0.0], (assets, 1))

    def second(self, second: int, ticks: int) -> Iterator[pl.DataFrame]:
        step = self._generator.normal(0, [0.1, 0.1, 0.3, 0.1, 0.0], self._value.shape)
        step[:, 4] = self._generator.integers(0, 3, len(self._value))
        self._value = np.round(self._value + step, 2)
        self._value[:, 4] %= 65536
        at_us = START_US + second * US + self._phase
        tick = self._phase * ticks // US
        for part in range(ticks):
            mine = np.flatnonzero(tick == part)
            width = len(INPUTS)
            yield make_batch(
                self._tag.reshape(-1, width)[mine].ravel(),
                np.repeat(at_us[mine], width),
                self._value[mine].ravel(),
                received_timestamp_us=START_US + second * US,
            )


def run(stream: Stream, plant: Plant, seconds: range, ticks: int) -> tuple[list[float], int]:
    """Seconds that each advance took with its put, and how many results there were."""
    took, results = [], 0
    for second in seconds:
        for part, batch in enumerate(plant.second(second, ticks)):
            start = time.process_time()
            stream.put(batch)
            found = stream.advance(START_US + second * US + (part + 1) * US // ticks)
            took.append(time.process_time() - start)
            results += sum(frame.height for _, frame in found.results)
    return took, results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=int, default=2000)
    parser.add_argument("--warm-s", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--ticks", type=int, default=5)
    given = parser.parse_args()
    stream = Stream(bounds_of(given.assets), CALENDAR)
    plant = Plant(given.assets)
    run(stream, plant, range(given.warm_s), 1)
    took, results = run(
        stream, plant, range(given.warm_s, given.warm_s + given.seconds), given.ticks
    )
    real_time = given.seconds / sum(took)
    print(
        json.dumps(
            {
                "bench": "formula_stream",
                "assets": given.assets,
                "formulas": len(FORMULAS),
                "results_per_s": round(results / given.seconds),
                "real_time": round(real_time, 2),
                "advance_ms_p50": round(float(np.quantile(took, 0.5)) * 1e3, 1),
                "advance_ms_p99": round(float(np.quantile(took, 0.99)) * 1e3, 1),
                "advance_ms_max": round(max(took) * 1e3, 1),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
