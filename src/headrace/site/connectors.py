"""Finds the connector that checks a connection; ours come by the same door as others'."""

from __future__ import annotations

from headrace.edge.catalog import connector_type, protocols
from headrace.edge.contract import ConnectorType
from headrace.model.errors import Misconfigured
from headrace.site.notes import near


def find_connector(protocol: str) -> ConnectorType:
    """The connector of a protocol.

    Raises:
        Misconfigured: SITE-1010 when none is installed, or it cannot be imported.
    """
    known = protocols()
    if protocol not in known:
        raise Misconfigured(
            "SITE-1010",
            f"no connector for the protocol {protocol!r} is installed",
            f"{near(protocol, known)} Others: install the package that carries it.".strip(),
        )
    try:
        return connector_type(protocol)
    except (ImportError, AttributeError) as error:
        raise Misconfigured(
            "SITE-1010",
            f"the connector for {protocol!r} cannot be loaded: {error}",
            "Install its package again.",
        ) from error
