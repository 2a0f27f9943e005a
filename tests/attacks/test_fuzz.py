"""Every parser that meets the network takes anything: a result or one of our errors, in bounded memory.

The short form runs in ``make test``; the long form (``soak``) spends a hundred times the examples.
"""

from __future__ import annotations

import json
import resource

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from parsers import PARSERS, take_anything

SHORT, LONG = 40, 6_000
MEMORY_BYTES_MAX = 256 << 20
WORDS = st.sampled_from(
    ["flow", "and", "not", "(", ")", "[", "]", "{", "}", ",", ";", ".", "=", ">", "-", "1", "1e309",
     "m3/h", "min", "alarm x:", "for 5 min", "off below", "if", "\n", '"', "'", "#", "\0", "²", "\u202e",
     "path", "unit", "asset_type", "alarm", "[site]", "[[tag]]", 'a = "b"', "holding:0:", "ns=2;s="]
)  # fmt: skip
TEXT = st.lists(WORDS | st.text(max_size=6), max_size=30).map(" ".join)
BYTES = st.binary(max_size=300) | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))


def peak_bytes() -> int:
    """The most memory that this process ever had: what the parsers' own code in Rust and C takes counts too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_anything(name: str) -> None:
    before = peak_bytes()
    _fuzz(name, SHORT)
    assert peak_bytes() - before < MEMORY_BYTES_MAX


@pytest.mark.soak
@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_anything_for_long(name: str) -> None:
    _fuzz(name, LONG)


def _fuzz(name: str, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(BYTES)
    def run(body: bytes) -> None:
        take_anything(name, body)

    run()


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_a_bomb(name: str) -> None:
    deep = [b"[" * 30_000, b"{" * 30_000, b"(" * 30_000, b'{"a":' * 9_000, b"-" * 30_000]
    long = [b"9" * 20_000, b"\xff" * 20_000, b"\0" * 20_000, b'"' * 20_001, b"a," * 20_000]
    for body in (*deep, *long, json.dumps({"a": 10**400}).encode()):
        take_anything(name, body)
