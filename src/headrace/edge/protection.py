"""What may leave the edge, decided per tag before anything goes out. Pure; see docs/protection.md.

::

    samples of a connection ──┬── no rule       ──► the log, as they are
                              ├── stays         ──► this edge's own log
                              ├── aggregated    ──► this edge's own log; one sample a window ──► the log
                              └── encrypted     ──► encrypted frames

An aggregate's time is its window's end; windows lie on multiples of their length since 1970. A window is over
when a sample of its tag came from a later one, or when it ended :data:`GRACE_US` ago. A window with fewer than
two Good samples gives no number: it would be the sample itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from headrace.model import status as st
from headrace.model.desired import ProtectionRule
from headrace.model.sample import concat_batches, make_batch, microseconds

GRACE_US: Final = 5_000_000
SAMPLES_MIN: Final = 2
_OPEN: Final[dict[str, pl.DataType]] = {
    "tag_id": pl.Int64(),
    "end_us": pl.Int64(),
    "n": pl.Int64(),
    "good": pl.Int64(),
    "total": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
}


@dataclass(frozen=True)
class Split:
    """What becomes of a batch.

    Attributes:
        open: goes to the log as it is.
        kept: stays in this edge's own log.
        aggregates: samples of our own that go to the log.
        sealed: rule's name -> samples that leave encrypted.
        protected: how many samples of the batch do not leave as they are.
    """

    open: pl.DataFrame
    kept: pl.DataFrame | None = None
    aggregates: pl.DataFrame | None = None
    sealed: dict[str, pl.DataFrame] = field(default_factory=dict)
    protected: int = 0


class Protection:
    """The rules of one connection, and its windows that are not over.

    Example:
        >>> rule = ProtectionRule(name="recipe", rule="stays", tag_ids=(7,))
        >>> protection = Protection((rule,))
        >>> raw = make_batch(np.array([7, 8]), np.array([0, 0]), np.ones(2), received_timestamp_us=1)
        >>> split = protection.split(raw, 1)
        >>> split.open["tag_id"].to_list(), split.protected
        ([8], 1)
    """

    def __init__(self, rules: tuple[ProtectionRule, ...]) -> None:
        self.rules = rules
        self._ids = np.array(sorted(i for rule in rules for i in rule.tag_ids), np.int64)
        self._by_id = {tag_id: rule for rule in rules for tag_id in rule.tag_ids}
        self._windows = {rule.name: _Windows(rule) for rule in rules if rule.rule == "aggregated"}

    def covers(self, tag_id: int) -> bool:
        """Whether values of a tag do not leave as they are."""
        return tag_id in self._by_id

    def split(self, batch: pl.DataFrame, now_us: int) -> Split:
        """Where each sample of a batch goes."""
        if not self.rules:
            return Split(batch)
        ids = batch["tag_id"].to_numpy()
        hidden = np.isin(ids, self._ids)
        kept, sealed = [], {}
        for rule in self.rules:
            rows = np.isin(ids, np.array(rule.tag_ids, np.int64))
            if not rows.any():
                continue
            part = batch.filter(pl.Series(rows))
            if rule.rule == "encrypted":
                sealed[rule.name] = part
            else:
                kept.append(part)
            if rule.rule == "aggregated":
                self._windows[rule.name].take(part)
        over = [windows.over(now_us) for windows in self._windows.values()]
        aggregates = concat_batches([each for each in over if each.height])
        return Split(
            open=batch.filter(pl.Series(~hidden)) if hidden.any() else batch,
            kept=concat_batches(kept) if kept else None,
            aggregates=aggregates if aggregates.height else None,
            sealed=sealed,
            protected=int(np.count_nonzero(hidden)),
        )

    def marks(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Of marks of the edge's own, those that may leave: that a device is lost says no value. Of a tag
        that stays nothing leaves, and an old value goes nowhere again."""
        if not self.rules:
            return batch
        ids = batch["tag_id"].to_numpy()
        told = np.array(
            [i for r in self.rules if r.rule == "aggregated" for i in r.tag_ids], np.int64
        )
        lost = np.isin(ids, told) & (batch["status"].to_numpy() >> 30 >= 2)
        return batch.filter(pl.Series(~np.isin(ids, self._ids) | lost))


