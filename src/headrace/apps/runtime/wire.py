"""What an app's process and the runtime say to each other: the process asks, the runtime answers.

::

    v1.<enterprise>.<site>.app.<word>.ask.begin   Begin -> Begun     state of the last life
    v1.<enterprise>.<site>.app.<word>.ask.turn    Turn  -> Work      samples, alarms, orders, calls
    v1.<enterprise>.<site>.app.<word>.ask.give    Given -> b""       effects, with the state after them
    v1.<enterprise>.<site>.app.<word>.ask.past    Past  -> samples   raw samples of a time
    v1.<enterprise>.<site>.app.<word>.ask.call    Call  -> JSON      a service of another app

All bodies are MessagePack. Nothing is pushed to the process: one that is slow has only what it asked for.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.app.records import AlarmChange, Order
from headrace.apps.runtime.effects import Problem, Record, Write
from headrace.model.deployment import AppDeployment

VERBS: Final = ("begin", "turn", "give", "past", "call")
CALL_S: Final = 60.0


class Start(msgspec.Struct, kw_only=True):
    """What the process is told at its start, on its standard input, as one line of JSON.

    Attributes:
        urls: of the broker. user, secret: its own. authority_pem: whom the broker must be of; may be "".
        subject: what its subjects begin with. folder: of its files; scratch: which it may write.
        life: of this start; the runtime answers no other.
        outside: file descriptor on which it asks for connections; -1: it may have none.
    """

    urls: list[str]
    user: str
    secret: str
    authority_pem: str
    subject: str
    folder: str
    scratch: str
    life: int
    deployment: AppDeployment
    outside: int = -1


class Begin(msgspec.Struct, kw_only=True):
    """The process is there; ``holds``: what encloses it."""

    life: int
    holds: list[str] = []


class Begun(msgspec.Struct, kw_only=True):
    """``state`` of the last life; where there is none, hooks are due after ``start_us``, and samples come
    that follow the message ``after`` of the log."""

    state: bytes
    start_us: int
    after: int = 0


class Turn(msgspec.Struct, kw_only=True):
    """What is there?

    Attributes:
        after: newest message of the log that it has; -1: as the runtime knows.
        events_after: the same of the journal of alarms, at the first turn; -1: it wants none.
        orders_after: the same of the stream of operations requests.
    """

    life: int
    after: int = -1
    events_after: int = -1
    orders_after: int = -1


class Told(msgspec.Struct, kw_only=True):
    """An alarm that changed, or an order that came, and the sequence of its event."""

    sequence: int
    alarm: AlarmChange | None = None
    order: Order | None = None


class Asked(msgspec.Struct, kw_only=True):
    """Somebody calls a service."""

    id: str
    service: str
    body: bytes
    at_us: int


class Work(msgspec.Struct, kw_only=True):
    """What is to do.

    Attributes:
        samples: a body as on a batch subject; empty: none. sequence: of the newest message read.
        known_us: source time up to which all that was on time is known.
    """

    samples: bytes = b""
    sequence: int = 0
    known_us: int = 0
    told: list[Told] = []
    calls: list[Asked] = []


class Answered(msgspec.Struct, kw_only=True):
    """The answer of a service, JSON; or the error, as its fields."""

    id: str
    body: bytes = b""
    error: dict[str, Any] | None = None


class Given(msgspec.Struct, kw_only=True):
    """Effects, and the state after them: both are kept in one write, or neither.

    Attributes:
        samples: a body as on a batch subject; empty: none. to_us: position. calls: hooks that ran.
    """

    life: int
    state: bytes
    to_us: int
    sequence: int = 0
    samples: bytes = b""
    records: list[Record] = []
    writes: list[Write] = []
    problems: list[Problem] = []
    answers: list[Answered] = []
    calls: int = 0


class Past(msgspec.Struct, kw_only=True):
    """Raw samples of ``[start, end)`` and the newest of each tag before it are asked for."""

    life: int
    tag_ids: list[int]
    start_us: int
    end_us: int


class Call(msgspec.Struct, kw_only=True):
    """A service of another app is asked."""

    life: int
    app: str
    service: str
    body: bytes


class Kept(msgspec.Struct, kw_only=True):
    """What the key-value bucket holds of an app: state and effects in one value.

    Attributes:
        number: how many gifts came before; the ids of what is stored are made of it.
        epoch_us: when the app first ran. state: of the executor. given: effects that belong to it, which
            are stored again after a crash: the broker and the table know them by their ids.
        frames: batches that were given before. events_from: newest line of the journal of alarms when the
            app first ran.
        writes: that are not done with. written: whether the first of them was begun; after a crash it is
            not made again, since nobody knows whether it reached the device.
        events_after: end of the stream of events before those of this gift.
        to_us: position, source time. moved_us: the move of the app with which the state began; 0: none.
    """

    number: int
    epoch_us: int
    frames: int = 0
    events_from: int = 0
    orders_from: int = 0
    received_us: int = 0
    state: bytes = b""
    samples: bytes = b""
    records: list[Record] = []
    writes: list[Write] = []
    written: bool = False
    events_after: int = 0
    to_us: int = 0
    moved_us: int = 0
