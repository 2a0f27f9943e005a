"""The connectors that are installed, by entry point in the group ``headrace.connectors``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from headrace.edge.contract import ConnectorType
from headrace.model.errors import Misconfigured

GROUP: Final = "headrace.connectors"


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def protocols() -> list[str]:
    """Names of all installed connectors, sorted.

    Example:
        >>> "modbus" in protocols()
        True
    """
    return sorted(_entry_points())


@cache
def connector_type(protocol: str) -> ConnectorType:
    """The connector of that name; its driver is not imported yet.

    Raises:
        Misconfigured: EDGE-1002 when no such connector is installed.
    """
    point = _entry_points().get(protocol)
    if point is None:
        raise Misconfigured(
            "EDGE-1002",
            f"there is no connector {protocol!r}",
            f"Installed are: {', '.join(protocols()) or 'none'}.",
        )
    loaded: ConnectorType = point.load()
    return loaded
