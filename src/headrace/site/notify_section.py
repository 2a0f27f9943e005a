"""The section ``[notify]``: channels, routes and their escalation. See docs/notifications.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Misconfigured
from headrace.model.ids import NAME
from headrace.model.notify import (
    KINDS,
    MAIL_PORTS,
    PRIORITIES,
    ChannelConfig,
    EscalationStep,
    NotifyConfig,
    NotifyRoute,
    QuietHours,
    check_channel,
    check_console_url,
    check_routes,
    is_wall_clock,
)
from headrace.site.model import AssetType
from headrace.site.notes import Notes, near
from headrace.site.sections import NAME_REMEDY, Section
from headrace.site.toml_lines import Key

_TEXTS: Final = (
    "url", "secret", "keyword", "server", "user", "password", "proxy", "ca_file", "fallback",
)  # fmt: skip
_NUMBERS: Final = ("port", "rate_per_min", "expire_min")
_CHANNEL: Final = (
    "kind", "language", "security", "from", "to", "mention", "timeout_s", *_TEXTS, *_NUMBERS,
)  # fmt: skip
_ROUTE: Final = (
    "name", "channels", "escalate", "priorities", "asset_types", "alarms", "areas", "shifts", "teams",
    "quiet", "tell_return",
)  # fmt: skip


class Known(NamedTuple):
    """Names that routes may choose by.

    Attributes:
        asset_types, shifts, teams: names. places: paths of equipment. alarms: such as ``pump.hot``.
    """

    asset_types: list[str]
    places: list[str]
    shifts: list[str]
    teams: list[str]
    alarms: list[str]


def known_names(types: list[AssetType], places: list[str], calendar: PlantCalendar) -> Known:
    """What the rest of the site file offers to choose by."""
    return Known(
        asset_types=[each.name for each in types],
        places=places,
        shifts=[shift.name for shift in calendar.shifts],
        teams=sorted({team for shift in calendar.shifts for team in shift.teams}),
        alarms=[
            f"{kind.name}.{each.name}"
            for kind in types
            for each in kind.formulas
            if each.kind == "alarm"
        ],
    )


def read_notify(
    notes: Notes, data: dict[str, Any], titles: tuple[str, str], known: Known
) -> NotifyConfig:
    """``[notify]``, ``[notify.channel.X]`` and ``[[notify.route]]``.

    Args:
        titles: of the site, in English and Chinese, for the messages.
    """
    if "notify" not in data:
        return NotifyConfig()
    section = Section(notes, ("notify",), data["notify"], ("console_url", "channel", "route"))
    channels = section.take("channel", "a table", {})
    routes = section.take("route", "a list", [])
    count = len(notes.problems)
    config = NotifyConfig(
        site=titles[0],
        site_zh=titles[1],
        console_url=section.take("console_url", "a text", ""),
        channels=tuple(_channel(notes, name, table) for name, table in channels.items()),
        routes=tuple(_route(notes, at, table, known) for at, table in enumerate(routes)),
    )
    if len(notes.problems) == count:
        _check(notes, config)
    return config


def _check(notes: Notes, config: NotifyConfig) -> None:
    try:
        check_console_url(config.console_url)
        check_routes(config)
    except Misconfigured as error:
        field = error.where or "notify.console_url"
        key = tuple(int(part) if part.isdigit() else part for part in field.split("."))
        notes.error(notes.file, notes.line_of(key), field, _bare(error))


def _channel(notes: Notes, name: str, table: Any) -> ChannelConfig:
    key = ("notify", "channel", name)
    section = Section(notes, key, table, _CHANNEL)
    count = len(notes.problems)
    if not NAME.match(name):
        notes.at(key, "SITE-1006", f"channel has the name {name!r}", NAME_REMEDY)
    fields: dict[str, Any] = {word: section.take(word, "a text", "") for word in _TEXTS}
    defaults = ChannelConfig(name=name, kind="webhook")
    for word in _NUMBERS:
        fields[word] = section.take(word, "a whole number", getattr(defaults, word))
    channel = ChannelConfig(
        name=name,
        kind=_one_of(section, "kind", KINDS, ""),
        language=_one_of(section, "language", ("en", "zh"), "en"),
        security=_one_of(section, "security", tuple(MAIL_PORTS), "starttls"),
        sender=section.take("from", "a text", ""),
        to=_texts(section, "to"),
        mention=_texts(section, "mention"),
        timeout_s=float(section.take("timeout_s", "a number", defaults.timeout_s)),
        **fields,
    )
    if len(notes.problems) == count:
        try:
            check_channel(channel)
        except Misconfigured as error:
            field = error.where.rpartition(".")[2]
            notes.error(
                notes.file, notes.line_of((*key, field)), ".".join((*key, field)), _bare(error)
            )
    return channel


def _bare(error: Misconfigured) -> Misconfigured:
    """The error without its place, which a problem of the site file says itself."""
    what = error.what.removeprefix(f"{error.where}: ")
    return Misconfigured(error.code, what, error.remedy)


def _one_of(section: Section, word: str, allowed: tuple[str, ...], default: str) -> Any:
    value = section.take(word, "a text", default, required=not default)
    if value and value not in allowed:
        remedy = near(value, allowed) or f"Use one of {', '.join(allowed)}."
        section.wrong(word, f"{word} is {value!r}", remedy)
        return allowed[0]
    return value or allowed[0]


def _texts(section: Section, word: str) -> tuple[str, ...]:
    """A text, or a list of texts."""
    value = section.table.get(word, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
        section.wrong(word, f"{word} is {value!r}", f'Write {word} = ["...", "..."].')
        return ()
    return tuple(values)


def _route(notes: Notes, position: int, table: Any, known: Known) -> NotifyRoute:
    key: Key = ("notify", "route", position)
    section = Section(notes, key, table, _ROUTE)
    steps = [EscalationStep(channels=_channels(section), after_min=0)]
    escalate = section.take("escalate", "a list", [])
    steps += [_step(notes, (*key, "escalate", at), each) for at, each in enumerate(escalate)]
    chosen = {
        word: _chosen(section, word, names)
        for word, names in (
            ("priorities", PRIORITIES),
            ("asset_types", known.asset_types),
            ("areas", known.places),
            ("shifts", known.shifts),
            ("teams", known.teams),
            ("alarms", known.alarms),
        )
    }
    return NotifyRoute(
        name=section.take("name", "a text", f"route_{position + 1}"),
        steps=tuple(steps),
        quiet=_quiet(notes, (*key, "quiet"), section.take("quiet", "a table")),
        tell_return=section.take("tell_return", "true or false", False),
        **chosen,
    )


def _channels(section: Section) -> tuple[str, ...]:
    if "channels" not in section.table:
        section.take("channels", "a list", required=True)
        return ()
    return _texts(section, "channels")


def _step(notes: Notes, key: Key, table: Any) -> EscalationStep:
    section = Section(notes, key, table, ("after_min", "channels"))
    after_min = section.take("after_min", "a whole number", 0, required=True)
    return EscalationStep(channels=_channels(section), after_min=after_min)


def _chosen(section: Section, word: str, names: Iterable[str]) -> tuple[str, ...]:
    found = _texts(section, word)
    for value in found:
        if value not in names:
            remedy = near(value, names) or "Use a name that the site file has."
            section.wrong(word, f"{word} has {value!r}, which is not known", remedy, "SITE-1009")
    return found


def _quiet(notes: Notes, key: Key, table: Any) -> QuietHours | None:
    if table is None:
        return None
    section = Section(notes, key, table, ("from", "to", "except"))
    hours = {}
    for word in ("from", "to"):
        hours[word] = section.take(word, "a text", "00:00", required=True)
        if not is_wall_clock(hours[word]):
            section.wrong(word, f"{word} is {hours[word]!r}", 'Write hours and minutes: "22:00".')
    passing = _chosen(section, "except", PRIORITIES)
    return QuietHours(start=hours["from"], end=hours["to"], passing=passing)
