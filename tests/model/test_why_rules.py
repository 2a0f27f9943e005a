"""The diagnosis: one culprit, nothing proven by default, every fault named at its own hop."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from headrace.model import status as st
from headrace.model.health import ConnectionState, HistorianState
from headrace.model.time import US_PER_S
from headrace.model.why import HOPS, diagnose
from headrace.model.why_facts import (
    BusFacts,
    EdgeFacts,
    Facts,
    ScreenFacts,
    TableFacts,
    WhyTag,
    WriterFacts,
)

NOW = 1_700_000_000 * US_PER_S
TAG = WhyTag(tag_id=7, path="a/b/flow", connection="plc", edge="local")


def ago(seconds: float) -> int:
    return NOW - int(seconds * US_PER_S)


def well() -> Facts:
    """A polled tag that is fresh on every hop."""
    return Facts(
        at_us=NOW,
        tag=TAG,
        edge=EdgeFacts(
            at_us=NOW,
            config_hash="c",
            has_tag=True,
            connection=ConnectionState(
                connection="plc",
                protocol="modbus",
                endpoint="x",
                edge="local",
                state="connected",
                since_us=ago(600),
                last_success_us=ago(1),
            ),
            heard_us=ago(1),
            source_us=ago(1),
            received_us=ago(1),
            status=st.GOOD,
            passed_us=ago(1),
            passed_source_us=ago(1),
            acknowledged_us=ago(0.9),
        ),
        edge_seen_us=ago(0.5),
        desired_hash="c",
        desired_since_us=ago(600),
        bus=BusFacts(answers=True, last_sequence=100, subject_us=ago(0.9)),
        writer=WriterFacts(
            state=HistorianState(
                state="running",
                at_us=ago(0.5),
                started_us=ago(600),
                committed_sequence=80,
                last_sequence=99,
                last_commit_us=ago(10),
            ),
            heard_us=ago(0.5),
            oldest_waiting_us=ago(10),
        ),
        table=TableFacts(
            readable=True, committed_sequence=80, source_us=ago(1), received_us=ago(1)
        ),
        screen=ScreenFacts(
            at_us=NOW, connected=True, feed_us=ago(0.2), source_us=ago(1), received_us=ago(1)
        ),
    )


def connection(facts: Facts) -> ConnectionState:
    assert facts.edge is not None and facts.edge.connection is not None
    return facts.edge.connection


def edge(facts: Facts) -> EdgeFacts:
    assert facts.edge is not None
    return facts.edge


def screen(facts: Facts) -> ScreenFacts:
    assert facts.screen is not None
    return facts.screen


def historian(facts: Facts) -> HistorianState:
    assert facts.writer.state is not None
    return facts.writer.state


def device_away(f: Facts) -> None:
    connection(f).state, connection(f).last_error_code = "waiting", "EDGE-3001"
    connection(f).next_try_us = NOW + 3 * US_PER_S
    edge(f).status, edge(f).received_us = st.BAD_NO_COMMUNICATION, ago(20)
    edge(f).passed_us = edge(f).passed_source_us = ago(19)


def device_silent(f: Facts) -> None:
    edge(f).received_us = edge(f).passed_us = edge(f).passed_source_us = ago(7)
    edge(f).heard_us = ago(7)


def device_died(f: Facts) -> None:
    edge(f).status = st.UNCERTAIN_LAST_USABLE_VALUE


def device_says(f: Facts) -> None:
    edge(f).status = st.BAD_SENSOR_FAILURE | 0x0400


def device_slow(f: Facts) -> None:
    connection(f).state, connection(f).last_error_code = "degraded", "EDGE-1018"


def device_clock(f: Facts) -> None:
    connection(f).device_clock_offset_us = -600 * US_PER_S


def device_stamps(f: Facts) -> None:
    edge(f).source_us = ago(-90)


def device_connecting(f: Facts) -> None:
    connection(f).state = "connecting"


def device_never(f: Facts) -> None:
    edge(f).received_us = edge(f).passed_us = edge(f).source_us = 0
    edge(f).status = st.BAD_WAITING_FOR_INITIAL_DATA
    f.table.source_us = f.table.received_us = 0
    screen(f).source_us = screen(f).received_us = 0


def tag_retired(f: Facts) -> None:
    f.tag = msgspec.structs.replace(f.tag, retired=True)


def connection_paused(f: Facts) -> None:
    f.tag = msgspec.structs.replace(f.tag, paused=True)


def edge_silent(f: Facts) -> None:
    f.edge = None


def connection_refused(f: Facts) -> None:
    connection(f).state, connection(f).last_error_code = "refused", "EDGE-2001"


def edge_runs_older(f: Facts) -> None:
    f.desired_hash = "d"


def tag_not_run(f: Facts) -> None:
    edge(f).has_tag = False


def tag_fails(f: Facts) -> None:
    edge(f).status = st.BAD_NODE_ID_UNKNOWN
    edge(f).tag_error = "EDGE-3012 illegal address"


def protected_stays(f: Facts) -> None:
    edge(f).protection = "stays"


def protected_encrypted(f: Facts) -> None:
    edge(f).protection = "encrypted"


def pipeline_holds(f: Facts) -> None:
    edge(f).passed_us = edge(f).passed_source_us = ago(90)
    f.table.source_us = f.table.received_us = ago(90)
    screen(f).source_us = screen(f).received_us = ago(90)


def lane_waits(f: Facts) -> None:
    edge(f).waiting_since_us, edge(f).buffered = ago(9), 500


def bus_away(f: Facts) -> None:
    f.bus = BusFacts(code="BUS-1025", error="no answer")


def log_refuses(f: Facts) -> None:
    edge(f).trouble_code, edge(f).waiting_since_us = "BUS-1021", ago(9)


def log_behind(f: Facts) -> None:
    f.bus.subject_us = ago(30)


def writer_silent(f: Facts) -> None:
    f.writer.heard_us = ago(20)


def writer_never_heard(f: Facts) -> None:
    f.writer = WriterFacts()


def writer_waits(f: Facts) -> None:
    historian(f).state, historian(f).last_error_code = "waiting", "BUS-1032"


def writer_behind(f: Facts) -> None:
    f.writer.oldest_waiting_us = ago(50)


def table_refuses(f: Facts) -> None:
    historian(f).state, historian(f).last_error_code = "disk_full", "HIST-1025"


def table_unreadable(f: Facts) -> None:
    f.table.readable, f.table.code = False, "HIST-1041"


def table_behind(f: Facts) -> None:
    f.table.committed_sequence = 50


def tail_paused(f: Facts) -> None:
    f.table.tail_paused = True


def console_silent(f: Facts) -> None:
    f.screen = None


def screen_cut(f: Facts) -> None:
    screen(f).connected = False


def screen_feed_old(f: Facts) -> None:
    screen(f).feed_us = screen(f).received_us = screen(f).source_us = ago(60)


def browser_cut(f: Facts) -> None:
    screen(f).browser = False


Fault = Callable[[Facts], None]
FAULTS: dict[str, tuple[Fault, ...]] = {
    "device": (
        device_away,
        device_silent,
        device_died,
        device_says,
        device_slow,
        device_clock,
        device_stamps,
        device_connecting,
        device_never,
    ),
    "connector": (
        tag_retired,
        connection_paused,
        edge_silent,
        connection_refused,
        edge_runs_older,
        tag_not_run,
        tag_fails,
    ),
    "pipeline": (protected_stays, protected_encrypted, pipeline_holds, lane_waits),
    "bus": (bus_away, log_refuses, log_behind),
    "writer": (writer_silent, writer_never_heard, writer_waits, writer_behind),
    "table": (table_refuses, table_unreadable, table_behind, tail_paused),
    "screen": (console_silent, screen_cut, screen_feed_old, browser_cut),
}
EVERY = [(hop, fault) for hop, faults in FAULTS.items() for fault in faults]
HIDES_WHAT_IS_BEFORE = {
    tag_retired, connection_paused, edge_silent, connection_refused, tag_not_run, bus_away,
}  # fmt: skip
"""Faults over which the facts of earlier hops would have come."""


TAKE_ALL = (edge_silent, console_silent, writer_never_heard, bus_away)
"""Faults that leave nothing that another one could change."""


def hit(*faults: Fault) -> Facts:
    """Where two faults want the same fact to be different, the earlier hop's has its way."""
    facts = well()
    place = {fault: number for number, (_, fault) in enumerate(EVERY)}
    for fault in sorted(faults, key=lambda f: (f in TAKE_ALL, -place[f])):
        fault(facts)
    return facts


