"""Settings that stay out of site files: ``env:NAME`` and ``file:PATH``."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.model.errors import Misconfigured


def resolve_secret(setting: str) -> str:
    """The text that a setting stands for; plain text stands for itself.

    Raises:
        Misconfigured: EDGE-1003 when the variable or file is not there.

    Example:
        >>> resolve_secret("plain")
        'plain'
    """
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
