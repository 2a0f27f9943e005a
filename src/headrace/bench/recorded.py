"""A recording as a site: its columns are quantities of assets that the scenario names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from headrace.bench.ground import SITE_FILE, Ground, Span
from headrace.bench.laying import ids_of, load_files
from headrace.bench.scenario import RecordedAsset, Scenario
from headrace.model.errors import Misconfigured
from headrace.model.sample import concat_batches, make_batch, microseconds
from headrace.model.time import US_PER_S
from headrace.sim.replay.loader import TIME, LoadOptions, Recording, load
from headrace.site.knowledge import apps_config

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
    files = {SITE_FILE: site_of(scenario.asset).encode()}
    model = load_files(files)
    ids = ids_of(model)
    batches, labels = [], dict[str, tuple[Span, ...]]()
    for each in scenario.asset:
        rows = frame if not each.key else frame.filter(keys == each.key)
        if not rows.height:
            raise _unfit(scenario, f"no rows of {each.key!r}")
        for name, column in each.quantities.items():
            batches.append(_samples(rows, column.column, ids[f"{each.path}/{name}"], scenario))
        if source.label:
            labels[each.path] = _spans(rows, source.label)
    samples = concat_batches(batches)
    if samples.height > ROWS_MAX:
        raise _unfit(scenario, f"{samples.height} samples; at most {ROWS_MAX}")
    at_us = microseconds(frame[TIME])
    return Ground(
        config=apps_config(model, ids, {}),
        files=files,
        ids=ids,
        samples=samples.sort("received_timestamp", "tag_id", maintain_order=True),
        start_us=int(at_us[0]),
        end_us=int(at_us[-1]) + 1,
        labels=labels,
        notes=recording.notes,
        sha256=recording.sha256,
    )


def site_of(assets: Sequence[RecordedAsset]) -> str:
    """The site file of a recording."""
    lines = ["[site]", 'enterprise = "bench"', 'name = "recording"', 'time_zone = "UTC"']
    lines += ["", "[connection.recording]", 'protocol = "mqtt"', 'endpoint = "broker"']
    types: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for each in assets:
        quantities, attributes = types.setdefault(each.type, ({}, {}))
        quantities.update({name: column.unit for name, column in each.quantities.items()})
        for name, value in each.attributes.items():
            attributes[name] = "text" if isinstance(value, str) else each.units.get(name, "")
    for kind, tables in types.items():
        lines += ["", f"[asset_type.{kind}]"]
        for word, table in zip(("quantities", "attributes"), tables, strict=True):
            lines.append(f"{word} = {_literal(table)}")
    for each in assets:
        lines += ["", f"[asset.{_literal(each.path)}]", f'type = "{each.type}"']
        if each.attributes:
            lines.append(f"attributes = {_literal(each.attributes)}")
        for name, column in each.quantities.items():
            path = f"{each.path}/{name}"
            lines += ["", "[[tag]]", f"path = {_literal(path)}", 'connection = "recording"']
            lines += [f"address = {_literal(f'{path}#/value')}"]
            if column.unit not in ("", "1", "text", "condition"):
                lines.append(f"unit = {_literal(column.unit)}")
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {_literal(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value, ensure_ascii=False)


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
