"""What an app's process takes, and how long it is to be held back for that."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Final

from headrace.model.app_manifest import Budgets

SPAN_S: Final = 10.0
SPANS_MAX: Final = 200
START_CPU_S: Final = 15.0
"""Importing and catching up take more than steady work; given once a start."""


def taken(pid: int) -> tuple[float, float] | None:
    """(resident MB, seconds of CPU) of a process, from Linux' ``/proc``; None when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, ticks / os.sysconf("SC_CLK_TCK")


class Purse:
    """An allowance that fills at a rate and may go below zero once.

    Args:
        per_s: what comes in. most: what it holds. first: what is in it.

    Example:
        >>> purse = Purse(10.0, 20.0, 20.0, at_s=0.0)
        >>> purse.spend(40.0, 0.0), purse.spend(0.0, 1.0), purse.spend(0.0, 2.0)
        (2.0, 1.0, 0.0)
    """

    def __init__(self, per_s: float, most: float, first: float, *, at_s: float) -> None:
        self._per_s = per_s
        self._most = max(most, first)
        self._steady = most
        self._left = first
        self._at_s = at_s

    def spend(self, amount: float, at_s: float) -> float:
        """Take something out; seconds until there is none owed."""
        came = self._per_s * (at_s - self._at_s)
        bound = max(self._steady, self._left)  # what was given at first is not given again
        self._left = min(bound, self._left + came) - amount
        self._at_s = at_s
        return max(0.0, -self._left / self._per_s)


class Meter:
    """The use of one process.

    Args:
        budgets: of the manifest. at_s: monotonic time of its start.

    Attributes:
        memory_mb, cpu_percent: as last looked at.
        owed_s: how long it is to be held back for CPU; 0 not.
    """

    def __init__(self, budgets: Budgets, at_s: float) -> None:
        self.budgets = budgets
        share = budgets.cpu_percent / 100
        self._cpu = Purse(share, share * SPAN_S, START_CPU_S, at_s=at_s)
        self._rows = Purse(
            budgets.rows_per_s, budgets.rows_per_s * SPAN_S, budgets.rows_per_s * SPAN_S, at_s=at_s
        )
        self._messages = Purse(
            budgets.messages_per_s,
            budgets.messages_per_s * SPAN_S,
            budgets.messages_per_s * SPAN_S,
            at_s=at_s,
        )
        self._seen: deque[tuple[float, float, int, int, float]] = deque(maxlen=SPANS_MAX)
        self.memory_mb = self.cpu_percent = self.owed_s = 0.0
        self._cpu_s = 0.0
        self._counted = (0, 0)
        self._held_s = 0.0

    def look(self, pid: int, at_s: float) -> bool:
        """Measure it now; False when there is no such process."""
        found = taken(pid)
        if found is None:
            return False
        self.memory_mb, cpu_s = found
        self.owed_s = self._cpu.spend(max(0.0, cpu_s - self._cpu_s), at_s)
        self._cpu_s = cpu_s
        self._seen.append((at_s, cpu_s, *self._counted, self._held_s))
        while at_s - self._seen[0][0] > SPAN_S:
            self._seen.popleft()
        span_s = at_s - self._seen[0][0]
        self.cpu_percent = 100 * (cpu_s - self._seen[0][1]) / span_s if span_s else 0.0
        return True

    def message(self, rows: int, at_s: float) -> float:
        """Count a message; seconds for which its answer is to wait."""
        self._counted = (self._counted[0] + 1, self._counted[1] + rows)
        return max(self._messages.spend(1, at_s), self._rows.spend(rows, at_s) if rows else 0.0)

    def held(self, seconds: float) -> None:
        """It was held back so long."""
        self._held_s += seconds

    @property
    def is_over_memory(self) -> bool:
        """Whether it has more than its budget."""
        return self.memory_mb > self.budgets.memory_mb

    def rates(self) -> tuple[float, float, float]:
        """(messages a second, rows a second, share of time held back), over the last ten seconds."""
        if len(self._seen) < 2:
            return 0.0, 0.0, 0.0
        first, last = self._seen[0], self._seen[-1]
        span_s = max(last[0] - first[0], 0.1)
        return (
            (last[2] - first[2]) / span_s,
            (last[3] - first[3]) / span_s,
            min(1.0, (last[4] - first[4]) / span_s),
        )
