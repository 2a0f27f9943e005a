"""Where formulas are evaluated: which edge reads all that a formula reads, and what moved from one place
to the other.

A formula that is placed on the edge is evaluated, for each asset, by the edge that reads its inputs; so all
of them must come from one edge, also by way of relations and of other formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from headrace.bus.subjects import apps_edge
from headrace.formula.binding import Checked
from headrace.formula.bound import Bound
from headrace.model.ids import NAME
from headrace.model.knowledge import (
    APP_DOT,
    LOCAL_EDGE,
    AppsConfig,
    AssetConfig,
    AssetTypeConfig,
    FormulaState,
    given_name,
)
from headrace.site.model import SiteModel

_PLATFORM: Final = ""
_UNKNOWN: Final = "?"
_MOVE: Final = "Place {0} on the edge too, or this one on the platform."
_STAY: Final = "Place it on the platform."


class Misplaced(NamedTuple):
    """A formula that no edge can evaluate."""

    asset_type: str
    name: str
    code: str
    what: str
    remedy: str


class _Read(NamedTuple):
    """One input on one asset: its name there, and the edge that has it; "" is the platform."""

    name: str
    edge: str


def edges_of(
    model: SiteModel, config: AppsConfig, checked: Iterable[Checked], bounds: Iterable[Bound]
) -> tuple[dict[str, str], list[Misplaced]]:
    """Which edge evaluates each derived tag of the formulas that are placed on the edge.

    Args:
        model: with its tags. config: of its formulas. checked: those that are right, in order.
        bounds: of these, on their assets.

    Returns:
        Path of a derived tag -> edge; and what is wrong, each formula once.
    """
    finding = _Finding(model, config)
    laid = {bound.key: bound.assets for bound in bounds}
    wrong = []
    for each in checked:
        if each.formula.placement == "edge" and each.formula.kind == "formula":
            for path in laid.get(".".join(each.key), ()):
                problem = finding.place(each, path)
                if problem is not None:
                    finding.wrong.add(each.key)
                    wrong.append(problem)
                    break
    return finding.edges, wrong


def result_name(name: str, state: FormulaState) -> str:
    """The last part of the path of a formula's derived tag. In shadow it is one of its own, so that nothing
    that reads the formula's results finds those that are only tried.

    Example:
        >>> result_name("load", "live"), result_name("load", "shadow")
        ('load', 'load_shadow')
    """
    return f"{name}_shadow" if state == "shadow" else name


class _Finding:
    def __init__(self, model: SiteModel, config: AppsConfig) -> None:
        places = {each.name: each.edge for each in model.connections}
        self._tags = {tag.path: places.get(tag.connection, LOCAL_EDGE) for tag in model.tags}
        self._assets = {(asset.type, asset.path): asset for asset in config.assets}
        self._app_tags = {
            (app.manifest.word + APP_DOT + asset.type, asset.path): asset.tags
            for app in model.apps
            for asset in app.assets
        }
        self._types = {kind.name: kind for kind in config.types}
        self.edges: dict[str, str] = {}
        self.wrong: set[tuple[str, str]] = set()

    def place(self, each: Checked, path: str) -> Misplaced | None:
        """Find the edge of a formula on an asset; gives what is wrong."""
        kind = each.formula.asset_type
        reads = [read for n in each.inputs if (read := self._read(kind, path, n)) is not None]
        if any(read.edge == _UNKNOWN for read in reads):
            self.wrong.add(each.key)  # it is right when that one is
            return None
        key, name = ".".join(each.key), each.formula.name
        kept = next((read.name for read in reads if read.edge == _PLATFORM), "")
        edges = {read.edge: read.name for read in reversed(reads)}
        if kept:
            what = f"{key} is placed on the edge, and reads {kept} that the platform evaluates"
            return Misplaced(*each.key, "APPS-1404", what, _MOVE.format(kept))
        if len(edges) > 1:
            shown = " and ".join(f"{read} of edge {edge}" for edge, read in sorted(edges.items()))
            what = f"{key} is placed on the edge, and on {path} it reads {shown}"
            return Misplaced(*each.key, "APPS-1405", what, _STAY)
        if not edges:  # the plant calendar alone
            what = f"{key} is placed on the edge, and reads nothing of one"
            return Misplaced(*each.key, "APPS-1404", what, _STAY)
        (edge,) = edges
        if edge != LOCAL_EDGE and not NAME.match(apps_edge(edge)):
            what = f"the edge {edge} has a name too long to give results of {key}"
            return Misplaced(*each.key, "APPS-1406", what, "Use at most 59 characters.")
        given = given_name(each.formula.asset_type, result_name(name, each.formula.state))
        self.edges[f"{path}/{given}"] = edge
        return None

    def _read(self, asset_type: str, path: str, name: str) -> _Read | None:
        """None for an attribute, which every place knows."""
        relation, dot, rest = name.rpartition(".")
        asset = self._assets[asset_type, path]
        if dot:
            leads_to = self._types[asset_type].relations[relation]
            asset = self._assets[leads_to, asset.relations[relation]]
        kind = self._types[asset.type]
        if rest in kind.attributes:
            return None
        if (asset.type, rest) in self.wrong:
            return _Read(name, _UNKNOWN)
        where = f"{asset.path}/{given_name(asset.type, rest)}"
        if rest in kind.quantities:
            tags = self._app_tags.get((asset.type, asset.path))
            tag = tags.get(rest, "") if tags is not None else f"{asset.path}/{rest}"
            return _Read(name, self._tags.get(tag) or _PLATFORM)
        found = self.edges.get(where) or self.edges.get(result_name(where, "shadow"))
        return _Read(name, found or _PLATFORM)


def with_moves(config: AppsConfig, before: AppsConfig | None, now_us: int) -> AppsConfig:
    """A config that knows what moved since the one before it.

    Args:
        now_us: source time from which what moves now has its results from its new place.
    """
    known = {(each.asset_type, each.name): each for each in before.formulas} if before else {}
    assets = {(asset.type, asset.path): asset for asset in before.assets} if before else {}
    moved: set[tuple[str, str]] = set()
    formulas = []
    for formula in config.formulas:
        key = formula.asset_type, formula.name
        old = known.get(key)
        moved_us = old.moved_us if old is not None else 0
        if old is not None and old.placement != formula.placement:
            moved.add(key)
            moved_us = now_us
        formulas.append(msgspec.structs.replace(formula, moved_us=moved_us))
    return msgspec.structs.replace(
        config,
        formulas=tuple(formulas),
        assets=tuple(
            _left(asset, assets.get((asset.type, asset.path)), moved) for asset in config.assets
        ),
    )


def _left(
    asset: AssetConfig, before: AssetConfig | None, moved: set[tuple[str, str]]
) -> AssetConfig:
    if before is None:
        return asset
    left = {name: edge for name, edge in before.left.items() if (asset.type, name) not in moved}
    left |= {name: edge for name, edge in before.edges.items() if (asset.type, name) in moved}
    return msgspec.structs.replace(asset, left=left) if left else asset


def edge_apps(config: AppsConfig, edge: str) -> AppsConfig | None:
    """What an edge evaluates, or evaluated before it moved, with what that needs to be understood; None
    when that is nothing."""
    own = [
        asset for asset in config.assets if edge in (*asset.edges.values(), *asset.left.values())
    ]
    if not own:
        return None
    types = {kind.name: kind for kind in config.types}
    by_place = {(asset.type, asset.path): asset for asset in config.assets}
    chosen = {(asset.type, asset.path): asset for asset in own}
    for asset in own:  # a relation of a relation is not read
        leads_to = types[asset.type].relations
        places = ((leads_to.get(name, ""), path) for name, path in asset.relations.items())
        chosen |= {place: by_place[place] for place in places if place in by_place}
    kinds = _kinds(types, chosen.values())
    return AppsConfig(
        enterprise=config.enterprise,
        site=config.site,
        calendar=config.calendar,
        types=tuple(kind for kind in config.types if kind.name in kinds),
        assets=tuple(asset for asset in config.assets if (asset.type, asset.path) in chosen),
        formulas=tuple(
            each for each in config.formulas if each.asset_type in kinds and each.kind == "formula"
        ),
    )


def _kinds(types: Mapping[str, AssetTypeConfig], assets: Iterable[AssetConfig]) -> set[str]:
    """The types of assets, and those that their relations lead to, as far as they lead."""
    found, waiting = set[str](), {asset.type for asset in assets}
    while waiting:
        name = waiting.pop()
        found.add(name)
        kind = types.get(name)
        waiting |= set(kind.relations.values() if kind else ()) - found
    return found
