"""Texts as numbers, one table for everything that is kept."""

from __future__ import annotations

import numpy as np
import polars as pl

from headrace.formula.steps import Floats


class Words:
    """Each text that was met has a code.

    Example:
        >>> words = Words()
        >>> words.codes(pl.Series(["RUN", None, "RUN"])).tolist()
        [0.0, nan, 0.0]
    """

    def __init__(self) -> None:
        self._table: list[str] = []
        self._code: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._table)

    def _of(self, word: str) -> int:
        code = self._code.setdefault(word, len(self._table))
        if code == len(self._table):
            self._table.append(word)
        return code

    def codes(self, texts: pl.Series) -> Floats:
        """The code of each text, NaN for none."""
        unique = texts.drop_nulls().unique(maintain_order=True)
        codes = pl.Series([self._of(word) for word in unique.to_list()], dtype=pl.Float64)
        found = texts.replace_strict(unique, codes, default=None, return_dtype=pl.Float64)
        return found.fill_null(np.nan).to_numpy()

    def local(self, codes: Floats) -> tuple[Floats, tuple[str, ...]]:
        """The same texts as numbers into a small table of their own."""
        some = ~np.isnan(codes)
        unique, place = np.unique(codes[some], return_inverse=True)
        value = np.full(len(codes), np.nan)
        value[some] = place
        return value, tuple(self._table[int(code)] for code in unique)

    def kept(self, local: Floats, table: tuple[str, ...]) -> Floats:
        """The other way round."""
        some = ~np.isnan(local)
        value = np.full(len(local), np.nan)
        used, place = np.unique(local[some].astype(np.int64), return_inverse=True)
        value[some] = np.array([self._of(table[code]) for code in used], np.float64)[place]
        return value

    def texts(self, codes: Floats) -> pl.Series:
        """The texts again."""
        value, table = self.local(codes)
        at = pl.Series(value).fill_nan(None).cast(pl.Int64)
        words = pl.Series("text", table, dtype=pl.String)
        return words.gather(at) if len(table) else pl.Series("text", [None] * len(at), pl.String)

    def keep_only(self, columns: list[Floats]) -> list[Floats]:
        """Forget all words but those of some columns of codes; the columns with their new codes."""
        used = np.unique(np.concatenate([*columns, np.empty(0)]))
        used = used[~np.isnan(used)]
        table = [self._table[int(code)] for code in used]
        made = []
        for codes in columns:
            value = np.searchsorted(used, codes).astype(np.float64)
            made.append(np.where(np.isnan(codes), np.nan, value))
        self._table, self._code = table, {word: at for at, word in enumerate(table)}
        return made
