"""Zones and conduits as a picture: a box a zone, the highest security level on top, an arc a conduit. Pure."""

from __future__ import annotations

from typing import Final

from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag
from headrace.model.zones import DEFAULT_ZONE, Conduit, Zone, ZoneMap

BOX_WIDTH: Final = 520
LINE: Final = 20
GAP: Final = 34
ARC: Final = 46
LABEL_WIDTH: Final = 330
NAMES_SHOWN: Final = 4
LABEL_CHARS: Final = 46


def zone_picture(zones: ZoneMap, texts: Texts) -> Markup:
    """The picture as SVG; it says the same in words to who cannot see it."""
    ordered = sorted(zones.zones, key=lambda zone: (-zone.security_level, zone.name))
    ordered.append(Zone(name=DEFAULT_ZONE, security_level=0))
    top, middles, boxes = 8, {}, []
    for zone in ordered:
        lines = _lines(zone, texts)
        height = (len(lines) + 1) * LINE + 16
        middles[zone.name] = top + height / 2
        boxes.append(_box(zone, lines, top, height, texts))
        top += height + GAP
    arcs = [
        _arc(conduit, position, middles, texts)
        for position, conduit in enumerate(zones.conduits)
        if conduit.source in middles and conduit.target in middles
    ]
    width = BOX_WIDTH + 24 + ARC * (len(arcs) + 1) + LABEL_WIDTH
    return tag(
        "svg",
        tag("title", texts("zones.title")),
        _arrow_head(),
        boxes,
        arcs,
        viewBox=f"0 0 {width} {top}",
        width=width,
        height=top,
        role="img",
        font_size="13",
        fill="currentColor",
    )


def _shape(name: str, **attributes: object) -> Markup:
    """An element of SVG without children; inside SVG a browser closes none by itself."""
    return Markup(f"{tag(name, **attributes)[:-1]}/>")


def _arrow_head() -> Markup:
    # viewBox and the marker's names are SVG's own spelling, with capitals.
    head = _shape("path", d="M0,0 L10,5 L0,10 z")
    return tag(
        "defs",
        tag(
            "marker",
            head,
            id="hr-zone-arrow",
            viewBox="0 0 10 10",
            refX=9,
            refY=5,
            markerWidth=8,
            markerHeight=8,
            orient="auto-start-reverse",
        ),
    )


def _lines(zone: Zone, texts: Texts) -> list[str]:
    if zone.name == DEFAULT_ZONE and not zone.security_level:
        return [texts("zones.rest")]
    found = []
    for word in ("equipment", "connections", "edges", "networks"):
        names = getattr(zone, word)
        if names:
            more = f" +{len(names) - NAMES_SHOWN}" if len(names) > NAMES_SHOWN else ""
            found.append(f"{texts(f'zones.{word}')}: {', '.join(names[:NAMES_SHOWN])}{more}")
    return [_short(line, 2 * LABEL_CHARS - 16) for line in found]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _box(zone: Zone, lines: list[str], top: float, height: float, texts: Texts) -> Markup:
    title = zone.title_zh if texts.language == "zh" and zone.title_zh else zone.title
    name = f"{title} ({zone.name})" if title else zone.name
    level = f"SL-T {zone.security_level}" if zone.security_level else ""
    rect = _shape(
        "rect", x=8, y=top, width=BOX_WIDTH, height=height, rx=8, fill="none", stroke="currentColor",
        stroke_opacity="0.5", stroke_width=1 + zone.security_level * 0.5,
    )  # fmt: skip
    head = tag("text", _short(name, LABEL_CHARS), x=22, y=top + LINE + 2, font_weight="600")
    right = tag("text", level, x=BOX_WIDTH - 6, y=top + LINE + 2, text_anchor="end", opacity="0.7")
    body = [
        tag("text", line, x=22, y=top + LINE * (number + 2) + 2, opacity="0.8")
        for number, line in enumerate(lines)
    ]
    return tag("g", rect, head, right, body, data_zone=zone.name)


def _arc(conduit: Conduit, position: int, middles: dict[str, float], texts: Texts) -> Markup:
    shift = (position % 3 - 1) * 8
    start, end = middles[conduit.source] + shift, middles[conduit.target] + shift
    begin, out = BOX_WIDTH + 8, BOX_WIDTH + 8 + ARC * (position + 1)
    what = ", ".join((*conduit.protocols, *conduit.groups)) or texts("zones.everything")
    arrow = "↔" if conduit.both_ways else "→"
    label = f"{conduit.source} {arrow} {conduit.target}: {what}"
    line = _shape(
        "path",
        d=f"M{begin},{start} C{out},{start} {out},{end} {begin},{end}",
        fill="none",
        stroke="currentColor",
        stroke_width=1.5,
        marker_end="url(#hr-zone-arrow)",
        marker_start="url(#hr-zone-arrow)" if conduit.both_ways else None,
    )
    place = begin + 0.75 * (out - begin) + 6
    text = tag("text", _short(label, LABEL_CHARS), x=place, y=(start + end) / 2 + shift + 4)
    return tag(
        "g", tag("title", label), line, text, data_conduit=join(conduit.source, "-", conduit.target)
    )