def test_all_well_is_proven_everywhere_and_has_no_culprit():
    answer = diagnose(well())
    assert answer.fresh and answer.culprit == ""
    assert {hop.state for hop in answer.hops} == {"proven"}
    assert [hop.name for hop in answer.hops] == list(HOPS)


@pytest.mark.parametrize(("hop", "fault"), EVERY, ids=lambda x: getattr(x, "__name__", x))
def test_one_fault_is_named_at_its_hop(hop: str, fault: Fault):
    answer = diagnose(hit(fault))
    assert answer.culprit == hop, answer
    assert not answer.fresh
    assert answer.hop(hop).state in ("waiting", "broken")


@pytest.mark.parametrize(("hop", "fault"), EVERY, ids=lambda x: getattr(x, "__name__", x))
def test_hops_before_the_culprit_are_proven_or_hidden_by_it(hop: str, fault: Fault):
    answer = diagnose(hit(fault))
    before = answer.hops[: HOPS.index(hop)]  # type: ignore[arg-type] # names of hops
    if fault in HIDES_WHAT_IS_BEFORE:
        assert all(h.state == "proven" or h.hidden_by == hop for h in before), answer
    else:
        assert {h.state for h in before} <= {"proven"}, answer


BLIND = {
    (device_silent, log_refuses),  # a full lane lets nobody ask the device
    (device_never, log_refuses),
    (device_stamps, tag_fails),  # a value that cannot be read has no stamp of the device
    (lane_waits, log_refuses),  # it waits because the log refuses
    (writer_behind, table_refuses),  # it takes nothing because the table takes nothing
}


