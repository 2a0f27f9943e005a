"""The edge pipeline of one connection: raw readings in, samples worth publishing out. Pure.

Steps, each over whole columns:

1. scale and offset (``raw * scale + offset``) for the tags that have them;
2. dead-band: a Good value that stayed within the band of the last *published* one is filtered, for
   at most :data:`SILENCE_MAX_US`, so that a quiet tag still shows that it is alive;
3. bookkeeping: last value and status of every tag, and counts.

A sample older than the newest of its tag (history, a stored message) passes as it is: it neither is
the last value nor meets or moves the dead-band. When nothing but older samples came for
:data:`STEP_BACK_US`, the device's clock was set back, and they are the newest.

Nothing here knows time except what the samples carry. A change of status always passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model import status as st
from headrace.model.desired import TagConfig
from headrace.model.errors import Corrupt
from headrace.model.sample import Int64Array, empty_batch, make_batch, microseconds

SILENCE_MAX_US: Final = 60_000_000
STEP_BACK_US: Final = 10_000_000
_NEVER: Final = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Seen:
    """How far the newest samples of one tag have come; microseconds, 0 is never.

    Attributes:
        source_us, received_us: source and receive time of the newest one read.
        passed_us, passed_source_us: of the newest one that was not filtered, or the time of a mark
            of our own that came after it.
        status: the newest one's, or the mark's.
    """

    source_us: int
    received_us: int
    passed_us: int
    passed_source_us: int
    status: int


@dataclass
class Counts:
    """Samples since the edge started; the books close at all times.

    ``expected = read + missed`` and ``read + marked = filtered + protected + published + buffered + dropped``,
    where ``marked`` are samples of our own that say that a device is lost or a value is old, and
    ``buffered`` is what waits for the log. ``published`` here is what earlier lanes published.
    """

    expected: int = 0
    read: int = 0
    missed: int = 0
    bad: int = 0
    marked: int = 0
    filtered: int = 0
    protected: int = 0
    published: int = 0
    dropped: int = 0

    def take(self, due: int, came: int) -> None:
        """Count a reading of ``came`` samples when ``due`` were expected."""
        self.read += came
        self.expected += max(due, came)
        self.missed += max(due - came, 0)

    def miss(self, samples: int) -> None:
        """Count samples that were due and did not come."""
        self.expected += samples
        self.missed += samples


class Pipeline:
    """State of one connection's tags between readings.

    Args:
        tags: the connection's tags; their order does not matter.
        counts: what was counted before, to go on from.

    Example:
        >>> pipeline = Pipeline((TagConfig(tag_id=7, path="a/b", address="x", scale=0.1),))
        >>> raw = make_batch(np.array([7]), np.array([0]), np.array([215.0]), received_timestamp_us=1)
        >>> pipeline.process(raw)["value"].to_list()
        [21.5]
    """

    def __init__(self, tags: tuple[TagConfig, ...], counts: Counts | None = None) -> None:
        self.counts = counts or Counts()
        self._ids: Int64Array = np.empty(0, np.int64)
        self._last_value = np.empty(0)
        self._last_status = np.empty(0, np.uint32)
        self._last_us: Int64Array = np.empty(0, np.int64)
        self._older_since_us: Int64Array = np.empty(0, np.int64)
        self._published_value = np.empty(0)
        self._published_us: Int64Array = np.empty(0, np.int64)
        self._published_status = np.empty(0, np.uint32)
        self._seen = np.empty(0, np.bool_)
        self._received_us: Int64Array = np.empty(0, np.int64)
        self._passed_us: Int64Array = np.empty(0, np.int64)
        self.retag(tags)

    def retag(self, tags: tuple[TagConfig, ...]) -> None:
        """Take over a new list of tags; tags that stay keep their last values."""
        ordered = sorted(tags, key=lambda tag: tag.tag_id)
        ids = np.array([tag.tag_id for tag in ordered], np.int64)
        n = len(ids)
        old_ids = self._ids
        kept = np.isin(ids, old_ids)
        source = np.searchsorted(old_ids, ids[kept])

        def carry(old: np.ndarray, fill: float | int) -> np.ndarray:
            new = np.full(n, fill, old.dtype)
            new[kept] = old[source]
            return new

        self._last_value = carry(self._last_value, np.nan)
        self._last_status = carry(self._last_status, st.BAD_WAITING_FOR_INITIAL_DATA)
        self._last_us = carry(self._last_us, _NEVER)
        self._older_since_us = carry(self._older_since_us, _NEVER)
        self._published_value = carry(self._published_value, np.nan)
        self._published_us = carry(self._published_us, 0)
        self._published_status = carry(self._published_status, st.BAD_WAITING_FOR_INITIAL_DATA)
        self._seen = carry(self._seen, False)
        self._received_us = carry(self._received_us, 0)
        self._passed_us = carry(self._passed_us, 0)
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

    def seen(self, tag_id: int) -> Seen | None:
        """How far the newest samples of a tag have come; None for a tag that is not here."""
        at = int(np.searchsorted(self._ids, tag_id))
        if at == len(self._ids) or self._ids[at] != tag_id:
            return None
        received_us, passed_us = int(self._received_us[at]), int(self._passed_us[at])
        source_us = int(self._last_us[at]) if received_us else 0
        published_us = int(self._published_us[at])
        if passed_us > received_us:  # a mark
            published_us = passed_us
        elif self._deadband[at] == 0.0 or not passed_us:
            passed_us, published_us = received_us, source_us
        return Seen(source_us, received_us, passed_us, published_us, int(self._last_status[at]))

    def process(self, raw: pl.DataFrame, expected: int = 0) -> pl.DataFrame:
        """Samples to publish out of a raw batch, in the same order.

        Args:
            raw: what the connector gave.
            expected: samples that were due; what did not come counts as missed.

        Raises:
            Corrupt: EDGE-1005 when the batch has a tag that the connection does not have.
        """
        if raw.height == 0:
            self.counts.take(expected, 0)
            return raw
        at = self._index(raw)
        batch = self._scale_batch(raw, at) if self._scaled else raw
        value = batch["value"].to_numpy()  # null becomes NaN
        status = batch["status"].to_numpy()
        source_us = microseconds(batch["source_timestamp"])
        received_us = microseconds(batch["received_timestamp"])
        self.counts.take(expected, batch.height)
        self.counts.bad += int(np.count_nonzero(status >> 30 >= 2))
        fresh = self._fresh(at, source_us, received_us)
        # With repeated indices numpy keeps the last assignment, which is the newest sample.
        rows = slice(None) if fresh.all() else fresh
        tag = at[rows]
        self._last_value[tag] = value[rows]
        self._last_status[tag] = status[rows]
        self._seen[tag] = True
        self._received_us[tag] = received_us[rows]
        if not self._banded:
            return batch
        keep = self._outside_band(at, value, status, source_us, received_us, fresh)
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

    def paused(self, now_us: int) -> pl.DataFrame:
        """One BadOutOfService sample without a value for each tag that ever had one: a person has
        switched the connection off. Tags that are so already give nothing."""
        at = np.flatnonzero(self._seen & (self._last_status != st.BAD_OUT_OF_SERVICE))
        return self._mark(at, st.BAD_OUT_OF_SERVICE, now_us, None)

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
        self._passed_us[at] = now_us
        self.counts.marked += len(at)
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

    def _fresh(
        self, at: Int64Array, source_us: Int64Array, received_us: Int64Array
    ) -> npt.NDArray[np.bool_]:
        """Which samples are the newest of their tag when they come; the others only pass through."""
        fresh = np.ones(len(at), np.bool_)
        doubtful = source_us < self._last_us[at]
        if np.any(source_us[1:] < source_us[:-1]):
            order = np.argsort(at, kind="stable")
            back = (np.diff(source_us[order]) < 0) & (np.diff(at[order]) == 0)
            doubtful[order[1:][back]] = True
        if not doubtful.any():
            self._older_since_us[at] = _NEVER
            self._last_us[at] = (
                source_us  # within a tag in order: the last assignment is the newest
            )
            return fresh
        for row in _rounds(at, np.arange(len(at))):
            tag = at[row]
            older = source_us[row] < self._last_us[tag]
            begins = older & (self._older_since_us[tag] == _NEVER)
            self._older_since_us[tag[begins]] = received_us[row[begins]]
            waited_us = received_us[row] - np.where(older, self._older_since_us[tag], 0)
            fresh[row] = ~older | (waited_us >= STEP_BACK_US)
            new = fresh[row]
            self._older_since_us[tag[new]] = _NEVER
            self._last_us[tag[new]] = source_us[row[new]]
        return fresh

    def _outside_band(
        self,
        at: Int64Array,
        value: np.ndarray,
        status: np.ndarray,
        source_us: Int64Array,
        received_us: Int64Array,
        fresh: npt.NDArray[np.bool_],
    ) -> np.ndarray:
        """Which samples pass the dead-band; those that are not fresh do."""
        keep = np.ones(len(at), np.bool_)
        for row in _rounds(at, np.flatnonzero((self._deadband[at] > 0.0) & fresh)):
            tag = at[row]
            with np.errstate(invalid="ignore"):  # an infinite value that stays infinite
                moved = np.abs(value[row] - self._published_value[tag]) > self._deadband[tag]
            unsure = np.isnan(value[row]) | np.isnan(self._published_value[tag])
            changed = status[row] != self._published_status[tag]
            silent = np.abs(source_us[row] - self._published_us[tag]) >= SILENCE_MAX_US
            passes = moved | unsure | changed | silent
            keep[row] = passes
            row, tag = row[passes], tag[passes]
            self._published_value[tag] = value[row]
            self._published_us[tag] = source_us[row]
            self._passed_us[tag] = received_us[row]
            self._published_status[tag] = status[row]
        return keep


def _rounds(at: Int64Array, rows: Int64Array) -> Iterator[Int64Array]:
    """Rows for a rule that is sequential per tag, vectorised over tags: round k has the k-th of these
    rows of every tag, so a poll needs one round and a waveform as many as it has elements."""
    if len(rows) == 0:
        return
    order = rows[np.argsort(at[rows], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(at[order]) != 0])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    by_rank = order[np.argsort(rank, kind="stable")]
    begin = 0
    for end in np.cumsum(np.bincount(rank)).tolist():
        yield by_rank[begin:end]
        begin = end
