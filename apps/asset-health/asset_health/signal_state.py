"""What is known of the signals of one asset, learned and judged minute by minute; plain data, pure functions.

Each signal is held against its own past, so nothing is set for an asset:

- **stuck**: it changed at least twenty times while it was learned, and now shows one value three times as long
  as it ever did.
- **drifting**: it leaves its own slow mean (EWMA over 4, 16, 64... windows) further than three times the reach
  that it had while it was learned, and goes on; nothing else on the asset moves so, and where there are
  siblings on other assets, they do not go with it. What a process does moves more than one signal.
- **late, restarted, clock** are of most signals of the asset at once: fewer samples or longer gaps than ever;
  a long gap that ended; a source time that is off by a steady amount.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TAUS = (4.0, 16.0, 64.0, 256.0, 1024.0)
"""Windows over which the slow means run."""
_CHANGES_MIN = 20
_STUCK_FACTOR = 3.0
_STUCK_S_MIN = 60.0
_DRIFT_FACTOR = 3.0
_CALM_FACTOR = 1.5
_STEP_FACTOR = 3.0
_SETTLE_WINDOWS = 10
_GOES_ON = 4
_RATE_SHARE = 0.7
_RATE_MIN = 6
_GAP_FACTOR = 3.0
_GAP_MORE_MS = 3000.0
_SILENT_MORE_MS = 30_000.0
_DELAY_MORE_MS = 300.0
_CLOCK_MS = 5000.0
_MOST = 0.8
_TOLD_WINDOWS = 1440


class Cadence(msgspec.Struct, kw_only=True):
    """How the samples of a signal came while it was learned.

    Attributes:
        samples_min, bad_max: in a window. gap_max_ms: without one. delay_min_ms, delay_max_ms: received
            minus source time, of a window's median. span_max_ms: between the delays of a window.
    """

    samples_min: int = 1 << 30
    bad_max: int = 0
    gap_max_ms: float = 0.0
    delay_min_ms: float = 1e300
    delay_max_ms: float = -1e300
    span_max_ms: float = 0.0


class Signal(msgspec.Struct, kw_only=True):
    """What is known of a signal.

    Attributes:
        windows: with samples, until now. changes: of its value while it was learned.
        run_s, run_max_s: for how long it shows one value, now and at most while it was learned.
        last: its newest value. mean: of the last window. step_max: greatest change of that while learned.
        jumped: windows since it changed by much more. slow: its EWMA for each of :data:`TAUS`.
        reach, apart: greatest distance from ``slow`` while learned; the same less what siblings did.
        grown: windows in a row in which the distance is over its limit and does not fall.
        distance: the last one, by :data:`TAUS`.
        left, band: the slow mean that it drifted away from, and how near to it is back again.
        drifts: windows for which that is still told.
    """

    windows: int = 0
    changes: int = 0
    run_s: float = 0.0
    run_max_s: float = 0.0
    last: float | None = None
    mean: float | None = None
    step_max: float = 0.0
    jumped: int = 1 << 20
    slow: list[float] = []
    reach: list[float] = []
    apart: list[float] = []
    grown: list[int] = []
    distance: list[float] = []
    left: float = 0.0
    band: float = 0.0
    drifts: int = 0
    cadence: Cadence = msgspec.field(default_factory=Cadence)


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """How the samples of a signal came in a window: a row of ``window.arrivals``."""

    samples: int
    bad: int
    gap_ms: float | None
    silent_ms: float | None
    delay_ms: float | None
    delay_span_ms: float | None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with signals of an asset.

    Attributes:
        state: ``stuck``, ``drifting``, ``late``, ``restarted`` or ``clock``; ``ok``: nothing is.
        quantities: which; none means the device, all of them. evidence: what shows it.
    """

    state: str = "ok"
    quantities: tuple[str, ...] = ()
    evidence: dict[str, float | str] = {}


# -- how samples come ------------------------------------------------------------------------------------


