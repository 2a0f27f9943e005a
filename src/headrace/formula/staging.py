"""From the tree of a plan's nodes to its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from headrace.formula.memory import Derivative, Ewma, Held, Hold, Increments, Lag, NoData
from headrace.formula.panes import FUNCTIONS, Panes
from headrace.formula.plan import Input, Literal_, Node
from headrace.formula.spans import Fold, PerCalendar, PerCycle, Sliding
from headrace.formula.stages import Runs, Source, Stage
from headrace.formula.steps import Constant
from headrace.formula.track import ALWAYS, NEVER, Track

PANES_FROM_US: Final = 5_000_000
_REMEMBERS: Final = (
    Held, NoData, Lag, Hold, Derivative, Increments, Ewma, Sliding, PerCalendar, PerCycle,
)  # fmt: skip


class _Builder:
    """From the tree of nodes to stages, what is read before what reads it."""

    def __init__(
        self, assets: int, tags: Mapping[str, Source], attributes: Mapping[str, Constant]
    ) -> None:
        self.assets, self.tags, self.attributes = assets, tags, attributes
        self.stages: list[Stage] = []
        self._made: dict[int, str] = {}

    def stage(self, node: Node) -> str:
        """The name of the stage that a node becomes."""
        name = self._made.get(id(node))
        if name is None:
            sources: dict[str, Source] = {}
            attributes: dict[str, Constant] = {}
            within = isinstance(node, _REMEMBERS)
            rewritten = self._rewrite(node, sources, attributes, within)
            name = self._made[id(node)] = f"#{len(self.stages)}"
            floor, due = np.full(self.assets, ALWAYS), np.full(self.assets, NEVER)
            track = Track(self.assets)
            made = Stage(rewritten, sources, attributes, track, floor, floor.copy(), due)
            if isinstance(node, Held):
                made.runs = Runs(self.assets)
            if isinstance(node, Sliding) and _is_long(node):
                made.panes = Panes(self.assets, node.duration_us)
            self.stages.append(made)
        return name

    def _rewrite(
        self, node: Any, sources: dict[str, Source], attributes: dict[str, Constant], within: bool
    ) -> Any:
        """The same node with operands that are read."""
        changes = {}
        for each in fields(node):
            value = getattr(node, each.name)
            if isinstance(value, Fold):
                changes[each.name] = self._rewrite(value, sources, attributes, within)
            elif isinstance(value, tuple) and value and hasattr(value[0], "evaluate"):
                changes[each.name] = tuple(
                    self._operand(part, sources, attributes, within) for part in value
                )
            elif hasattr(value, "evaluate"):
                changes[each.name] = self._operand(value, sources, attributes, within)
        return replace(node, **changes) if changes else node

    def _operand(
        self, node: Any, sources: dict[str, Source], attributes: dict[str, Constant], within: bool
    ) -> Any:
        if isinstance(node, Input):
            if node.name in self.attributes:
                attributes[node.name] = self.attributes[node.name]
            else:
                sources[node.name] = self.tags[node.name]
            return node
        if isinstance(node, Literal_):
            return node
        if isinstance(node, _REMEMBERS) or (within and not self._is_constant(node)):
            name = self.stage(node)
            sources[name] = Source(self.stages[int(name[1:])].track)
            return Input(name)
        return self._rewrite(node, sources, attributes, within)

    def _is_constant(self, node: Any) -> bool:
        if isinstance(node, Input):
            return node.name in self.attributes
        parts = [getattr(node, each.name) for each in fields(node)]
        nodes = [p for part in parts for p in (part if isinstance(part, tuple) else (part,))]
        return all(self._is_constant(p) for p in nodes if hasattr(p, "evaluate"))


def _is_long(node: Sliding) -> bool:
    """Whether it pays to keep panes."""
    fold = node.fold
    return fold.other is None and fold.function in FUNCTIONS and node.duration_us >= PANES_FROM_US


def stages_of(
    node: Node, assets: int, tags: Mapping[str, Source], attributes: Mapping[str, Constant]
) -> list[Stage]:
    """The stages of a plan, each after those that it reads; the last gives the result."""
    builder = _Builder(assets, tags, attributes)
    if isinstance(node, Input):
        builder.stages.append(_copy_of(node, builder))
    else:
        builder.stage(node)
    return builder.stages


def _copy_of(node: Input, builder: _Builder) -> Stage:
    assets = builder.assets
    source = {node.name: builder.tags[node.name]}
    floor, due = np.full(assets, ALWAYS), np.full(assets, NEVER)
    return Stage(node, source, {}, Track(assets), floor, floor.copy(), due)
