"""Which writer stores which part of the log, so that several may write one table.

A batch subject falls into one of 16 slots for good; writer ``k`` of ``n`` has the slots ``s`` with
``s % n == k``. The table keeps its place in the log slot by slot, so ``n`` may change at any start and the
next writer of a slot begins where the last one ended. One connection is never split: its samples pass one
writer, in order.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from headrace.model.errors import Misconfigured

SLOTS: Final = 16


def slot_of(subject: str) -> int:
    """The slot of a batch subject, the same in every version and on every machine.

    Example:
        >>> slot_of("v1.acme.mill.batch.local.plc_1")
        13
    """
    return zlib.crc32(subject.encode()) % SLOTS


@dataclass(frozen=True)
class Partition:
    """Writer ``index`` of ``count``.

    Example:
        >>> Partition(1, 4).slots
        (1, 5, 9, 13)
    """

    index: int = 0
    count: int = 1

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots that this writer stores."""
        return tuple(range(self.index, SLOTS, self.count))

    @property
    def is_whole(self) -> bool:
        """There is one writer, which has everything."""
        return self.count == 1

    @property
    def cares(self) -> bool:
        """Compaction, retention and purging of the log are the first writer's alone."""
        return self.index == 0

    def owns(self, subject: str) -> bool:
        """Whether this writer stores what comes on a subject."""
        return slot_of(subject) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE: Final = Partition()


def parse_partition(text: str) -> Partition:
    """A partition as it is written: the writer's number from 0 on, and how many there are.

    Raises:
        Misconfigured: HIST-1206 for anything else.

    Example:
        >>> parse_partition("1/2")
        Partition(index=1, count=2)
    """
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count) <= SLOTS:
        return Partition(int(index), int(count))
    raise Misconfigured(
        "HIST-1206",
        f"{text!r} is no partition",
        f"Write 0/2 for the first of two writers; at most {SLOTS} share a table.",
    )
