"""Who is told of alarms, and how: channels, routes with their escalation, and the notice that is told.

Plain data. It lives in the ``desired`` bucket as ``notify``. Nothing here holds a secret: a secret is
named, as ``secret:NAME`` (of the vault), ``env:NAME`` (a variable of the process that sends) or ``file:PATH``
(inside the data folder).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from headrace.model.errors import Misconfigured

ChannelKind = Literal["email", "webhook", "wecom", "dingtalk", "feishu"]
ROBOTS: Final = ("wecom", "dingtalk", "feishu")
KINDS: Final[tuple[ChannelKind, ...]] = ("email", "webhook", "wecom", "dingtalk", "feishu")
Language = Literal["en", "zh"]
MailSecurity = Literal["starttls", "tls", "none"]
NoticeEvent = Literal["raised", "acknowledged", "returned", "withdrawn"]
MAIL_PORTS: Final[dict[MailSecurity, int]] = {"starttls": 587, "tls": 465, "none": 25}
_SECRET: Final = re.compile(
    r"secret:[A-Za-z0-9_.\-]{1,160}|env:[A-Za-z_][A-Za-z0-9_]*|file:(?!/|~)[^\\:\0]+"
)
_MAIL: Final = re.compile(r"[^@\s<>,]+@[^@\s<>,]+")
PRIORITIES: Final = ("urgent", "high", "medium", "low")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A way to reach people.

    Attributes:
        kind: ``email``, a ``webhook`` of one's own, or a group robot of WeCom, DingTalk or Feishu.
        language: of its texts.
        url: of webhook and robots. A robot's URL is itself a secret, so it is named, not written.
        secret: names what signs: webhook (HMAC-SHA256), DingTalk and Feishu robots.
        keyword: a robot that asks for a keyword in each message gets this one.
        mention: whom a robot calls by name: mobile numbers (WeCom, DingTalk), open_id (Feishu), ``all``.
        server, port, security, user, password, sender, to: of e-mail. ``port`` 0: that of ``security``.
            ``password`` names the secret.
        proxy: HTTP proxy of webhook and robots, ``http://host:port``. Proxies of the environment are
            not used.
        ca_file: PEM file with the authorities to trust in place of the system's; inside the data folder.
        timeout_s: of one attempt.
        rate_per_min: messages a minute; what is more waits and goes as one digest.
        expire_min: after this long undelivered a message is given up.
        fallback: channel that is told when this one fails and the route has no further step.
    """

    name: str
    kind: ChannelKind
    language: Language = "en"
    url: str = ""
    secret: str = ""
    keyword: str = ""
    mention: tuple[str, ...] = ()
    server: str = ""
    port: int = 0
    security: MailSecurity = "starttls"
    user: str = ""
    password: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()
    proxy: str = ""
    ca_file: str = ""
    timeout_s: float = 10.0
    rate_per_min: int = 15
    expire_min: int = 60
    fallback: str = ""


class EscalationStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an escalation.

    Attributes:
        after_min: minutes unacknowledged. channels: who is told then.
    """

    channels: tuple[str, ...]
    after_min: int = 0


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """Hours in which messages wait; wall-clock times of the plant, over midnight when ``end`` is not
    after ``start``. Those of the priorities in ``passing`` do not wait."""

    start: str
    end: str
    passing: tuple[str, ...] = ()


class NotifyRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Which alarms go where. An empty choice means all.

    Attributes:
        priorities, asset_types, alarms: names; an alarm is named ``pump.hot``.
        areas: paths of equipment; all below them belong to it.
        shifts, teams: of the plant calendar at the time when the alarm is raised.
        steps: in the order of ``after_min``.
        tell_return: whether those who were told also hear that the alarm returned to normal.
    """

    name: str
    steps: tuple[EscalationStep, ...]
    priorities: tuple[str, ...] = ()
    asset_types: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    areas: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    quiet: QuietHours | None = None
    tell_return: bool = False


class NotifyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that the notifier runs.

    Attributes:
        site: name of the site, as messages show it.
        console_url: address of the console, for links in messages; empty: no links.

    Example:
        >>> NotifyConfig().channels
        ()
    """

    site: str = ""
    site_zh: str = ""
    console_url: str = ""
    channels: tuple[ChannelConfig, ...] = ()
    routes: tuple[NotifyRoute, ...] = ()

    def channel(self, name: str) -> ChannelConfig | None:
        """The channel of this name."""
        return next((each for each in self.channels if each.name == name), None)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A transition of an alarm, with all that people are told of it.

    Attributes:
        id: of the transition; the same transition has the same id after a restart.
        alarm: definition and asset in one, such as ``pump.hot@utilities/pumping/pump_1``: of one
            such alarm one episode is open at a time.
        event: ``raised`` asks for attention; ``acknowledged``, ``returned`` and ``withdrawn`` (shelved,
            suppressed, out of service, reset) end what waits to be told.
        at_us: source time. recorded_us: when the journal got it; escalation counts from here.
        definition: ``pump.hot``. asset, asset_title: path, and its titles in English and Chinese.
        message, cause, action: in English and Chinese; Chinese may be empty.
        value: what the condition saw, as text.
    """

    id: str
    alarm: str
    event: NoticeEvent
    at_us: int
    recorded_us: int
    definition: str
    asset: str
    priority: str
    asset_type: str = ""
    asset_title: tuple[str, str] = ("", "")
    message: tuple[str, str] = ("", "")
    cause: tuple[str, str] = ("", "")
    action: tuple[str, str] = ("", "")
    value: str = ""
    by: str = ""


