"""Who evaluates which formula on which asset: the platform, or an edge on the machine that reads its
inputs. Pure.

A formula that was moved has results of its new place from the move on; what comes late for the time before
is still worked out where the formula was then. The platform, which has all samples, does so for every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np

from headrace.formula.bound import Bound, Int64Array
from headrace.formula.steps import Constant
from headrace.model.knowledge import AppsConfig, AssetConfig, FormulaConfig

BEFORE: Final = "/before"
"""Stands after the key of a formula that was moved, where its results of the time before are mended."""


class Placed(NamedTuple):
    """What one place does.

    Attributes:
        live: formulas that it evaluates.
        ended: those that it evaluated until they were moved; ``end_us`` says when.
    """

    live: tuple[Bound, ...]
    ended: tuple[Bound, ...]


def at_place(bounds: Iterable[Bound], config: AppsConfig, edge: str) -> Placed:
    """Of all formulas those of one place, each on the assets that it is evaluated on there.

    Args:
        bounds: in order of evaluation.
        edge: the place; empty: the platform, which has all alarms.
    """
    formulas = {f"{each.asset_type}.{each.name}": each for each in config.formulas}
    assets = {(asset.type, asset.path): asset for asset in config.assets}
    live, ended = list[Bound](), list[Bound]()
    for bound in bounds:
        if bound.role != "formula":
            live += [bound] if not edge else []
            continue
        formula = formulas[bound.key]
        on = [assets[formula.asset_type, path] for path in bound.assets]
        now = [asset.edges.get(formula.name, "") for asset in on]
        before = [_before(formula, asset) for asset in on]
        here = np.array([place == edge for place in now], np.bool_)
        came = np.array([was not in (None, edge) for was in before], np.bool_) & here
        left = np.array([was == edge for was in before], np.bool_) & ~here
        if here.any():
            moved_us = formula.moved_us if came.any() else 0
            part = dataclasses.replace(part_of(bound, here), moved_us=moved_us)
            live.append(part)
        if left.any() and bound.start_us < formula.moved_us:
            part = part_of(bound, left)
            key = bound.key + BEFORE
            ended.append(dataclasses.replace(part, key=key, end_us=formula.moved_us))
    return Placed(_begun(live) if edge else tuple(live), tuple(ended))


def _begun(live: list[Bound]) -> tuple[Bound, ...]:
    """What was moved to an edge begins there with the move; what others there read, as much before it as
    these look back, since the edge has no results of the platform."""
    found: list[Bound] = []
    leads_us: list[int] = []
    for bound in reversed(live):
        lead_us = 0
        for reader, more_us in zip(found, leads_us, strict=True):
            if any(np.isin(ids, bound.outputs).any() for ids in reader.inputs.values()):
                lead_us = max(lead_us, reader.plan.back_us + more_us + 1)
        start_us = max(bound.start_us, bound.moved_us - lead_us) if bound.moved_us else 0
        found.append(dataclasses.replace(bound, start_us=start_us or bound.start_us))
        leads_us.append(lead_us)
    return tuple(reversed(found))


def _before(formula: FormulaConfig, asset: AssetConfig) -> str | None:
    """Where it was evaluated on an asset before it was moved; None when it never was moved."""
    if not formula.moved_us:
        return None
    return "" if formula.placement == "edge" else asset.left.get(formula.name, "")


def part_of(bound: Bound, which: np.ndarray) -> Bound:
    """A bound on some of its assets.

    Args:
        which: shape (assets,), bool.
    """
    if which.all():
        return bound
    at = np.flatnonzero(which)
    return dataclasses.replace(
        bound,
        assets=tuple(bound.assets[n] for n in at.tolist()),
        inputs=_each(bound.inputs, at),
        outputs=bound.outputs[at],
        attributes={name: _constant(each, at) for name, each in bound.attributes.items()},
    )


def _each(columns: Mapping[str, Int64Array], at: Int64Array) -> dict[str, Int64Array]:
    return {name: ids[at] for name, ids in columns.items()}


def _constant(constant: Constant, at: Int64Array) -> Constant:
    return constant if len(constant.value) == 1 else constant._replace(value=constant.value[at])
