"""What an installation takes while it runs: memory, files and disk, sampled, judged and drawn."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SHARE_MAX = 0.05
GROWTH_MB_MIN = 8.0
DESCRIPTORS_MAX = 4.0
SLOPE_PAIRS_MAX = 500


@dataclass
class Series:
    """Figures of one run, a row a moment.

    Attributes:
        at_s: seconds since the start. columns: name -> one number a moment.
    """

    at_s: list[float] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at_s: float, figures: dict[str, float]) -> None:
        for name in figures.keys() | self.columns.keys():
            self.columns.setdefault(name, [np.nan] * len(self.at_s)).append(
                figures.get(name, np.nan)
            )
        self.at_s.append(at_s)

    def slope_per_s(self, name: str, from_s: float) -> float:
        """Median slope of all pairs of moments after ``from_s`` (Theil and Sen): a few peaks, such as
        one compaction, do not bend it."""
        at_s, values = self.after(name, from_s)
        step = max(1, len(at_s) // SLOPE_PAIRS_MAX)
        at_s, values = at_s[::step], values[::step]
        first, second = np.triu_indices(len(at_s), 1)
        return float(np.median((values[second] - values[first]) / (at_s[second] - at_s[first])))

    def after(self, name: str, from_s: float) -> tuple[np.ndarray, np.ndarray]:
        at_s, values = np.array(self.at_s), np.array(self.columns[name])
        chosen = (at_s >= from_s) & ~np.isnan(values)
        return at_s[chosen], values[chosen]

    def growing(self, from_s: float) -> Iterable[str]:
        """What grew after the warm-up by more than is allowed, one line each.

        Memory: 5 % of a process's median or 8 MB, whichever is more, over the whole time watched.
        Open files: four.
        """
        for name in sorted(self.columns):
            at_s, values = self.after(name, from_s)
            over_s = float(at_s[-1] - at_s[0])
            growth = self.slope_per_s(name, from_s) * over_s
            if name.endswith(" PSS MB"):
                allowed = max(SHARE_MAX * float(np.median(values)), GROWTH_MB_MIN)
            elif name.endswith(" files"):
                allowed = DESCRIPTORS_MAX
            else:
                continue
            if growth > allowed:
                yield f"{name}: {growth:+.1f} in {over_s:.0f} s, allowed {allowed:.1f}"

    def summary(self, from_s: float) -> str:
        """One line a column: first and last after the warm-up, median, slope an hour."""
        lines = [f"{'':28}{'first':>10}{'median':>10}{'last':>10}{'an hour':>10}"]
        for name in sorted(self.columns):
            _, values = self.after(name, from_s)
            figures = (values[0], float(np.median(values)), values[-1])
            hourly = self.slope_per_s(name, from_s) * 3_600
            lines.append(
                f"{name:28}" + "".join(f"{each:10.1f}" for each in figures) + f"{hourly:+10.2f}"
            )
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """As CSV."""
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["at_s", *self.columns])
            for row in zip(self.at_s, *self.columns.values(), strict=True):
                writer.writerow([f"{number:.3f}" for number in row])

    def draw(self, path: Path, from_s: float) -> None:
        """As a picture: memory, open files and disk over time, the warm-up shaded."""
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt

        kinds = (" PSS MB", " files", " disk MB")
        figure, axes = plt.subplots(len(kinds), 1, figsize=(10, 10), sharex=True)
        hours = np.array(self.at_s) / 3_600
        for kind, axis in zip(kinds, axes, strict=True):
            for name, values in sorted(self.columns.items()):
                if name.endswith(kind):
                    axis.plot(hours, values, label=name.removesuffix(kind), linewidth=1)
            axis.axvspan(0, from_s / 3_600, color="0.93")
            axis.set_ylabel(kind.strip())
            axis.set_ylim(bottom=0)
            axis.legend(loc="upper left", fontsize="small", ncols=3)
        axes[-1].set_xlabel("hours")
        figure.tight_layout()
        figure.savefig(path, dpi=110)
        plt.close(figure)


def memory_mb(pid: int) -> tuple[float, float]:
    """(resident, proportional) megabytes of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        words = line.split()
        if words[0] in ("Rss:", "Pss:"):
            found[words[0]] = int(words[1]) * 1024 / 1e6
    return found["Rss:"], found["Pss:"]


def figures_of(pids: dict[str, int]) -> dict[str, float]:
    """Memory and open files of each process."""
    figures = {}
    for name, pid in pids.items():
        figures[f"{name} RSS MB"], figures[f"{name} PSS MB"] = memory_mb(pid)
        figures[f"{name} files"] = float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
    return figures


def disk_mb(folder: Path, keep: Callable[[Path], bool] = lambda path: True) -> float:
    """Megabytes of all files below a folder; those that go meanwhile count as nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and keep(path):
                total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total / 1e6
