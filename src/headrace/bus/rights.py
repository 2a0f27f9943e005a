"""What each kind of actor may say and hear on the broker: one table, which the broker enforces.

Roles of ours are users of the broker's own configuration, each with a password of its own: they connect
also while nobody answers for others. Devices, apps, services and partners are asked for one by one
(:mod:`headrace.bus.callout`). Who is not named here has nothing. ``docs/broker-rights.md`` is made of
this table, and a test tries every kind on every subject at a real broker.

A site's subjects begin ``v1.<enterprise>.<site>``. One account of the broker holds one site, so rights
name them ``v1.*.*``. What a role asks of JetStream are requests too: reading a stream makes a consumer on
exactly this one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from headrace.bus import subjects as names
from headrace.model.errors import Misconfigured
from headrace.security.rights import Actor

RoleName = Literal[
    "edge", "historian", "apps", "runtime", "console", "hub", "sim", "cli", "security"
]
ROLES: Final[tuple[RoleName, ...]] = (
    "edge",
    "historian",
    "apps",
    "runtime",
    "console",
    "hub",
    "sim",
    "cli",
    "security",
)
SITE_ACCOUNT: Final = "SITE"
CALLOUT_ACCOUNT: Final = "CALLOUT"
SYSTEM_ACCOUNT: Final = "$SYS"
LEASE_BUCKET: Final = "lease"
_SITE: Final = "v1.*.*"
_SAMPLES: Final = names.SAMPLES_STREAM
_EVENTS: Final = names.EVENTS_STREAM
_LEDGER: Final = names.LEDGER_STREAM
_SEALED: Final = names.SEALED_STREAM
_ORDERS: Final = names.ORDERS_STREAM
PLATFORM_ONLY: Final = (
    "v1.>",
    "live.>",
    "source.>",
    "$JS.>",
    "$JSC.>",
    "$KV.>",
    "$SYS.>",
    "_INBOX.>",
    "tenant.>",
)
"""What no device may touch, whatever its topics are."""


@dataclass(frozen=True)
class Rights:
    """Subjects, with NATS wildcards; what is not named is refused.

    Attributes:
        says: may be published to. hears: may be subscribed to.
        answers: may also publish, once, where a message it heard asks for the answer.
        not_says, not_hears: refused although a wildcard above covers them.
    """

    says: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    answers: bool = False
    not_says: tuple[str, ...] = ()
    not_hears: tuple[str, ...] = ()

    def may_say(self, subject: str) -> bool:
        """Whether these rights let it publish there.

        Example:
            >>> Rights(says=("a.*.>",)).may_say("a.b.c.d"), Rights(says=("a.*",)).may_say("a.b.c")
            (True, False)
        """
        return _covers(self.says, subject) and not _covers(self.not_says, subject)

    def may_hear(self, subject: str) -> bool:
        """Whether these rights let it subscribe there (``subject`` without wildcards)."""
        return _covers(self.hears, subject) and not _covers(self.not_hears, subject)


def _covers(patterns: Sequence[str], subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in patterns)


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a pattern's, as NATS defines it.

    Example:
        >>> matches("v1.*.batch.>", "v1.mill.batch.a.b"), matches("v1.>", "v1")
        (True, False)
    """
    wanted, given = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(given) > place
        if place >= len(given) or token not in ("*", given[place]):
            return False
    return len(wanted) == len(given)


ALL_SERVICES: Final = "$SRV.>"
"""Where services say what they are and how often they were asked: NATS ADR-32."""


def inbox(user: str) -> str:
    """Where answers to this user come; nobody else hears there."""
    return f"_INBOX.{user}"


def role_rights(role: RoleName, edge: str = "*") -> Rights:
    """The rights of a role of ours.

    Args:
        edge: the only one whose samples and books the role ``edge`` may write, and beside which the roles
            ``apps`` and ``runtime`` may work.

    Example:
        >>> role_rights("edge", "local").may_say("v1.acme.mill.batch.other.plc_1")
        False
    """
    return _ROLES[role](edge if role in ("edge", "apps", "runtime") else "*")