def learn_cadence(known: Cadence, came: Came) -> None:
    """Take a window while learning."""
    known.samples_min = min(known.samples_min, came.samples)
    known.bad_max = max(known.bad_max, came.bad)
    if came.gap_ms is not None:
        known.gap_max_ms = max(known.gap_max_ms, came.gap_ms)
    if came.delay_ms is not None and came.delay_span_ms is not None:
        known.delay_min_ms = min(known.delay_min_ms, came.delay_ms)
        known.delay_max_ms = max(known.delay_max_ms, came.delay_ms)
        known.span_max_ms = max(known.span_max_ms, came.delay_span_ms)


def how_came(known: Cadence, came: Came, window_ms: float) -> str:
    """``ok``, ``late``, ``restarted`` or ``clock``, of one signal in one window.

    Example:
        >>> usual = Cadence(samples_min=60, gap_max_ms=1000, delay_min_ms=0, delay_max_ms=20, span_max_ms=20)
        >>> slow = Came(samples=30, bad=0, gap_ms=2000, silent_ms=800, delay_ms=800, delay_span_ms=0)
        >>> how_came(usual, slow, 60_000)
        'late'
    """
    if came.gap_ms is None or came.silent_ms is None:
        return "ok"  # it never came at all
    if came.silent_ms > _GAP_FACTOR * known.gap_max_ms + _SILENT_MORE_MS:
        return "late"
    if not came.samples or came.delay_ms is None or came.delay_span_ms is None:
        return "ok"
    was_away = came.gap_ms > _GAP_FACTOR * known.gap_max_ms + _GAP_MORE_MS
    # An edge that lost its device writes so: then a shorter gap is enough.
    was_away |= came.samples > came.bad > known.bad_max and came.gap_ms > 1.5 * known.gap_max_ms
    if was_away and came.silent_ms <= known.gap_max_ms + _GAP_MORE_MS:
        return "restarted"
    enough = came.samples >= _RATE_SHARE * known.samples_min
    rate_counts = known.samples_min >= _RATE_MIN and known.samples_min < 1 << 30
    off_ms = max(came.delay_ms - known.delay_max_ms, known.delay_min_ms - came.delay_ms)
    spread_ms = known.delay_max_ms - known.delay_min_ms + known.span_max_ms
    steady = came.delay_span_ms <= known.span_max_ms + abs(off_ms) / 2.0
    if off_ms > _CLOCK_MS + 3.0 * spread_ms and steady and (enough or came.delay_ms < 0):
        return "clock"
    slow = came.delay_ms > known.delay_max_ms + 2.0 * spread_ms + _DELAY_MORE_MS
    if slow or (rate_counts and not enough and not was_away):
        return "late"
    return "ok"


def device_state(states: Mapping[str, str]) -> str:
    """What most signals of an asset say; ``ok`` where they do not agree.

    Example:
        >>> device_state({"flow": "late", "head": "late"}), device_state({"flow": "late", "head": "ok"})
        ('late', 'ok')
    """
    for state in ("clock", "restarted", "late"):
        if states and sum(s == state for s in states.values()) >= _MOST * len(states):
            return state
    return "ok"


# -- what they show --------------------------------------------------------------------------------------


def run_of(known: Signal, values: Floats, step_s: float) -> tuple[float, float, int]:
    """(seconds for which the newest value has been shown, the longest such time, changes in this window).

    Args:
        values: of a window, shape (n,), without gaps, n > 0.

    Example:
        >>> run_of(Signal(last=1.0, run_s=5.0), np.array([1.0, 1.0, 2.0]), 1.0)
        (1.0, 7.0, 1)
    """
    first = values[0] if known.last is None else known.last
    changed = np.flatnonzero(np.diff(values, prepend=first) != 0.0)
    edges = np.concatenate([[0], changed, [len(values)]])
    lengths = np.diff(edges) * step_s
    lengths[0] += known.run_s
    return float(lengths[-1]), float(lengths.max()), len(changed)


def learn_runs(known: Signal, run: tuple[float, float, int], last: float) -> None:
    """Take a window while learning."""
    known.run_s, known.last = run[0], last
    known.run_max_s = max(known.run_max_s, run[1])
    known.changes += run[2]


def is_stuck(known: Signal) -> bool:
    """Whether its value has not moved for longer than it ever does."""
    limit_s = max(_STUCK_S_MIN, _STUCK_FACTOR * known.run_max_s)
    return known.changes >= _CHANGES_MIN and known.run_s >= limit_s


