"""The rights as a table: every kind of actor, every kind of subject. The test's matrix and the page's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headrace.bus import subjects as names
from headrace.bus.rights import GATEWAY_RIGHTS, ROLES, Rights, actor_rights, role_rights
from headrace.security.policy import Actor

_SITE: Final = names.Subjects("acme", "mill")
OWN_TOPIC: Final = "hall.press_3.state"
OTHER_TOPIC: Final = "hall.press_4.state"
_STREAMS: Final = (names.SAMPLES_STREAM, names.EVENTS_STREAM, names.LEDGER_STREAM)
_BUCKETS: Final = (
    names.DESIRED_BUCKET,
    names.EDGE_BUCKET,
    names.LEDGER_BUCKET,
    names.APPS_BUCKET,
    "lease",
)
_API: Final = ("CREATE", "UPDATE", "INFO", "DELETE", "PURGE")


def _subjects() -> tuple[str, ...]:
    site = _SITE
    found = [
        site.batch("local", "plc_1"),
        site.batch("north", "plc_1"),
        site.batch(names.APPS_EDGE, "pump"),
        names.LIVE_PREFIX + site.batch("north", "plc_1"),
        *(site.event(role) for role in ("edge", "historian", "apps", "console", "site", "hub")),
        site.event("security"),
        site.edge_ledger("local"),
        site.edge_ledger("north"),
        site.edge_ledger(names.APPS_EDGE),
        site.historian_ledger(),
        site.edge_health("local"),
        site.edge_health("north"),
        site.hub_health(),
        site.historian_health(),
        site.apps_health(),
        site.edge_call("local", "write"),
        site.edge_call("north", "write"),
        site.historian_call("why"),
        site.console_call("why"),
        site.apps_call("acknowledge"),
        site.sim_call("fault"),
        f"{site.prefix}.app.optimizer.state",
        "source.north-1.x",
        OWN_TOPIC,
        OTHER_TOPIC,
        "spBv1//0.hall.DDATA.node_1",
        "tenant.acme_partner.x",
        "_INBOX.edge.x",
        "_INBOX.console.x",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING.CONNZ",
    ]
    found += [f"$JS.API.STREAM.{verb}.{stream}" for stream in _STREAMS for verb in _API]
    found += [f"$JS.API.CONSUMER.CREATE.{stream}.x" for stream in _STREAMS]
    found += [f"$JS.API.STREAM.CREATE.KV_{bucket}" for bucket in _BUCKETS]
    found += [f"$JS.API.DIRECT.GET.KV_{bucket}.x" for bucket in _BUCKETS]
    found += [f"$KV.{bucket}.edge.local" for bucket in _BUCKETS[:1]]
    found += [f"$KV.{bucket}.x" for bucket in _BUCKETS]
    return tuple(found)


SUBJECTS: Final = _subjects()
"""One of each kind: of samples, events, books, health, calls, devices, streams, buckets, the server's own."""


@dataclass(frozen=True)
class Known:
    """One kind of actor; ``actor`` is None for those that the broker's configuration names."""

    rights: Rights
    actor: Actor | None = None


def actors() -> dict[str, Known]:
    """Every kind: the roles, the edge's MQTT side, and one of each that is asked for.

    Example:
        >>> actors()["press_3"].rights.may_say("hall.press_3.state")
        True
    """
    found = {role: Known(role_rights(role, "local")) for role in ROLES}
    asked = [
        Actor("press_3", "viewer", kind="device"),
        Actor("reporting", "viewer", kind="service"),
        Actor("optimizer", "viewer", kind="app"),
        Actor("acme", "viewer", kind="partner", tenant="acme_partner"),
    ]
    known: dict[str, Known] = {**found, "device_gateway": Known(GATEWAY_RIGHTS)}
    for actor in asked:
        rights = actor_rights(actor, ["hall/press_3/#"] if actor.kind == "device" else ())
        assert rights is not None  # each of these has some
        known[actor.name] = Known(rights, actor)
    return known
