"""What of a request a contract grants. Pure; what it does not name is refused.

Aggregates come in whole windows of the contract's grid that are over, never in parts of one: the
difference of two windows that overlap by less than one would be what the contract does not give.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.model.errors import Misconfigured, Refused
from headrace.security.sharing.contract import SharingContract, Standing, state_of

ROWS_AT_ONCE: Final = 10_000
_SAID: Final = {
    "offered": "is not signed by both",
    "signed": "has not begun",
    "expired": "is over",
    "exhausted": "has given all its rows",
    "revoked": "was revoked",
}


class SharingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a partner asks for: paths (none: all), source times [start, end), windows (0: as agreed)."""

    paths: tuple[str, ...] = ()
    start_us: int
    end_us: int
    every_us: int = 0


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What may be read.

    Attributes:
        tag_ids: of which tags. start_us, end_us: source times [start, end); empty when equal.
        every_us, aggregate: windows; 0 and empty for samples.
        samples_min: windows with fewer samples are left out.
        rows: how many at most; they are taken from the meter before it is read.
    """

    tag_ids: tuple[int, ...]
    start_us: int
    end_us: int
    every_us: int
    aggregate: str
    rows: int
    samples_min: int = 0


def allow(
    contract: SharingContract, standing: Standing, request: SharingRequest, now_us: int
) -> Granted:
    """What a contract grants of a request at a moment.

    Raises:
        Refused: SEC-1732 when it is not active, SEC-1733 for a tag that it does not name (whether
            there is one or not), SEC-1735 when fewer rows are left.
        Misconfigured: SEC-1734 for other windows than agreed.
    """
    terms = contract.terms
    state = state_of(contract, standing, now_us)
    if state != "active":
        raise Refused(
            "SEC-1732", f"sharing contract {contract.id} {_SAID[state]}", f"Ask {terms.offerer}."
        )
    known = dict(terms.tags)
    paths = request.paths or tuple(known)
    for path in paths:
        if path not in known:
            raise Refused(
                "SEC-1733",
                f"the contract does not name {path[:100]!r}",
                "GET /api/v1/shared shows what it names.",
            )
    tag_ids = tuple(dict.fromkeys(known[path] for path in paths))
    start_us = max(request.start_us, terms.data_from_us)
    end_us = min(request.end_us, terms.data_until_us, now_us)
    every_us = request.every_us or terms.every_us
    left = terms.rows_max - standing.rows_used
    if terms.every_us == 0:
        if request.every_us:
            raise _other_windows("samples, no windows")
        rows = min(left, ROWS_AT_ONCE)
    else:
        if terms.samples_min and every_us != terms.every_us:
            # Of a longer window less its given parts the part remains that was not given.
            raise _other_windows(f"windows of {terms.every_us / 1e6:g} s")
        if every_us % terms.every_us:
            raise _other_windows(f"windows of {terms.every_us / 1e6:g} s, or a multiple of it")
        start_us = -(-start_us // every_us) * every_us
        end_us = end_us // every_us * every_us
        rows = max(end_us - start_us, 0) // every_us * len(tag_ids)
        if rows > left or rows > ROWS_AT_ONCE:
            raise Refused(
                "SEC-1735",
                f"{rows:,} rows were asked for; {left:,} are left, {ROWS_AT_ONCE:,} at once",
                "Ask for a shorter time, or for fewer tags.",
            )
    end_us = max(start_us, end_us)
    return Granted(
        tag_ids=tag_ids,
        start_us=start_us,
        end_us=end_us,
        every_us=every_us if terms.every_us else 0,
        aggregate=terms.aggregate,
        rows=rows if end_us > start_us else 0,
        samples_min=terms.samples_min,
    )


def _other_windows(agreed: str) -> Misconfigured:
    return Misconfigured("SEC-1734", f"the contract gives {agreed}", "Leave every out.")