def _edge(edge: str) -> Rights:
    own = (
        f"{_SITE}.batch.{edge}.*",
        f"{_SITE}.sealed.{edge}.*",
        f"{_SITE}.event.edge.*",
        f"{_SITE}.ledger.edge.{edge}",
        f"{_SITE}.health.edge.{edge}",
        f"$KV.{names.LEDGER_BUCKET}.{edge}",
        f"$KV.{names.EDGE_BUCKET}.{edge}.>",
        f"$KV.{names.DESIRED_BUCKET}.edge.{edge}",
    )
    streams = (*_KEEPS_ALL, *_purges(_SAMPLES))
    buckets = _buckets(names.DESIRED_BUCKET, names.EDGE_BUCKET, names.LEDGER_BUCKET)
    # Beside what it writes it looks back into its own log: what is stored, what waits.
    return Rights(
        (*own, *streams, *buckets, *_reads(_SAMPLES), *_reads(_LEDGER)),
        (f"{_SITE}.call.edge.{edge}.*", f"{inbox('edge')}.>"),
        answers=True,
    )


def _historian(_: str) -> Rights:
    says = (
        f"{_SITE}.event.historian.*",
        f"{_SITE}.ledger.historian",
        f"{_SITE}.health.historian",
        *_KEEPS_ALL,
        *(_reads(_SAMPLES) + _reads(_LEDGER) + _purges(_SAMPLES)),
        *_buckets(names.LEDGER_BUCKET, names.DESIRED_BUCKET),
    )
    hears = (f"{_SITE}.call.historian.*", f"{inbox('historian')}.>")
    return Rights(says, hears, answers=True)


def _apps(edge: str) -> Rights:
    as_whom = (names.APPS_EDGE,) if edge == "*" else (names.APPS_EDGE, names.apps_edge(edge))
    says = (
        *(f"{_SITE}.batch.{name}.*" for name in as_whom),
        f"{_SITE}.event.apps.*",
        *(f"{_SITE}.ledger.edge.{name}" for name in as_whom),
        f"{_SITE}.health.apps",
        f"{_SITE}.health.apps.{edge}",
        f"$KV.{names.APPS_BUCKET}.>",
        f"$KV.{LEASE_BUCKET}.>",
        *(f"$KV.{names.LEDGER_BUCKET}.{name}" for name in as_whom),
        *_KEEPS_ALL,
        *(_reads(_SAMPLES) + _reads(_EVENTS)),
        *_buckets(names.APPS_BUCKET, names.DESIRED_BUCKET, names.LEDGER_BUCKET, LEASE_BUCKET),
    )
    calls = (f"{_SITE}.call.apps.*", f"{_SITE}.call.edge.{edge}.{names.FORMULA_CALL}")
    return Rights(says, (*calls, f"{inbox('apps')}.>"), answers=True)


def _runtime(edge: str) -> Rights:
    """Between the processes of industrial apps and everything else; they themselves reach only it."""
    as_whom = (
        (names.RUNTIME_EDGE,) if edge == "*" else (names.RUNTIME_EDGE, names.runtime_edge(edge))
    )
    says = (
        *(f"{_SITE}.batch.{name}.*" for name in as_whom),
        f"{_SITE}.event.runtime.*",
        f"{_SITE}.event.app.*",
        f"{_SITE}.health.app.*",
        f"{_SITE}.health.app.*.{edge}",
        f"{_SITE}.call.app.*.*",
        f"{_SITE}.call.app.*.*.{edge}",
        f"{_SITE}.call.edge.*.write",
        f"{_SITE}.call.edge.*.{names.PACKAGE_CALL}",
        f"$KV.{names.RUNTIME_BUCKET}.>",
        f"$KV.{LEASE_BUCKET}.>",
        *_KEEPS_ALL,
        *(_reads(_SAMPLES) + _reads(_EVENTS) + _reads(_ORDERS)),
        *_buckets(names.RUNTIME_BUCKET, names.DESIRED_BUCKET, LEASE_BUCKET),
    )
    whole = (f"{_SITE}.call.app.*.*", f"{_SITE}.call.runtime.*.*")
    calls = (*whole, *(f"{each}.{edge}" for each in whole))
    files = f"{_SITE}.call.edge.{edge}.{names.PACKAGE_CALL}"
    return Rights(
        says,
        (f"{_SITE}.app.*.ask.*", *calls, files, ALL_SERVICES, f"{inbox('runtime')}.>"),
        answers=True,
    )


