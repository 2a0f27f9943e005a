"""One asset from window to window: learn while it is healthy, then judge; all that it knows is plain data.

::

    learning --enough rows--> judging --score stays over the limit--> found --back in its band--> judging
        ^------------------- learn_after was changed (after an overhaul) --------------------------'
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import numpy as np

from asset_health.anomaly import Cause, Follow, Watch, percent
from asset_health.features import Matrix

TAIL_ROWS = 20
"""Rows before a window that its means and states need."""
_HEALTH_MEMORY_WINDOWS = 30.0
_WATCHES_MAX = 512


class Known(msgspec.Struct, kw_only=True):
    """What is kept of an asset.

    Attributes:
        names: of the quantities that are judged. healthy: rows learnt, float64; learnt: all are
            there. tail: the newest rows.
        follow: where the level watch stands. windows: over the limit in a row. health: 0 to 100 %.
        learn_after: what the setting was when it learnt. found_us: when the limit was crossed; 0: it is not.
        peak: greatest score since then. standstill: windows since then in which it did not run.
    """

    names: list[str] = []
    healthy: bytes = b""
    learnt: bool = False
    tail: bytes = b""
    follow: Follow | None = None
    windows: int = 0
    health: float = 100.0
    learn_after: str = ""
    found_us: int = 0
    peak: float = 0.0
    standstill: int = 0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Of one window.

    Attributes:
        score: 1 is the limit. anomaly, health: in %; 50 % of anomaly is the limit.
        causes: greatest share first. began, ended: the limit was crossed for good, or is no longer.
    """

    score: float
    anomaly: float
    health: float
    causes: tuple[Cause, ...] = ()
    began: bool = False
    ended: bool = False


_watches: OrderedDict[bytes, Watch] = OrderedDict()


def _rows(raw: bytes, columns: int) -> Matrix:
    return np.frombuffer(raw, np.float64).reshape(-1, columns)


def watch_of(known: Known) -> Watch:
    """The watch of the rows learnt; kept between windows because fitting costs more than asking."""
    key = b"\0".join(name.encode() for name in known.names) + b"\0" + known.healthy
    if key not in _watches:
        _watches[key] = Watch(_rows(known.healthy, len(known.names)), tuple(known.names))
        if len(_watches) > _WATCHES_MAX:
            _watches.popitem(last=False)
    _watches.move_to_end(key)
    return _watches[key]


def learn(known: Known, names: list[str], rows: Matrix, rows_wanted: int) -> bool:
    """Take rows as healthy ones; true when there are enough.

    Args:
        names: of the columns. Quantities that never moved while healthy are left out at the end.
    """
    if known.names != names:
        known.names, known.healthy = names, b""
    held = np.vstack([_rows(known.healthy, len(names)), rows])[:rows_wanted]
    known.healthy = held.tobytes()
    if len(held) < rows_wanted:
        return False
    moving = held.std(axis=0) > 1e-9 * np.maximum(1.0, np.abs(held).max(axis=0))
    if not moving.any():
        known.healthy = b""
        return False
    known.names = [name for name, moves in zip(names, moving, strict=True) if moves]
    known.healthy = np.ascontiguousarray(held[:, moving]).tobytes()
    known.learnt, known.tail, known.follow, known.windows = True, b"", None, 0
    known.health, known.found_us, known.peak, known.standstill = 100.0, 0, 0.0, 0
    return True


def judge(known: Known, rows: Matrix, end_us: int, confirm_windows: int) -> Judgement:
    """Judge the rows of one window, (rows, quantities) as ``known.names``, and go on from there.

    Args:
        end_us: of the window. confirm_windows: over the limit in a row before it counts.
    """
    watch = watch_of(known)
    before = _rows(known.tail, len(known.names))
    together = np.vstack([before, rows])
    # The means of the first rows need those before them; what was told of these already is left out.
    told, follow = watch.level.follow(together, known.follow, skip=len(before))
    state = float(np.median(watch.state.score(together)[len(before) :]))
    score = max(float(told[-1, 0]), state)
    known.follow, known.tail = follow, together[-TAIL_ROWS:].tobytes()
    over = bool(told[-1, 1]) or state > 1.0
    known.windows = known.windows + 1 if over else 0
    anomaly = float(percent(np.array([score]))[0])
    known.health += (100.0 - anomaly - known.health) / _HEALTH_MEMORY_WINDOWS
    began = not known.found_us and known.windows >= confirm_windows
    ended = bool(known.found_us) and not over
    if began:
        known.found_us, known.peak, known.standstill = end_us, score, 0
    known.peak = max(known.peak, score) if known.found_us else 0.0
    return Judgement(
        score=score,
        anomaly=anomaly,
        health=known.health,
        causes=tuple(watch.causes(together)),
        began=began,
        ended=ended,
    )
