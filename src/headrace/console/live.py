"""The newest sample of every tag, in columns, and who waits for changes.

A slot is a tag's place in the columns. Each change marks its slots with a new version, so that a page
asks "what changed since version v of these slots" and gets only that. No Python object per sample.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.historian.scan import without_retracted
from headrace.model.sample import Float64Array, Int64Array
from headrace.model.time import US_PER_S, to_us

TAGS_MAX: Final = 2_000_000
WATCHERS_MAX: Final = 500
RATE_SECONDS: Final = 120
NEVER_US: Final = -(2**62)
SlotArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """Columns of what changed, and the version to ask from next time.

    Attributes:
        index: places in the asked slots, int64, shape (n,).
        value: float64, shape (n,), NaN where there is no number.
        status: uint32, shape (n,). source_us: int64, shape (n,), UTC microseconds.
        text: place in ``index`` -> text, where the newest sample has one.
    """

    version: int
    index: SlotArray
    value: Float64Array
    status: npt.NDArray[np.uint32]
    source_us: Int64Array
    text: dict[int, str]


class LiveValues:
    """Newest samples in columns that grow by doubling.

    Example:
        >>> from headrace.model.sample import make_batch
        >>> live = LiveValues()
        >>> live.update(make_batch(np.array([7]), np.array([0]), np.array([1.5]),
        ...                        received_timestamp_us=5))
        >>> live.value[live.slots([7])].tolist()
        [1.5]
    """

    def __init__(self) -> None:
        self.size = 0
        self.version = 0
        self.samples_total = 0
        self.refused_total = 0
        self._sorted_ids = np.empty(0, np.int64)
        self._sorted_slots = np.empty(0, np.int64)
        self._text: dict[int, str] = {}
        self._watchers: set[asyncio.Event] = set()
        self._rate = np.zeros(RATE_SECONDS, np.int64)
        self._rate_second = 0
        self._allocate(1024)

    def _allocate(self, capacity: int) -> None:
        def grown(name: str, dtype: type, fill: float) -> npt.NDArray[Any]:
            column: npt.NDArray[Any] = np.full(capacity, fill, dtype)
            if self.size:
                column[: self.size] = getattr(self, name)[: self.size]
            return column

        self.ids: Int64Array = grown("ids", np.int64, 0)
        self.value: Float64Array = grown("value", np.float64, np.nan)
        self.status: npt.NDArray[np.uint32] = grown("status", np.uint32, 0)
        self.source_us: Int64Array = grown("source_us", np.int64, NEVER_US)
        self.received_us: Int64Array = grown("received_us", np.int64, 0)
        self._changed: Int64Array = grown("_changed", np.int64, 0)

    def slots(self, tag_ids: Int64Array | list[int]) -> SlotArray:
        """Slots of tags, made where there are none yet: a page may wait for a tag's first sample."""
        asked = np.asarray(tag_ids, np.int64)
        place = np.searchsorted(self._sorted_ids, asked)
        place_ok = np.minimum(place, max(len(self._sorted_ids) - 1, 0))
        known = self._sorted_ids[place_ok] == asked if len(self._sorted_ids) else asked != asked
        if not known.all():
            self._add(np.unique(asked[~known]))
            place_ok = np.searchsorted(self._sorted_ids, asked)
        return self._sorted_slots[place_ok]

    def _add(self, new_ids: Int64Array) -> None:
        end = self.size + len(new_ids)
        if end > len(self.ids):
            self._allocate(max(end, 2 * len(self.ids)))
        self.ids[self.size : end] = new_ids
        self.size = end
        order = np.argsort(self.ids[:end], kind="stable")
        self._sorted_ids = self.ids[:end][order].copy()
        self._sorted_slots = order.astype(np.int64)

    def update(self, batch: pl.DataFrame) -> None:
        """Take a batch; an older source timestamp never replaces a newer one.

        What a repair took back is passed over: until the next sample the screen has what it had.
        """
        batch = without_retracted(batch)
        if not batch.height:
            return
        self.samples_total += batch.height
        self._take(batch)
        received = batch["received_timestamp"].max()
        assert received is not None, "a checked batch has no null there"
        self._count(batch.height, to_us(received))  # type: ignore[arg-type] # a datetime column

    def restore(self, batch: pl.DataFrame) -> None:
        """Take newest samples from history: they are not new, so no rate counts them."""
        if batch.height:
            self._take(batch)

    def _take(self, batch: pl.DataFrame) -> None:
        newest = batch.sort("source_timestamp", maintain_order=True).unique(
            "tag_id", keep="last", maintain_order=True
        )
        ids = newest["tag_id"].to_numpy()
        if self.size + len(ids) > TAGS_MAX:
            self.refused_total += batch.height
            return
        slots = self.slots(ids)
        source = newest["source_timestamp"].to_physical().to_numpy()
        fresh = source >= self.source_us[slots]
        slots = slots[fresh]
        self.version += 1
        self.source_us[slots] = source[fresh]
        self.value[slots] = newest["value"].fill_null(float("nan")).to_numpy()[fresh]
        self.status[slots] = newest["status"].to_numpy()[fresh]
        self.received_us[slots] = newest["received_timestamp"].to_physical().to_numpy()[fresh]
        self._changed[slots] = self.version
        self._take_texts(newest["text"].filter(pl.Series(fresh)), slots)
        for watcher in self._watchers:
            watcher.set()

    def _take_texts(self, texts: pl.Series, slots: SlotArray) -> None:
        if texts.null_count() < len(texts):
            for slot, text in zip(slots.tolist(), texts.to_list(), strict=True):
                if text is None:
                    self._text.pop(slot, None)
                else:
                    self._text[slot] = text[:200]
        elif self._text:
            for slot in slots.tolist():
                self._text.pop(slot, None)

    def _count(self, samples: int, at_us: int) -> None:
        second = at_us // US_PER_S
        ahead = second - self._rate_second
        if ahead > 0:
            for step in range(1, min(ahead, RATE_SECONDS) + 1):
                self._rate[(self._rate_second + step) % RATE_SECONDS] = 0
            self._rate_second = second
        if ahead > -RATE_SECONDS:
            self._rate[second % RATE_SECONDS] += samples

    def rate(self, now_us: int, seconds: int = 60) -> list[int]:
        """Samples received in each of the last full ``seconds``, oldest first."""
        last = now_us // US_PER_S - 1
        wanted = np.arange(last - seconds + 1, last + 1)
        kept = (wanted <= self._rate_second) & (wanted > self._rate_second - RATE_SECONDS)
        counts: list[int] = np.where(kept, self._rate[wanted % RATE_SECONDS], 0).tolist()
        return counts

    def text(self, slot: int) -> str | None:
        """Text of a slot's newest sample, if it has one."""
        return self._text.get(slot)

    def changes(self, slots: SlotArray, since: int) -> Change:
        """What changed in ``slots`` after version ``since``; 0 gives all that ever had a sample."""
        index = np.flatnonzero(self._changed[slots] > since)
        at = slots[index]
        texts = {}
        if self._text:
            for place, slot in enumerate(at.tolist()):
                if slot in self._text:
                    texts[place] = self._text[slot]
        return Change(
            self.version, index, self.value[at], self.status[at], self.source_us[at], texts
        )

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set after each update, as long as the context lasts."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    @property
    def watchers(self) -> int:
        """How many pages watch now; the door refuses more than ``WATCHERS_MAX``."""
        return len(self._watchers)