class _Windows:
    """The windows of one rule that are not over: counts and sums of each tag, never its samples."""

    def __init__(self, rule: ProtectionRule) -> None:
        self._rule = rule
        self._window_us = rule.window_ms * 1000
        self._open = pl.DataFrame(schema=_OPEN)
        self._told: dict[int, int] = {}
        self._newest: dict[int, int] = {}

    def take(self, batch: pl.DataFrame) -> None:
        """Count samples into their windows; those of a window that was told are too late."""
        ids = batch["tag_id"].to_numpy()
        ends = (microseconds(batch["source_timestamp"]) // self._window_us + 1) * self._window_us
        good = (batch["status"].to_numpy() >> 30 == 0) & batch["value"].is_not_null().to_numpy()
        value = np.where(good, batch["value"].to_numpy(), np.nan)
        frame = pl.DataFrame({"tag_id": ids, "end_us": ends, "good": good, "value": value})
        partial = frame.group_by("tag_id", "end_us", maintain_order=True).agg(
            n=pl.len().cast(pl.Int64),
            good=pl.col("good").sum().cast(pl.Int64),
            total=pl.col("value").filter("good").sum(),
            low=pl.col("value").filter("good").min(),
            high=pl.col("value").filter("good").max(),
        )
        both = pl.concat([self._open, partial.select(list(_OPEN))])
        self._open = both.group_by("tag_id", "end_us", maintain_order=True).agg(
            pl.col("n", "good", "total").sum(), pl.col("low").min(), pl.col("high").max()
        )
        newest = partial.group_by("tag_id").agg(pl.col("end_us").max())
        for tag_id, end_us in newest.iter_rows():
            self._newest[tag_id] = max(end_us, self._newest.get(tag_id, end_us))

    def over(self, now_us: int) -> pl.DataFrame:
        """One sample for each window that is over since the last call."""
        if not self._open.height:
            return make_batch(*_NONE, received_timestamp_us=now_us)
        ids, ends = self._open["tag_id"].to_numpy(), self._open["end_us"].to_numpy()
        newest = np.array([self._newest.get(i, 0) for i in ids.tolist()], np.int64)
        told = np.array([self._told.get(i, 0) for i in ids.tolist()], np.int64)
        done = (ends < newest) | (ends + GRACE_US <= now_us)
        ready = self._open.filter(pl.Series(done & (ends > told)))
        self._open = self._open.filter(pl.Series(~done))
        for tag_id, end_us in zip(ready["tag_id"], ready["end_us"], strict=True):
            self._told[tag_id] = max(end_us, self._told.get(tag_id, end_us))
        return self._samples(ready.sort("tag_id", "end_us"), now_us)

    def _samples(self, ready: pl.DataFrame, now_us: int) -> pl.DataFrame:
        good, n = ready["good"].to_numpy(), ready["n"].to_numpy()
        enough = good >= SAMPLES_MIN
        total = ready["total"].to_numpy()
        values = {
            "mean": total / np.maximum(good, 1),
            "sum": total,
            "minimum": ready["low"].to_numpy(),
            "maximum": ready["high"].to_numpy(),
            "count": good.astype(np.float64),
        }[self._rule.function]
        whole = np.where(good == n, st.GOOD, st.UNCERTAIN_DATA_SUB_NORMAL)
        return make_batch(
            ready["tag_id"].to_numpy(),
            ready["end_us"].to_numpy(),
            np.where(enough, values, np.nan).astype(np.float64),
            status=np.where(enough, whole, st.BAD_NO_DATA).astype(np.uint32),
            received_timestamp_us=now_us,
            value_is_null=~enough,
        )


_NONE: Final = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
