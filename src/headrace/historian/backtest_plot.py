"""A picture of a back-test: when it would have come on which asset, and how that moves with the limit."""

from __future__ import annotations

from datetime import tzinfo
from pathlib import Path
from typing import Any, Final

import numpy as np

from headrace.historian.backtest import Outcome
from headrace.historian.plot import BAD_COLOUR, COLOURS, INK, dress, new_figure, time_axis

ASSETS_MAX: Final = 30


def plot_backtest(outcome: Outcome, path: Path, zone: tzinfo, title: str = "") -> None:
    """Draw a back-test to a PNG file.

    Args:
        zone: of the time axis.
        path: of the picture; replaced when it is there.

    Raises:
        Misconfigured: HIST-1080 when matplotlib is not installed.
    """
    shown = outcome.assets[:ASSETS_MAX]
    panels = 2 if outcome.points else 1
    height = 1.6 + 0.28 * len(shown) + 3.2 * (panels - 1)
    figure = new_figure(height, title or outcome.text)
    heights = [1.2 + 0.28 * len(shown), 3.2][:panels]
    axes = figure.subplots(panels, 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    _episodes(axes[0], outcome, shown)
    time_axis(axes[0], outcome.start_us, outcome.end_us, zone)
    if outcome.points:
        _sweep(axes[1], outcome)
    figure.savefig(path, facecolor="white")


def _episodes(axis: Any, outcome: Outcome, shown: tuple[str, ...]) -> None:
    row_of = {asset: row for row, asset in enumerate(reversed(shown))}
    for each in outcome.episodes:
        if each.asset not in row_of:
            continue
        end_us = outcome.end_us if each.end_us is None else each.end_us
        axis.barh(
            row_of[each.asset],
            np.timedelta64(end_us - each.start_us, "us"),
            left=np.datetime64(each.start_us, "us"),
            height=0.6,
            color="#adb5bd" if each.suppressed else COLOURS[1],
            edgecolor="none" if each.suppressed else COLOURS[1],  # a short one is seen by its edge
        )
    met = outcome.tally.met
    for result in met.events if met else ():
        colour = BAD_COLOUR if result.lead_s is None else COLOURS[2]
        at = np.datetime64(result.mark.at_us, "us")
        axis.axvline(at, color=colour, linewidth=1.2, linestyle="--")
    dress(axis, "")
    axis.set_ylabel("")
    axis.set_yticks(range(len(shown)), list(reversed(shown)))
    axis.set_ylim(-0.6, len(shown) - 0.4)


def _sweep(axis: Any, outcome: Outcome) -> None:
    """Number of episodes, marked events and hours against the limit."""
    values = [point.value for point in outcome.points]
    tallies = [point.tally for point in outcome.points]
    axis.plot(values, [t.count for t in tallies], marker=".", color=COLOURS[0], label="episodes")
    met = [tally.met for tally in tallies if tally.met is not None]
    if met:
        axis.plot(values, [m.hits for m in met], marker=".", color=COLOURS[2], label="events met")
        false_alarms = [m.false_alarms for m in met]
        axis.plot(values, false_alarms, marker=".", color=BAD_COLOUR, label="false alarms")
    axis.set_xlabel(f"in place of {outcome.swept}", color=INK, fontsize=9)
    hours = axis.twinx()
    total_h = [tally.total_s / 3_600 for tally in tallies]
    hours.plot(values, total_h, color=COLOURS[6], linestyle=":", label="hours in all (right)")
    hours.set_ylabel("hours", color=INK)
    hours.set_ylim(bottom=0)
    for side in hours.spines.values():
        side.set_visible(False)
    lines = [*axis.get_lines(), *hours.get_lines()]
    dress(axis, "number")
    axis.set_ylim(bottom=0)
    axis.legend(
        lines, [line.get_label() for line in lines], loc="lower left", bbox_to_anchor=(0, 1.0),
        ncols=4, frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