def check_channel(channel: ChannelConfig) -> None:
    """See that a channel can be used, as far as that shows without sending.

    Raises:
        Misconfigured: ALARM-2001 for a secret in clear, ALARM-2002 for any other field.

    Example:
        >>> check_channel(ChannelConfig(name="ops", kind="wecom", url="env:OPS_ROBOT"))
    """
    _check_secrets(channel)
    if channel.kind == "email":
        _check_mail(channel)
    else:
        _check_http(channel)
    for field, low, high in (
        ("timeout_s", 1, 60),
        ("rate_per_min", 1, 600),
        ("expire_min", 1, 1440),
    ):
        value = getattr(channel, field)
        if not low <= value <= high:
            raise _wrong(channel, field, f"{field} is {value}", f"Give {low} to {high}.")


def check_routes(config: NotifyConfig) -> None:
    """See that routes and fallbacks lead to channels, and escalation goes forward.

    Raises:
        Misconfigured: ALARM-2003 with the route's or channel's name.
    """
    known = [channel.name for channel in config.channels]
    for channel in config.channels:
        what, where = f"the fallback of channel {channel.name}", f"notify.channel.{channel.name}"
        _check_known(what, [channel.fallback], known, where)
        if channel.fallback == channel.name:
            raise Misconfigured(
                "ALARM-2003",
                f"channel {channel.name} is its own fallback",
                "Name another one.",
                where=where,
            )
    for number, route in enumerate(config.routes):
        where = f"notify.route.{number}"
        for step in route.steps:
            _check_known(f"route {route.name}", step.channels, known, where)
        minutes = [step.after_min for step in route.steps]
        if not minutes or minutes[0] < 0 or sorted(set(minutes)) != minutes:
            raise Misconfigured(
                "ALARM-2003",
                f"route {route.name} escalates after {minutes} minutes",
                "Let each step have a larger after_min than the one before.",
                where=where,
            )


def check_console_url(url: str) -> None:
    """See that links of messages would lead somewhere.

    Raises:
        Misconfigured: ALARM-2003 when it is no http address.
    """
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.password):
        raise Misconfigured(
            "ALARM-2003", f"console_url is {url!r}", 'Write "https://host" as browsers use it.'
        )


def is_wall_clock(text: str) -> bool:
    """Whether a text is hours and minutes.

    Example:
        >>> is_wall_clock("22:00"), is_wall_clock("24:00")
        (True, False)
    """
    return _CLOCK.fullmatch(text) is not None


def _check_known(what: str, channels: Iterable[str], known: list[str], where: str) -> None:
    for name in channels:
        if name and name not in known:
            remedy = f"Known: {', '.join(known)}." if known else f"Add [notify.channel.{name}]."
            raise Misconfigured(
                "ALARM-2003", f"{what} names the channel {name!r}", remedy, where=where
            )


def _check_secrets(channel: ChannelConfig) -> None:
    fields = ["secret", "password"]
    if channel.kind in ROBOTS or urlsplit(channel.url).scheme in ("env", "file", "secret"):
        fields.append("url")
    for field in fields:
        value = getattr(channel, field)
        if value and (_SECRET.fullmatch(value) is None or ".." in value.split("/")):
            raise Misconfigured(
                "ALARM-2001",
                f"{field} of channel {channel.name} is written out, or names no place",
                f'Write {field} = "secret:NAME" (headrace secret set NAME), "env:NAME", or "file:secrets/NAME"'
                " for a file in the data folder.",
                where=f"notify.channel.{channel.name}.{field}",
            )


def _check_mail(channel: ChannelConfig) -> None:
    for field in ("server", "sender"):
        if not getattr(channel, field):
            shown = "from" if field == "sender" else field
            raise _wrong(channel, shown, f"it has no {shown}", f"Add {shown}.")
    addresses = {"from": (channel.sender,), "to": channel.to}
    for field, values in addresses.items():
        for value in values or ("",):
            if not _MAIL.fullmatch(value):
                remedy = "Write name@host."
                raise _wrong(channel, field, f"{value!r} is no mail address", remedy)
    if bool(channel.user) != bool(channel.password):
        raise _wrong(channel, "user", "user and password go together", "Give both or none.")
    if channel.password and channel.security == "none" and channel.server not in _LOOPBACK:
        raise _wrong(
            channel,
            "security",
            "a password would cross the network in clear",
            "Use starttls or tls.",
        )
    if not 0 <= channel.port <= 65_535:
        raise _wrong(channel, "port", f"port is {channel.port}", "Give 1 to 65535.")


def _check_http(channel: ChannelConfig) -> None:
    if not channel.url:
        raise _wrong(channel, "url", "it has no url", "Add url.")
    if channel.secret and channel.kind == "wecom":
        raise _wrong(channel, "secret", "WeCom robots have no secret", "Remove secret.")
    for field in ("url", "proxy"):
        value = getattr(channel, field)
        if value and _SECRET.fullmatch(value) is None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.password:
                remedy = 'Write "http(s)://host/path", or "env:NAME" when it holds a password.'
                raise _wrong(channel, field, f"{field} is no plain http address", remedy)


def _wrong(channel: ChannelConfig, field: str, what: str, remedy: str) -> Misconfigured:
    return Misconfigured(
        "ALARM-2002",
        f"channel {channel.name}: {what}",
        remedy,
        where=f"notify.channel.{channel.name}.{field}",
    )
