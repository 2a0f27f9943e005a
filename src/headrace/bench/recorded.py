"""A recording as a site: its columns are quantities of assets that the scenario names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from headrace.bench.ground import Ground, Span
from headrace.bench.scenario import RecordedAsset, Scenario
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig
from headrace.model.sample import concat_batches, make_batch, microseconds
from headrace.model.time import US_PER_S
from headrace.sim.replay.loader import TIME, LoadOptions, Recording, load

ROWS_MAX: Final = 20_000_000


def recorded_ground(scenario: Scenario, path: Path) -> Ground:
    """Lay a recording out as samples of assets.

    Args:
        path: of the recording.

    Raises:
        Misconfigured: APPS-2406 when a column or key is not in it or is no number, or it is too long;
            SIM-11xx when it cannot be read.
    """
    source = scenario.source
    recording = load(
        path,
        LoadOptions(
            time_column=source.time_column,
            time_format=source.time_format,
            time_zone=source.time_zone,
            key_column=source.key_column,
            interval_us=round(source.interval_s * US_PER_S),
        ),
    )
    frame, keys = _cut(recording, scenario)
    _check(scenario, recording)
    assets, batches, labels, next_id = [], [], dict[str, tuple[Span, ...]](), 1
    for each in scenario.asset:
        rows = frame if not each.key else frame.filter(keys == each.key)
        if not rows.height:
            raise _unfit(scenario, f"no rows of {each.key!r}")
        tags: dict[str, int] = {}
        for name, column in each.quantities.items():
            tags[name] = next_id
            batches.append(_samples(rows, column.column, next_id, scenario))
            next_id += 1
        assets.append(
            AssetConfig(path=each.path, type=each.type, tags=tags, attributes=each.attributes)
        )
        if source.label:
            labels[each.path] = _spans(rows, source.label)
    samples = concat_batches(batches)
    if samples.height > ROWS_MAX:
        raise _unfit(scenario, f"{samples.height} samples; at most {ROWS_MAX}")
    samples = samples.sort("received_timestamp", "tag_id", maintain_order=True)
    at_us = microseconds(frame[TIME])
    return Ground(
        config=AppsConfig(
            enterprise="bench", site="recording", types=_types(scenario.asset), assets=tuple(assets)
        ),
        samples=samples,
        start_us=int(at_us[0]),
        end_us=int(at_us[-1]) + 1,
        labels=labels,
        notes=recording.notes,
        sha256=recording.sha256,
    )


def _cut(recording: Recording, scenario: Scenario) -> tuple[pl.DataFrame, pl.Series]:
    """The rows that the scenario takes."""
    source, frame = scenario.source, recording.frame
    keys = recording.keys
    if keys is None:
        keys = pl.Series("key", [""], dtype=pl.String).new_from_index(0, frame.height)
    frame, keys = frame[source.skip_rows :], keys[source.skip_rows :]
    if not frame.height:
        raise _unfit(scenario, f"it has no row after the first {source.skip_rows}")
    if source.duration_s:
        at_us = microseconds(frame[TIME])
        count = int(np.searchsorted(at_us, at_us[0] + round(source.duration_s * US_PER_S), "right"))
        frame, keys = frame[:count], keys[:count]
    return frame, keys


def _check(scenario: Scenario, recording: Recording) -> None:
    types = {column.name: column.data_type for column in recording.columns}
    wanted = [c.column for each in scenario.asset for c in each.quantities.values()]
    if scenario.source.label:
        wanted.append(scenario.source.label)
    for name in wanted:
        if name not in types:
            raise _unfit(scenario, f"it has no column {name!r}, but {', '.join(sorted(types))}")


def _unfit(scenario: Scenario, what: str) -> Misconfigured:
    return Misconfigured(
        "APPS-2406",
        f"the recording {scenario.source.file} does not fit scenario {scenario.name}: {what}",
        "Correct the scenario's [source] and [[asset]].",
    )


def _types(assets: list[RecordedAsset]) -> tuple[AssetTypeConfig, ...]:
    found: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for each in assets:
        quantities, attributes = found.setdefault(each.type, ({}, {}))
        quantities.update({name: column.unit for name, column in each.quantities.items()})
        texts = {name: "text" for name, v in each.attributes.items() if isinstance(v, str)}
        attributes.update({**dict.fromkeys(each.attributes, ""), **texts})
    return tuple(
        AssetTypeConfig(name=name, quantities=quantities, attributes=attributes)
        for name, (quantities, attributes) in found.items()
    )


def _samples(rows: pl.DataFrame, name: str, tag_id: int, scenario: Scenario) -> pl.DataFrame:
    kept = rows.select(TIME, name).drop_nulls()
    at_us = microseconds(kept[TIME])
    is_text = kept.schema[name] == pl.String
    if not kept.height:
        raise _unfit(scenario, f"its column {name!r} is empty")
    value = np.zeros(kept.height) if is_text else kept[name].cast(pl.Float64).to_numpy()
    return make_batch(
        np.full(kept.height, tag_id, np.int64),
        at_us,
        value,
        text=kept[name] if is_text else None,
        value_is_null=np.full(kept.height, is_text),
        received_timestamp_us=at_us,
    )


def _spans(rows: pl.DataFrame, label: str) -> tuple[Span, ...]:
    """``[from, to)`` in which the label is above 0, until the next row that is not."""
    at_us = microseconds(rows[TIME])
    wrong = rows[label].cast(pl.Float64).fill_null(0.0).to_numpy() > 0
    edges = np.flatnonzero(np.diff(np.r_[False, wrong, False].astype(np.int8)))
    ends = np.r_[at_us, at_us[-1] + 1]
    return tuple((int(at_us[a]), int(ends[b])) for a, b in edges.reshape(-1, 2))
