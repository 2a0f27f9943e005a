"""The sections ``[zone.NAME]`` and ``[[conduit]]``: checked when they are written. See docs/protection.md."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from headrace.model.zones import DEFAULT_ZONE, Conduit, Zone, ZoneMap
from headrace.site.model import Connection, Equipment, Group, Tag
from headrace.site.notes import Notes, near
from headrace.site.sections import Section, check_name, named_tables

_ZONE: Final = ("title", "security_level", "equipment", "connections", "edges", "networks")
_CONDUIT: Final = ("from", "to", "direction", "protocols", "groups")
DIRECTIONS: Final = ("one_way", "both")


def read_zones(
    notes: Notes,
    data: dict[str, Any],
    equipment: Iterable[Equipment],
    connections: Iterable[Connection],
    groups: Iterable[Group],
) -> ZoneMap:
    """All zones and conduits; notes what is wrong with each of them."""
    known = {
        "equipment": [each.path for each in equipment],
        "connections": [each.name for each in connections],
        "edges": sorted({each.edge for each in connections}),
    }
    zones = [_zone(notes, n, table, known) for n, table in named_tables(notes, data, "zone")]
    _check_overlaps(notes, zones)
    names = [DEFAULT_ZONE, *(zone.name for zone in zones)]
    tables = data.get("conduit", [])
    if not isinstance(tables, list):
        notes.at(("conduit",), "SITE-1005", "conduit is not a list", "Write [[conduit]].")
        tables = []
    group_names = [group.name for group in groups]
    conduits = [_conduit(notes, at, each, names, group_names) for at, each in enumerate(tables)]
    return ZoneMap(zones=tuple(zones), conduits=tuple(conduits))


def _zone(notes: Notes, name: str, table: Any, known: dict[str, list[str]]) -> Zone:
    section = Section(notes, ("zone", name), table, _ZONE)
    check_name(notes, ("zone", name), name, "zone")
    title, title_zh = section.title()
    level = section.take("security_level", "a whole number", 1)
    if not 1 <= level <= 4:
        section.wrong("security_level", f"security_level is {level}", "Give SL-T 1 to 4.")
    chosen = {word: _texts(section, word) for word in ("equipment", "connections", "edges")}
    for word, names in known.items():
        for each in chosen[word]:
            if each not in names:
                what = f"{word} has {each!r}, which is not known"
                section.wrong(word, what, near(each, names) or "Correct it.", "SEC-1550")
    networks = _texts(section, "networks")
    for each in networks:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            remedy = "Write for example 10.1.0.0/16."
            section.wrong("networks", f"{each!r} is no network: {error}", remedy)
            networks = tuple(network for network in networks if network != each)
    return Zone(
        name=name, title=title, title_zh=title_zh, security_level=level, networks=networks, **chosen
    )


def _texts(section: Section, word: str) -> tuple[str, ...]:
    values = section.take(word, "a list", [])
    for each in values:
        if not isinstance(each, str):
            section.wrong(word, f"{word} has {each!r}", "Give texts.")
    return tuple(each for each in values if isinstance(each, str))


def _check_overlaps(notes: Notes, zones: list[Zone]) -> None:
    for word in ("equipment", "connections", "edges", "networks"):
        first: dict[str, str] = {}
        for zone in zones:
            for each in getattr(zone, word):
                if first.setdefault(each, zone.name) != zone.name:
                    what = f"{each} is in the zones {first[each]} and {zone.name}"
                    remedy = "Each thing is in exactly one zone: take it out of one."
                    notes.at(("zone", zone.name, word), "SEC-1551", what, remedy)


def _conduit(
    notes: Notes, position: int, table: Any, zones: list[str], groups: list[str]
) -> Conduit:
    section = Section(notes, ("conduit", position), table, _CONDUIT)
    ends = {}
    for word in ("from", "to"):
        ends[word] = section.take(word, "a text", "", required=True)
        if ends[word] and ends[word] not in zones:
            remedy = near(ends[word], zones) or f"Zones: {', '.join(zones)}."
            section.wrong(word, f"there is no zone {ends[word]!r}", remedy, "SEC-1552")
    if ends["from"] and ends["from"] == ends["to"]:
        section.wrong("to", f"it leads from {ends['to']} to itself", "Name two zones.", "SEC-1552")
    direction = section.take("direction", "a text", "one_way")
    if direction not in DIRECTIONS:
        section.wrong("direction", f"direction is {direction!r}", f"Use {' or '.join(DIRECTIONS)}.")
    chosen = _texts(section, "groups")
    for each in chosen:
        if each not in groups:
            section.wrong("groups", f"there is no group {each!r}", near(each, groups), "SEC-1552")
    return Conduit(
        source=ends["from"],
        target=ends["to"],
        both_ways=direction == "both",
        protocols=_texts(section, "protocols"),
        groups=chosen,
    )


def check_crossings(
    notes: Notes, zones: ZoneMap, connections: Iterable[Connection], tags: Iterable[Tag]
) -> None:
    """Note each connection that its edge cannot reach, and each tag that may not cross or be written."""
    if not zones.zones:
        return
    own: dict[str, list[Tag]] = {}
    for tag in tags:
        own.setdefault(tag.connection, []).append(tag)
    for each in connections:
        device = zones.zone_of_connection(each.name, each.endpoint)
        edge = zones.zone_of_edge(each.edge)
        key = ("connection", each.name)
        named = next((zone.name for zone in zones.zones if each.name in zone.connections), device)
        if named != device:
            what = (
                f"{each.endpoint} is in a network of the zone {device}, and {each.name} in {named}"
            )
            notes.at((*key, "endpoint"), "SEC-1553", what, "Correct the zone or the endpoint.")
        mine = own.get(each.name, [])
        groups = sorted({tag.group for tag in mine})
        if not zones.may_cross(device, edge, each.protocol, groups):
            which = f" for the groups {', '.join(groups)}" if groups else ""
            what = f"no conduit leads {each.protocol} from {device} to {edge}{which}, where its edge is"
            remedy = f'Add [[conduit]] with from = "{device}" and to = "{edge}".'
            notes.at(key, "SEC-1554", what, remedy)
        wanted = sorted({zones.zone_of(tag.path) for tag in mine if tag.writable} | {device})
        if any(tag.writable for tag in mine):
            _check_writes(notes, zones, each, edge, wanted)


def _check_writes(
    notes: Notes, zones: ZoneMap, connection: Connection, edge: str, targets: list[str]
) -> None:
    for target in targets:
        if not zones.may_cross(edge, target, connection.protocol):
            what = (
                f"{connection.name} has writable tags, and no conduit leads from {edge} to {target}"
            )
            remedy = 'Give the conduit direction = "both", or make the tags not writable.'
            notes.at(("connection", connection.name), "SEC-1555", what, remedy)
