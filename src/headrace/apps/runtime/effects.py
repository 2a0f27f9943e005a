"""What an app's hooks have done: nothing of it has happened yet when the executor gives it.

Each effect has an id of app, version, hook and time: whoever makes it happen may do so twice, and it
counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import polars as pl

from headrace.model.sample import concat_batches, empty_batch

RecordKind = Literal["work_request", "value"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A work request or a line of the value ledger, as it travels: an event of the app.

    Attributes:
        id: unlike all others; the same one again is the same record. app, version, hook: of whom.
        at_us: source time that it is of. body: the fields of ``WorkRequest`` or ``ValueEntry``.
    """

    id: str
    kind: RecordKind
    app: str
    version: str
    hook: str
    at_us: int
    body: dict[str, Any]


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """A write to a device that a hook asked for; ``at_us`` is the source time of the hook."""

    id: str
    at_us: int
    asset: str
    quantity: str
    edge: str
    connection: str
    tag: str
    value: float | str | bool


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A hook that failed: what it did in that call is undone."""

    code: str
    what: str
    remedy: str
    hook: str
    at_us: int


@dataclass(kw_only=True)
class Effects:
    """What some calls of hooks have done, in their order.

    Attributes:
        samples: of the app's outputs, columns of :data:`headrace.model.sample.SCHEMA`; the receive time
            is that at which the hook was due, and whoever stores them gives a later one. Where windows
            overlap an identity (tag, source time) may be in two rows: the later row counts.
        calls: how many hooks ran.
    """

    samples: pl.DataFrame = field(default_factory=empty_batch)
    records: list[Record] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    calls: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.samples.height or self.records or self.writes or self.problems)


def merged(parts: Sequence[Effects]) -> Effects:
    """Effects of several calls as one, in their order."""
    return Effects(
        samples=concat_batches([part.samples for part in parts if part.samples.height]),
        records=[each for part in parts for each in part.records],
        writes=[each for part in parts for each in part.writes],
        problems=[each for part in parts for each in part.problems],
        calls=sum(part.calls for part in parts),
    )