def _console(_: str) -> Rights:
    says = (
        f"{_SITE}.call.>",
        f"{_SITE}.event.console.*",
        f"{_SITE}.event.site.*",
        names.ALL_ORDERS,
        f"$KV.{names.DESIRED_BUCKET}.>",
        f"$KV.{LEASE_BUCKET}.>",
        *_KEEPS_ALL,
        *(_reads(_SAMPLES) + _reads(_EVENTS) + _reads(_LEDGER) + _reads(_ORDERS)),
        *_buckets(names.DESIRED_BUCKET, LEASE_BUCKET, names.LEDGER_BUCKET, names.APPS_BUCKET),
    )
    hears = (
        names.ALL_BATCHES,
        names.LIVE_PREFIX + names.ALL_BATCHES,
        names.ALL_HEALTH,
        names.ALL_EVENTS,
        f"{_SITE}.call.console.*",
        f"{inbox('console')}.>",
    )
    return Rights(says, hears, answers=True)


def _hub(_: str) -> Rights:
    says = (
        f"{_SITE}.call.edge.*.*",
        f"{_SITE}.event.hub.*",
        f"{_SITE}.health.hub",
        *_KEEPS_ALL,
        *_reads(_SAMPLES),
        *_buckets(names.DESIRED_BUCKET, names.LEDGER_BUCKET),
        f"$JS.API.STREAM.UPDATE.KV_{names.LEDGER_BUCKET}",
    )
    return Rights(says, (f"{_SITE}.health.edge.*", f"{inbox('hub')}.>"))


def _sim(_: str) -> Rights:
    return Rights((), (f"{_SITE}.call.sim.*", f"{inbox('sim')}.>"), answers=True)


def _cli(_: str) -> Rights:
    """Commands on the machine itself: they look everywhere, ask roles, and back-fill formulas."""
    says = (
        f"{_SITE}.call.>",
        f"{_SITE}.batch.{names.APPS_EDGE}.*",
        f"{_SITE}.event.apps.*",
        names.ALL_ORDERS,
        ALL_SERVICES,
        *(_reads(_SAMPLES) + _reads(_EVENTS) + _reads(_LEDGER) + _reads(_SEALED)),
        *_reads(_ORDERS),
        *_buckets(names.DESIRED_BUCKET, names.LEDGER_BUCKET, names.APPS_BUCKET),
    )
    return Rights(says, (names.ALL_HEALTH, f"{inbox('cli')}.>"))


def _security(_: str) -> Rights:
    says = (f"{_SITE}.event.security.*", *_buckets(names.DESIRED_BUCKET))
    return Rights(says, (f"{inbox('security')}.>",))


_ROLES: Final = {
    "edge": _edge,
    "historian": _historian,
    "apps": _apps,
    "runtime": _runtime,
    "console": _console,
    "hub": _hub,
    "sim": _sim,
    "cli": _cli,
    "security": _security,
}
GATEWAY_RIGHTS: Final = Rights((">",), (">",), not_says=PLATFORM_ONLY, not_hears=PLATFORM_ONLY)
"""The edge's own MQTT side, user ``device``: it hears all devices and says commands to them."""


def leaf_rights(edge: str, domain: str) -> Rights:
    """The broker of an edge that joined this hub.

    ``$JSC.R`` and ``$JS.FC`` carry answers and flow control of sourcing.
    """
    states = (f"{_SITE}.health.app.*.{edge}", f"{_SITE}.health.apps.{edge}")
    health = (f"{_SITE}.health.edge.{edge}", *states)
    says = (*health, "_INBOX.>", "$JSC.R.>", f"source.{domain}.>")
    apps = (f"{_SITE}.call.app.*.*.{edge}", f"{_SITE}.call.runtime.*.*.{edge}")
    hears = (f"{_SITE}.call.edge.{edge}.*", *apps, f"$JS.{domain}.API.>", "$JS.FC.>")
    return Rights(says, hears)


