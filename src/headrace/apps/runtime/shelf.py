"""What a score hook is asked with: which model for which assets, as champion and as challenger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from headrace.app.records import Asset, Model
from headrace.apps.models.baseline import Baseline

Side = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Use:
    """One model in use.

    Attributes:
        model: None where a hook is asked without one.
        asset: path of the one that it is for; empty: all that have none of their own.
        baseline: what its inputs looked like in its training, where that is known.
    """

    model: Model | None
    asset: str = ""
    baseline: Baseline | None = None

    @property
    def version(self) -> str:
        """Which one it is; empty where there is none."""
        return self.model.version if self.model is not None else ""


class ModelSource(Protocol):
    """Where models come from that are the same for all assets."""

    def __call__(self, name: str) -> Model | None:
        """The model that works now under a name of the manifest; None when there is none yet."""
        ...


@runtime_checkable
class Shelf(Protocol):
    """Where models come from that may be of one asset, with their challengers."""

    def uses(self, name: str, side: Side = "champion") -> list[Use]:
        """Those in use under a name of the manifest."""
        ...


class PlainShelf:
    """A source of champions as a shelf."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def uses(self, name: str, side: Side = "champion") -> list[Use]:
        model = self._source(name) if side == "champion" else None
        return [Use(model)] if model is not None else []


class Group(NamedTuple):
    """Assets that are asked about with one model."""

    use: Use
    assets: tuple[Asset, ...]


def groups(
    uses: Sequence[Use], assets: Sequence[Asset], apart: frozenset[str] = frozenset()
) -> list[Group]:
    """Which model is asked about which assets; an asset's own one goes before that of all.

    Args:
        apart: paths of assets that the model of all does not serve.
    """
    own = {use.asset for use in uses if use.asset}
    found = []
    for use in uses:
        if use.asset:
            mine = tuple(asset for asset in assets if asset.path == use.asset)
        else:
            mine = tuple(asset for asset in assets if asset.path not in own | apart)
        if mine:
            found.append(Group(use, mine))
    return found
