"""Options that say what an installation shares with others, for this process and those it starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit


def share(bus: Path | None, metadata: str) -> None:
    """Let the options go before ``headrace.toml``; see :mod:`headrace.security.settings`."""
    if bus is not None:
        os.environ["HEADRACE_BUS"] = str(bus.resolve())
    if metadata:
        os.environ["HEADRACE_METADATA"] = metadata


def reach(urls: list[str]) -> None:
    """Pass when one of the brokers takes a connection; a client of the bus would wait for it.

    Raises:
        OSError: none does.
    """
    for number, url in enumerate(urls, 1):
        place = urlsplit(url)
        try:
            socket.create_connection((place.hostname or "", place.port or 4222), 1.0).close()
            return
        except OSError:
            if number == len(urls):
                raise