def actor_rights(
    actor: Actor, topics: Sequence[str] = (), heard: Sequence[str] = ()
) -> Rights | None:
    """The rights of somebody who is no role of ours; None when it has no business at the broker.

    Args:
        actor: who it is.
        topics: MQTT topic filters of a device, as the site file declares them.
        heard: such filters that it may hear only.

    Raises:
        Misconfigured: BUS-1402 when a topic is one of the platform's own.

    Example:
        >>> device = Actor("press_3", "viewer", kind="device")
        >>> actor_rights(device, ["plant/press_3/#"]).says
        ('plant.press_3', 'plant.press_3.>')
    """
    own = inbox(actor.name)
    if actor.kind == "device":
        allowed = tuple(subject for topic in topics for subject in topic_subjects(topic))
        more = tuple(subject for topic in heard for subject in topic_subjects(topic))
        # $MQTT.sub: how the server delivers what was kept for it (QoS 1); nobody else's is known.
        return Rights(allowed, (*allowed, *more, "$MQTT.sub.>")) if allowed else None
    if actor.tenant:
        # Another company's: an account of its own, in which nothing of the site is heard.
        return Rights((f"tenant.{actor.tenant}.>",), (f"tenant.{actor.tenant}.>", f"{own}.>"))
    if actor.kind == "app":
        scope = f"{_SITE}.app.{actor.name}.>"
        return Rights((scope,), (scope, f"{own}.>"))
    if actor.kind == "service" and any(not grant.scope for grant in actor.grants):
        # Subjects know connections, not equipment: who may read a part only, asks the REST API.
        stored = (names.ALL_BATCHES, names.LIVE_PREFIX + names.ALL_BATCHES)
        return Rights((), (*stored, names.ALL_HEALTH, names.ALL_EVENTS, f"{own}.>"))
    return None


def topic_subjects(topic: str) -> tuple[str, ...]:
    """The subjects of an MQTT topic filter, as nats-server maps them: ``/`` is ``.``, and ``.`` is ``//``.

    Raises:
        Misconfigured: BUS-1402 when it is no filter, or reaches the platform's own subjects.

    Example:
        >>> topic_subjects("spBv1.0/plant/+/node_1/#")
        ('spBv1//0.plant.*.node_1', 'spBv1//0.plant.*.node_1.>')
    """
    levels = topic.split("/")
    wrong = not topic or " " in topic or "*" in topic or ">" in topic or "\0" in topic
    wrong |= any(not level for level in levels) or "#" in levels[:-1] or levels[0] in ("#", "+")
    wrong |= any(len(level) > 1 and ("#" in level or "+" in level) for level in levels)
    words = ["*" if level == "+" else level.replace(".", "//") for level in levels]
    plain = ".".join(words)
    if wrong or words[0].startswith("$") or _covers(PLATFORM_ONLY, f"{plain}.x"):
        raise Misconfigured(
            "BUS-1402",
            f"a device cannot be given the topic {topic!r}",
            "Give a topic that begins with a name of the devices' own, such as plant/press_3/#.",
        )
    if words[-1] != "#":
        return (plain,)
    above = ".".join(words[:-1])
    return (above, f"{above}.>")


def configured(rights: Rights) -> str:
    """The rights as a ``permissions`` block of nats-server's configuration."""
    answers = ", allow_responses: true" if rights.answers else ""
    publish = _block(rights.says, rights.not_says)
    subscribe = _block(rights.hears, rights.not_hears)
    return f"{{ publish: {publish}, subscribe: {subscribe}{answers} }}"


def _block(allow: Sequence[str], deny: Sequence[str]) -> str:
    # An empty list would mean everything.
    if not allow:
        return '{ deny: [">"] }'
    refused = f", deny: {json.dumps(list(deny))}" if deny else ""
    return f"{{ allow: {json.dumps(list(allow))}{refused} }}"


def claimed(rights: Rights) -> dict[str, dict[str, list[str]]]:
    """The rights as a user's token carries them."""
    return {
        "pub": {"allow": list(rights.says)} if rights.says else {"deny": [">"]},
        "sub": {"allow": list(rights.hears)} if rights.hears else {"deny": [">"]},
    }


def _keeps(stream: str) -> tuple[str, ...]:
    """Make a stream when it is not there, and bring its bounds up to date."""
    return tuple(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO"))


_KEEPS_ALL: Final = tuple(
    right for stream in (_SAMPLES, _SEALED, _EVENTS, _LEDGER, _ORDERS) for right in _keeps(stream)
)


def _reads(stream: str) -> tuple[str, ...]:
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
    )


def _purges(stream: str) -> tuple[str, ...]:
    return (f"$JS.API.STREAM.PURGE.{stream}",)


def _buckets(*buckets: str) -> tuple[str, ...]:
    """Make buckets when they are not there, and read them; a key to write is named by itself."""
    found: list[str] = []
    for stream in (f"KV_{bucket}" for bucket in buckets):
        found += [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "INFO", "MSG.GET")]
        found += [f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}.>"]
    return tuple(found)
