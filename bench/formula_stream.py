"""Formulas as samples come: 2,000 assets with 10 formulas each, five inputs a second, on one core.

In the measured time the panes of all windows end once, where most is to do. The peer keeps the samples of
the run in one Polars frame, a row for each asset and second, and each second works out the ten formulas for
the newest row of each asset by plain expressions over the windows: without statuses, late samples or inputs
of different times. Prints one JSON line: seconds of input worked off in a CPU second, and the CPU time of an
advance with its put.

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
START_US = 1_767_247_940 * US  # 06:12:20; with the time before it is measured from 06:29
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


def warm(stream: Stream, plant: Plant, seconds: int) -> None:
    """Fill the windows, ten seconds at once."""
    for second in range(seconds):
        for batch in plant.second(second, 1):
            stream.put(batch)
        if second % 10 == 9:
            stream.advance(START_US + (second + 1) * US)


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


class Peer:
    """The same by plain Polars over the windows."""

    def __init__(self, assets: int) -> None:
        self._rows = pl.DataFrame()
        self._asset = np.arange(assets)

    def keep(self, batches: list[pl.DataFrame]) -> None:
        """A second more."""
        batch = pl.concat(batches)
        wide = batch["value"].to_numpy().reshape(-1, len(INPUTS))
        at_us = batch["source_timestamp"].to_physical().gather_every(len(INPUTS))
        columns = {name: wide[:, at] for at, name in enumerate(INPUTS)}
        second = pl.DataFrame({"asset": self._asset, "at": at_us, **columns})
        self._rows = pl.concat([self._rows, second])

    def results(self) -> pl.DataFrame:
        """The ten formulas at the newest row of each asset."""
        newest = self._rows.tail(len(self._asset))
        now = int(newest["at"].max())  # type: ignore[arg-type] # a number
        rows = self._rows
        last = newest.select(
            "asset",
            (pl.col("power") / pl.col("flow")).alias("specific"),
            (pl.col("power") / 30.0 * 100).alias("load"),
            ((pl.col("temperature") > 80) | (pl.col("vibration") > 7)).alias("warn"),
        )
        seconds = pl.col("at").cast(pl.Float64) / US
        long = rows.filter(pl.col("at") > now - 900 * US)
        made = [
            long.group_by("asset").agg(pl.col("power").mean().alias("mean_15")),
            rows.filter(pl.col("at") > now - 60 * US)
            .group_by("asset")
            .agg(pl.col("flow").mean().alias("mean_1")),
            rows.filter(pl.col("at") > now - 300 * US)
            .group_by("asset")
            .agg(
                pl.col("temperature").max().alias("max_5"),
                (pl.col("temperature") > 80).all().alias("hot"),
                (pl.cov(seconds, pl.col("vibration")) / seconds.var()).alias("slope_5"),
            ),
            rows.group_by("asset").agg(
                pl.col("power").sum().alias("energy"),
                pl.col("counter").diff().clip(0).sum().alias("counted"),
            ),
        ]
        for each in made:
            last = last.join(each, on="asset")
        return last


def run_peer(assets: int, warm_s: int, seconds: int) -> float:
    """CPU seconds for a second of input."""
    peer, plant = Peer(assets), Plant(assets)
    for second in range(warm_s):
        peer.keep(list(plant.second(second, 1)))
    took = 0.0
    for second in range(warm_s, warm_s + seconds):
        batches = list(plant.second(second, 1))
        start = time.process_time()
        peer.keep(batches)
        assert peer.results().height == assets
        took += time.process_time() - start
    return took / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=int, default=2000)
    parser.add_argument("--warm-s", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--ticks", type=int, default=5)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    stream = Stream(bounds_of(given.assets), CALENDAR)
    plant = Plant(given.assets)
    warm(stream, plant, given.warm_s)
    took, results = run(
        stream, plant, range(given.warm_s, given.warm_s + given.seconds), given.ticks
    )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    ours = given.seconds / sum(took)
    peer = 1 / run_peer(given.assets, given.warm_s, min(given.seconds, 10))
    line = {
        "name": "formula_stream",
        "unit": "seconds of input in a CPU second",
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "ratio": round(ours / peer, 2),
        "advance_ms": {
            share: round(float(np.quantile(took, at)) * 1e3, 1)
            for share, at in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "results_per_s": round(results / given.seconds),
        "assets": given.assets,
        "formulas": len(FORMULAS),
        "seconds": given.seconds,
        "peak_mb": peak_mb,
        "load_before": round(load, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