def test_of_two_faults_the_earlier_hop_is_the_culprit():
    """Save those that hide what was before: then the facts of the earlier one are not to be had."""
    for (hop_1, one), (hop_2, two) in itertools.combinations(EVERY, 2):
        if hop_1 == hop_2 or {one, two} & HIDES_WHAT_IS_BEFORE or (one, two) in BLIND:
            continue
        answer = diagnose(hit(one, two))
        assert answer.culprit == hop_1, (one.__name__, two.__name__, answer)


@given(some.sets(some.sampled_from([fault for _, fault in EVERY]), max_size=6))
def test_more_faults_never_make_it_fresh_nor_the_culprit_later_than_the_first_that_shows(faults):
    answer = diagnose(hit(*faults))
    assert answer.fresh == (not faults)
    bad = [hop for hop in answer.hops if hop.state in ("waiting", "broken")]
    if faults:
        assert bad and answer.culprit == bad[0].name
        last = max(HOPS.index(hop) for hop, fault in EVERY if fault in faults)
        assert HOPS.index(answer.culprit) <= last  # type: ignore[arg-type] # a hop
    for hop in answer.hops:
        assert hop.hidden_by == "" or hop.state == "unknown"


def _without_evidence() -> list[tuple[str, Callable[[Facts], None]]]:
    def nothing_read(f: Facts) -> None:
        f.edge = EdgeFacts(at_us=NOW, has_tag=True, connection=connection(f), config_hash="c")

    def no_bus(f: Facts) -> None:
        f.bus = BusFacts()

    def no_writer(f: Facts) -> None:
        f.writer = WriterFacts()

    def no_table(f: Facts) -> None:
        f.table = TableFacts()

    def no_screen(f: Facts) -> None:
        f.screen = None

    return [
        ("device", nothing_read),
        ("pipeline", nothing_read),
        ("bus", no_bus),
        ("writer", no_writer),
        ("table", no_table),
        ("screen", no_screen),
    ]


