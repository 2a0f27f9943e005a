"""Every parser that meets the network takes anything: a result or one of our errors, in bounded memory.

The short form runs in ``make test``; the long form (``soak``) spends a hundred times the examples.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from headrace.alarms.sheet import read as read_sheet
from headrace.bus import envelope
from headrace.edge.connectors.modbus.address import check_any
from headrace.edge.connectors.modbus.pdu import PduError, decode_pdu
from headrace.edge.connectors.mqtt.columns import Columns
from headrace.edge.connectors.mqtt.config import MqttOptions
from headrace.edge.connectors.mqtt.payload import JsonDecoder
from headrace.edge.connectors.opcua.address import parse_address
from headrace.edge.connectors.sparkplug.wire import decode_runs
from headrace.formula.grammar import parse_file, parse_statement
from headrace.model.desired import EdgeConfig, TagConfig
from headrace.model.errors import HeadraceError
from headrace.model.ledger import decode_runs as decode_cells
from headrace.security.audit import Checkpoint
from headrace.site.file import SiteFiles, check_site
from headrace.site.tag_table import read_tag_table

SHORT, LONG = 40, 6_000
MEMORY_BYTES_MAX = 256 << 20
WORDS = st.sampled_from(
    ["flow", "and", "not", "(", ")", "[", "]", "{", "}", ",", ";", ".", "=", ">", "-", "1", "1e309",
     "m3/h", "min", "alarm x:", "for 5 min", "off below", "if", "\n", '"', "'", "#", "\0", "²", "\u202e",
     "path", "unit", "asset_type", "alarm", "[site]", "[[tag]]", 'a = "b"', "holding:0:", "ns=2;s="]
)  # fmt: skip
TEXT = st.lists(WORDS | st.text(max_size=6), max_size=30).map(" ".join)
BYTES = st.binary(max_size=300) | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))
_DECODER = JsonDecoder(
    "c", [TagConfig(tag_id=1, path="a/b", address="t#/a")], MqttOptions(timestamp="/t@ms")
)


def _site(body: bytes) -> None:
    check_site(SiteFiles(Path("/nowhere/site.toml"), {"site.toml": body}))


def _json(body: bytes) -> None:
    _DECODER.decode("t", body, False, 5, Columns())


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda body: parse(body.decode("utf-8", "replace"))


def _typed(kind: type) -> Callable[[bytes], object]:
    def decode(body: bytes) -> None:
        try:
            msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return

    return decode


def _pdu(body: bytes) -> None:
    for answer in (True, False):
        try:
            decode_pdu(body, answer=answer)
        except PduError:
            continue


PARSERS: dict[str, Callable[[bytes], object]] = {
    "batch": envelope.decode,
    "packed batch": lambda body: envelope.decode(envelope.PACKED_MARK + body),
    "cells": _text(decode_cells),
    "sequence": _text(lambda text: envelope.parse_sequence({envelope.HEADER_SEQUENCE: text})),
    "sparkplug": lambda body: decode_runs(b"\x12" + body * 4),
    "mqtt json": _json,
    "modbus pdu": _pdu,
    "modbus address": _text(check_any),
    "opcua address": _text(parse_address),
    "formula": _text(parse_statement),
    "formula file": _text(parse_file),
    "site file": _site,
    "site calendar": lambda body: _site(b"[calendar]\nholidays = " + body),
    "tag list": lambda body: read_tag_table("t.csv", body),
    "spreadsheet": lambda body: read_tag_table("t.xlsx", b"PK\x03\x04" + body),
    "alarm sheet": lambda body: read_sheet("alarms.csv", body, []),
    "desired state": _typed(EdgeConfig),
    "audit checkpoint": _typed(Checkpoint),
}


def peak_bytes() -> int:
    """The most memory that this process ever had: what the parsers' own code in Rust and C takes counts too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def take_anything(name: str, body: bytes) -> None:
    try:
        PARSERS[name](body)
    except HeadraceError as error:
        assert error.code and error.what


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
