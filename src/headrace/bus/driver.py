"""Importing nats-py lightly, for processes of which there are many."""

from __future__ import annotations

import importlib
import sys


def load_nats() -> None:
    """Import nats-py without aiohttp, which it needs for WebSockets alone; we use none.

    That is 0.7 s and 7 MB less in each process. Does nothing when nats-py is loaded already. aiohttp
    itself can be imported as usual afterwards, by a connector for example.

    Example:
        >>> load_nats()
        >>> "nats" in sys.modules
        True
    """
    if "nats" in sys.modules:
        return
    hidden = "aiohttp" not in sys.modules
    if hidden:
        sys.modules["aiohttp"] = None  # type: ignore[assignment] # what makes an import fail at once
    try:
        importlib.import_module("nats")
    finally:
        if hidden:
            del sys.modules["aiohttp"]
