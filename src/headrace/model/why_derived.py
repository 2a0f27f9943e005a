"""The first hops of a derived value: its inputs, and the apps role that works it out; pure.

::

    inputs ► formula ► bus ► writer ► table ► screen

See :mod:`headrace.model.why`, which judges the others.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from headrace.model.time import US_PER_S
from headrace.model.why_facts import Facts, InputFacts

State = Literal["proven", "waiting", "broken", "unknown"]
Verdict = tuple[State, str, dict[str, Any]]

LAG_US: Final = 3 * US_PER_S
"""How far results may be behind the time before that is worth a word."""
_WEIGHT: Final = {"broken": 3, "waiting": 2, "unknown": 1, "proven": 0}


def judge_inputs(facts: Facts) -> Verdict:
    """The worst input speaks for all: its way up to the log."""
    if not facts.bus.answers:
        return "unknown", "hidden", {"hidden_by": "bus"}
    if facts.derived is None or not facts.derived.has_tag:
        return "unknown", "hidden", {"hidden_by": "formula"}
    if not facts.inputs:
        return "unknown", "inputs_unknown", {}
    worst = max(facts.inputs, key=lambda each: _WEIGHT[each.state])
    if worst.state == "proven":
        return "proven", "inputs_fresh", {"inputs": len(facts.inputs)}
    return _state(worst), "input_old", {"input": worst.path, "input_hop": worst.hop}


def _state(worst: InputFacts) -> State:
    return worst.state


def judge_formula(facts: Facts) -> Verdict:
    """Whether the apps role evaluates the formula, and how far it has come."""
    derived = facts.derived
    if facts.tag.retired:
        return "broken", "tag_retired", {}
    if not facts.bus.answers:
        return "unknown", "hidden", {"hidden_by": "bus"}
    machine = facts.tag.machine
    if derived is None and machine:
        return "broken", "edge_apps_silent", {"edge": machine}
    if derived is None:
        return "broken", "apps_silent", {}
    formula = derived.formula
    if formula is not None and formula.error_code:
        told = {"code": formula.error_code, "error": formula.error, "remedy": formula.error_remedy}
        return "broken", "formula_stopped", {"formula": formula.key, **told}
    if not derived.has_tag or formula is None:
        return "waiting", "apps_takes_over", {}
    if derived.state == "catching_up":
        return "waiting", "apps_catches_up", {"since_at": derived.done_us}
    if derived.state != "running":
        return "waiting", "apps_waits", {}
    if derived.lag_us > LAG_US:
        return "waiting", "apps_behind", {"age_us": derived.lag_us}
    runs = {"formula": formula.key, "age_us": derived.at_us - derived.done_us}
    if machine:
        return "proven", "formula_runs_at", {**runs, "edge": machine}
    return "proven", "formula_runs", runs


def told_of_formula(facts: Facts) -> dict[str, Any]:
    """What the hop tells beside its state."""
    return {"last_success_us": facts.derived.done_us} if facts.derived is not None else {}
