"""Telling reads and exports: between the routes and pages that give data, and the receipts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from itertools import islice
from typing import Final

from fastapi import Response

from headrace.console.services import Services
from headrace.historian.backtest import Outcome, Question
from headrace.model.errors import HeadraceError
from headrace.security.policy import Actor, decide
from headrace.security.receipt_rows import TagSet
from headrace.security.receipts import FLUSH_S, Receipts

FILES: Final = ("text/csv", "vnd.apache", "spreadsheet")
"""In the media type of what leaves as a file: it is an export."""
TAGS_MAX: Final = 200
RULES_MAX: Final = 4
RULE_CHARS_MAX: Final = 300


def rule_of(services: Services, actor: Actor, tag_ids: Iterable[int]) -> str:
    """By which rules of the policy an actor may read some tags; of many equipments the first ones."""
    by_id = services.sources.site.by_id
    paths = {by_id[tag_id].unit_path for tag_id in islice(tag_ids, TAGS_MAX) if tag_id in by_id}
    rules = {
        f"{', '.join(decision.policies)}: {decision.reason}"
        for path in sorted(paths)[:RULES_MAX]
        for decision in (decide(actor, "read", f"equipment/{path}", {"equipment": path}),)
    }
    return "; ".join(sorted(rules))[:RULE_CHARS_MAX]


def tell_read(
    services: Services,
    actor: Actor,
    door: str,
    tag_ids: Iterable[int],
    samples: int,
    span: tuple[int, int],
) -> None:
    """Count a read before its data are given.

    Args:
        door: such as ``rest/samples``.
        span: source times [start, end), UTC microseconds.

    Raises:
        Transient: SEC-1701 when it cannot be told.
    """
    tag_ids = list(tag_ids)
    services.identity.receipts.note(
        actor.name,
        door,
        TagSet.of(tag_ids),
        rule=rule_of(services, actor, tag_ids),
        samples=samples,
        span=span,
    )


def tell_backtest(
    services: Services, actor: Actor, door: str, question: Question, found: Outcome
) -> None:
    """Count a back-test as a read of all tags of its assets.

    Raises:
        Transient: SEC-1701 when it cannot be told.
    """
    site = services.sources.site
    ids = [view.tag_id for asset in found.assets for view in site.below(asset)]
    span = (question.start_us, question.end_us)
    tell_read(services, actor, door, ids, len(found.episodes), span)


async def told(
    services: Services,
    actor: Actor,
    door: str,
    tag_ids: Iterable[int],
    answer: Response,
    rows: int,
    span: tuple[int, int] = (0, 0),
) -> Response:
    """The answer, told: as an export with its hash when it is a file, else as a read.

    Raises:
        Transient: SEC-1701 or SEC-1202 when it cannot be told.
    """
    media, tag_ids = answer.media_type or "", list(tag_ids)
    if not any(name in media for name in FILES):
        tell_read(services, actor, door, tag_ids, rows, span)
        return answer
    await asyncio.to_thread(
        services.identity.receipts.export,
        actor.name,
        door,
        TagSet.of(tag_ids),
        rule=rule_of(services, actor, tag_ids),
        rows=rows,
        span=span,
        content=bytes(answer.body),
        media=media.partition(";")[0],
    )
    return answer


async def keep_receipts(receipts: Receipts, stop: asyncio.Event) -> None:
    """Put what was counted into the chain every few seconds, and once more at the end."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), FLUSH_S)
        # The counts are kept and told again; when too many wait, reads are refused with the reason.
        with contextlib.suppress(HeadraceError):
            await asyncio.to_thread(receipts.flush)
