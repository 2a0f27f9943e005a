"""One window of a score hook: the champion of each asset, the challenger beside it, and their inputs' drift.

A challenger gets the window, settings and history that the champion gets, a state of its own, and no hands:
what it proposes, values and writes is dropped, and other apps are not called. What it gives goes to the tags
``<output>_shadow``. When it fails, the champion does not feel it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from headrace.app.context import State, Window
from headrace.app.hooks import Hook
from headrace.apps.models.baseline import Sight
from headrace.apps.models.live_drift import LiveDrift
from headrace.apps.runtime.effects import Effects, Problem
from headrace.apps.runtime.hands import Doors, NoDoors
from headrace.apps.runtime.shelf import Use, groups
from headrace.model.deployment import BoundAsset
from headrace.model.sample import Int64Array, concat_batches, make_batch

AT: Final = "@"
"""Between the name of a hook and what else is kept of it; no function is named so."""


class Call(NamedTuple):
    """One call of the hook.

    Attributes:
        paths: of the assets. bound: with the tags that its results go to. state: its key.
    """

    use: Use
    paths: frozenset[str]
    bound: tuple[BoundAsset, ...]
    is_shadow: bool
    state: str


class OnlyPast:
    """Ways out of a challenger: the past, and no other app.

    Args:
        doors: of the champion.
    """

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        return self._doors.samples(tag_ids, start_us, end_us)

    def call(self, app: str, service: str, body: bytes) -> bytes:
        return NoDoors().call(app, service, body)


class Scoring:
    """The calls of one window.

    Args:
        champions, challengers: in use. window: of all assets. bound: the same assets with their tags.
    """

    def __init__(
        self,
        hook: Hook,
        champions: Sequence[Use],
        challengers: Sequence[Use],
        window: Window,
        bound: Sequence[BoundAsset],
    ) -> None:
        self._hook = hook
        self._window = window
        self._bound = {each.path: each for each in bound}
        self._champions = groups(champions, window.assets)
        own = frozenset(each.asset for each in champions if each.asset)
        served = {asset.path for group in self._champions for asset in group.assets}
        self._challengers = [
            group
            for group in groups(challengers, window.assets, apart=own)
            if served.issuperset(asset.path for asset in group.assets)
        ]
        versions = ",".join(each.use.version for each in self._challengers)
        self._shadow_state = f"{hook.name}{AT}shadow {versions}"

    def calls(self) -> Iterable[Call]:
        """The champions first, then the challengers: these change nothing for those."""
        for group in self._champions:
            bound = tuple(self._bound[asset.path] for asset in group.assets)
            yield Call(group.use, _paths(bound), bound, False, self._hook.name)
        for group in self._challengers:
            bound = tuple(
                msgspec.structs.replace(each, outputs=each.shadows)
                for each in (self._bound[asset.path] for asset in group.assets)
            )
            yield Call(group.use, _paths(bound), bound, True, self._shadow_state)

    def window(self, call: Call, told: Mapping[str, Any]) -> Window:
        """The window of a call: its assets alone, and a frame that it may change.

        Args:
            told: what each context is made of.
        """
        whole = self._window
        frame = whole.frame.clone()
        assets = whole.assets
        if len(call.paths) < len(assets):
            frame = frame.filter(pl.col("asset").is_in(sorted(call.paths)))
            assets = tuple(asset for asset in assets if asset.path in call.paths)
        return replace(whole, **{**told, "assets": assets}, frame=frame)

    def is_stale(self, key: str) -> bool:
        """Whether a state is of challengers that are no more."""
        return key.startswith(f"{self._hook.name}{AT}shadow ") and key != self._shadow_state

    def drift(self, states: dict[str, State], due_us: int) -> pl.DataFrame:
        """Samples of the drift, where a stretch came to its end.

        Args:
            states: of all hooks; those of this drift are gone on with.
        """
        sight = sight_of(self._hook)
        key = f"{self._hook.name}{AT}drift"
        before, after = states.pop(key, {}), {}
        batches = []
        for use, assets in self._champions:
            if use.baseline is None:
                continue
            of = f"{use.asset}/{use.version}"
            live = LiveDrift(use.baseline, sight, of, before.get(use.asset, {}))
            at_us, scores = live.take(
                self._window.frame, self._window.start_us, self._window.end_us
            )
            after[use.asset] = live.save()
            batches.append(self._samples(at_us, scores, _paths(assets), due_us))
        if after:
            states[key] = after
        return concat_batches([each for each in batches if each.height])

    def _samples(
        self, at_us: int, scores: Mapping[str, float], paths: frozenset[str], due_us: int
    ) -> pl.DataFrame:
        found = [
            (self._bound[asset].drifts[self._hook.model], score)
            for asset, score in sorted(scores.items())
            if asset in paths and self._hook.model in self._bound[asset].drifts
        ]
        tags = np.array([tag for tag, _ in found], np.int64)
        values = np.array([score for _, score in found], np.float64)
        times = np.full(len(found), at_us, np.int64)
        return make_batch(tags, times, values, received_timestamp_us=due_us)


def sight_of(hook: Hook) -> Sight:
    """The windows of a score hook."""
    return Sight(
        type=hook.type, length_us=hook.length_us, every_us=hook.every_us, step_us=hook.step_us
    )


def rehearsed(found: Effects, call: Call, hook: Hook) -> Effects:
    """What counts of a challenger's call: its samples; its failure is told under a code of its own, which
    stops no app."""
    problems = [
        Problem(
            code="APPS-2560",
            what=f"the challenger of {hook.model}, version {call.use.version}, failed: {each.what}",
            remedy="The champion works on. Retire the challenger, or mend it: headrace model retire",
            hook=each.hook,
            at_us=each.at_us,
        )
        for each in found.problems
    ]
    return Effects(samples=found.samples, problems=problems)


def _paths(assets: Iterable[Any]) -> frozenset[str]:
    return frozenset(asset.path for asset in assets)
