"""What people read: one alarm, or many as a digest, in English or Chinese.

The same parts serve every channel; how they are set is the channel's business. Texts of engineers and
devices are put on one line and cut, so that none of them can pose as a part of the message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from headrace.alarms.notify.plan import Delivery
from headrace.model.notify import PRIORITIES, Language, Notice, NotifyConfig
from headrace.model.time import to_datetime

SHOWN_MAX: Final = 10
PART_MAX: Final = 300
_BLANK: Final = re.compile(r"[\s\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")
WORDS: Final[dict[str, tuple[str, str]]] = {
    "urgent": ("URGENT", "紧急"),
    "high": ("HIGH", "高"),
    "medium": ("MEDIUM", "中"),
    "low": ("LOW", "低"),
    "raised": ("alarm", "报警"),
    "returned": ("returned to normal", "已恢复正常"),
    "asset": ("Asset", "设备"),
    "alarm": ("Alarm", "报警"),
    "since": ("Since", "发生时间"),
    "at": ("At", "时间"),
    "value": ("Value", "数值"),
    "cause": ("Likely cause", "可能原因"),
    "action": ("What to do", "处置措施"),
    "waited": ("Nobody has acknowledged it for {0} min", "{0} 分钟内无人确认"),
    "many": ("{0} alarms", "{0} 条报警"),
    "more": ("and {0} more", "另有 {0} 条"),
    "open": ("Open the alarm list", "打开报警列表"),
    "test": ("Test message", "测试消息"),
    "test_text": (
        "This channel works. No alarm was raised.",
        "此通道工作正常，并无报警。",
    ),
    "between": (": ", "："),
    "comma": (", ", "、"),
}


class Message(NamedTuple):
    """A message before a channel sets it.

    Attributes:
        title: one line.
        lines: label and text; a line of a digest has no label.
        link, link_text: to the console; empty when there is none.
        colour: ``red``, ``orange``, ``green`` or ``grey``.
        notices: what it is about. total: how many, with those that it only counts.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    colour: str
    link: str = ""
    link_text: str = ""
    notices: tuple[Notice, ...] = ()
    total: int = 0

    def plain(self) -> str:
        """All of it as text."""
        rows = [f"{label}{': ' if label else ''}{text}" for label, text in self.lines]
        links = [f"{self.link_text}: {self.link}"] if self.link else []
        return "\n".join([self.title, *rows, *links])


def word(name: str, language: Language, *values: object) -> str:
    """A word of :data:`WORDS`; a name that is not there stands for itself."""
    pair = WORDS.get(name)
    return pair[language == "zh"].format(*values) if pair else name


def one_line(text: str, most: int = PART_MAX) -> str:
    """A text from outside as one line without control characters, cut to ``most`` characters.

    Example:
        >>> one_line("hot\\n\\n**URGENT**", 8)
        'hot **U…'
    """
    flat = _BLANK.sub(" ", text).strip()
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def compose(
    deliveries: Sequence[Delivery],
    count: int,
    config: NotifyConfig,
    language: Language,
    zone: ZoneInfo,
) -> Message:
    """The message for one delivery, or the digest of several.

    Args:
        deliveries: most urgent first; not empty.
        count: how many are meant in all.
    """
    first = deliveries[0]
    parts = (
        _one(first, config, language, zone)
        if count == 1
        else _digest(deliveries, count, language, zone)
    )
    title, lines, colour = parts
    site = (config.site_zh if language == "zh" else "") or config.site
    return Message(
        title=f"{title} · {one_line(site, 60)}" if site else title,
        lines=tuple(lines),
        colour=colour,
        link=f"{config.console_url.rstrip('/')}/alarms" if config.console_url else "",
        link_text=word("open", language),
        notices=tuple(each.notice for each in deliveries),
        total=count,
    )


def compose_test(config: NotifyConfig, language: Language, at: str) -> Message:
    """What ``headrace notify test`` sends."""
    site = (config.site_zh if language == "zh" else "") or config.site
    title = word("test", language)
    return Message(
        title=f"{title} · {one_line(site, 60)}" if site else title,
        lines=(("", word("test_text", language)), (word("at", language), at)),
        colour="grey",
        link=f"{config.console_url.rstrip('/')}/alarms" if config.console_url else "",
        link_text=word("open", language),
    )


_Parts = tuple[str, list[tuple[str, str]], str]


def _one(delivery: Delivery, config: NotifyConfig, language: Language, zone: ZoneInfo) -> _Parts:
    notice = delivery.notice
    lines = []
    if delivery.waited_min and notice.event == "raised":
        lines.append(("", word("waited", language, delivery.waited_min)))
    if message := _said(notice.message, language):
        lines.append(("", message))
    asset = _asset(notice, language)
    shown = f"{asset} ({notice.asset})" if asset != notice.asset else asset
    time = "since" if notice.event == "raised" else "at"
    rows = (
        ("asset", shown),
        ("alarm", one_line(notice.definition)),
        (time, clock_text(notice.at_us, zone)),
        ("value", one_line(notice.value)),
        ("cause", _said(notice.cause, language) if notice.event == "raised" else ""),
        ("action", _said(notice.action, language) if notice.event == "raised" else ""),
    )
    lines += [(word(label, language), text) for label, text in rows if text]
    return _headline(notice, language), lines, _colour(notice)


def _digest(
    deliveries: Sequence[Delivery], count: int, language: Language, zone: ZoneInfo
) -> _Parts:
    shown = deliveries[:SHOWN_MAX]
    lines = [
        ("", f"{clock_text(each.notice.at_us, zone)} {_headline(each.notice, language)}")
        for each in shown
    ]
    if count > len(shown):
        lines.append(("", word("more", language, count - len(shown))))
    said = Counter(each.notice.priority for each in deliveries if each.notice.event == "raised")
    kinds = [f"{said[name]} {word(name, language)}" for name in PRIORITIES if said[name]]
    title = word("many", language, count)
    if kinds and count == len(deliveries):
        title += word("between", language) + word("comma", language).join(kinds)
    return title, lines, _colour(deliveries[0].notice)


def _headline(notice: Notice, language: Language) -> str:
    asset = _asset(notice, language)
    what = _said(notice.message, language) or one_line(notice.definition)
    head = word(notice.priority if notice.event == "raised" else notice.event, language)
    return f"[{head}] {asset}{word('between', language)}{what}"


def _asset(notice: Notice, language: Language) -> str:
    return _said(notice.asset_title, language) or one_line(notice.asset)


def _said(pair: tuple[str, str], language: Language) -> str:
    english, chinese = pair
    return one_line((chinese or english) if language == "zh" else (english or chinese))


def _colour(notice: Notice) -> str:
    if notice.event != "raised":
        return "green"
    return {"urgent": "red", "high": "red", "medium": "orange"}.get(notice.priority, "grey")


def clock_text(at_us: int, zone: ZoneInfo) -> str:
    """A time as people of the plant read it, with its zone.

    Example:
        >>> clock_text(0, ZoneInfo("Asia/Shanghai"))
        '1970-01-01 08:00:00 CST'
    """
    return to_datetime(at_us).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")