def follow_mean(known: Signal, mean: float) -> Floats:
    """Take the mean of a window; gives how far it is from each slow mean, shape (len(TAUS),)."""
    if not known.slow or known.mean is None:
        known.slow = [mean] * len(TAUS)
        known.reach, known.apart = [0.0] * len(TAUS), [0.0] * len(TAUS)
        known.grown, known.distance = [0] * len(TAUS), [0.0] * len(TAUS)
        known.mean = mean
    slow = np.array(known.slow)
    distance = mean - slow
    known.windows += 1
    # At first as a plain mean, so that the first window does not weigh for ever.
    weight = 1.0 / np.minimum(np.array(TAUS), float(known.windows))
    known.slow = (slow + weight * distance).tolist()
    return np.asarray(distance)


def learn_reach(known: Signal, mean: float, distance: Floats, apart: Floats, floor: int) -> None:
    """Take a window while learning: scales that it is long enough for already are learned no more.

    Args:
        apart: as ``distance``, less what siblings did. floor: windows that each scale learns at least.
    """
    learning = known.windows < np.maximum(3.0 * np.array(TAUS), floor)
    # What may be a drift is not learned as usual by the longer means.
    learning &= not (known.drifts or any(known.grown))
    assert known.mean is not None
    if known.windows < floor:
        known.step_max = max(known.step_max, abs(mean - known.mean))
    for name, found in (("reach", distance), ("apart", apart)):
        old = np.array(getattr(known, name))
        setattr(known, name, np.where(learning, np.maximum(old, np.abs(found)), old).tolist())


def ratios(known: Signal, distance: Floats, floor: int) -> Floats:
    """How far it is from its slow means, in reaches; 0 where a scale is not learned yet."""
    reach = np.maximum(np.array(known.reach), known.step_max)
    learned = known.windows >= np.maximum(3.0 * np.array(TAUS), floor)
    found = np.abs(distance) / np.maximum(reach, 1e-300)
    return np.where(learned & (reach > 0), found, 0.0)


def grow(known: Signal, mean: float, distance: Floats, over: npt.NDArray[np.bool_]) -> bool:
    """Whether it drifts: over its limit for four windows, without falling back, and not by a jump. Once told
    it drifts until it is back where it was, or for a day.

    Args:
        over: for each scale, whether it is further away than it, and it alone, may be.
    """
    before = np.array(known.distance)
    goes_on = (
        over & (np.sign(distance) == np.sign(before)) & (np.abs(distance) >= 0.98 * np.abs(before))
    )
    known.grown = np.where(over, np.where(goes_on, np.array(known.grown) + 1, 1), 0).tolist()
    assert known.mean is not None
    is_jump = abs(mean - known.mean) > _STEP_FACTOR * known.step_max
    known.jumped = 0 if is_jump else known.jumped + 1
    known.distance, known.mean = distance.tolist(), mean
    # Over the shortest mean a jump falls back by a quarter each window; over longer ones it would stay.
    fresh = np.array(known.jumped) < 3.0 * np.array(TAUS)
    fresh[0] = False
    begun = np.flatnonzero((np.array(known.grown) >= _GOES_ON) & ~fresh)
    if known.drifts:
        is_back = abs(mean - known.left) <= known.band
        known.drifts = 0 if is_back else known.drifts - 1
    elif len(begun):
        scale = int(begun[0])
        known.left, known.drifts = mean - float(distance[scale]), _TOLD_WINDOWS
        known.band = max(known.reach[scale], known.step_max)
    return known.drifts > 0


def is_over(
    ratio: Floats, against_siblings: Floats | None, others: Floats
) -> npt.NDArray[np.bool_]:
    """For each scale, whether this signal alone has left its reach.

    Args:
        ratio: of it. against_siblings: the same less what siblings on other assets did; None: it has none.
        others: the greatest ratio among the other signals of the asset.
    """
    over = (ratio > _DRIFT_FACTOR) & (others < _CALM_FACTOR)
    if against_siblings is not None:
        over &= against_siblings > _DRIFT_FACTOR
    return np.asarray(over)


def settled(windows: int) -> bool:
    """Whether an asset has run for long enough since it stood still."""
    return windows >= _SETTLE_WINDOWS
