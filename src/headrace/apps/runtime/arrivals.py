"""How samples came, beside what they say: how many, how far apart, how long after their source time.

A hook that asks for it (``arrivals=True``) gets it with its window. Here the receive time counts, so that a
sample whose source time is wrong is seen too; a window over source times would never show it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from headrace.model.deployment import BoundAsset
from headrace.model.sample import Int64Array, empty_batch
from headrace.model.status import BAD
from headrace.model.time import US_PER_MS, to_datetime

_ORDER: Final = ("tag_id", "received_timestamp", "source_timestamp", "status")


class Arrivals:
    """When samples of some tags came.

    Args:
        tag_ids: sorted, shape (n,). kept: what an earlier one gave as ``held``; empty: none.
    """

    def __init__(self, tag_ids: Int64Array, kept: bytes = b"") -> None:
        self._tag_ids = tag_ids
        self._rows = pl.read_ipc_stream(kept) if kept else empty_batch().select(_ORDER)
        self._waiting: list[pl.DataFrame] = []

    def put(self, batch: pl.DataFrame) -> None:
        """Take samples; those of other tags are left aside, and of twins one."""
        known = np.isin(batch["tag_id"].to_numpy(), self._tag_ids)
        if known.any():
            self._waiting.append(batch.select(_ORDER).filter(pl.Series(known)))

    def table(self, assets: Sequence[BoundAsset], start_us: int, end_us: int) -> pl.DataFrame:
        """One row an asset and quantity that it has, as :class:`headrace.app.Window` says."""
        pairs = [(each.path, name, tag) for each in assets for name, tag in each.tags.items()]
        names = pl.DataFrame(
            pairs,
            schema={"asset": pl.String, "quantity": pl.String, "tag_id": pl.Int64},
            orient="row",
        )
        start, end = to_datetime(start_us), to_datetime(end_us)
        received = pl.col("received_timestamp")
        rows = self._sorted()
        before = rows.filter(received < start).group_by("tag_id").agg(before=received.last())
        inside = rows.filter((received >= start) & (received < end))
        told = inside.group_by("tag_id").agg(*_figures())
        whole = names
        for each in (told, before):
            whole = whole.join(each, on="tag_id", how="left", maintain_order="left")
        first = _ms(pl.col("first") - pl.col("before"))
        silent = _ms(pl.lit(end) - pl.coalesce("last", "before"))
        return whole.select(
            "asset",
            "quantity",
            pl.col("samples").fill_null(0),
            pl.col("bad").fill_null(0),
            pl.max_horizontal("longest", first, silent).alias("gap_ms"),
            silent.alias("silent_ms"),
            "delay_ms",
            "delay_span_ms",
        )

    def forget(self, before_us: int) -> None:
        """Keep of what came up to ``before_us`` the newest of each tag only."""
        rows = self._sorted()
        old = rows["received_timestamp"] <= to_datetime(before_us)
        if old.any():
            last = rows.filter(old).unique("tag_id", keep="last", maintain_order=True)
            self._rows = pl.concat([last, rows.filter(~old)]).sort(_ORDER)

    def held(self, before_us: int) -> bytes:
        """The newest of each tag that came up to ``before_us``, as an Arrow stream; empty when none did."""
        rows = self._sorted().filter(pl.col("received_timestamp") <= to_datetime(before_us))
        last = rows.unique("tag_id", keep="last", maintain_order=True)
        if not last.height:
            return b""
        body = io.BytesIO()
        last.write_ipc_stream(body, compression="lz4")
        return body.getvalue()

    def _sorted(self) -> pl.DataFrame:
        if self._waiting:
            every = pl.concat([self._rows, *self._waiting]).unique()
            self._rows = every.sort(_ORDER).rechunk()
            self._waiting = []
        return self._rows


def _figures() -> list[pl.Expr]:
    """Of the samples of a tag, sorted by the time at which they came."""
    received = pl.col("received_timestamp")
    delay = _ms(received - pl.col("source_timestamp"))
    return [
        pl.len().alias("samples"),
        (pl.col("status") >= BAD).sum().cast(pl.UInt32).alias("bad"),
        received.first().alias("first"),
        received.last().alias("last"),
        _ms(received.diff().max()).alias("longest"),
        delay.median().alias("delay_ms"),
        (delay.max() - delay.min()).alias("delay_span_ms"),
    ]


def _ms(span: pl.Expr) -> pl.Expr:
    return span.dt.total_microseconds().cast(pl.Float64) / US_PER_MS
