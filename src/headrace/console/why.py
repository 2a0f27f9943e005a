"""Why a value is old, asked from a console: its own part, and the diagnosis."""

from __future__ import annotations

import msgspec

from headrace.console.sources import Sources
from headrace.model.decoding import UNREADABLE
from headrace.model.why import Diagnosis, diagnose
from headrace.model.why_facts import ScreenFacts, TableFacts, WhyTag
from headrace.site import why as site_why


class ScreenCall(msgspec.Struct, kw_only=True):
    """Tell how far a tag's newest value has come here."""

    tag_id: int


def screen_facts(sources: Sources, tag_id: int) -> ScreenFacts:
    """What this console's live values say of a tag; one that it does not know has none."""
    facts = ScreenFacts(
        at_us=sources.clock.now_us(),
        connected=bool(sources.bus.client.is_connected),
        feed_us=sources.feed_us,
    )
    if tag_id in sources.site.by_id:
        slot = int(sources.live.slots([tag_id])[0])
        if sources.live.changes(sources.live.slots([tag_id]), 0).index.size:
            facts.source_us = int(sources.live.source_us[slot])
            facts.received_us = int(sources.live.received_us[slot])
    return facts


async def answer_calls(sources: Sources) -> None:
    """Tell whoever asks on the bus what this console's screen has."""

    async def why(body: bytes) -> bytes:
        try:
            call = msgspec.json.decode(body, type=ScreenCall)
        except UNREADABLE:
            call = ScreenCall(tag_id=-1)  # of no tag: the feed's age alone is told
        return msgspec.json.encode(screen_facts(sources, call.tag_id))

    await sources.bus.answer(sources.subjects.console_call("why"), why)


async def explain(
    sources: Sources, tag: WhyTag, *, browser: bool | None = None, browser_source_us: int = 0
) -> Diagnosis:
    """The diagnosis of one tag, as this console sees it.

    Args:
        browser: whether the asking page has its live connection; None when no page asks.
        browser_source_us: source time of the newest sample that the page shows.
    """

    async def table(tag_id: int, live: bool) -> TableFacts:
        return await sources.history.facts(tag_id, live=live)

    async def screen(tag_id: int, _: bool) -> ScreenFacts:
        facts = screen_facts(sources, tag_id)
        facts.browser, facts.browser_source_us = browser, browser_source_us
        return facts

    found = site_why.Sources(
        bus=sources.bus,
        subjects=sources.subjects,
        table=table,
        screen=screen,
        edge_seen_us=sources.health.edge_seen_us(tag.edge),
        historian=sources.health.historian_heard,
        find=lambda tag_id: sources.find_tag(str(tag_id)),
    )
    return diagnose(await site_why.collect(tag, found, sources.clock))
