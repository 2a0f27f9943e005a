"""Typed ids, and the grammar of names and paths.

A path is ``area/work_center/work_unit/tag`` below a site (ISA-95 levels; any depth of at least two).
A name is what can stand in a broker subject without quoting (the restricted token of NATS ADR-6).
"""

from __future__ import annotations

import re
from typing import Final, NewType

from headrace.model.errors import Misconfigured

TagId = NewType("TagId", int)
"""Permanent 63-bit id of a tag; never reused, never renamed."""

TAG_ID_MAX: Final = 2**63 - 1
NAME: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
PATH_DEPTH_MAX: Final = 8


def check_name(name: str, what: str, where: str = "") -> str:
    """The name itself when it is one.

    Raises:
        Misconfigured: MODEL-1002 with the offending text.

    Example:
        >>> check_name("pump_1", "connection")
        'pump_1'
    """
    if not NAME.match(name):
        raise Misconfigured(
            "MODEL-1002",
            f"{what} has the name {name!r}",
            "Use 1 to 64 of A-Z a-z 0-9 _ and -.",
            where=where,
        )
    return name


def check_path(path: str, what: str, where: str = "") -> str:
    """The path itself when each of its tokens is a name and there are 2 to 8 of them.

    Raises:
        Misconfigured: MODEL-1003 with the offending text.

    Example:
        >>> check_path("utilities/pumping/pump_1/flow", "tag")
        'utilities/pumping/pump_1/flow'
    """
    tokens = path.split("/")
    if not 2 <= len(tokens) <= PATH_DEPTH_MAX or not all(NAME.match(token) for token in tokens):
        raise Misconfigured(
            "MODEL-1003",
            f"{what} has the path {path!r}",
            "Use area/work_center/work_unit/tag, each of A-Z a-z 0-9 _ and -.",
            where=where,
        )
    return path
