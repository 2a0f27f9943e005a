"""Settings that stay out of site files: ``secret:NAME``, ``env:NAME`` and ``file:PATH``.

The desired state carries the secrets that an edge needs sealed to its key
(:mod:`headrace.security.sealing`). They are opened here, when a connector asks, and stay in memory;
nothing of them is written on the edge's machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured
from headrace.security.redaction import REDACTOR
from headrace.security.sealing import EdgeKey
from headrace.security.secrets import reference


class EdgeSecrets:
    """The secrets of one edge.

    Args:
        edge: its name.
        key: its private key; None: no secret is ever sealed to it.
    """

    def __init__(self, edge: str, key: EdgeKey | None = None) -> None:
        self._edge = edge
        self._key = key
        self._boxes: dict[str, str] = {}

    def take(self, boxes: Mapping[str, str]) -> frozenset[str]:
        """Know these boxes, and no others, from now on; gives the names whose secret is another one."""
        before, self._boxes = self._boxes, dict(boxes)
        names = before.keys() | boxes.keys()
        return frozenset(name for name in names if before.get(name) != boxes.get(name))

    def resolve(self, setting: str, more: Mapping[str, str] | None = None) -> str:
        """The text that a setting stands for; plain text stands for itself.

        Args:
            more: boxes that count before the known ones, of a call about a connection that is not saved.

        Raises:
            Misconfigured: EDGE-1501 when the secret was not sent to this edge, EDGE-1003 when a variable or
                file is not there.
            Corrupt: SEC-1520 when it was sealed to another key.
        """
        name = reference(setting)
        if name is None:
            return resolve_secret(setting)
        box = (more or {}).get(name) or self._boxes.get(name)
        if box is None or self._key is None:
            raise Misconfigured(
                "EDGE-1501",
                f"the secret {name} has not come to edge {self._edge}",
                f"Set it: headrace secret set {name}; if it is set, see: headrace secret edges",
            )
        found = self._key.open(self._edge, name, box)
        REDACTOR.know(found)
        return found


def names_in(connection: ConnectionConfig) -> frozenset[str]:
    """Names of the secrets that a connection's options refer to."""
    return frozenset(
        name for value in connection.options.values() if (name := reference(value)) is not None
    )


def resolve_secret(setting: str) -> str:
    """The text that a setting stands for where there are no sealed secrets.

    Raises:
        Misconfigured: EDGE-1003 when the variable or file is not there.

    Example:
        >>> resolve_secret("plain")
        'plain'
    """
    found = _resolved(setting)
    REDACTOR.know(found)
    return found


def _resolved(setting: str) -> str:
    kind, _, name = setting.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise Misconfigured(
                "EDGE-1003", f"the environment has no variable {name}", f"Set {name} for the edge."
            )
        return os.environ[name]
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Misconfigured(
                "EDGE-1003",
                f"the secret file {name} cannot be read",
                "Make it readable for the edge.",
            ) from error
    return setting
