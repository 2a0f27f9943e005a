"""What the apps role says of itself, and how results changed afterwards: plain data on the bus."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.model.health import Event
from headrace.model.knowledge import FormulaState

AppsStateName = Literal["idle", "catching_up", "running", "waiting"]
Cause = Literal["late", "restart", "calendar", "version", "upstream"]
"""Why results were worked out again: a sample came late or was corrected; the role had not run; the
calendar was edited; the formula has another text; a formula that it reads changed."""


class FormulaHealth(msgspec.Struct, kw_only=True):
    """One formula, or one side of an alarm.

    Attributes:
        key, role, state, version: see :class:`headrace.formula.bound.Bound`.
        assets: on which it is evaluated. missing: those of its type that lack a quantity.
        results: samples since the role started. changed: of those, results of the past that changed.
        last_us: source time of its newest result; 0 none yet.
        error_code, error, error_remedy: why it is not evaluated; empty when it is. error_us: since when.
    """

    key: str
    role: str
    state: FormulaState
    version: int
    assets: int
    missing: int = 0
    results: int = 0
    changed: int = 0
    last_us: int = 0
    error_code: str = ""
    error: str = ""
    error_remedy: str = ""
    error_us: int = 0


class AppsState(msgspec.Struct, kw_only=True):
    """State of the apps role, each second.

    Attributes:
        state: ``idle`` has nothing to evaluate; ``catching_up`` works out what it missed while it did
            not run; ``waiting`` for broker or history.
        config_hash: of what it runs; empty when it never got any.
        done_us: source time up to which results are out.
        lag_us: how much later that is than it should be.
        sequence, last_sequence: how far it has followed the log, and the log's end.
        assets: how many have a formula. samples_rate, results_rate: a second, over the last ten.
        latency_p50_us, latency_p99_us: from a sample's arrival at its edge until the log has the result
            that it gave, over the last thousand frames; 0 not known.
        repairs: spans of time that wait to be worked out again.
        error_code, error: the last trouble. error_us: when it was; kept after recovery.
        edge: on which machine's edge it runs; empty on the platform.
    """

    state: AppsStateName
    at_us: int
    started_us: int
    config_hash: str = ""
    done_us: int = 0
    lag_us: int = 0
    sequence: int = 0
    last_sequence: int = 0
    assets: int = 0
    samples_rate: float = 0.0
    results_rate: float = 0.0
    latency_p50_us: int = 0
    latency_p99_us: int = 0
    repairs: int = 0
    error_code: str = ""
    error: str = ""
    error_us: int = 0
    formulas: list[FormulaHealth] = []
    edge: str = ""


class FormulaChange(Event, kw_only=True):
    """An event: results of the past are others now.

    Attributes:
        key: of the formula. version: that the results are of now.
        assets: whose results changed, at most twenty of ``assets_total``.
        start_us, end_us: first and last source time of a changed result.
        changed: results that are other ones or new. retracted: that are no more.
        cause: why.
    """

    key: str
    version: int
    assets: list[str]
    assets_total: int
    start_us: int
    end_us: int
    changed: int
    retracted: int
    cause: Cause


class DerivedFacts(msgspec.Struct, kw_only=True):
    """What the apps role says of one derived tag, for ``headrace why``; times by its own clock.

    Attributes:
        at_us: when it says so.
        has_tag: it evaluates a formula that gives this tag.
        formula: its health. asset: path.
        inputs: tag_id of each input, in the formula's order.
        state, done_us, lag_us, sequence: see :class:`AppsState`.
        source_us, made_us: of the tag's newest result, and when it was given; 0 none yet.
        acknowledged_us: when the log last took a frame of the type. buffered: results on their way.
        trouble_code, trouble, trouble_remedy: why the log takes nothing now.
        edge: on which machine's edge it is evaluated; empty on the platform.
    """

    at_us: int
    has_tag: bool = False
    asset: str = ""
    formula: FormulaHealth | None = None
    inputs: list[int] = []
    state: AppsStateName = "idle"
    done_us: int = 0
    lag_us: int = 0
    sequence: int = 0
    source_us: int = 0
    made_us: int = 0
    acknowledged_us: int = 0
    buffered: int = 0
    trouble_code: str = ""
    trouble: str = ""
    trouble_remedy: str = ""
    edge: str = ""
