"""Why is this value old? From facts to a diagnosis; pure.

A value comes to a screen over seven hops, one of a formula over six::

    device ► connector ► pipeline ► bus ► writer ► table ► screen
             inputs ► formula ───────┘                             (of a formula's value)

Each hop is judged by itself, from facts about it: it is **proven** when a fact that is young enough shows
that it has passed on all that it was given; **waiting** when it goes on by itself later; **broken** when
it does not; **unknown** when no fact speaks for or against it. Nothing is proven by default. A fact that
can be had only over another hop that does not work is unknown, *hidden by* that hop.

The culprit is the first hop that is waiting or broken; without one the first that is unknown; none when
all are proven, and only then is the value fresh. The rules stand in ``_RULES`` in the order in which
they are asked, the first that holds decides; ``docs/why.md`` shows them as a table.

Ages of what an edge says are reckoned by the edge's own clock, so that two machines need not agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from headrace.model import status as st
from headrace.model.health import ConnectionState
from headrace.model.time import US_PER_MS, US_PER_S
from headrace.model.why_derived import judge_formula, judge_inputs, told_of_formula
from headrace.model.why_facts import EdgeFacts, Facts, ScreenFacts, WhyTag

HopName = Literal[
    "device", "connector", "pipeline", "inputs", "formula", "bus", "writer", "table", "screen"
]
HopState = Literal["proven", "waiting", "broken", "unknown"]
HOPS: Final[tuple[HopName, ...]] = (
    "device", "connector", "pipeline", "bus", "writer", "table", "screen",
)  # fmt: skip
DERIVED_HOPS: Final[tuple[HopName, ...]] = (
    "inputs", "formula", "bus", "writer", "table", "screen",
)  # fmt: skip
"""Of a value that a formula gives; see :mod:`headrace.model.why_derived`."""

TRANSIT_US: Final = 3 * US_PER_S
"""How long a sample may be on its way over one hop."""
INTERVALS: Final = 2
"""So many scan intervals after its last answer a polled device has missed one for certain."""
HEARD_US: Final = 10 * US_PER_S
"""Silence of a subscription that promised keep-alives (three of them, and an answer's time)."""
SILENCE_US: Final = 60 * US_PER_S
"""The longest that a dead-band holds values back (edge.pipeline.SILENCE_MAX_US)."""
COMMIT_US: Final = 35 * US_PER_S
"""The writer commits each 20 s; what waits for longer than this is late."""
CLOCK_US: Final = 5 * US_PER_S
"""A device's clock that is off by more makes its values look old, or of tomorrow."""
FOLLOW_US: Final = 10 * US_PER_S
"""How long an edge may take to run a changed site file."""
STUCK_US: Final = 60 * US_PER_S
"""A value that has not changed for so long is worth a note."""

_OF_THE_DEVICE: Final = frozenset(
    {
        st.BAD,
        st.BAD_COMMUNICATION_ERROR,
        st.BAD_TIMEOUT,
        st.BAD_NOT_CONNECTED,
        st.BAD_DEVICE_FAILURE,
        st.BAD_SENSOR_FAILURE,
        st.BAD_OUT_OF_SERVICE,
        st.BAD_NO_DATA,
    }
)
"""What a device says of itself; any other Bad is about how we ask: address, type, rights."""
_CODE_BITS: Final = 0xFFFF_0000


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One hop, judged.

    Attributes:
        reason: key of the sentence that says why; ``values`` fill it. Values that end in ``_us`` are
            spans of time, those in ``_at`` moments, both in microseconds.
        last_success_us: when it last certainly did its work; 0 is never or not known.
        clock_offset_us: the device's clock minus ours; None is not known.
        code, error, remedy: the error behind it, or the last one. error_us: when it was.
        next_try_us: when it is tried again; 0 when nothing waits.
        hidden_by: the hop over which its facts would have come.
    """

    name: HopName
    state: HopState
    reason: str
    values: dict[str, Any] = {}
    last_success_us: int = 0
    clock_offset_us: int | None = None
    code: str = ""
    error: str = ""
    remedy: str = ""
    error_us: int = 0
    next_try_us: int = 0
    hidden_by: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The answer.

    Attributes:
        fresh: every hop is proven.
        culprit: the hop to look at first; empty when fresh.
        notes: what is good to know and no fault: (reason, values), as in :class:`Hop`.
    """

    tag: WhyTag
    at_us: int
    fresh: bool
    culprit: str
    hops: tuple[Hop, ...]
    notes: tuple[tuple[str, dict[str, Any]], ...] = ()

    def hop(self, name: str) -> Hop:
        """The hop of this name."""
        return next(hop for hop in self.hops if hop.name == name)


_Verdict = tuple[HopState, str, dict[str, Any]]
_Rule = Callable[[Facts], _Verdict | None]


def diagnose(facts: Facts) -> Diagnosis:
    """Judge every hop and name the culprit.

    Example:
        >>> answer = diagnose(Facts(at_us=0, tag=WhyTag(tag_id=7, path="a/b")))
        >>> answer.fresh, answer.culprit, answer.hop("device").hidden_by
        (False, 'bus', 'bus')
    """
    names = DERIVED_HOPS if facts.tag.derived else HOPS
    hops = tuple(_judge(name, facts) for name in names)
    bad = [hop.name for hop in hops if hop.state in ("waiting", "broken")]
    unknown = [hop.name for hop in hops if hop.state == "unknown"]
    return Diagnosis(
        tag=facts.tag,
        at_us=facts.at_us,
        fresh=not bad and not unknown,
        culprit=[*bad, *unknown, ""][0],
        hops=hops,
        notes=tuple(_notes(facts)),
    )


def poll_bound_us(tag: WhyTag) -> int:
    """Age from which a polled tag's newest answer is too old."""
    return INTERVALS * tag.scan_interval_ms * US_PER_MS + TRANSIT_US


def _judge(name: HopName, facts: Facts) -> Hop:
    state, reason, values = next(
        verdict for rule in _RULES[name] if (verdict := rule(facts)) is not None
    )
    hidden = values.pop("hidden_by", "")
    told: dict[str, Any] = _TOLD[name](facts)
    for key in ("code", "error", "remedy"):
        if key in values:
            told[key] = values.pop(key)
    told = {key: value for key, value in told.items() if value is not None}
    return Hop(name=name, state=state, reason=reason, values=values, hidden_by=hidden, **told)


def _proven(reason: str, **values: Any) -> _Verdict:
    return "proven", reason, values


def _waiting(reason: str, **values: Any) -> _Verdict:
    return "waiting", reason, values


def _broken(reason: str, **values: Any) -> _Verdict:
    return "broken", reason, values


def _unknown(reason: str, **values: Any) -> _Verdict:
    return "unknown", reason, values


# -- who hides what ---------------------------------------------------------------------------


def _hidden(facts: Facts) -> _Verdict | None:
    """What only the edge could tell, when it cannot be asked or does not run the tag."""
    if facts.tag.retired or facts.tag.paused:
        return _unknown("hidden", hidden_by="connector")
    if not facts.bus.answers:
        return _unknown("hidden", hidden_by="bus")
    edge = facts.edge
    if edge is None or not edge.has_tag or edge.connection is None:
        return _unknown("hidden", hidden_by="connector")
    if edge.connection.state in ("disabled", "refused"):
        return _unknown("hidden", hidden_by="connector")
    return None


# -- device -----------------------------------------------------------------------------------


def _device_session(facts: Facts) -> _Verdict | None:
    edge = facts.edge
    assert edge is not None and edge.connection is not None, "asked after _hidden"
    state = edge.connection
    if state.state == "waiting":
        return _broken("device_away", since_at=state.since_us)
    if state.state == "connecting":
        return _waiting("device_connecting", since_at=state.since_us)
    if edge.status == st.UNCERTAIN_LAST_USABLE_VALUE:
        return _broken("device_died", age_us=edge.at_us - edge.passed_us)
    if edge.status & _CODE_BITS in _OF_THE_DEVICE and not _is_mark(edge):
        return _broken("device_says", status=st.name(edge.status))
    return None


def _is_mark(edge: EdgeFacts) -> bool:
    """Whether the newest status is a mark of our own, or there is none yet."""
    return edge.passed_us > edge.received_us or not edge.received_us


def _device_age(facts: Facts) -> _Verdict | None:
    edge = facts.edge
    assert edge is not None and edge.connection is not None, "asked after _hidden"
    age_us = edge.at_us - edge.received_us
    if edge.received_us and age_us <= poll_bound_us(facts.tag):
        return None
    if edge.trouble_code:
        return _unknown("device_not_asked", hidden_by="bus")
    if edge.keeps_alive and not edge.polled and edge.at_us - edge.heard_us <= HEARD_US:
        if edge.received_us:
            return None
        if edge.at_us - edge.connection.since_us <= HEARD_US:
            return _waiting("device_first", since_at=edge.connection.since_us)
        return _broken("device_never", since_at=edge.connection.since_us)
    if not edge.polled and not edge.keeps_alive:
        if not edge.received_us:
            return _unknown("device_unheard")
        return _unknown("device_maybe_quiet", age_us=age_us)
    if edge.at_us - edge.connection.since_us <= poll_bound_us(facts.tag):
        return _waiting("device_first", since_at=edge.connection.since_us)
    if not edge.received_us:
        return _broken("device_never", since_at=edge.connection.since_us)
    return _broken("device_silent", age_us=age_us)


def _device_pace(facts: Facts) -> _Verdict | None:
    state = _connection(facts)
    if state is not None and state.state == "degraded" and state.last_error_code == "EDGE-1018":
        return _waiting("device_slow")
    return None


def _device_clock(facts: Facts) -> _Verdict | None:
    offset_us = clock_offset_us(facts)
    if offset_us is not None and abs(offset_us) > CLOCK_US:
        reason = "device_clock_ahead" if offset_us > 0 else "device_clock_behind"
        return _broken(reason, offset_us=abs(offset_us))
    return None


def _device_well(facts: Facts) -> _Verdict:
    edge = facts.edge
    assert edge is not None, "asked after _hidden"
    age_us = edge.at_us - edge.received_us
    if age_us <= poll_bound_us(facts.tag):
        return _proven("device_answers", age_us=age_us)
    return _proven("device_quiet", age_us=age_us, heard_us=edge.at_us - edge.heard_us)


def clock_offset_us(facts: Facts) -> int | None:
    """The device's clock minus ours, in microseconds; None when nothing tells.

    A device that tells its time is believed. Of one that only stamps its values, a young value's stamp
    tells; but where changes alone are reported, a stamp is as old as the last change.
    """
    edge = facts.edge
    if edge is None or edge.connection is None:
        return None
    if edge.connection.device_clock_offset_us is not None:
        return edge.connection.device_clock_offset_us
    if edge.keeps_alive or not edge.source_us or st.is_bad(edge.status):
        return None
    # Equal to the microsecond: the connector stamped the value itself, no device told a time.
    return edge.source_us - edge.received_us or None


# -- connector --------------------------------------------------------------------------------


def _connector_desired(facts: Facts) -> _Verdict | None:
    if facts.tag.retired:
        return _broken("tag_retired")
    if facts.tag.paused:
        return _waiting("connection_paused", connection=facts.tag.connection)
    if not facts.bus.answers:
        return _unknown("hidden", hidden_by="bus")
    return None


def _connector_edge(facts: Facts) -> _Verdict | None:
    edge, tag = facts.edge, facts.tag
    if edge is None:
        return _broken("edge_silent", edge=tag.edge, since_at=facts.edge_seen_us)
    state = edge.connection
    if state is not None and state.state == "refused":
        return _broken("connection_refused", connection=tag.connection)
    late = facts.desired_hash and facts.desired_hash != edge.config_hash
    if late and facts.at_us - facts.desired_since_us > FOLLOW_US:
        return _broken("edge_runs_older", edge=tag.edge, since_at=facts.desired_since_us)
    if not edge.has_tag or state is None:
        return _waiting("edge_takes_over", edge=tag.edge)
    if state.state == "disabled":
        return _waiting("source_ended", connection=tag.connection)
    return None


def _connector_tag(facts: Facts) -> _Verdict | None:
    edge = facts.edge
    assert edge is not None and edge.connection is not None, "asked after _connector_edge"
    state = edge.connection
    if state.state in ("waiting", "connecting"):
        return _waiting("connector_retries", connection=state.connection)
    is_ours = edge.status & _CODE_BITS not in _OF_THE_DEVICE and not _is_mark(edge)
    if st.is_bad(edge.status) and is_ours:
        code, _, text = edge.tag_error.partition(" ")
        known = {"code": code, "error": text} if "-" in code and text else {}
        return _broken("tag_fails", status=st.name(edge.status), **known)
    return None


def _connector_well(facts: Facts) -> _Verdict:
    return _proven("connector_runs", edge=facts.tag.edge)


# -- pipeline ---------------------------------------------------------------------------------


def _pipeline_lane(facts: Facts) -> _Verdict | None:
    edge = facts.edge
    assert edge is not None, "asked after _hidden"
    if not edge.received_us and not edge.passed_us:
        return _unknown("pipeline_empty", hidden_by="device")
    if edge.protection in ("stays", "encrypted"):
        return _waiting(f"protection_{edge.protection}", connection=facts.tag.connection)
    held_us = edge.received_us - edge.passed_us
    if held_us > SILENCE_US + poll_bound_us(facts.tag):
        if edge.protection == "aggregated":
            return _waiting("protection_aggregated", age_us=held_us)
        return _broken("pipeline_holds", age_us=held_us)
    waits_us = edge.at_us - edge.waiting_since_us
    if edge.waiting_since_us and waits_us > TRANSIT_US and not edge.trouble_code:
        return _waiting("lane_waits", buffered=edge.buffered, age_us=waits_us)
    return None


def _pipeline_well(facts: Facts) -> _Verdict:
    edge = facts.edge
    assert edge is not None, "asked after _hidden"
    if edge.received_us > edge.passed_us:
        return _proven("pipeline_quiet", age_us=edge.at_us - edge.passed_us)
    return _proven("pipeline_passes", age_us=edge.at_us - edge.passed_us)


# -- bus --------------------------------------------------------------------------------------


def _bus_away(facts: Facts) -> _Verdict | None:
    bus, edge = facts.bus, facts.derived or facts.edge
    if not bus.answers:
        return _broken("bus_away")
    if edge is not None and edge.trouble_code:
        return _broken(
            "log_refuses",
            code=edge.trouble_code,
            error=edge.trouble,
            remedy=edge.trouble_remedy,
            buffered=edge.buffered,
        )
    return None


def _bus_behind(facts: Facts) -> _Verdict | None:
    """An edge with a log of its own has more than the log here: the link between them is cut."""
    bus, edge = facts.bus, facts.edge
    if edge is None or not edge.acknowledged_us or not bus.subject_us:
        return None
    behind_us = (facts.at_us - bus.subject_us) - (edge.at_us - edge.acknowledged_us)
    if behind_us > 2 * TRANSIT_US:
        return _waiting("log_behind", age_us=behind_us)
    return None


def _bus_well(facts: Facts) -> _Verdict:
    return _proven("bus_answers", sequence=facts.bus.last_sequence)


# -- writer -----------------------------------------------------------------------------------


def _writer_away(facts: Facts) -> _Verdict | None:
    writer = facts.writer
    if not facts.bus.answers:
        return _unknown("hidden", hidden_by="bus")
    if writer.state is None or facts.at_us - writer.heard_us > 2 * TRANSIT_US:
        return _broken("writer_silent", since_at=writer.heard_us)
    if writer.state.state == "waiting":
        return _waiting("writer_waits")
    return None


def _writer_behind(facts: Facts) -> _Verdict | None:
    writer = facts.writer
    assert writer.state is not None, "asked after _writer_away"
    if writer.state.state == "disk_full":
        return _proven("writer_held")
    waits_us = facts.at_us - writer.oldest_waiting_us
    if writer.oldest_waiting_us and waits_us > COMMIT_US:
        behind = facts.bus.last_sequence - writer.state.committed_sequence
        return _waiting("writer_behind", frames=behind, age_us=waits_us)
    return None


def _writer_well(facts: Facts) -> _Verdict:
    state = facts.writer.state
    assert state is not None, "asked after _writer_away"
    return _proven("writer_runs", frames=max(0, facts.bus.last_sequence - state.committed_sequence))


# -- table ------------------------------------------------------------------------------------


def _table_refuses(facts: Facts) -> _Verdict | None:
    table, state = facts.table, facts.writer.state
    if state is not None and state.state == "disk_full":
        return _broken("table_refuses", code=state.last_error_code, error=state.last_error)
    if not table.readable:
        return _broken("table_unreadable", code=table.code, error=table.error, remedy=table.remedy)
    if table.tail_paused:
        return _waiting("tail_paused", code="HIST-1031")
    return None


def _table_lacks(facts: Facts) -> _Verdict | None:
    table, state = facts.table, facts.writer.state
    if state is not None and table.committed_sequence >= 0:
        old = facts.at_us - state.last_commit_us > 2 * TRANSIT_US
        if old and table.committed_sequence < state.committed_sequence:
            return _broken("table_behind", sequence=table.committed_sequence)
    if _lacks(facts, table.source_us):
        return _broken("table_lacks", newest_at=table.source_us)
    return None


def _table_well(facts: Facts) -> _Verdict:
    return _proven("table_reads", sequence=max(0, facts.table.committed_sequence))


def _lacks(facts: Facts, source_us: int) -> bool:
    """Whether a place whose newest sample is of ``source_us`` lacks what the log certainly has."""
    edge = facts.edge
    if edge is None or not edge.passed_us or not edge.acknowledged_us:
        return False
    on_its_way = edge.waiting_since_us or edge.at_us - edge.passed_us <= TRANSIT_US
    return not on_its_way and source_us < edge.passed_source_us


# -- screen -----------------------------------------------------------------------------------


def _screen_away(facts: Facts) -> _Verdict | None:
    screen = facts.screen
    if screen is None:
        if not facts.bus.answers:
            return _unknown("hidden", hidden_by="bus")
        return _broken("console_silent")
    if screen.browser is False:
        return _broken("browser_cut")
    if not facts.bus.answers:
        return _unknown("hidden", hidden_by="bus")
    if not screen.connected:
        return _broken("screen_cut", age_us=screen.at_us - screen.feed_us)
    return None


def _screen_lacks(facts: Facts) -> _Verdict | None:
    screen = facts.screen
    assert screen is not None, "asked after _screen_away"
    if _feed_is_behind(facts, screen):
        return _broken("screen_cut", age_us=screen.at_us - screen.feed_us)
    old = screen.at_us - screen.received_us > TRANSIT_US
    if screen.browser and old and screen.source_us - screen.browser_source_us > US_PER_MS:
        return _broken("browser_cut")
    if not screen.source_us:
        return _unknown("screen_empty", hidden_by="formula" if facts.tag.derived else "device")
    return None


def _feed_is_behind(facts: Facts, screen: ScreenFacts) -> bool:
    """Whether the console lacks what the log certainly has: of this tag, or of its connection."""
    edge, table = facts.edge, facts.table
    if edge is None or not edge.has_tag:
        young = screen.at_us - table.received_us <= TRANSIT_US
        return table.source_us > screen.source_us and not young
    behind_us = (screen.at_us - screen.feed_us) - (edge.at_us - edge.acknowledged_us)
    is_behind = edge.acknowledged_us and behind_us > 2 * TRANSIT_US
    return bool(is_behind) or _lacks(facts, screen.source_us)


def _screen_well(facts: Facts) -> _Verdict:
    screen = facts.screen
    assert screen is not None, "asked after _screen_away"
    return _proven("screen_shows", age_us=screen.at_us - screen.received_us)


# -- what each hop tells beside its state -----------------------------------------------------


def _connection(facts: Facts) -> ConnectionState | None:
    return facts.edge.connection if facts.edge is not None else None


def _told_device(facts: Facts) -> dict[str, Any]:
    edge, state = facts.edge, _connection(facts)
    if edge is None or state is None or state.state in ("refused", "disabled"):
        return {}
    return {
        "last_success_us": max(edge.received_us, edge.heard_us if edge.keeps_alive else 0),
        "clock_offset_us": clock_offset_us(facts),
        **_error_of(state),
    }


def _told_connector(facts: Facts) -> dict[str, Any]:
    edge, state = facts.edge, _connection(facts)
    if edge is None:
        return {"last_success_us": facts.edge_seen_us}
    if state is None:
        return {}
    # What the device did is told at the device; here what needs a person.
    told = _error_of(state) if state.state == "refused" else {"next_try_us": state.next_try_us}
    return {"last_success_us": state.last_success_us, **told}


def _error_of(state: ConnectionState) -> dict[str, Any]:
    return {
        "code": state.last_error_code,
        "error": state.last_error,
        "remedy": state.last_error_remedy,
        "error_us": state.last_error_us,
        "next_try_us": state.next_try_us,
    }


def _told_pipeline(facts: Facts) -> dict[str, Any]:
    return {"last_success_us": facts.edge.passed_us} if facts.edge is not None else {}


def _told_bus(facts: Facts) -> dict[str, Any]:
    bus, edge = facts.bus, facts.edge
    told = {"code": bus.code, "error": bus.error, "remedy": bus.remedy}
    acknowledged_us = edge.acknowledged_us if edge is not None else 0
    return {"last_success_us": max(bus.subject_us, acknowledged_us), **told}


def _told_writer(facts: Facts) -> dict[str, Any]:
    state = facts.writer.state
    if state is None:
        return {"last_success_us": facts.writer.heard_us}
    told = {"last_success_us": state.last_commit_us or state.at_us}
    if state.state == "waiting":
        return {**told, "code": state.last_error_code, "error": state.last_error}
    return told


def _told_table(facts: Facts) -> dict[str, Any]:
    state = facts.writer.state
    return {"last_success_us": state.last_commit_us if state is not None else 0}


def _told_screen(facts: Facts) -> dict[str, Any]:
    return {"last_success_us": facts.screen.received_us} if facts.screen is not None else {}


_RULES: Final[dict[HopName, tuple[_Rule, ...]]] = {
    "device": (
        _hidden, _device_session, _device_age, _device_pace, _device_clock, _device_well,
    ),
    "connector": (_connector_desired, _connector_edge, _connector_tag, _connector_well),
    "pipeline": (_hidden, _pipeline_lane, _pipeline_well),
    "inputs": (judge_inputs,),
    "formula": (judge_formula,),
    "bus": (_bus_away, _bus_behind, _bus_well),
    "writer": (_writer_away, _writer_behind, _writer_well),
    "table": (_table_refuses, _table_lacks, _table_well),
    "screen": (_screen_away, _screen_lacks, _screen_well),
}  # fmt: skip

_TOLD: Final[dict[HopName, Callable[[Facts], dict[str, Any]]]] = {
    "device": _told_device,
    "connector": _told_connector,
    "pipeline": _told_pipeline,
    "inputs": lambda facts: {},
    "formula": told_of_formula,
    "bus": _told_bus,
    "writer": _told_writer,
    "table": _told_table,
    "screen": _told_screen,
}


def _notes(facts: Facts) -> list[tuple[str, dict[str, Any]]]:
    """What is no fault and still explains what a person sees."""
    notes: list[tuple[str, dict[str, Any]]] = []
    edge = facts.edge
    if edge is not None and edge.has_tag:
        if edge.received_us > edge.passed_us:
            notes.append(("filtered", {"since_us": edge.at_us - edge.passed_us}))
        if edge.status >> 30 == 1:
            notes.append(("uncertain", {"status": st.name(edge.status)}))
        if edge.connection is not None and edge.connection.dropped:
            notes.append(("dropped", {"samples": edge.connection.dropped}))
    if facts.table.unchanged_us >= STUCK_US:
        notes.append(("unchanged", {"for_us": facts.table.unchanged_us}))
    return notes