@pytest.mark.parametrize(("hop", "forget"), _without_evidence())
def test_no_evidence_is_never_proof(hop: str, forget: Callable[[Facts], None]):
    facts = well()
    forget(facts)
    assert diagnose(facts).hop(hop).state != "proven"


def test_a_quiet_tag_of_a_device_that_keeps_alive_is_proven():
    facts = well()
    e = edge(facts)
    e.polled, e.keeps_alive, e.heard_us = False, True, ago(1)
    e.source_us = e.received_us = e.passed_us = e.passed_source_us = ago(900)
    for place in (facts.table, screen(facts)):
        place.source_us = place.received_us = ago(900)
    answer = diagnose(facts)
    assert answer.fresh and answer.hop("device").reason == "device_quiet"
    e.heard_us = ago(30)
    assert diagnose(facts).culprit == "device"


def test_a_device_that_speaks_when_it_wants_is_unknown_when_it_is_quiet_and_not_green():
    facts = well()
    e = edge(facts)
    e.polled = False
    e.source_us = e.received_us = e.passed_us = e.passed_source_us = ago(900)
    for place in (facts.table, screen(facts)):
        place.source_us = place.received_us = ago(900)
    answer = diagnose(facts)
    assert (answer.fresh, answer.culprit) == (False, "device")
    assert answer.hop("device").state == "unknown"
    writer_silent(facts)
    assert diagnose(facts).culprit == "writer", "what is certainly broken comes before what may be"


def test_what_a_dead_band_holds_back_is_quiet_and_no_fault():
    facts = well()
    e = edge(facts)
    e.passed_us = e.passed_source_us = ago(40)
    for place in (facts.table, screen(facts)):
        place.source_us = place.received_us = ago(40)
    answer = diagnose(facts)
    assert answer.fresh and answer.hop("pipeline").reason == "pipeline_quiet"
    assert ("filtered", {"since_us": 40 * US_PER_S}) in answer.notes


def test_a_value_that_does_not_change_is_a_note_and_no_fault():
    facts = well()
    facts.table.unchanged_us = 300 * US_PER_S
    answer = diagnose(facts)
    assert answer.fresh and answer.notes == (("unchanged", {"for_us": 300 * US_PER_S}),)


def test_a_screen_that_lacks_what_the_log_has_is_broken():
    facts = well()
    e = edge(facts)
    e.polled, e.keeps_alive, e.heard_us = False, True, ago(1)
    e.source_us = e.received_us = e.passed_us = e.passed_source_us = ago(60)
    facts.table.source_us = facts.table.received_us = ago(60)
    screen(facts).source_us = screen(facts).received_us = ago(120)
    assert diagnose(facts).culprit == "screen"
    e.passed_us = ago(1)  # it may be on its way
    assert diagnose(facts).fresh


def test_errors_and_the_next_try_come_along():
    hop = diagnose(hit(device_away)).hop("device")
    assert (hop.code, hop.next_try_us) == ("EDGE-3001", NOW + 3 * US_PER_S)
    assert hop.last_success_us == ago(20)
    fails = diagnose(hit(tag_fails)).hop("connector")
    assert (fails.code, fails.error) == ("EDGE-3012", "illegal address")
    assert fails.values == {"status": "BadNodeIdUnknown"}
    assert diagnose(hit(device_clock)).hop("device").clock_offset_us == -600 * US_PER_S


def test_an_answer_travels_as_json():
    answer = diagnose(hit(device_away, writer_silent))
    raw = msgspec.json.encode(answer)
    assert msgspec.json.encode(msgspec.json.decode(raw, type=type(answer))) == raw


def test_a_window_that_is_not_over_is_no_fault_of_the_pipeline():
    facts = hit(pipeline_holds)
    edge(facts).protection = "aggregated"
    hop = diagnose(facts).hop("pipeline")
    assert (hop.state, hop.reason) == ("waiting", "protection_aggregated")
    within = well()
    edge(within).protection = "aggregated"
    assert diagnose(within).fresh
