"""The host session's rules, message by message (Sparkplug 3.0, chapters 5 and 6)."""

from __future__ import annotations

import json

import pytest
from sparkplug_wire import NOW_US, Bench, bd_seq, birth_metric, datum, payload

from headrace.edge.connectors.sparkplug.config import MetricAddress
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Refused

TEMPERATURE = ("", "temperature", 1)
POWER = ("meter", "power", 2)


def born(*tags: tuple[str, str, int]) -> Bench:
    """A bench whose node (alias 1) and device (alias 2) are born, with nothing left to take."""
    bench = Bench(*(tags or (TEMPERATURE, POWER)))
    bench.node("NBIRTH", payload(0, bd_seq(7), birth_metric("temperature", 1, 20.0)))
    bench.device("DBIRTH", "meter", payload(1, birth_metric("power", 2, 5.0)))
    bench.samples()
    bench.rebirths()
    bench.codes()
    return bench


def test_births_give_their_values() -> None:
    bench = Bench(TEMPERATURE, POWER)
    bench.node("NBIRTH", payload(0, bd_seq(7), birth_metric("temperature", 1, 20.0)))
    bench.device("DBIRTH", "meter", payload(1, birth_metric("power", 2, 5.0)))
    assert bench.samples() == [(1, 20.0), (2, 5.0)]
    assert bench.rebirths() == 0


def test_data_by_alias_and_by_name() -> None:
    bench = born()
    bench.node("NDATA", payload(2, datum(1, 21.5)))
    bench.device(
        "DDATA", "meter", payload(3, {"name": "power", "value": 6.5, "of": int(DataType.DOUBLE)})
    )
    assert bench.samples() == [(1, 21.5), (2, 6.5)]


def test_sequence_wraps_from_255_to_0() -> None:
    bench = born()
    for seq in (*range(2, 256), 0, 1):
        bench.node("NDATA", payload(seq, datum(1, float(seq))))
    assert [value for _, value in bench.samples()] == [float(s) for s in (*range(2, 256), 0, 1)]
    assert bench.rebirths() == 0


def test_order_is_restored_within_the_timeout() -> None:
    bench = born()
    for seq in (4, 3, 5):
        bench.node("NDATA", payload(seq, datum(1, float(seq))))
    assert bench.samples() == []
    bench.wait(1.9)
    bench.node("NDATA", payload(2, datum(1, 2.0)))
    assert bench.samples() == [(1, 2.0), (1, 3.0), (1, 4.0), (1, 5.0)]
    bench.wait(10.0)
    assert bench.rebirths() == 0


def test_gap_ends_in_a_rebirth_request() -> None:
    bench = born()
    bench.node("NDATA", payload(5, datum(1, 27.0)))
    bench.wait(1.9)
    assert bench.rebirths() == 0
    bench.wait(0.2)
    assert bench.rebirths() == 1
    assert bench.codes() == ["EDGE-4202"]
    assert bench.samples() == []
    assert bench.out.gaps == 3, "messages 2, 3 and 4"


def test_what_came_after_a_gap_is_used_when_births_confirm_it() -> None:
    bench = born()
    bench.node("NDATA", payload(5, datum(1, 27.0)))
    bench.device("DDATA", "meter", payload(6, datum(2, 9.0)))
    bench.wait(2.1)
    bench.node("NBIRTH", payload(0, bd_seq(7), birth_metric("temperature", 1, 28.0)))
    bench.device("DBIRTH", "meter", payload(1, birth_metric("power", 3, 10.0)))
    # The node's alias means the same as before; the device's does not: its value is not guessed.
    assert (1, 27.0) in bench.samples()
    assert "EDGE-4211" in bench.codes()


def test_rebirth_requests_are_limited_in_rate_and_repeated() -> None:
    bench = born()
    bench.node("NDATA", payload(2, datum(99, 1.0)))
    for seq in range(3, 60):
        bench.node("NDATA", payload(seq, datum(99, 1.0)))
    assert bench.rebirths() == 1
    bench.wait(9.0)
    assert bench.rebirths() == 0
    bench.wait(11.1)
    assert bench.rebirths() == 1


def test_unknown_alias_asks_and_spoils_nothing_else() -> None:
    bench = born()
    bench.node("NDATA", payload(2, datum(99, 1.0), datum(1, 22.0)))
    assert bench.samples() == [(1, 22.0)]
    assert bench.rebirths() == 1


def test_alias_of_another_device_is_never_used() -> None:
    bench = born()
    bench.node("NDATA", payload(2, datum(2, 77.0)))
    assert bench.samples() == []
    assert bench.rebirths() == 1


