"""The edge pipeline of one connection: raw readings in, samples worth publishing out. Pure.

Steps, each over whole columns:

1. scale and offset (``raw * scale + offset``) for the tags that have them;
2. dead-band: a Good value that stayed within the band of the last *published* one is filtered, for
   at most :data:`SILENCE_MAX_US`, so that a quiet tag still shows that it is alive;
3. bookkeeping: last value and status of every tag, and counts.

Nothing here knows time except what the samples carry. A change of status always passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.model import status as st
from headrace.model.desired import TagConfig
from headrace.model.errors import Corrupt
from headrace.model.sample import Int64Array, empty_batch, make_batch

SILENCE_MAX_US: Final = 60_000_000


@dataclass
class Counts:
    """Samples since the edge started: ``read = bad + good``, ``read = filtered + passed``."""

    expected: int = 0
    read: int = 0
    bad: int = 0
    filtered: int = 0
    published: int = 0
    dropped: int = 0


class Pipeline:
    """State of one connection's tags between readings.

    Args:
        tags: the connection's tags; their order does not matter.

    Example:
        >>> pipeline = Pipeline((TagConfig(tag_id=7, path="a/b", address="x", scale=0.1),))
        >>> raw = make_batch(np.array([7]), np.array([0]), np.array([215.0]), received_timestamp_us=1)
        >>> pipeline.process(raw)["value"].to_list()
        [21.5]
    """

    def __init__(self, tags: tuple[TagConfig, ...]) -> None:
        self.counts = Counts()
        self._ids: Int64Array = np.empty(0, np.int64)
        self._last_value = np.empty(0)
        self._last_status = np.empty(0, np.uint32)
        self._last_us: Int64Array = np.empty(0, np.int64)
        self._published_value = np.empty(0)
        self._published_us: Int64Array = np.empty(0, np.int64)
        self._published_status = np.empty(0, np.uint32)
        self._seen = np.empty(0, np.bool_)
        self.retag(tags)

    def retag(self, tags: tuple[TagConfig, ...]) -> None:
        """Take over a new list of tags; tags that stay keep their last values."""
        ordered = sorted(tags, key=lambda tag: tag.tag_id)
        ids = np.array([tag.tag_id for tag in ordered], np.int64)
        n = len(ids)
        old_ids = self._ids
        kept = np.isin(ids, old_ids)
        source = np.searchsorted(old_ids, ids[kept])

        def carry(old: np.ndarray, fill: float) -> np.ndarray:
            new = np.full(n, fill, old.dtype)
            new[kept] = old[source]
            return new

        self._last_value = carry(self._last_value, np.nan)
        self._last_status = carry(self._last_status, st.BAD_WAITING_FOR_INITIAL_DATA)
        self._last_us = carry(self._last_us, 0)
        self._published_value = carry(self._published_value, np.nan)
        self._published_us = carry(self._published_us, 0)
        self._published_status = carry(self._published_status, st.BAD_WAITING_FOR_INITIAL_DATA)
        self._seen = carry(self._seen, False)
        self._ids = ids
        self._scale = np.array([tag.scale for tag in ordered])
        self._offset = np.array([tag.offset for tag in ordered])
        self._scaled = bool(np.any(self._scale != 1.0) or np.any(self._offset != 0.0))
        self._deadband = np.array([tag.deadband for tag in ordered])
        self._banded = bool(np.any(self._deadband > 0.0))

    @property
    def tags_bad(self) -> int:
        """How many tags last had a Bad status, or never had a value."""
        return int(np.count_nonzero(self._last_status >> 30 >= 2))

    def is_bad(self, tag_id: int) -> bool:
        """True when the tag's last status is Bad; an unknown tag is not."""
        at = int(np.searchsorted(self._ids, tag_id))
        if at == len(self._ids) or self._ids[at] != tag_id:
            return False
        return st.is_bad(int(self._last_status[at]))

    def process(self, raw: pl.DataFrame) -> pl.DataFrame:
        """Samples to publish out of a raw batch, in the same order.

        Raises:
            Corrupt: EDGE-1005 when the batch has a tag that the connection does not have.
        """
        if raw.height == 0:
            return raw
        at = self._index(raw)
        batch = self._scale_batch(raw, at) if self._scaled else raw
        value = batch["value"].fill_null(np.nan).to_numpy()
        status = batch["status"].to_numpy()
        source_us = batch["source_timestamp"].to_physical().to_numpy()
        self.counts.read += batch.height
        self.counts.bad += int(np.count_nonzero(status >> 30 >= 2))
        # With repeated indices numpy keeps the last assignment, which is the newest sample.
        self._last_value[at] = value
        self._last_status[at] = status
        self._last_us[at] = source_us
        self._seen[at] = True
        if not self._banded:
            return batch
        keep = self._outside_band(at, value, status, source_us)
        self.counts.filtered += int(np.count_nonzero(~keep))
        return batch if keep.all() else batch.filter(pl.Series(keep))

    def stale(self, tag_ids: tuple[int, ...], now_us: int) -> pl.DataFrame:
        """The last value of each tag again, as UncertainLastUsableValue at ``now_us``.

        Tags without a value yet, and tags already stale, give nothing.
        """
        at = np.searchsorted(self._ids, np.array(sorted(tag_ids), np.int64))
        good = (self._last_status[at] >> 30) < 2
        fresh = self._last_status[at] != st.UNCERTAIN_LAST_USABLE_VALUE
        at = at[self._seen[at] & good & fresh]
        return self._mark(at, st.UNCERTAIN_LAST_USABLE_VALUE, now_us, self._last_value[at])

    def lost(self, now_us: int) -> pl.DataFrame:
        """One Bad sample without a value for each tag that was not Bad: the connection is gone."""
        at = np.flatnonzero(self._seen & (self._last_status >> 30 < 2))
        return self._mark(at, st.BAD_NO_COMMUNICATION, now_us, None)

    def _mark(
        self,
        at: np.ndarray,
        status: int,
        now_us: int,
        value: np.ndarray | None,
    ) -> pl.DataFrame:
        if len(at) == 0:
            return empty_batch()
        values = np.full(len(at), np.nan) if value is None else value
        self._last_status[at] = status
        self._published_status[at] = status
        return make_batch(
            self._ids[at],
            np.full(len(at), now_us, np.int64),
            values,
            status=status,
            received_timestamp_us=now_us,
            value_is_null=np.isnan(values),
        )

    def _index(self, raw: pl.DataFrame) -> Int64Array:
        ids = raw["tag_id"].to_numpy()
        at = np.searchsorted(self._ids, ids)
        known = at < len(self._ids)
        if not known.all() or not np.array_equal(self._ids[at], ids):
            strange = np.setdiff1d(ids, self._ids)
            raise Corrupt(
                "EDGE-1005", f"a reading has {len(strange)} tags that are not of its connection"
            )
        return at

    def _scale_batch(self, raw: pl.DataFrame, at: Int64Array) -> pl.DataFrame:
        scale, offset = self._scale[at], self._offset[at]
        scaled = raw["value"] * pl.Series(scale) + pl.Series(offset)
        plain = pl.Series((scale == 1.0) & (offset == 0.0))
        return raw.with_columns(
            # A scaled integer is no longer the exact one that its text tells.
            pl.when(plain).then(pl.col("value")).otherwise(scaled).alias("value"),
            pl.when(plain | pl.col("value").is_null()).then(pl.col("text")).alias("text"),
        )

    def _outside_band(
        self,
        at: Int64Array,
        value: np.ndarray,
        status: np.ndarray,
        source_us: Int64Array,
    ) -> np.ndarray:
        """Which samples pass the dead-band. Sequential per tag, vectorised over tags: round k takes the
        k-th sample of every tag, so a poll needs one round and a waveform as many as it has elements."""
        keep = np.ones(len(at), np.bool_)
        rows = np.flatnonzero(self._deadband[at] > 0.0)
        if len(rows) == 0:
            return keep
        order = rows[np.argsort(at[rows], kind="stable")]
        starts = np.flatnonzero(np.r_[True, np.diff(at[order]) != 0])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        for k in range(int(rank.max()) + 1):
            row = order[rank == k]
            tag = at[row]
            moved = np.abs(value[row] - self._published_value[tag]) > self._deadband[tag]
            unsure = np.isnan(value[row]) | np.isnan(self._published_value[tag])
            changed = status[row] != self._published_status[tag]
            silent = np.abs(source_us[row] - self._published_us[tag]) >= SILENCE_MAX_US
            passes = moved | unsure | changed | silent
            keep[row] = passes
            row, tag = row[passes], tag[passes]
            self._published_value[tag] = value[row]
            self._published_us[tag] = source_us[row]
            self._published_status[tag] = status[row]
        return keep
