"""Tool paths of the demo's part programs, as tables of time and position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

RAPID_MM_MIN = 15_000.0
SAFE_Z_MM = 50.0

Array = npt.NDArray[np.float64]
Corner = tuple[float, float, float, bool]
"""x, y, z in mm, and whether the move to it cuts."""


@dataclass(frozen=True)
class Operation:
    """One operation with one tool.

    Attributes:
        name: shown as the program's section.
        tool: tool number in the magazine.
        diameter_mm: of the tool. teeth: of the tool.
        spindle_speed_rpm: programmed speed. feed_mm_min: programmed feed while cutting.
        section_mm2: cross-section of the chip: depth times width of cut.
        corners: the path; the first corner is where it starts.
    """

    name: str
    tool: int
    diameter_mm: float
    teeth: int
    spindle_speed_rpm: float
    feed_mm_min: float
    section_mm2: float
    corners: tuple[Corner, ...]

    @cached_property
    def table(self) -> tuple[Array, Array, Array]:
        """(time in s, positions of shape (n, 3) in mm, seconds of cutting until then)."""
        places = np.array([corner[:3] for corner in self.corners], np.float64)
        cuts = np.array([corner[3] for corner in self.corners[1:]], np.bool_)
        lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
        seconds = lengths / (np.where(cuts, self.feed_mm_min, RAPID_MM_MIN) / 60.0)
        time_s = np.concatenate([[0.0], np.cumsum(seconds)])
        cut_s = np.concatenate([[0.0], np.cumsum(seconds * cuts)])
        return time_s, places, cut_s

    @property
    def duration_s(self) -> float:
        """Seconds at full feed."""
        return float(self.table[0][-1])

    @property
    def cutting_speed_m_min(self) -> float:
        return math.pi * self.diameter_mm * self.spindle_speed_rpm / 1000.0

    @property
    def removal_rate_cm3_min(self) -> float:
        """Material removal rate while it cuts at full feed."""
        return self.section_mm2 * self.feed_mm_min / 1000.0

    def position(self, at_s: float) -> tuple[float, float, float]:
        """Where the tool is, ``at_s`` seconds after the operation's begin."""
        time_s, places, _ = self.table
        x, y, z = (float(np.interp(at_s, time_s, places[:, axis])) for axis in range(3))
        return x, y, z

    def cutting_s(self, from_s: float, to_s: float) -> float:
        """Seconds of cutting between two moments of the operation."""
        time_s, _, cut_s = self.table
        begin, end = np.interp((from_s, to_s), time_s, cut_s)
        return float(end - begin)


def face(width_mm: float, depth_mm: float, step_mm: float) -> tuple[Corner, ...]:
    """Zigzag over a rectangle that begins at the origin.

    Example:
        >>> face(100.0, 40.0, 40.0)[-1]
        (0.0, 40.0, 50.0, False)
    """
    corners: list[Corner] = [(0.0, 0.0, SAFE_Z_MM, False), (0.0, 0.0, 0.0, False)]
    y, right = 0.0, True
    while True:
        corners.append((width_mm if right else 0.0, y, 0.0, True))
        if y + step_mm > depth_mm + 1e-9:
            break
        y += step_mm
        corners.append((corners[-1][0], y, 0.0, True))
        right = not right
    corners.append((corners[-1][0], y, SAFE_Z_MM, False))
    return tuple(corners)


def contour(
    centre_mm: tuple[float, float], radius_mm: float, levels_mm: Sequence[float]
) -> tuple[Corner, ...]:
    """Full circles at falling depths."""
    centre_x, centre_y = centre_mm
    corners: list[Corner] = [(centre_x + radius_mm, centre_y, SAFE_Z_MM, False)]
    for level in levels_mm:
        corners.append((centre_x + radius_mm, centre_y, level, False))
        for angle in np.linspace(0.0, 2.0 * math.pi, 25)[1:]:
            x = centre_x + radius_mm * math.cos(angle)
            y = centre_y + radius_mm * math.sin(angle)
            corners.append((x, y, level, True))
    corners.append((centre_x + radius_mm, centre_y, SAFE_Z_MM, False))
    return tuple(corners)


def drill(holes_mm: Sequence[tuple[float, float]], depth_mm: float) -> tuple[Corner, ...]:
    """One plunge a hole, with a rapid retract."""
    corners: list[Corner] = [(*holes_mm[0], SAFE_Z_MM, False)]
    for x, y in holes_mm:
        corners += [
            (x, y, SAFE_Z_MM, False),
            (x, y, 2.0, False),
            (x, y, -depth_mm, True),
            (x, y, SAFE_Z_MM, False),
        ]
    return tuple(corners)


def program_of(number: int) -> tuple[Operation, ...]:
    """The part program of machining centre 1, 2, 3...: same kinds of operation, other sizes."""
    scale = 1.0 + 0.15 * (number - 1)
    width, depth = 200.0 * scale, 120.0 * scale
    holes = [(width * (0.2 + 0.3 * (i % 3)), depth * (0.3 + 0.4 * (i // 3))) for i in range(6)]
    centre = (width / 2, depth / 2)
    levels = (-5.0, -10.0, -15.0)
    return (
        Operation("FACE", 1, 50.0, 4, 3000.0, 2400.0, 160.0, face(width, depth, 40.0 * scale)),
        Operation("CONTOUR", 5, 20.0, 4, 5400.0, 1500.0, 100.0, contour(centre, 40.0, levels)),
        Operation("DRILL", 9, 10.0, 2, 4200.0, 420.0, 78.5, drill(holes, 25.0)),
    )
