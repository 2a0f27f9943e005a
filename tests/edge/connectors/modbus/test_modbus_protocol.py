"""Frames and PDUs: any chopping, wrong bytes, and that decode and encode are inverse."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.edge.connectors.modbus.pdu import PduError, decode_pdu, encode_pdu
from headrace.edge.connectors.modbus.protocol import (
    Frame,
    FrameError,
    RtuFramer,
    TcpFramer,
    rtu_frame,
    tcp_frame,
)

PDUS = st.binary(min_size=1, max_size=253)
TCP = st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 255), PDUS), max_size=5)
READS = st.integers(0, 125).map(lambda count: bytes((3, 2 * count)) + b"\x5a" * (2 * count))
RTU = st.lists(st.tuples(st.integers(1, 247), st.one_of(READS, st.just(b"\x83\x02"))), max_size=5)


def chopped(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in pieces."""
    marks = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(marks)]


@given(TCP, st.lists(st.integers(0, 2000), max_size=8))
def test_tcp_frames_survive_any_chopping(
    frames: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    framer = TcpFramer()
    stream = b"".join(tcp_frame(*frame) for frame in frames)
    got = [frame for piece in chopped(stream, cuts) for frame in framer.feed(piece)]
    assert got == [Frame(*frame) for frame in frames]


@given(RTU, st.lists(st.integers(0, 2000), max_size=8))
def test_rtu_frames_survive_any_chopping(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    framer = RtuFramer()
    stream = b"".join(rtu_frame(*frame) for frame in frames)
    got = [frame for piece in chopped(stream, cuts) for frame in framer.feed(piece)]
    assert got == [Frame(0, *frame) for frame in frames]


@given(RTU.filter(bool), st.integers(0, 7), st.data())
def test_a_flipped_bit_is_never_taken_for_data(
    frames: list[tuple[int, bytes]], bit: int, data: st.DataObject
) -> None:
    unit, pdu = frames[0]
    frame = bytearray(rtu_frame(unit, pdu))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << bit
    got: list[Frame] = []
    with contextlib.suppress(FrameError):
        got = RtuFramer().feed(bytes(frame))
    assert got == []


@given(st.binary(max_size=600))
def test_noise_crashes_no_framer(noise: bytes) -> None:
    for framer in (TcpFramer(), RtuFramer(), RtuFramer(requests=True)):
        with contextlib.suppress(FrameError):
            for frame in framer.feed(noise):
                for answer in (False, True):
                    with contextlib.suppress(PduError):
                        decode_pdu(frame.pdu, answer=answer)


@given(st.sampled_from(range(48)), st.binary(max_size=40), st.booleans())
def test_what_is_decoded_encodes_to_the_same_bytes(
    function: int, body: bytes, answer: bool
) -> None:
    raw = bytes((function,)) + body
    try:
        decoded = decode_pdu(raw, answer=answer)
    except PduError:
        return
    assert encode_pdu(decoded, answer=answer) == raw


@pytest.mark.parametrize(
    ("raw", "answer", "why"),
    [
        ("", False, "empty"),
        ("0300", False, "short of start"),
        ("030000007e", False, "quantity 126 is not 1 to 125"),
        ("03000000010000", False, "2 bytes are left over"),
        ("0303000102", True, "no whole registers"),
        ("0500010001", False, "not 0x0000 or 0xff00"),
        ("100000000204000102", False, "short of values"),
        ("10000000020200ff", False, "the quantity needs 4"),
        ("8302ff", True, "2 bytes behind the function"),
        ("6402", False, "not a public function"),
    ],
)
def test_refusals_say_why(raw: str, answer: bool, why: str) -> None:
    with pytest.raises(PduError, match=why):
        decode_pdu(bytes.fromhex(raw), answer=answer)


@pytest.mark.parametrize("header", ["000100010003010300", "00010000ffff0103", "0001000000010103"])
def test_an_impossible_header_ends_the_stream(header: str) -> None:
    with pytest.raises(FrameError, match="MBAP"):
        TcpFramer().feed(bytes.fromhex(header))
