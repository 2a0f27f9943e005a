"""What a world is made of and what goes wrong in it: from a seed, or from a scenario file.

A plan says everything that a run depends on. A scenario file is a plan as TOML, with its faults one by
one, so that a person can read what happened and a test can run it for ever.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import msgspec

from headrace.model.errors import Misconfigured

WorldName = Literal["chain", "sparkplug"]
FAULTS_MAX: Final = 8
PLACES: Final = ("file", "entry", "synced")
"""Where a commit can be met: before its files, between files and log entry, after the entry."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong.

    Attributes:
        kind: what; see ``docs/simulation.md``.
        at_s: when, in seconds of the world.
        target: whom it meets: a process or a device.
        for_s: how long it lasts.
        amount: how much: seconds of a clock's step, messages, tags.
        place: where in a commit; see :data:`PLACES`.
    """

    kind: str
    at_s: float
    target: str = ""
    for_s: float = 0.0
    amount: float = 0.0
    place: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One device and its connection.

    Attributes:
        kind: see :mod:`headrace.sim.world.devices`; ``node`` in a Sparkplug world.
        tags: how many. interval_s: between two polls or two messages.
        deadband, scale: of every second tag.
    """

    name: str
    kind: str
    tags: int = 3
    interval_s: float = 0.4
    deadband: float = 0.0
    scale: float = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run depends on.

    Attributes:
        seed: of latencies and values.
        faulty_s: how long faults come; then all is well, and everything must drain.
        commit_interval_s, commit_rows_max, log_keep_s: of the writer.
        real_table: whether the historian has a real Delta table; slower.
        ledger: whether the loss ledger is kept, and must close in the end.
        reads: whether a reader follows and looks while things go wrong.
        note: for people: what this scenario is about.
    """

    seed: int
    world: WorldName = "chain"
    faulty_s: float = 8.0
    sources: tuple[Source, ...] = ()
    faults: tuple[Fault, ...] = ()
    commit_interval_s: float = 1.5
    commit_rows_max: int = 100_000
    log_keep_s: float = 3600.0
    real_table: bool = False
    ledger: bool = False
    reads: bool = True
    note: str = ""


_DEVICE_FAULTS: Final = ("away", "refuse", "mute", "slow", "bad", "garble", "death", "device_clock")
_LINK_FAULTS: Final = ("reset", "stall", "lose_ack", "delay_ack", "double", "lose_delivery")
_DISK_FAULTS: Final = ("disk_full", "kill_in_commit")
_PROCESSES: Final = ("broker", "edge", "historian", "reader")
_OTHER_FAULTS: Final = (
    "kill", "restart", "disk_floor", "clock", "log_full", "foreign", "snapshot", "restore",
)  # fmt: skip
_STEPS_S: Final = (-3600.0, -1.0, -0.005, 0.005, 2.0, 3600.0)


def make_plan(seed: int, world: WorldName = "chain") -> Plan:
    """The plan of a seed.

    Example:
        >>> make_plan(7) == make_plan(7), make_plan(7) == make_plan(8)
        (True, False)
    """
    draw = Random(f"{world}/{seed}")
    if world == "sparkplug":
        return _sparkplug_plan(seed, draw)
    sources = tuple(_source(draw, number) for number in range(draw.choice((1, 1, 1, 2))))
    faulty_s = draw.choice((2.0, 3.0, 6.0))
    faults = [_fault(draw, faulty_s, sources) for _ in range(draw.randint(1, FAULTS_MAX))]
    if draw.random() < 0.15:
        at_s = round(draw.uniform(0.5, faulty_s * 0.6), 3)
        faults.append(Fault(kind="snapshot", at_s=at_s))
        later_s = round(draw.uniform(at_s + 0.1, faulty_s), 3)
        faults.append(Fault(kind="restore", at_s=later_s, for_s=_span(draw, 2.0)))
    return Plan(
        seed=seed,
        faulty_s=faulty_s,
        sources=sources,
        faults=tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.kind))),
        commit_interval_s=draw.choice((0.25, 1.0, 2.0, 3.0)),
        commit_rows_max=draw.choice((12, 60, 100_000)),
        log_keep_s=draw.choice((0.0, 2.0, 3600.0)),
        reads=draw.random() < 0.5,
        ledger=draw.random() < 0.4,
    )


def _source(draw: Random, number: int) -> Source:
    kind = draw.choice(("poll", "poll", "queue", "handshake", "history"))
    return Source(
        name=f"{kind}_{number}",
        kind=kind,
        tags=draw.randint(1, 5),
        interval_s=draw.choice((0.2, 0.4, 0.8)),
        deadband=draw.choice((0.0, 0.0, 15.0)) if kind == "poll" else 0.0,
        scale=draw.choice((1.0, 1.0, 0.1)),
    )


def _span(draw: Random, most_s: float) -> float:
    return round(draw.uniform(0.05, 1.0) * most_s, 3)


def _fault(draw: Random, faulty_s: float, sources: tuple[Source, ...]) -> Fault:
    at_s = round(draw.uniform(0.2, faulty_s), 3)
    group = draw.choice(
        ("kill", "kill", "link", "link", "device", "device", "disk", "clock", "log")
    )
    if group == "kill":
        target = draw.choice(("broker", "edge", "historian", "historian"))
        kind = draw.choice(("kill", "kill", "restart")) if target != "broker" else "kill"
        return Fault(kind=kind, at_s=at_s, target=target, for_s=_span(draw, 3.0))
    if group == "link":
        kind = draw.choice(_LINK_FAULTS)
        target = draw.choice(("edge", "historian", "reader"))
        if kind in ("lose_ack", "delay_ack", "double"):
            target = "edge"
        amount = float(draw.randint(1, 3))
        return Fault(kind=kind, at_s=at_s, target=target, for_s=_span(draw, 4.0), amount=amount)
    if group == "device":
        kind = draw.choice(_DEVICE_FAULTS)
        target = draw.choice(sources).name
        amount = draw.choice(_STEPS_S) if kind == "device_clock" else float(draw.randint(1, 2))
        return Fault(kind=kind, at_s=at_s, target=target, for_s=_span(draw, 2.5), amount=amount)
    if group == "disk":
        kind = draw.choice(("disk_full", "disk_floor", "kill_in_commit", "kill_in_commit"))
        place = draw.choice(PLACES)
        return Fault(kind=kind, at_s=at_s, target="historian", for_s=_span(draw, 3.0), place=place)
    if group == "clock":
        target = draw.choice(("edge", "broker", "historian"))
        return Fault(kind="clock", at_s=at_s, target=target, amount=draw.choice(_STEPS_S))
    kind = draw.choice(("log_full", "foreign"))
    return Fault(kind=kind, at_s=at_s, target="broker", for_s=_span(draw, 3.0))


MANY_TAGS: Final = 90
"""So many metrics of one message are decoded as arrays."""
_NODE_FAULTS: Final = (
    "lose", "lose", "double", "swap", "late", "kill", "host_cut", "node_cut", "rebirth", "realias",
    "device_death", "clock", "garbage", "will_late",
)  # fmt: skip


def _tags(draw: Random) -> int:
    return MANY_TAGS if draw.random() < 0.02 else draw.randint(1, 5)


def _sparkplug_plan(seed: int, draw: Random) -> Plan:
    faulty_s = draw.choice((4.0, 8.0, 12.0))
    sources = tuple(
        Source(name=f"node_{n}", kind="node", tags=_tags(draw), interval_s=0.3)
        for n in range(draw.choice((1, 1, 2, 3)))
    )
    faults = []
    for _ in range(draw.randint(1, FAULTS_MAX)):
        kind = draw.choice(_NODE_FAULTS)
        faults.append(
            Fault(
                kind=kind,
                at_s=round(draw.uniform(0.2, faulty_s), 3),
                target=draw.choice(sources).name,
                for_s=_span(draw, 3.0),
                amount=draw.choice(_STEPS_S) if kind == "clock" else float(draw.randint(1, 4)),
            )
        )
    return Plan(
        seed=seed,
        world="sparkplug",
        faulty_s=faulty_s,
        sources=sources,
        faults=tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.kind))),
    )


# -- scenario files -------------------------------------------------------------------------------


def write_plan(plan: Plan, path: Path) -> None:
    """Keep a plan as a scenario file."""
    fields = msgspec.to_builtins(plan)
    fields = {"note": fields.pop("note"), **fields}
    lists = {name: fields.pop(name) for name in ("sources", "faults")}
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
    for name, rows in lists.items():
        for row in rows:
            shown = {key: value for key, value in row.items() if value not in ("", 0.0)}
            lines += ["", f"[[{name}]]", *(f"{key} = {_toml(v)}" for key, v in shown.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return repr(value)


def read_plan(path: Path) -> Plan:
    """The plan of a scenario file.

    Raises:
        Misconfigured: SIM-5010 when it cannot be read or has an unknown or wrong field.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = set(fields) - set(Plan.__struct_fields__)
        if unknown:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
        plan = msgspec.convert(fields, Plan)
        for fault in plan.faults:
            _check_fault(fault, plan)
        return plan
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise Misconfigured(
            "SIM-5010",
            f"the scenario {path} cannot be read: {error}",
            "Compare it with those in scenarios/ and docs/simulation.md.",
        ) from error


def _check_fault(fault: Fault, plan: Plan) -> None:
    """Raise ValueError when a fault is none, or meets nobody."""
    of_devices = _NODE_FAULTS if plan.world == "sparkplug" else _DEVICE_FAULTS
    of_others = (*_LINK_FAULTS, *_DISK_FAULTS, *_OTHER_FAULTS) if plan.world == "chain" else ()
    if fault.kind not in (*of_devices, *of_others):
        raise ValueError(f"no fault of the world {plan.world!r} is called {fault.kind!r}")
    targets = {source.name for source in plan.sources}
    known = targets if fault.kind in of_devices else {*_PROCESSES, ""}
    if fault.target not in known:
        raise ValueError(f"the fault {fault.kind!r} meets {fault.target!r}, which is not there")
    if fault.kind in _DISK_FAULTS and fault.place not in PLACES:
        raise ValueError(f"the fault {fault.kind!r} needs a place, one of {PLACES}")
