"""The fault catalogue: one fault at each hop of a running installation, and the hop that is named.

The table stands in ``docs/why.md``. The short form has one or two faults a hop; ``make soak`` has all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from why_bench import FLOW, LEVEL, SPEED, Bench, hop_of, reason_of

from headrace.model import status as st
from headrace.model.why import HOPS

pytestmark = [pytest.mark.kill]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "why.md"


@dataclass(frozen=True)
class Case:
    """One fault: how it is put in, where, and what must be said.

    Attributes:
        code: beginning of the error code that comes along; empty where there is none.
        other: a tag that the fault does not touch.
    """

    name: str
    inject: Callable[[Bench], AbstractContextManager[None]]
    hop: str
    reason: str
    path: str = FLOW
    code: str = ""
    other: str = ""
    long: bool = False


CASES = [
    Case("device stopped", Bench.device_off, "device", "device_away", code="EDGE-3", other=SPEED),
    Case(
        "half-open connection", Bench.device_mute, "device", "device_away",
        code="EDGE-3", other=SPEED, long=True,
    ),
    Case(
        "slow device", Bench.device_slow, "device", "device_slow",
        code="EDGE-1018", other=SPEED, long=True,
    ),
    Case(
        "device clock behind", lambda b: b.clock_off(-600), "device", "device_clock_behind",
        path=SPEED, other=FLOW, long=True,
    ),
    Case(
        "device clock ahead", lambda b: b.clock_off(20), "device", "device_clock_ahead",
        path=SPEED, other=FLOW, long=True,
    ),
    Case(
        "sensor failure", lambda b: b.sensor_bad(st.BAD_SENSOR_FAILURE), "device", "device_says",
        path=SPEED, long=True,
    ),
    Case(
        "one bad register", lambda b: b.site("holding:0:float32", "holding:900:float32"),
        "connector", "tag_fails", code="EDGE-3", other=LEVEL,
    ),
    Case(
        "wrong password", lambda b: b.site(password="a wrong guess"),
        "connector", "connection_refused", path=SPEED, code="EDGE-2", other=FLOW, long=True,
    ),
    Case(
        "connection paused", lambda b: b.site("enabled = true", "enabled = false"),
        "connector", "connection_paused", other=SPEED, long=True,
    ),
    Case(
        "tag removed", lambda b: b.site(FLOW, f"{FLOW}_2"),
        "connector", "tag_retired", other=LEVEL, long=True,
    ),
    Case("edge stands still", lambda b: b.frozen("edge"), "connector", "edge_silent"),
    Case("edge killed", lambda b: b.killed("edge"), "connector", "edge_silent", long=True),
    Case("log refuses", Bench.log_refuses, "bus", "log_refuses", code="BUS-1021"),
    Case(
        "broker stands still", lambda b: b.frozen("broker"), "bus", "bus_away",
        code="BUS-1025", long=True,
    ),
    Case(
        "broker killed", lambda b: b.killed("broker"), "bus", "bus_away",
        code="BUS-1025", long=True,
    ),
    Case("historian killed", lambda b: b.killed("historian"), "writer", "writer_silent"),
    Case(
        "historian stands still", lambda b: b.frozen("historian"), "writer", "writer_silent",
        long=True,
    ),
    Case("disk full", Bench.disk_full, "table", "table_refuses", code="HIST-1025", long=True),
    Case(
        "table not writable", Bench.table_refuses, "table", "table_refuses",
        code="HIST-1025", long=True,
    ),
    Case("console stands still", lambda b: b.frozen("console"), "screen", "console_silent"),
    Case(
        "console killed", lambda b: b.killed("console"), "screen", "console_silent", long=True,
    ),
]  # fmt: skip


def params() -> Iterator[object]:
    for case in CASES:
        yield pytest.param(case, id=case.name, marks=[pytest.mark.soak] if case.long else [])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("why"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.mark.parametrize("case", params())
def test_the_hop_named_is_the_one_where_the_fault_is(bench: Bench, case: Case):
    bench.until_fresh(case.path)
    with case.inject(bench):
        answer = bench.until_culprit(case.path, case.hop, {case.reason})
        culprit = hop_of(answer, case.hop)
        assert culprit["code"].startswith(case.code), culprit
        assert culprit["en"]["what_now"] and culprit["zh"]["what_now"], culprit
        before = answer["hops"][: [hop["name"] for hop in answer["hops"]].index(case.hop)]
        assert all(h["state"] == "proven" or h["hidden_by"] == case.hop for h in before), answer
        if case.other:
            bench.until_fresh(case.other, 20)
    bench.until_fresh(case.path)


def test_what_a_dead_band_holds_back_is_explained_and_no_fault(bench: Bench):
    bench.until_fresh(LEVEL)
    answer = bench.ask(LEVEL)
    assert reason_of(answer, "pipeline") in ("pipeline_quiet", "pipeline_passes")
    assert answer["fresh"]
    if reason_of(answer, "pipeline") == "pipeline_quiet":
        assert "dead-band" in answer["notes"]["en"][0] and "死区" in answer["notes"]["zh"][0]


def test_rest_says_the_same_as_the_command(bench: Bench):
    bench.until_fresh(FLOW)
    with bench.device_off():
        told = bench.until_culprit(FLOW, "device", {"device_away"})
        answer = bench.rest.why(FLOW)
        assert [hop["name"] for hop in answer["hops"]] == list(HOPS)
        for key in ("tag_id", "path", "connection", "fresh", "culprit"):
            assert answer[key] == told[key], key
        assert "plc does not answer since" in answer["headline"]["en"]
        assert "没有应答" in answer["headline"]["zh"]


def test_every_fault_of_the_catalogue_stands_in_the_page():
    page = DOCS.read_text(encoding="utf-8")
    for case in CASES:
        assert f"| {case.name} | {case.hop} |" in page, case.name
