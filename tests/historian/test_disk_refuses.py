"""A disk that refuses in the middle of a file: the writer says so, keeps what it has and goes on later."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pytest
from historian_samples import START_US, same, wave
from store import Store

from headrace.historian.reader import Reader
from headrace.model.folder import DataFolder


@contextmanager
def file_bytes_max(limit: int) -> Iterator[None]:
    """This process may write no longer files; the system then says EFBIG, as it says ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [64, 2_000], ids=["at once", "in the middle"])
def test_a_refused_file_is_an_error_of_the_disk_and_the_commit_can_be_made_later(
    folder: DataFolder, limit: int
) -> None:
    store = Store(folder)
    store.commit(wave(3, 100))
    with file_bytes_max(limit), pytest.raises(OSError, match="File too large"):
        store.commit(wave(3, 1_000, first=100))
    done = store.commit(wave(3, 1_000, first=100))
    assert done.stored == 3_000
    expected = pl.concat([wave(3, 100), wave(3, 1_000, first=100)])
    same(Reader(folder.table).read([1, 2, 3], 0, START_US * 2), expected)
