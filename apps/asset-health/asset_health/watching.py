"""One asset from window to window: learn while it is healthy, then judge; all that it knows is plain data.

::

    learning --enough rows--> judging --score stays over the limit--> found --back in its band--> judging
        ^------------------- learn_after was changed (after an overhaul) --------------------------'
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from asset_health.anomaly import Cause, Follow, Watch, percent
from asset_health.conditions import Conditions
from asset_health.features import Matrix

TAIL_ROWS = 30
"""Rows before a window that its means, levels and states need."""
_HEALTH_MEMORY_WINDOWS = 30.0
_FITTED_MAX = 512
_BEYOND = 0.1


class Known(msgspec.Struct, kw_only=True):
    """What is kept of an asset.

    Attributes:
        names: of the columns; the first ``operating`` of them say how the asset is driven, the others are
            judged. healthy: rows learnt, float64; learnt: all are
            there. tail: the newest rows.
        follow: where the level watch stands. windows: over the limit in a row. health: 0 to 100 %.
        learn_after: what the setting was when it learnt. found_us: when the limit was crossed; 0: it is not.
        peak: greatest score since then. standstill: windows since then in which it did not run.
    """

    names: list[str] = []
    operating: int = 0
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


class Healthy:
    """What an asset is like while it is healthy: conditions taken out, then watched.

    Args:
        rows: (rows, columns) of which the first ``operating`` say how it is driven.
    """

    def __init__(self, rows: Matrix, names: list[str], operating: int) -> None:
        self._operating = operating
        driven = rows[:, :operating]
        self._low, self._high = driven.min(axis=0), driven.max(axis=0)
        self._margin = _BEYOND * (self._high - self._low)
        self._conditions = Conditions(driven, rows[:, operating:])
        self.watch = Watch(self.rest(rows), tuple(names[operating:]))

    def rest(self, rows: Matrix) -> Matrix:
        """What the conditions do not explain, in spreads."""
        return self._conditions.residual(rows[:, : self._operating], rows[:, self._operating :])

    def is_known(self, rows: Matrix) -> NDArray[np.bool_]:
        """(rows,): whether it was driven so while it was learnt."""
        driven = rows[:, : self._operating]
        within = (driven >= self._low - self._margin) & (driven <= self._high + self._margin)
        known: NDArray[np.bool_] = within.all(axis=1)
        return known

    def causes(self, rows: Matrix, held: Follow) -> tuple[Cause, ...]:
        """As those of the watch, in the units of the quantities."""
        scale = dict(zip(self.watch.names, self._conditions.spreads, strict=True))
        return tuple(
            replace(cause, moved=cause.moved * float(scale[cause.quantity]))
            for cause in self.watch.causes(self.rest(rows), held)
        )


_fitted: OrderedDict[bytes, Healthy] = OrderedDict()


def _rows(raw: bytes, columns: int) -> Matrix:
    return np.frombuffer(raw, np.float64).reshape(-1, columns)


def healthy_of(known: Known) -> Healthy:
    """Fitted to the rows learnt; kept between windows because fitting costs more than asking."""
    names = known.names[: known.operating], known.names[known.operating :]
    key = repr(names).encode() + known.healthy
    if key not in _fitted:
        rows = _rows(known.healthy, len(known.names))
        _fitted[key] = Healthy(rows, known.names, known.operating)
        if len(_fitted) > _FITTED_MAX:
            _fitted.popitem(last=False)
    _fitted.move_to_end(key)
    return _fitted[key]


def learn(known: Known, names: list[str], rows: Matrix, rows_wanted: int) -> bool:
    """Take rows as healthy ones; true when there are enough.

    Args:
        names: of the columns. Those that never moved while healthy are left out at the end.
    """
    if known.names != names:
        known.names, known.healthy = names, b""
    held = np.vstack([_rows(known.healthy, len(names)), rows])[:rows_wanted]
    known.healthy = held.tobytes()
    if len(held) < rows_wanted:
        return False
    moving = held.std(axis=0) > 1e-9 * np.maximum(1.0, np.abs(held).max(axis=0))
    if not moving[known.operating :].any():
        known.healthy = b""
        return False
    known.names = [name for name, moves in zip(names, moving, strict=True) if moves]
    known.operating = int(moving[: known.operating].sum())
    known.healthy = np.ascontiguousarray(held[:, moving]).tobytes()
    known.tail = known.healthy[-TAIL_ROWS * 8 * len(known.names) :]
    known.learnt, known.follow, known.windows = True, None, 0
    known.health, known.found_us, known.peak, known.standstill = 100.0, 0, 0.0, 0
    return True


def widen(known: Known, rows: Matrix, rows_max: int) -> bool:
    """Learn rows of conditions in which the asset was not driven before; true where these were such rows.

    Args:
        rows_max: the oldest rows give way beyond it.
    """
    if known.found_us or healthy_of(known).is_known(rows).mean() > 0.5:
        return False
    held = np.vstack([_rows(known.healthy, len(known.names)), rows])[-rows_max:]
    known.healthy, known.tail, known.follow = held.tobytes(), held[-TAIL_ROWS:].tobytes(), None
    return True


def judge(known: Known, rows: Matrix, end_us: int, confirm_windows: int) -> Judgement:
    """Judge the rows of one window, (rows, quantities) as ``known.names``, and go on from there.

    Args:
        end_us: of the window. confirm_windows: over the limit in a row before it counts.
    """
    healthy = healthy_of(known)
    watch = healthy.watch
    before = _rows(known.tail, len(known.names))
    joined = np.vstack([before, rows])
    together = healthy.rest(joined)
    # The means of the first rows need those before them; what was told of these already is left out.
    told, follow = watch.level.follow(together, known.follow, skip=len(before))
    state = float(np.median(watch.state.score(together)[len(before) :]))
    score = max(float(told[-1, 0]), state)
    known.follow, known.tail = follow, joined[-TAIL_ROWS:].tobytes()
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
        causes=healthy.causes(joined, follow),
        began=began,
        ended=ended,
    )
