"""Packages of asset types that come with Headrace: the folders of ``headrace/apps/asset_types``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def _found() -> tuple[tuple[str, str], ...]:
    root = resources.files("headrace.apps").joinpath("asset_types")
    if not root.is_dir():
        return ()
    found = []
    for each in root.iterdir():
        file = each.joinpath("types.toml")
        if file.is_file():
            head = tomllib.loads(file.read_text("utf-8"))
            found.append((str(head["id"]), str(head["version"])))
    return tuple(sorted(found))


def builtin_types() -> dict[str, list[str]]:
    """Package of asset types -> its versions."""
    return {name: [version] for name, version in _found()}
