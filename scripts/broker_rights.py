"""Write docs/broker-rights.md from the table that the broker enforces.

python scripts/broker_rights.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.bus import subjects as names
from headrace.bus.rights import GATEWAY_RIGHTS, ROLES, Rights, actor_rights, role_rights
from headrace.security.policy import Actor, Grant

PAGE = Path(__file__).parent.parent / "docs" / "broker-rights.md"
HEAD = """# Who may say and hear what on the broker

Written by `scripts/broker_rights.py` from `bus/rights.py`, the table that the broker enforces;
`tests/bus/test_broker_rights.py` tries every line at a real server.
How it works: [transport.md](transport.md).

- Roles of ours are users of the broker's configuration: {roles}.
  `device_gateway` is the edge's own MQTT side.
- Asked for one by one: a device (here `press_3`, which the site file gives `hall/press_3/#`),
  a service that may read the whole site (`reporting`), an app (`optimizer`), a partner of the tenant
  `acme_partner`, who has an account of its own: nothing of the site is there.
- Persons have no business at the broker; they use the console.
- `platform` is the owner on the machine: everything in the site's account, nothing in the server's
  own. No process of ours works as it.

S: says (publishes). H: hears (subscribes). Nothing: refused.

"""


_SITE: Final = names.Subjects("acme", "mill")
OWN_TOPIC: Final = "hall.press_3.state"
OTHER_TOPIC: Final = "hall.press_4.state"
_STREAMS: Final = (
    names.SAMPLES_STREAM,
    names.SEALED_STREAM,
    names.EVENTS_STREAM,
    names.LEDGER_STREAM,
)
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
        site.batch(names.apps_edge("local"), "pump"),
        site.batch(names.apps_edge("north"), "pump"),
        site.batch(names.RUNTIME_EDGE, "optimizer"),
        site.batch(names.runtime_edge("local"), "optimizer"),
        site.batch(names.runtime_edge("north"), "optimizer"),
        site.sealed("local", "plc_1"),
        site.sealed("north", "plc_1"),
        site.apps_health("local"),
        site.edge_call("local", names.FORMULA_CALL),
        site.edge_call("local", names.PACKAGE_CALL),
        site.edge_call("north", names.PACKAGE_CALL),
        site.app_health("optimizer"),
        site.app_health("optimizer", "local"),
        site.app_health("optimizer", "north"),
        site.app_call("optimizer", "ask"),
        site.app_call("optimizer", "ask", "local"),
        site.app_call("optimizer", "ask", "north"),
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
        site.apps_health("north"),
        site.edge_call("local", "write"),
        site.edge_call("north", "write"),
        site.historian_call("why"),
        site.console_call("why"),
        site.apps_call("acknowledge"),
        site.app_call("load_watch", "ask"),
        site.runtime_call("load_watch", "logs"),
        site.runtime_call("load_watch", "logs", "local"),
        site.runtime_call("load_watch", "logs", "north"),
        site.sim_call("fault"),
        site.order("r-1"),
        f"{site.prefix}.app.optimizer.state",
        "source.north-1.x",
        OWN_TOPIC,
        OTHER_TOPIC,
        "spBv1//0.hall.DDATA.node_1",
        "tenant.acme_partner.x",
        "_INBOX.edge.x",
        "_INBOX.console.x",
        "$SRV.STATS",
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
    found: dict[str, Known] = {role: Known(role_rights(role, "local")) for role in ROLES}
    asked = [
        Actor("press_3", "viewer", kind="device"),
        Actor("reporting", "viewer", kind="service", grants=(Grant("viewer"),)),
        Actor("optimizer", "viewer", kind="app"),
        Actor("acme", "viewer", kind="partner", tenant="acme_partner"),
    ]
    known = {**found, "device_gateway": Known(GATEWAY_RIGHTS)}
    for actor in asked:
        rights = actor_rights(actor, ["hall/press_3/#"] if actor.kind == "device" else ())
        assert rights is not None  # each of these has some
        known[actor.name] = Known(rights, actor)
    return known


def page() -> str:
    """The whole page."""
    known = actors()
    roles = ", ".join(
        f"`{name}`" for name, each in known.items() if each.actor is None and "_" not in name
    )
    lines = ["| subject | " + " | ".join(known) + " |", "|---" * (len(known) + 1) + "|"]
    for subject in SUBJECTS:
        cells = [_cell(each.rights, subject) for each in known.values()]
        lines.append(f"| `{subject}` | " + " | ".join(cells) + " |")
    return HEAD.format(roles=roles) + "\n".join(lines) + "\n"


def _cell(rights: Rights, subject: str) -> str:
    return "S" * rights.may_say(subject) + "H" * rights.may_hear(subject)


if __name__ == "__main__":
    PAGE.write_text(page())
