"""What a frame asks for is known before it is given, whatever the bytes are."""

from __future__ import annotations

import io
import resource
import struct

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bus import envelope
from headrace.bus.arrow_bounds import asked_bytes
from headrace.model.errors import Corrupt
from headrace.model.sample import make_batch


def stream(rows: int, compression: str = "lz4") -> bytes:
    ids, times = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    batch = make_batch(ids, times, np.zeros(rows), received_timestamp_us=5)
    body = io.BytesIO()
    batch.write_ipc_stream(body, compression=compression)  # type: ignore[call-overload]
    return body.getvalue()


@pytest.mark.parametrize("rows", [0, 1, 300, 10_000, 100_000])
def test_our_own_frames_ask_for_what_they_hold(rows: int) -> None:
    plain, packed = asked_bytes(stream(rows, "uncompressed")), asked_bytes(stream(rows))
    assert 0 <= plain - packed <= 64 * 20, "padding at most"
    assert packed >= rows * 24


def test_a_frame_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked() -> None:
    bomb = stream(8_000_000)
    assert len(bomb) < 8 << 20 and asked_bytes(bomb) > envelope.UNPACKED_BYTES_MAX
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Corrupt, match="BUS-1001"):
        envelope.decode(bomb)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 64 << 20


def test_a_buffer_that_says_it_is_huge_is_refused() -> None:
    body = stream(300)
    place = body.index(struct.pack("<q", 300 * 8))
    huge = body[:place] + struct.pack("<q", 1 << 40) + body[place + 8 :]
    assert asked_bytes(huge) > 1 << 40
    with pytest.raises(Corrupt, match="BUS-1001"):
        envelope.decode(huge)


def test_a_dictionary_is_none_of_ours() -> None:
    body = io.BytesIO()
    pl.DataFrame({"a": pl.Series(["x", "y"], dtype=pl.Categorical)}).write_ipc_stream(body)
    with pytest.raises(ValueError, match="dictionary"):
        asked_bytes(body.getvalue())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_frames_give_a_number_or_a_value_error(data: st.DataObject) -> None:
    body = bytearray(stream(300))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        assert asked_bytes(cut) >= 0
    except ValueError:
        return
