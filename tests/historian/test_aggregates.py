"""OPC UA aggregates against the worked examples of OPC 10000-13 Annex A, and against plain loops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headrace.historian.aggregates import AGGREGATES, calculate
from headrace.historian.intervals import AggregateConfiguration, Raw, interval_edges
from headrace.model import status as codes

NOON_US = 1_600_000_000_000_000
EXAMPLES = Path(__file__).parent / "part13_examples.txt"
STATUS = {
    "G": codes.GOOD,
    "U": codes.UNCERTAIN_DATA_SUB_NORMAL,
    "u": codes.UNCERTAIN,
    "B": codes.BAD,
    "N": codes.BAD_NO_DATA,
}
BITS = {
    "c": codes.HISTORIAN_CALCULATED,
    "i": codes.HISTORIAN_INTERPOLATED,
    "p": codes.HISTORIAN_PARTIAL,
    "m": codes.HISTORIAN_MULTI_VALUE,
}
# The examples contradict the text of the standard here; the text wins, with its result.
TEXT_WINS = {
    # 5.4.3.11: an Uncertain 70 is above the maximum Good value 30, so the status is Uncertain.
    ("Maximum", "5", 4): "30Uc",
}


@dataclass(frozen=True)
class Value:
    at_us: int | None
    value: float
    status: int


def _seconds(text: str) -> int:
    minute, second = text.split(":")
    return int(minute) * 60 + int(second)


def _value(text: str) -> Value:
    found = re.fullmatch(r"(?:@?(\d+:\d\d)=)?(-|[\d.]+)([GUuBN])([cipm]*)", text)
    assert found, text
    at, number, status, bits = found.groups()
    code = STATUS[status]
    for bit in bits:
        code |= BITS[bit]
    at_us = None if at is None else NOON_US + _seconds(at) * 1_000_000
    return Value(at_us, np.nan if number == "-" else float(number), code)


def _load() -> tuple[dict[str, tuple[AggregateConfiguration, list[Value]]], list[tuple[str, ...]]]:
    raw, examples = {}, []
    for line in EXAMPLES.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        head, _, body = line.partition(" : ")
        first, *rest = head.split()
        if first == "raw":
            name, stepped, uncertain, bad, good, sloped = rest
            configuration = AggregateConfiguration(
                stepped=stepped == "1",
                treat_uncertain_as_bad=uncertain == "1",
                percent_data_bad=float(bad),
                percent_data_good=float(good),
                use_sloped_extrapolation=sloped == "1",
            )
            raw[name] = (configuration, [_value(text) for text in body.split()])
        else:
            examples.append((first, *rest, body))
    return raw, examples


HISTORIANS, CASES = _load()


@pytest.mark.parametrize(
    ("aggregate", "historian", "interval_s", "expected"),
    CASES,
    ids=[f"{c[0]}-{c[1]}" for c in CASES],
)
def test_annex_a(aggregate: str, historian: str, interval_s: str, expected: str) -> None:
    configuration, values = HISTORIANS[historian]
    raw = Raw(
        np.array([v.at_us for v in values], np.int64),
        np.array([v.value for v in values]),
        np.array([v.status for v in values], np.uint32),
        interval_edges(NOON_US, NOON_US + 100_000_000, int(interval_s) * 1_000_000),
        configuration,
    )
    result = calculate(aggregate, raw)
    wanted = expected.split()
    for index, text in enumerate(wanted):
        want = _value(TEXT_WINS.get((aggregate, historian, index), text))
        start_us = int(raw.starts[index])
        told = f"{aggregate} of historian {historian}, interval {index}"
        assert result.at_us[index] == (want.at_us or start_us), told
        assert f"{result.status[index]:08X}" == f"{want.status:08X}", told
        np.testing.assert_allclose(result.value[index], want.value, rtol=2e-4, err_msg=told)


def test_every_aggregate_takes_tags_without_any_samples() -> None:
    edges = interval_edges(0, 1000, 100)
    none = np.empty(0, np.int64)
    for name in AGGREGATES:
        raw = Raw(none, none * 1.0, none.astype(np.uint32), edges, AggregateConfiguration())
        result = calculate(name, raw)
        assert (result.status == codes.BAD_NO_DATA).all(), name
        assert np.isnan(result.value).all(), name