def test_alias_that_two_devices_claim_is_refused() -> None:
    bench = born()
    bench.device("DBIRTH", "other", payload(2, birth_metric("power", 2, 5.0)))
    assert bench.rebirths() == 1
    bench.device("DDATA", "other", payload(3, datum(2, 6.0)))
    assert bench.samples() == []


def test_data_before_birth_asks_for_birth() -> None:
    bench = Bench(TEMPERATURE)
    bench.wait(0.5)
    bench.node("NDATA", payload(1, datum(1, 25.0)))
    bench.wait(0.6)
    assert bench.samples() == []
    assert bench.rebirths() == 1


def test_data_of_an_unborn_device_asks_for_birth() -> None:
    bench = born()
    bench.device("DDATA", "other", payload(2, datum(1, 1.0)))
    assert bench.samples() == []
    assert bench.rebirths() == 1


def test_silent_declared_node_is_asked_after_the_grace() -> None:
    bench = Bench(TEMPERATURE)
    bench.wait(0.9)
    assert bench.rebirths() == 0
    bench.wait(0.2)
    assert bench.rebirths() == 1


def test_node_death_makes_all_its_tags_stale_at_once() -> None:
    bench = born()
    bench.node("NDEATH", payload(None, bd_seq(7)))
    assert bench.stale() == {1, 2}
    bench.node("NDATA", payload(2, datum(1, 1.0)))
    assert bench.samples() == []


def test_death_of_an_earlier_session_is_ignored() -> None:
    bench = born()
    bench.node("NDEATH", payload(None, bd_seq(6)))
    assert bench.stale() == set()
    assert bench.codes() == ["EDGE-4212"]
    bench.node("NDATA", payload(2, datum(1, 1.0)))
    assert bench.samples() == [(1, 1.0)]


def test_device_death_makes_only_its_tags_stale() -> None:
    bench = born()
    bench.device("DDEATH", "meter", payload(2))
    assert bench.stale() == {2}
    bench.device("DDATA", "meter", payload(3, datum(2, 1.0)))
    assert bench.samples() == []
    assert bench.rebirths() == 1


def test_device_death_counts_at_once_while_the_sequence_is_broken() -> None:
    bench = born()
    bench.node("NDATA", payload(9, datum(1, 1.0)))
    bench.wait(2.1)
    bench.device("DDEATH", "meter", payload(10))
    assert bench.stale() == {2}


def test_device_that_is_not_born_again_goes_stale() -> None:
    bench = born()
    bench.node("NBIRTH", payload(0, bd_seq(7), birth_metric("temperature", 1, 20.0)))
    assert bench.stale() == set()
    bench.wait(3.1)
    assert bench.stale() == {2}


