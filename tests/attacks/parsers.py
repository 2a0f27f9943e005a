"""Every parser of ours that meets the network, by name: what the fuzzers feed.

Each takes bytes and gives a result, or raises one of our errors; anything else is a hole.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.alarms.sheet import read as read_sheet
from headrace.bus import envelope
from headrace.edge.calls import WriteCall
from headrace.edge.calls import _decode as decode_call
from headrace.edge.connectors.modbus.address import check_any
from headrace.edge.connectors.modbus.pdu import PduError, decode_pdu
from headrace.edge.connectors.mqtt.columns import Columns
from headrace.edge.connectors.mqtt.config import MqttOptions
from headrace.edge.connectors.mqtt.payload import JsonDecoder
from headrace.edge.connectors.opcua.address import parse_address
from headrace.edge.connectors.sparkplug.wire import decode_runs
from headrace.formula.grammar import parse_file, parse_statement
from headrace.model.alarm import Command
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import EdgeConfig, TagConfig
from headrace.model.errors import HeadraceError
from headrace.model.ledger import decode_runs as decode_cells
from headrace.security.age import HashingWriter, new_identity, unseal
from headrace.security.audit import Checkpoint
from headrace.security.authority import request_key
from headrace.security.nkeys import read_token as read_broker_token
from headrace.security.policy_text import PolicySet
from headrace.security.sharing.contract import SharingContract
from headrace.site.edges import Admission
from headrace.site.edges import read_token as read_join_token
from headrace.site.file import SiteFiles, check_site
from headrace.site.tag_table import read_tag_table

_IDENTITY = new_identity()[0]
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
        except UNREADABLE:
            return

    return decode


def _site_calendar(body: bytes) -> None:
    _site(b"[calendar]\nholidays = " + body)


def _authority_request(body: bytes) -> None:
    request_key(b"-----BEGIN CERTIFICATE REQUEST-----\n" + body)


def _locked(body: bytes) -> None:
    unseal(
        io.BytesIO(b"age-encryption.org/v1\n" + body), HashingWriter(io.BytesIO()), _IDENTITY, "x"
    )


def _policy(body: bytes) -> None:
    PolicySet({"own.cedar": body.decode("utf-8", "replace")})


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
    "site calendar": _site_calendar,
    "tag list": lambda body: read_tag_table("t.csv", body),
    "spreadsheet": lambda body: read_tag_table("t.xlsx", b"PK\x03\x04" + body),
    "alarm sheet": lambda body: read_sheet("alarms.csv", body, []),
    "desired state": _typed(EdgeConfig),
    "audit checkpoint": _typed(Checkpoint),
    "sharing contract": _typed(SharingContract),
    "alarm command": _typed(Command),
    "a write": lambda body: decode_call(body, WriteCall),
    "a join": _typed(Admission),
    "join token": _text(read_join_token),
    "certificate request": _authority_request,
    "broker token": _text(read_broker_token),
    "backup": _locked,
    "policy": _policy,
}


def take_anything(name: str, body: bytes) -> None:
    """Feed one parser; our errors must have a code and say what."""
    try:
        PARSERS[name](body)
    except HeadraceError as error:
        assert error.code and error.what
