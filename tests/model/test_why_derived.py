"""Why is a formula's value old: its inputs, the apps role, and then the way of every value."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from headrace.model.apps import DerivedFacts, FormulaHealth
from headrace.model.health import HistorianState
from headrace.model.time import US_PER_S
from headrace.model.why import DERIVED_HOPS, diagnose
from headrace.model.why_facts import (
    BusFacts,
    Facts,
    InputFacts,
    ScreenFacts,
    TableFacts,
    WhyTag,
    WriterFacts,
)

NOW = 1_700_000_000 * US_PER_S


def ago(seconds: float) -> int:
    return NOW - int(seconds * US_PER_S)


def well() -> Facts:
    return Facts(
        at_us=NOW,
        tag=WhyTag(tag_id=9, path="a/b/ratio", connection="pump", edge="apps", derived=True),
        derived=DerivedFacts(
            at_us=NOW,
            has_tag=True,
            asset="a/b",
            formula=FormulaHealth(
                key="pump.ratio", role="formula", state="live", version=1, assets=1
            ),
            inputs=[1, 2],
            state="running",
            done_us=ago(0.3),
            acknowledged_us=ago(0.5),
        ),
        inputs=[InputFacts(path="a/b/flow"), InputFacts(path="a/b/power")],
        bus=BusFacts(answers=True, last_sequence=9, subject_us=ago(0.5)),
        writer=WriterFacts(
            state=HistorianState(state="running", at_us=ago(0.5), started_us=ago(600)),
            heard_us=ago(0.5),
        ),
        table=TableFacts(readable=True, source_us=ago(1), received_us=ago(1)),
        screen=ScreenFacts(
            at_us=NOW, connected=True, feed_us=ago(0.1), source_us=ago(1), received_us=ago(1)
        ),
    )


def input_broken(facts: Facts) -> None:
    facts.inputs[1] = InputFacts(path="a/b/power", hop="device", state="broken")


def input_waits(facts: Facts) -> None:
    facts.inputs[0] = InputFacts(path="a/b/flow", hop="connector", state="waiting")


def apps_silent(facts: Facts) -> None:
    facts.derived, facts.inputs = None, []


def stopped(facts: Facts) -> None:
    assert facts.derived is not None and facts.derived.formula is not None
    facts.derived.has_tag = False
    facts.derived.formula = msgspec.structs.replace(
        facts.derived.formula, error_code="APPS-1004", error="it cannot be evaluated"
    )


def behind(facts: Facts) -> None:
    assert facts.derived is not None
    facts.derived.lag_us = 60 * US_PER_S


def catching_up(facts: Facts) -> None:
    assert facts.derived is not None
    facts.derived.state = "catching_up"


def refused(facts: Facts) -> None:
    assert facts.derived is not None
    facts.derived.trouble_code, facts.derived.trouble = "BUS-1021", "the log refused a batch"


def broker_away(facts: Facts) -> None:
    facts.bus, facts.derived, facts.inputs = BusFacts(code="BUS-1030"), None, []


def test_all_well_is_proven() -> None:
    answer = diagnose(well())
    assert answer.fresh and [hop.name for hop in answer.hops] == list(DERIVED_HOPS)


@pytest.mark.parametrize(
    ("fault", "culprit", "reason"),
    [
        (input_broken, "inputs", "input_old"),
        (input_waits, "inputs", "input_old"),
        (apps_silent, "formula", "apps_silent"),
        (stopped, "formula", "formula_stopped"),
        (behind, "formula", "apps_behind"),
        (catching_up, "formula", "apps_catches_up"),
        (refused, "bus", "log_refuses"),
        (broker_away, "bus", "bus_away"),
    ],
)
def test_one_fault_is_named_at_its_hop(
    fault: Callable[[Facts], None], culprit: str, reason: str
) -> None:
    facts = well()
    fault(facts)
    answer = diagnose(facts)
    assert (answer.culprit, answer.hop(culprit).reason) == (culprit, reason)
    before = answer.hops[: DERIVED_HOPS.index(culprit)]
    assert all(hop.state == "proven" or hop.hidden_by == culprit for hop in before)


def test_the_worst_input_is_the_one_that_is_named() -> None:
    facts = well()
    input_waits(facts)
    input_broken(facts)
    assert diagnose(facts).hop("inputs").values == {"input": "a/b/power", "input_hop": "device"}
