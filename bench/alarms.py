"""10,000 alarms at 1 Hz: results of their conditions to transitions in the journal on disk, in one process.

``--definitions`` alarms of their own on ``--assets`` assets each; every second every condition has a
result, and every half of them one of what ends it. Some alarms come and go, so many a minute as a plant
that is badly kept has (``--changes``). The stream that evaluates the conditions has a bench of its own
(``formula_stream.py``). Ours is the CPU time a second of input takes, as a share of one core; the peer is the
same decision in plain Python, one object a result, as alarm servers written by hand do it, without a
journal. Prints one JSON line.

    python bench/alarms.py
    python bench/alarms.py --definitions 100 --assets 100
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from headrace.alarms.runtime import AlarmRuntime
from headrace.alarms.store import AlarmStore
from headrace.formula.binding import bind
from headrace.formula.bound import Bound
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.time import US_PER_S, ManualClock

START_US = 1_700_000_000 * US_PER_S
Results = list[tuple[Bound, pl.DataFrame]]


def config_of(definitions: int, assets: int) -> AppsConfig:
    """Alarms with and without an end of their own, on assets of one type."""
    kind = AssetTypeConfig(name="pump", quantities={"x": "kW"})
    pumps = [AssetConfig(path=f"hall/p{n}", type="pump", tags={"x": n + 1}) for n in range(assets)]
    texts = [
        f"alarm a{n}: x > {80 + n / 100} kW{', off below 75 kW' if n % 2 else ''}, priority high"
        for n in range(definitions)
    ]
    formulas = [
        FormulaConfig(asset_type="pump", name=f"a{n}", kind="alarm", text=text)
        for n, text in enumerate(texts)
    ]
    return AppsConfig(
        enterprise="bench",
        site="alarms",
        types=(kind,),
        assets=tuple(pumps),
        formulas=tuple(formulas),
    )


def seconds_of(
    bounds: tuple[Bound, ...], assets: int, seconds: int, changes: float
) -> Iterator[tuple[int, Results]]:
    """(time up to which results are known, the results) of each second."""
    generator = np.random.default_rng(1)
    on = {bound.key: np.zeros(assets) for bound in bounds if bound.role == "alarm"}
    share = changes / 60 / (len(on) * assets)
    text = pl.Series([None] * assets, dtype=pl.String)
    status = np.zeros(assets, np.uint32)
    numbers = np.arange(assets)
    for second in range(seconds):
        at_us = np.full(assets, START_US + second * US_PER_S)
        results: Results = []
        for value in on.values():
            flips = generator.random(assets) < share
            value[flips] = 1.0 - value[flips]
        for bound in bounds:
            value = on[bound.key.partition("/")[0]]
            value = value if bound.role == "alarm" else 1.0 - value
            columns = {"asset": numbers, "at_us": at_us, "value": value.copy()}
            frame = pl.DataFrame(columns | {"text": text, "status": status})
            results.append((bound, frame))
        yield START_US + (second + 1) * US_PER_S, results


def ours(
    config: AppsConfig, bounds: tuple[Bound, ...], assets: int, args: argparse.Namespace
) -> dict[str, float]:
    """CPU seconds a second of results, and what came out."""
    with tempfile.TemporaryDirectory() as place:
        store = AlarmStore(DataFolder(Path(place)))
        clock = ManualClock(START_US)
        runtime = AlarmRuntime(store, clock)
        runtime.bind(bounds, config.formulas)
        used, slowest_s = 0.0, 0.0
        for up_to_us, results in seconds_of(bounds, assets, args.seconds, args.changes):
            clock.advance_us(US_PER_S)
            begun, begun_s = time.process_time(), time.perf_counter()
            runtime.take(results, up_to_us)
            used += time.process_time() - begun
            slowest_s = max(slowest_s, time.perf_counter() - begun_s)
        lines = store.last_number()
        store.close()
    return {"cpu": used / args.seconds, "slowest_ms": slowest_s * 1000, "transitions": lines}


def peer(bounds: tuple[Bound, ...], assets: int, args: argparse.Namespace) -> float:
    """CPU seconds a second of results, decided one by one."""
    states: dict[tuple[str, int], bool] = {}
    used, told = 0.0, 0
    for _, results in seconds_of(bounds, assets, args.seconds, args.changes):
        begun = time.process_time()
        ends = {
            (bound.key.partition("/")[0], row["asset"]): row["value"] == 1.0
            for bound, frame in results
            if bound.role == "alarm_off"
            for row in frame.iter_rows(named=True)
        }
        for bound, frame in results:
            if bound.role != "alarm":
                continue
            for row in frame.iter_rows(named=True):
                key = (bound.key, row["asset"])
                active = states.get(key, False)
                if row["status"] >= 0x8000_0000:
                    continue
                now = row["value"] == 1.0 or (active and not ends.get(key, True))
                told += now != active
                states[key] = now
        used += time.process_time() - begun
    return used / args.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--definitions", type=int, default=10_000)
    parser.add_argument("--assets", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--changes", type=float, default=600.0, help="A minute, of all alarms.")
    args = parser.parse_args()
    config = config_of(args.definitions, args.assets)
    bounds = bind(config).bound
    found = ours(config, bounds, args.assets, args)
    other = peer(bounds, args.assets, args)
    print(
        json.dumps(
            {
                "name": "alarms",
                "unit": "share of a core at 1 Hz",
                "ours": round(found["cpu"], 3),
                "peer": {"plain Python, no journal": round(other, 3)},
                "ratio": round(found["cpu"] / other, 2),
                "definitions": args.definitions,
                "alarms": args.definitions * args.assets,
                "transitions": int(found["transitions"]),
                "slowest_ms": round(found["slowest_ms"], 1),
                "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )


if __name__ == "__main__":
    main()
