"""Where an app with Python serves an asset: on the platform, or on the machine of the edge that reads it.

An app is placed as its manifest says, or as ``placement`` of its section in the site file does. What moves
does so at a source time a little ahead, so that every place hears of it before: until then the old one gives
all, from then on the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from headrace.bus.subjects import runtime_edge
from headrace.model.deployment import AppDeployment
from headrace.model.ids import NAME
from headrace.model.knowledge import LOCAL_EDGE
from headrace.model.time import US_PER_S
from headrace.site.model import AppAsset, SiteApp, SiteModel, Tag

AHEAD_US: Final = 5 * US_PER_S
PLATFORM: Final = ""


class AppPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where an app is placed, and was before.

    Attributes:
        placement, before: ``platform`` or ``edge``; ``before`` is empty when it never moved.
        moved_us: source time of the move; 0 none.
    """

    placement: str
    before: str = ""
    moved_us: int = 0


def next_places(
    model: SiteModel, known: Mapping[str, AppPlace], now_us: int
) -> dict[str, AppPlace]:
    """Word of each app -> where it is placed, with what moved since the last time.

    Args:
        now_us: of the change; what moves does so :data:`AHEAD_US` later.
    """
    found = {}
    for app in model.apps:
        word, placement = app.manifest.word, app.placement
        old = known.get(word) or AppPlace(placement=placement)
        if old.placement != placement:
            moved_us = now_us + AHEAD_US
            old = AppPlace(placement=placement, before=old.placement, moved_us=moved_us)
        found[word] = old
    return found


def edge_of(
    paths: Iterable[str], tags: Mapping[str, Tag], edges: Mapping[str, str], placement: str
) -> str:
    """On whose machine an asset with these tags is served; empty: on the platform, whose own machine
    reads them or which was asked for.

    Args:
        paths: of its tags, all of one edge. edges: connection -> edge.
    """
    if placement != "edge":
        return PLATFORM
    found = {edges[tags[path].connection] for path in paths if path in tags}
    edge = min(found, default=LOCAL_EDGE)
    return PLATFORM if edge == LOCAL_EDGE else edge


def misplaced(asset: AppAsset, tags: Mapping[str, Tag], edges: Mapping[str, str]) -> str:
    """Why no edge can serve an asset; empty when one can."""
    found = {edges[tags[path].connection]: name for name, path in asset.tags.items()}
    if len(found) > 1:
        shown = " and ".join(f"{name} of edge {edge}" for edge, name in sorted(found.items()))
        return f"it is placed on the edge, and reads {shown}"
    edge = min(found, default=LOCAL_EDGE)
    if edge != LOCAL_EDGE and not NAME.match(runtime_edge(edge)):
        return f"the name of the edge {edge} is too long for outputs of apps: 56 characters at most"
    return ""


def with_places(
    app: SiteApp,
    deployment: AppDeployment,
    place: AppPlace | None,
    tags: Mapping[str, Tag],
    edges: Mapping[str, str],
) -> AppDeployment:
    """A deployment whose assets know where they are served, and were.

    Args:
        place: of the app; None: as it is placed now, and always was.
        edges: connection -> edge.
    """
    place = place or AppPlace(placement=app.placement)
    paths = {(asset.type, asset.path): tuple(asset.tags.values()) for asset in app.assets}

    def at(placement: str, key: tuple[str, str]) -> str:
        return edge_of(paths[key], tags, edges, placement)

    return msgspec.structs.replace(
        deployment,
        moved_us=place.moved_us,
        assets=tuple(
            msgspec.structs.replace(
                asset,
                edge=at(place.placement, (asset.type, asset.path)),
                left=at(place.before, (asset.type, asset.path)) if place.moved_us else None,
            )
            for asset in deployment.assets
        ),
    )


def parts_of(deployed: Iterable[AppDeployment], edge: str) -> tuple[AppDeployment, ...]:
    """What an edge's machine has to know of apps with Python that are enabled."""
    running = (each for each in deployed if each.enabled and each.manifest.python)
    parts = (each.part(edge) for each in running)
    return tuple(part for part in parts if part is not None)
