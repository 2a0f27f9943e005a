"""Results of a time that is over, worked out from history, and what the log lacks of them. Synchronous."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import polars as pl

from headrace.formula.bound import Bound
from headrace.formula.evaluate import SCHEMA
from headrace.formula.plan import Calendar
from headrace.formula.steps import Constant
from headrace.historian.formulas import AssetTags, evaluate_history
from headrace.historian.reader import Reader
from headrace.model.errors import Refused
from headrace.model.sample import Int64Array, microseconds
from headrace.model.status import RETRACTED

TOO_MUCH: Final = "HIST-2001"
_TIMES: Final = ["tag_id", "at_us"]


class Past:
    """Works out results from stored samples.

    Args:
        reader: of the history, with its tail.
        calendar: of the plant.
    """

    def __init__(self, reader: Reader, calendar: Calendar) -> None:
        self._reader = reader
        self._calendar = calendar

    def results(self, bound: Bound, assets: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        """All results in ``[start_us, end_us)``.

        Args:
            assets: which, as numbers of the bound's assets.

        Returns:
            Columns of :data:`headrace.formula.evaluate.SCHEMA`; ``asset`` counts in the bound's assets.

        Raises:
            Refused: HIST-2001 when even one asset needs too many samples at once.
        """
        parts = list(self._parts(bound, assets, max(start_us, bound.start_us), end_us))
        return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)

    def changes(self, bound: Bound, assets: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        """Results in ``[start_us, end_us)`` that are not stored as they should be; of what is stored
        and should not be, a row with the status RETRACTED. As :meth:`results` gives them.

        Raises:
            Refused: as :meth:`results`.
        """
        start_us = max(start_us, bound.start_us)
        if end_us <= start_us:
            return pl.DataFrame(schema=SCHEMA)
        wanted = self.results(bound, assets, start_us, end_us)
        return differences(wanted, self._stored(bound, assets, start_us, end_us))

    def next_us(self, tag_ids: Iterable[int], after_us: int) -> int | None:
        """The latest of the times at which these tags have their next samples; None when one has none."""
        wanted = sorted(set(tag_ids))
        found = self._reader.after(wanted, after_us + 1)
        if found.height < len(wanted):
            return None
        return int(microseconds(found["source_timestamp"]).max())

    def _parts(
        self, bound: Bound, assets: Int64Array, start_us: int, end_us: int
    ) -> Iterator[pl.DataFrame]:
        """In one go, or in halves where one part would need too many samples."""
        if end_us <= start_us or not len(assets):
            return
        tags = [
            AssetTags(bound.assets[n], {name: int(ids[n]) for name, ids in bound.inputs.items()})
            for n in assets.tolist()
        ]
        attributes = {name: _of(each, assets) for name, each in bound.attributes.items()}
        try:
            rows = pl.concat(
                evaluate_history(
                    self._reader,
                    bound.plan,
                    tags,
                    start_us,
                    end_us,
                    calendar=self._calendar,
                    attributes=attributes,
                )
            )
        except Refused as error:
            if error.code != TOO_MUCH or len(assets) == 1:
                raise
            half = len(assets) // 2
            yield from self._parts(bound, assets[:half], start_us, end_us)
            yield from self._parts(bound, assets[half:], start_us, end_us)
            return
        yield rows.with_columns(pl.Series("asset", assets[rows["asset"].to_numpy()]))

    def _stored(self, bound: Bound, assets: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        ids = bound.outputs[assets]
        rows = self._reader.read(ids.tolist(), start_us, end_us)
        table = pl.DataFrame({"tag_id": ids, "asset": assets})
        return rows.join(table, on="tag_id").select(
            "asset",
            pl.col("source_timestamp").to_physical().alias("at_us"),
            "value",
            "text",
            "status",
        )


def differences(wanted: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """What must be given so that what is stored becomes what is wanted.

    Args:
        wanted, stored: columns of :data:`headrace.formula.evaluate.SCHEMA`.

    Example:
        >>> wanted = pl.DataFrame([(0, 1, 1.0, None, 0), (0, 2, 2.0, None, 0)], SCHEMA, orient="row")
        >>> stored = pl.DataFrame([(0, 2, 2.0, None, 0), (0, 3, 3.0, None, 0)], SCHEMA, orient="row")
        >>> [(row[1], hex(row[4])) for row in differences(wanted, stored).rows()]
        [(1, '0x0'), (3, '0x80a00000')]
    """
    stored = stored.filter(pl.col("status") != RETRACTED)
    keys = ["asset", "at_us"]
    both = wanted.join(stored, on=keys, how="left", suffix="_stored", maintain_order="left")
    same = (
        (_bits(both["value"]) == _bits(both["value_stored"]))
        & (both["value"].is_null() == both["value_stored"].is_null()).to_numpy()
        & both["text"].eq_missing(both["text_stored"]).to_numpy()
        & both["status"].eq_missing(both["status_stored"]).to_numpy()
    )
    gone = stored.join(wanted, on=keys, how="anti").select(
        *keys,
        pl.lit(None, pl.Float64).alias("value"),
        pl.lit(None, pl.String).alias("text"),
        pl.lit(RETRACTED, pl.UInt32).alias("status"),
    )
    return pl.concat([wanted.filter(pl.Series(~same, dtype=pl.Boolean)), gone]).sort(keys)


def _bits(values: pl.Series) -> Int64Array:
    """Numbers as they are to the bit."""
    return np.ascontiguousarray(values.fill_null(0.0).to_numpy()).view(np.int64)


def _of(constant: Constant, assets: Int64Array) -> Constant:
    return constant if len(constant.value) == 1 else constant._replace(value=constant.value[assets])
