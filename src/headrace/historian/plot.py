"""A picture of trends: one panel a unit, every minimum and maximum, gaps as gaps, Bad quality shaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from headrace.model.errors import Misconfigured
from headrace.model.sample import TIMESTAMP

COLOURS: Final = ("#0b6fb8", "#d9480f", "#2b8a3e", "#862e9c", "#c92a2a", "#0c8599", "#a67c00")
BAD_COLOUR: Final = "#e03131"
INK: Final = "#343a40"
GAP_FACTOR: Final = 4.0
PANELS_MAX: Final = 8


@dataclass(frozen=True)
class Trend:
    """One tag to draw. ``buckets`` as :meth:`headrace.historian.reader.Reader.downsample` gives."""

    label: str
    unit: str
    buckets: pl.DataFrame


def plot(
    trends: Sequence[Trend], start_us: int, end_us: int, path: Path, zone: tzinfo, title: str = ""
) -> None:
    """Draw the trends to a PNG file.

    Args:
        start_us, end_us: the time axis, UTC microseconds; labelled in ``zone``.
        path: of the picture; replaced when it is there.

    Raises:
        Misconfigured: HIST-1080 when matplotlib is not installed, HIST-1081 when the tags have more
            than 8 units.
    """
    panels: dict[str, list[Trend]] = {}
    for trend in trends:
        panels.setdefault(trend.unit, []).append(trend)
    if len(panels) > PANELS_MAX:
        raise Misconfigured(
            "HIST-1081",
            f"the tags have {len(panels)} different units, more than {PANELS_MAX} panels",
            "Plot fewer tags at once.",
        )
    figure = new_figure(1.3 + 2.9 * max(len(panels), 1), title)
    axes = figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (unit, group) in zip(axes, panels.items(), strict=False):
        for number, trend in enumerate(group):
            _draw(axis, trend, COLOURS[number % len(COLOURS)])
        dress(axis, unit)
    figure.align_ylabels(axes)
    time_axis(axes[-1], start_us, end_us, zone)
    figure.savefig(path, facecolor="white")


def new_figure(height: float, title: str) -> Any:
    """A figure of the house's look, ``height`` inches high, that needs no screen.

    Raises:
        Misconfigured: HIST-1080 when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Misconfigured(
            "HIST-1080", "matplotlib is not installed", "Run: pip install 'headrace[plot]'"
        ) from error
    figure = Figure(figsize=(12, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK, weight="semibold")
    return figure


def _draw(axis: Any, trend: Trend, colour: str) -> None:
    points = _points(trend.buckets)
    marker = "." if trend.buckets.height < 60 else None
    axis.plot(
        points["at"].to_numpy(),
        points["value"].to_numpy(),
        color=colour,
        linewidth=1.0,
        marker=marker,
        label=trend.label,
        solid_joinstyle="round",
    )
    for begin, end in _bad_spans(trend.buckets):
        axis.axvspan(begin, end, color=BAD_COLOUR, alpha=0.12, linewidth=0)


def _spacing_us(buckets: pl.DataFrame) -> float:
    """The usual distance of two buckets, us."""
    steps = np.diff(buckets["bucket_start"].to_physical().to_numpy())
    return float(np.median(steps)) if len(steps) else 0.0


def _points(buckets: pl.DataFrame) -> pl.DataFrame:
    """Minimum and maximum of each bucket in their own order of time; nothing across a gap."""
    nothing = pl.lit(None, pl.Float64)
    low = buckets.select(at=pl.col("minimum_timestamp"), value="minimum")
    high = buckets.select(at=pl.col("maximum_timestamp"), value="maximum")
    no_number = buckets.filter(pl.col("minimum").is_null())
    at_us = buckets["bucket_start"].to_physical().to_numpy()
    wide = np.flatnonzero(np.diff(at_us) > GAP_FACTOR * max(_spacing_us(buckets), 1.0))
    holes = pl.DataFrame({"at": pl.Series(at_us[wide + 1] - 1, dtype=pl.Int64)})
    parts = [
        low.filter(pl.col("at").is_not_null()),
        high.filter(pl.col("at").is_not_null()),
        no_number.select(at=pl.col("bucket_start"), value=nothing),
        holes.select(at=pl.col("at").cast(TIMESTAMP), value=nothing),
    ]
    return pl.concat(parts).sort("at")


def _bad_spans(buckets: pl.DataFrame) -> list[tuple[np.datetime64, np.datetime64]]:
    """Times in which there are Bad samples, joined where they follow each other."""
    bad = (buckets["bad"] > 0).to_numpy()
    at_us = buckets["bucket_start"].to_physical().to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(np.int8), [0]])))
    width = max(int(_spacing_us(buckets)), 1)
    return [
        (np.datetime64(int(at_us[begin]), "us"), np.datetime64(int(at_us[end - 1]) + width, "us"))
        for begin, end in edges.reshape(-1, 2)
    ]


def dress(axis: Any, unit: str) -> None:
    """The house's look for one panel."""
    axis.set_ylabel(unit or "value", color=INK)
    axis.grid(True, color="#e9ecef", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0, y=0.12)
    axis.tick_params(colors=INK, labelsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#adb5bd")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9,
            labelcolor=INK, borderaxespad=0.2,
        )  # fmt: skip


def time_axis(axis: Any, start_us: int, end_us: int, zone: tzinfo) -> None:
    """Times below a panel, from start to end."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=zone, minticks=5, maxticks=10)  # type: ignore[no-untyped-call] # theirs
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call] # theirs
    axis.set_xlim(np.datetime64(start_us, "us"), np.datetime64(end_us, "us"))
    at_end = datetime.fromtimestamp(end_us / 1e6, tz=zone)
    axis.set_xlabel(f"time ({at_end.tzname()})", color=INK, fontsize=9)
