"""A diagnosis in words, English or Chinese; for pages, REST and the command line."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any, Final

from headrace.console.texts import Texts, table
from headrace.console.widgets.spans import span
from headrace.model.time import to_datetime
from headrace.model.why import Diagnosis, Hop

COLUMNS: Final = (
    "why.hop", "why.state", "why.why", "why.last_success", "why.offset", "why.last_error",
)  # fmt: skip


class WhyText:
    """The words of one diagnosis.

    Args:
        texts: of the reader's language.
        diagnosis: what to say.
        zone: of the reader, for moments.

    Example:
        >>> from datetime import UTC
        >>> from headrace.model.why import diagnose
        >>> from headrace.model.why_facts import Facts, WhyTag
        >>> answer = diagnose(Facts(at_us=0, tag=WhyTag(tag_id=7, path="a/b")))
        >>> WhyText(Texts("en"), answer, UTC).headline()[:33]
        'Bus: the broker does not answer. '
    """

    def __init__(self, texts: Texts, diagnosis: Diagnosis, zone: tzinfo) -> None:
        self._texts = texts
        self._diagnosis = diagnosis
        self._zone = zone

    def headline(self) -> str:
        """One sentence: the culprit, why, what to do, and when it is tried again."""
        texts, diagnosis = self._texts, self._diagnosis
        if diagnosis.fresh:
            return texts("why.fresh")
        hop = diagnosis.hop(diagnosis.culprit)
        parts = [texts("why.unproven")] if hop.state == "unknown" else []
        told = self.reason(hop)
        if hop.error and hop.state != "unknown":
            told += f" ({hop.code} {hop.error})"
        ending = "。" if texts.language == "zh" else "."
        parts.append(texts("why.at_hop", hop=self.name(hop), text=told) + ending)
        remedy = self.remedy(hop)
        if remedy:
            parts.append(texts("why.do", remedy=remedy))
        wait = self.next_try(hop)
        if wait:
            parts.append(texts("why.next_try", span=wait))
        return ("" if texts.language == "zh" else " ").join(parts)

    def name(self, hop: Hop) -> str:
        """What the hop is called."""
        return self._texts(f"why_hop.{hop.name}")

    def state(self, hop: Hop) -> str:
        """What its state is called."""
        return self._texts(f"why_state.{hop.state}")

    def reason(self, hop: Hop) -> str:
        """Why it is so."""
        if hop.hidden_by and hop.reason == "hidden":
            return self._texts("why.hidden", hop=self._texts(f"why_hop.{hop.hidden_by}"))
        tag = self._diagnosis.tag
        known = {"connection": tag.connection, "edge": tag.edge, **hop.values}
        return self._fill(f"why_reason.{hop.reason}", known)

    def remedy(self, hop: Hop) -> str:
        """What to do now; the error's own remedy is in English."""
        key = f"why_remedy.{hop.reason}"
        ours = self._texts(key) if key in table() else ""
        chosen = ours or hop.remedy if self._texts.language == "zh" else hop.remedy or ours
        return chosen if hop.state != "proven" else ""

    def next_try(self, hop: Hop) -> str:
        """In how long it is tried again; empty when nothing waits."""
        if not hop.next_try_us or hop.state == "proven":
            return ""
        left_us = hop.next_try_us - self._diagnosis.at_us
        return self._texts("why.now") if left_us < 500_000 else span(self._texts, left_us)

    def age(self, hop: Hop) -> str:
        """How long ago it last did its work for certain."""
        if not hop.last_success_us:
            return ""
        age = span(self._texts, self._diagnosis.at_us - hop.last_success_us)
        return self._texts("time.ago", age=age)

    def error_age(self, hop: Hop) -> str:
        """How long ago the last error was."""
        if not hop.error_us:
            return ""
        age = span(self._texts, self._diagnosis.at_us - hop.error_us)
        return self._texts("time.ago", age=age)

    def offset(self, hop: Hop) -> str:
        """How far the device's clock is off."""
        if hop.clock_offset_us is None:
            return ""
        size = self._precise(abs(hop.clock_offset_us))
        way = "ahead" if hop.clock_offset_us >= 0 else "behind"
        return self._texts(f"why.offset_{way}", span=size)

    def notes(self) -> list[str]:
        """What is no fault and good to know."""
        return [self._fill(f"why_note.{name}", values) for name, values in self._diagnosis.notes]

    def _precise(self, span_us: int) -> str:
        """As :func:`span`, with tenths of a second below ten."""
        if span_us < 10_000_000:
            return self._texts("time.seconds", n=f"{span_us / 1e6:.1f}")
        return span(self._texts, span_us)

    def _fill(self, key: str, values: dict[str, Any]) -> str:
        said = {name: self._say(name, value) for name, value in values.items()}
        return self._texts(key, **said)

    def _say(self, name: str, value: Any) -> str:
        if name.endswith("_us"):
            return self._precise(max(0, int(value)))
        if name.endswith("_at"):
            return self._moment(int(value))
        return f"{value:,}" if isinstance(value, int) else str(value)

    def _moment(self, at_us: int) -> str:
        """The time of day, with the date when it is not of today."""
        if at_us <= 0:
            return self._texts("why.unknown_time")
        at, now = (
            to_datetime(each).astimezone(self._zone) for each in (at_us, self._diagnosis.at_us)
        )
        return at.strftime("%H:%M:%S" if at.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def as_plain(diagnosis: Diagnosis, zone: tzinfo) -> dict[str, Any]:
    """A diagnosis as REST and ``--format json`` give it: the facts, and the words in both languages.

    Times are microseconds since 1970 (UTC); the tag's id is text, since it may need 63 bits.
    """
    said = {language: WhyText(Texts(language), diagnosis, zone) for language in ("en", "zh")}
    hops = []
    for hop in diagnosis.hops:
        told = {name: getattr(hop, name) for name in Hop.__struct_fields__}
        words = {
            language: {"text": words.reason(hop), "what_now": words.remedy(hop)}
            for language, words in said.items()
        }
        hops.append({**told, **words})
    return {
        "tag_id": str(diagnosis.tag.tag_id),
        "path": diagnosis.tag.path,
        "connection": diagnosis.tag.connection,
        "edge": diagnosis.tag.edge,
        "at_us": diagnosis.at_us,
        "fresh": diagnosis.fresh,
        "culprit": diagnosis.culprit,
        "headline": {language: words.headline() for language, words in said.items()},
        "notes": {language: words.notes() for language, words in said.items()},
        "hops": hops,
    }
