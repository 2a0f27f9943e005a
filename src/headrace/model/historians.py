"""Several historians of one table as one: what people and alarms ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.model.health import HistorianState

_WORST: Final = ("running", "waiting", "disk_full")


def together(states: Sequence[HistorianState]) -> HistorianState | None:
    """The state of all historians that were heard lately; None when there is none.

    The place in the log is that of the one furthest behind, the trouble that of the worst, the table's
    figures are the newest. A part that nobody stores makes the whole wait.

    Example:
        >>> one = HistorianState(state="running", at_us=1, started_us=0, partition="0/2")
        >>> both = together([one])
        >>> both.state, both.last_error_code
        ('waiting', 'HIST-1207')
    """
    if not states:
        return None
    newest = max(states, key=lambda state: state.table_version)
    worst = max(states, key=lambda state: _WORST.index(state.state))
    found = msgspec.structs.replace(
        newest,
        state=worst.state,
        at_us=max(state.at_us for state in states),
        started_us=max(state.started_us for state in states),
        committed_sequence=min(state.committed_sequence for state in states),
        last_sequence=max(state.last_sequence for state in states),
        last_commit_us=max(state.last_commit_us for state in states),
        last_error_code=worst.last_error_code,
        last_error=worst.last_error,
    )
    count = int(newest.partition.partition("/")[2] or 1)
    silent = sorted(set(range(count)) - {_index(state) for state in states})
    if count > 1 and silent:
        found.state = "waiting"
        found.last_error_code = "HIST-1207"
        parts = ", ".join(f"{index}/{count}" for index in silent)
        found.last_error = f"nobody stores the part {parts} of the log"
    return found


def _index(state: HistorianState) -> int:
    return int(state.partition.partition("/")[0] or 0)
