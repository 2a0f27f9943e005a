"""A checked formula with the assets that it serves: what every evaluator takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.formula.plan import Plan
from headrace.formula.steps import Constant
from headrace.model.knowledge import FormulaState

Int64Array = npt.NDArray[np.int64]
Role = Literal["formula", "alarm", "alarm_off", "alarm_suppressed"]


@dataclass(frozen=True, slots=True)
class Bound:
    """One formula on all assets of its type that have what it needs.

    Attributes:
        key: ``<asset type>.<name>``; the condition that ends an alarm has ``/off`` after it, the one that
            suppresses it by design ``/suppressed``.
        role: what its results are for: a derived tag, or the beginning, the end or the suppression of an
            alarm.
        plan: of the formula.
        assets: paths; everything below counts in them.
        inputs: quantity of the plan -> tag_id on each asset, shape (assets,).
        attributes: attribute of the plan -> its value on each asset.
        outputs: tag_id of the derived tag on each asset, shape (assets,); of an alarm zeros.
        version, state, start_us: see :class:`headrace.model.knowledge.FormulaConfig`.
        moved_us: since when it is evaluated here, and was elsewhere before; 0: always.
        end_us: results from then on are of another place; 0: there is none.
    """

    key: str
    role: Role
    plan: Plan
    assets: tuple[str, ...]
    inputs: Mapping[str, Int64Array]
    outputs: Int64Array
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    version: int = 1
    state: FormulaState = "live"
    start_us: int = 0
    moved_us: int = 0
    end_us: int = 0
