"""The sections ``[protection.NAME]``: what of some tags may leave the edge. See docs/protection.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from headrace.model.desired import ProtectionRule, Rule, WindowFunction
from headrace.model.errors import Misconfigured
from headrace.model.ids import NAME
from headrace.site.model import Connection, Protection, Tag
from headrace.site.notes import Notes, near
from headrace.site.registry import compile_pattern
from headrace.site.sections import Section, check_name, named_tables

RULES: Final[tuple[Rule, ...]] = ("stays", "aggregated", "encrypted", "leaves")
FUNCTIONS: Final[tuple[WindowFunction, ...]] = ("mean", "minimum", "maximum", "sum", "count")
_ALLOWED: Final = ("tags", "rule", "function", "window_s", "key", "keep_mb")
WINDOW_MAX_S: Final = 7 * 86_400
PROTECTIONS_MAX: Final = 1_000


def read_protections(
    notes: Notes, data: dict[str, Any], tags: tuple[Tag, ...], connections: Iterable[Connection]
) -> tuple[Protection, ...]:
    """All ``[protection.NAME]``, with the tags that they chose; notes what is wrong."""
    found = [
        _protection(notes, name, table, tags)
        for name, table in named_tables(notes, data, "protection")[:PROTECTIONS_MAX]
    ]
    _check_overlaps(notes, found)
    devices = {each.name: f"{each.protocol} {each.endpoint}" for each in connections}
    _check_addresses(notes, found, tags, devices)
    return tuple(found)


def _protection(notes: Notes, name: str, table: Any, tags: tuple[Tag, ...]) -> Protection:
    key = ("protection", name)
    section = Section(notes, key, table, _ALLOWED)
    check_name(notes, key, name, "protection")
    rule = section.take("rule", "a text", "stays", required=True)
    if rule not in RULES:
        section.wrong("rule", f"rule is {rule!r}", near(rule, RULES) or f"Use {', '.join(RULES)}.")
        rule = "stays"
    patterns = section.take("tags", "a list", [], required=True)
    made = Protection(
        name=name,
        rule=rule,
        tags=tuple(each for each in patterns if isinstance(each, str)),
        paths=_chosen(section, patterns, tags),
        function=section.take("function", "a text", "mean"),
        window_s=float(section.take("window_s", "a number", 60.0)),
        key=section.take("key", "a text", ""),
        keep_mb=section.take("keep_mb", "a whole number", 256),
    )
    _check_settings(section, made, tags)
    return made


def _chosen(section: Section, patterns: list[Any], tags: tuple[Tag, ...]) -> tuple[str, ...]:
    chosen: dict[str, None] = {}
    for pattern in patterns:
        try:
            matches = compile_pattern(pattern if isinstance(pattern, str) else "").match
        except Misconfigured as error:
            section.wrong("tags", error.what, error.remedy)
            continue
        found = [tag.path for tag in tags if matches(tag.path)]
        if not found:
            remedy = "Correct the pattern: a protection that protects nothing is a mistake."
            section.wrong("tags", f"no tag is {pattern!r}", remedy, "SEC-1540")
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def _check_settings(section: Section, made: Protection, tags: tuple[Tag, ...]) -> None:
    if made.rule == "aggregated":
        if made.function not in FUNCTIONS:
            remedy = near(made.function, FUNCTIONS) or f"Use one of {', '.join(FUNCTIONS)}."
            section.wrong("function", f"function is {made.function!r}", remedy)
        intervals = [tag.scan_interval_ms for tag in tags if tag.path in set(made.paths)]
        least_s = 2 * max(intervals, default=0) / 1000
        if not max(least_s, 0.001) <= made.window_s <= WINDOW_MAX_S:
            section.wrong(
                "window_s",
                f"window_s is {made.window_s:g}",
                f"Give at least {least_s:g} (two samples of each tag) and at most {WINDOW_MAX_S}.",
                "SEC-1541",
            )
    if made.rule == "encrypted" and not NAME.match(made.key):
        what = f"{made.name} encrypts and names no key" if not made.key else f"key is {made.key!r}"
        section.wrong("key", what, 'Add: key = "tenant_a", and make it on the edge.', "SEC-1542")
    if not 16 <= made.keep_mb <= 1_000_000:
        section.wrong("keep_mb", f"keep_mb is {made.keep_mb}", "Give 16 to 1,000,000.")


def _check_overlaps(notes: Notes, found: list[Protection]) -> None:
    first: dict[str, str] = {}
    for each in found:
        twice = [path for path in each.paths if path in first]
        if twice:
            what = f"{twice[0]} is in the protections {first[twice[0]]} and {each.name}"
            remedy = "A tag has one protection: narrow one of the patterns."
            notes.at(("protection", each.name, "tags"), "SEC-1543", what, remedy)
        first.update(dict.fromkeys(each.paths, each.name))


def _check_addresses(
    notes: Notes, found: list[Protection], tags: tuple[Tag, ...], devices: Mapping[str, str]
) -> None:
    """The same value under another tag must not leave in another way."""
    by_path = {path: each for each in found for path in each.paths if each.rule != "leaves"}
    if not by_path:
        return

    def place_of(tag: Tag) -> tuple[str, str]:
        return devices.get(tag.connection, tag.connection), tag.address

    place = {place_of(tag): tag.path for tag in tags if tag.path in by_path}
    for tag in tags:
        other = place.get(place_of(tag))
        if other is None or by_path.get(tag.path) is by_path[other]:
            continue
        name = by_path[other].name
        what = f"{tag.path} reads the same address as {other}, which the protection {name} covers"
        notes.at(("protection", name, "tags"), "SEC-1544", what, f"Add {tag.path} to {name}.")


def rules_of(
    protections: tuple[Protection, ...], ids: Mapping[str, int]
) -> tuple[ProtectionRule, ...]:
    """The rules of one connection.

    Args:
        ids: path -> tag id, of its tags.
    """
    found = []
    for each in protections:
        own = tuple(sorted(ids[path] for path in each.paths if path in ids))
        if own and each.rule != "leaves":
            is_windowed = each.rule == "aggregated"
            found.append(
                ProtectionRule(
                    name=each.name,
                    rule=each.rule,
                    tag_ids=own,
                    function=each.function,
                    window_ms=round(each.window_s * 1000) if is_windowed else 0,
                    key=each.key if each.rule == "encrypted" else "",
                    keep_bytes=each.keep_mb << 20,
                )
            )
    return tuple(found)
