"""Finds connectors by their entry points; ours come by the same door as others'."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from headrace.edge.contract import ConnectorType
from headrace.model.errors import Misconfigured
from headrace.site.notes import near

ENTRY_POINT_GROUP: Final = "headrace.connectors"


@lru_cache(maxsize=1)
def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def protocols() -> list[str]:
    """Names of the protocols whose connectors are installed; none is imported."""
    return sorted(_found())


def find_connector(protocol: str) -> ConnectorType:
    """The connector of a protocol.

    Raises:
        Misconfigured: SITE-1010 when none is installed, or it cannot be imported.
    """
    point = _found().get(protocol)
    if point is None:
        raise Misconfigured(
            "SITE-1010",
            f"no connector for the protocol {protocol!r} is installed",
            f"{near(protocol, _found())} Others: install the package that carries it.".strip(),
        )
    try:
        return cast(ConnectorType, point.load())
    except (ImportError, AttributeError) as error:
        raise Misconfigured(
            "SITE-1010",
            f"the connector for {protocol!r} ({point.value}) cannot be loaded: {error}",
            "Install its package again.",
        ) from error