def test_birth_after_death_confirms_an_unchanged_value() -> None:
    bench = born()
    bench.node("NDEATH", payload(None, bd_seq(7)))
    old = birth_metric("temperature", 1, 20.0) | {"timestamp": NOW_US // 1_000}
    bench.node("NBIRTH", payload(0, bd_seq(8), old, timestamp_ms=NOW_US // 1_000 + 5_000))
    batch = bench.out.columns.take()
    assert batch["value"].to_list() == [20.0]
    assert batch["source_timestamp"].to_physical().to_list() == [NOW_US + 5_000_000]


def test_rebirth_repeats_no_sample() -> None:
    bench = born()
    bench.node("NBIRTH", payload(0, bd_seq(7), birth_metric("temperature", 1, 20.0)))
    assert bench.samples() == []


def test_declared_metric_that_the_birth_lacks_is_bad() -> None:
    bench = Bench(TEMPERATURE, ("", "humidity", 3))
    bench.node("NBIRTH", payload(0, bd_seq(7), birth_metric("temperature", 1, 20.0)))
    batch = bench.out.columns.take()
    assert batch["tag_id"].to_list() == [1, 3]
    assert batch["status"].to_list() == [codes.GOOD, codes.BAD_NODE_ID_UNKNOWN]
    assert bench.out.tag_errors[3].startswith("EDGE-4206")


def test_undeclared_metrics_are_counted_and_not_stored() -> None:
    bench = Bench(TEMPERATURE)
    bench.node(
        "NBIRTH",
        payload(0, bd_seq(7), birth_metric("temperature", 1, 1.0), birth_metric("extra", 2, 2.0)),
    )
    bench.node("NDATA", payload(1, datum(2, 3.0)))
    assert bench.samples() == [(1, 1.0)]
    assert bench.session.nodes["hall", "node_1"].undeclared == 2


def test_new_tag_of_a_living_node_gets_its_value_by_a_rebirth() -> None:
    bench = born(TEMPERATURE)
    tags = [
        (MetricAddress("hall", "node_1", "", "temperature"), 1, 0),
        (MetricAddress("hall", "node_1", "meter", "power"), 2, 0),
    ]
    bench.session.declare(tags, bench.now_s, 1.0)
    assert bench.rebirths() == 1
    bench.device("DDATA", "meter", payload(2, datum(2, 6.0)))
    assert bench.samples() == [(2, 6.0)]


@pytest.mark.parametrize(
    "body", [b"\xff\xff", b"\x0a", b"not protobuf at all", b"\x12\x02\x0a\x05"]
)
def test_garbage_raises_nothing_and_asks(body: bytes) -> None:
    bench = born()
    bench.node("NDATA", body)
    assert bench.samples() == []
    assert bench.rebirths() == 1
    assert "EDGE-4201" in bench.codes()


@pytest.mark.parametrize(
    "topic",
    ["spBv1.0", "spBv1.0/hall", "spBv1.0/hall/NDATA", "x/hall/NDATA/n", "spBv1.0/h/DDATA/n"],
)
def test_foreign_topics_are_ignored(topic: str) -> None:
    bench = born()
    bench.session.receive(topic, b"\xff", NOW_US, bench.now_s)
    assert bench.codes() == []


def test_state_is_online_only_once_subscribed_and_has_the_wills_time() -> None:
    bench = Bench()
    will = bench.session.will(1_234)
    assert json.loads(will.payload) == {"online": False, "timestamp": 1_234}
    assert (will.topic, will.qos, will.retain) == ("spBv1.0/STATE/scada", 1, True)
    assert bench.session.outbox == []
    bench.session.subscribed()
    (birth,) = bench.session.outbox
    assert json.loads(birth.payload) == {"online": True, "timestamp": 1_234}
    assert (birth.topic, birth.qos, birth.retain) == ("spBv1.0/STATE/scada", 1, True)


def test_foreign_word_that_we_are_offline_is_corrected() -> None:
    bench = Bench()
    bench.session.will(1_234)
    bench.session.subscribed()
    bench.session.outbox.clear()
    offline = json.dumps({"online": False, "timestamp": 1}).encode()
    for host_id, answers in (("other", 0), ("scada", 1)):
        bench.session.receive(f"spBv1.0/STATE/{host_id}", offline, NOW_US, bench.now_s)
        assert len(bench.session.outbox) == answers
    assert json.loads(bench.session.outbox[0].payload) == {"online": True, "timestamp": 1_234}


def test_goodbye_has_the_time_of_the_goodbye() -> None:
    bench = Bench()
    bench.session.will(1_234)
    bench.session.subscribed()
    death = bench.session.goodbye(5_678)
    assert json.loads(death.payload) == {"online": False, "timestamp": 5_678}
    assert (death.qos, death.retain) == (1, True)


def test_rebirth_request_on_the_wire() -> None:
    bench = born()
    bench.node("NDATA", payload(2, datum(99, 1.0)))
    (request,) = bench.session.outbox
    assert (request.topic, request.qos, request.retain) == ("spBv1.0/hall/NCMD/node_1", 0, False)
    body = Payload.FromString(request.payload)
    assert body.HasField("timestamp") and not body.HasField("seq")
    (metric,) = body.metrics
    assert (metric.name, metric.boolean_value) == ("Node Control/Rebirth", True)
    assert not metric.HasField("alias")


def test_commands_on_the_wire() -> None:
    bench = born()
    for device, metric, kind in (("", "temperature", "NCMD"), ("meter", "power", "DCMD")):
        address = MetricAddress("hall", "node_1", device, metric)
        command = bench.session.command(address, 3.5, 99)
        below = f"/{device}" if device else ""
        assert command.topic == f"spBv1.0/hall/{kind}/node_1{below}"
        assert (command.qos, command.retain) == (0, False)
        body = Payload.FromString(command.payload)
        assert body.timestamp == 99 and not body.HasField("seq")
        (entry,) = body.metrics
        assert not entry.HasField("name") and entry.alias in (1, 2)
        assert entry.double_value == 3.5 and not entry.HasField("datatype")


def test_command_to_what_is_not_born_is_refused() -> None:
    bench = born()
    with pytest.raises(Refused, match="EDGE-4209"):
        bench.session.command(MetricAddress("hall", "node_1", "other", "x"), 1.0, 0)
    with pytest.raises(Misconfigured, match="EDGE-4208"):
        bench.session.command(MetricAddress("hall", "node_1", "", "temperature"), "hot", 0)


def test_historical_values_are_samples_with_their_own_time() -> None:
    bench = born()
    old_ms = NOW_US // 1_000 - 60_000
    bench.node("NDATA", payload(2, datum(1, 19.0, is_historical=True, timestamp=old_ms)))
    batch = bench.out.columns.take()
    assert batch["source_timestamp"].to_physical().to_list() == [old_ms * 1_000]
    assert bench.session.nodes["hall", "node_1"].metrics[""]["temperature"].last_us == NOW_US
