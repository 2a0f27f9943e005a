"""What the role counts of itself, and how that becomes its health message."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.apps.knowledge import Knowledge, statement
from headrace.formula.bound import Bound
from headrace.model.apps import AppsState, AppsStateName, FormulaHealth
from headrace.model.errors import HeadraceError
from headrace.model.time import Clock

RATE_S: Final = 10


@dataclass
class _Count:
    results: int = 0
    changed: int = 0
    last_us: int = 0


class Tally:
    """Counts, since the role started.

    Args:
        clock: wall-clock.

    Attributes:
        state: what the role does now.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_us = clock.now_us()
        self.state: AppsStateName = "idle"
        self.error: HeadraceError | None = None
        self.error_us = 0
        self.caught_up_us = 0
        self.made_us = 0
        self._counts: dict[str, _Count] = {}
        self._seconds: deque[tuple[float, int, int]] = deque(maxlen=RATE_S + 1)
        self._results = 0

    def count(self, bound: Bound, rows: pl.DataFrame, *, recomputed: bool) -> None:
        """Results of a formula; columns of :data:`headrace.formula.evaluate.SCHEMA`."""
        if rows.height:
            found = self._counts.setdefault(bound.key, _Count())
            found.results += rows.height
            found.changed += rows.height if recomputed else 0
            found.last_us = max(found.last_us, int(rows["at_us"].max()))  # type: ignore[arg-type] # not empty
            self._results += rows.height
            self.made_us = self._clock.now_us()

    def progress(self, done_us: int, end_us: int) -> None:
        """How far the catching up has come."""
        self.caught_up_us = done_us
        del end_us

    def fail(self, error: HeadraceError) -> None:
        """Something outside is away; kept after recovery."""
        self.error, self.error_us = error, self._clock.now_us()

    def formula(self, knowledge: Knowledge, bound: Bound) -> FormulaHealth:
        """The health of a formula that runs."""
        count = self._counts.get(bound.key, _Count())
        return FormulaHealth(
            key=bound.key,
            role=bound.role,
            state=bound.state,
            version=bound.version,
            assets=len(bound.assets),
            missing=knowledge.missing.get(statement(bound.key), 0),
            results=count.results,
            changed=count.changed,
            last_us=count.last_us,
        )

    def formulas(self, knowledge: Knowledge) -> list[FormulaHealth]:
        """The health of every formula: those that run in their order, then those that are stopped."""
        found = [self.formula(knowledge, bound) for bound in knowledge.bounds]
        configs = {f"{each.asset_type}.{each.name}": each for each in knowledge.config.formulas}
        for key, stopped in knowledge.stopped.items():
            config = configs.get(statement(key))
            if config is not None:
                found.append(
                    FormulaHealth(
                        key=key,
                        role=config.kind,
                        state=config.state,
                        version=config.version,
                        assets=0,
                        error_code=stopped.code,
                        error=stopped.what,
                        error_remedy=stopped.remedy,
                        error_us=stopped.since_us,
                    )
                )
        return found

    def rates(self, samples: int) -> tuple[float, float]:
        """Samples taken and results given a second, over the last ten; call it once a second."""
        now_s = self._clock.monotonic_s()
        self._seconds.append((now_s, samples, self._results))
        first_s, first_samples, first_results = self._seconds[0]
        span_s = now_s - first_s
        if span_s <= 0:
            return 0.0, 0.0
        taken = max(0, samples - first_samples)
        return taken / span_s, (self._results - first_results) / span_s

    def health(
        self,
        knowledge: Knowledge,
        latencies_us: Collection[int],
        samples: int,
    ) -> AppsState:
        """The message of this second, but for what only the session knows."""
        known = np.array(list(latencies_us), np.int64)
        half, most = np.percentile(known, [50, 99]).astype(int).tolist() if len(known) else (0, 0)
        taken, given = self.rates(samples)
        return AppsState(
            state=self.state,
            at_us=self._clock.now_us(),
            started_us=self.started_us,
            config_hash=knowledge.config.content_hash(),
            assets=knowledge.assets,
            samples_rate=taken,
            results_rate=given,
            latency_p50_us=half,
            latency_p99_us=most,
            error_code=self.error.code if self.error else "",
            error=self.error.what if self.error else "",
            error_us=self.error_us,
            formulas=self.formulas(knowledge),
        )
