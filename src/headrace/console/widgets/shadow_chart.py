"""Champion and challenger over each other, and the difference of both below, as a drawing.

Pure: a frame in, SVG out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, tag
from headrace.model.sample import Float64Array, Int64Array, microseconds
from headrace.model.time import to_datetime

WIDTH: Final = 860
LEFT: Final = 84
UPPER: Final = 190
LOWER: Final = 90
GAP: Final = 26
POINTS: Final = 600
_LINES: Final = {"champion": ("var(--hr-accent)", ""), "shadow": ("var(--hr-warn)", "5 3")}


def shadow_chart(both: pl.DataFrame, unit: str, texts: Texts) -> Markup:
    """The drawing of one output of one asset.

    Args:
        both: columns time, champion and shadow, by time; null where one of them gave nothing.
        unit: of the values.
    """
    thin = both.gather_every(max(1, -(-both.height // POINTS)))
    at_us = microseconds(thin["time"])
    values = {side: thin[side].fill_null(np.nan).to_numpy() for side in _LINES}
    x = _scaled(at_us.astype(np.float64), LEFT, WIDTH - 8)
    low, high = _bounds(np.concatenate(list(values.values())))
    parts = [_frame(0, UPPER, low, high, unit)]
    for side, (color, dash) in _LINES.items():
        y = _scaled(values[side], UPPER, 0, low, high)
        parts.append(_line(x, y, color, dash))
    apart = values["shadow"] - values["champion"]
    least, most = _bounds(np.append(apart, 0.0))
    top = UPPER + GAP
    parts.append(_frame(top, LOWER, least, most, unit))
    zero = float(_scaled(np.zeros(1), top + LOWER, top, least, most)[0])
    parts.append(_rule(zero, "var(--hr-text-3)"))
    parts.append(_line(x, _scaled(apart, top + LOWER, top, least, most), "var(--hr-text-2)", ""))
    parts += _times(at_us, top + LOWER + 16)
    parts.append(_text(LEFT, top - 8, f"{texts('models.challenger')} − {texts('models.champion')}"))
    height = top + LOWER + 24
    return tag(
        "svg",
        tag("title", texts("models.shadow_alt", rows=f"{both.height:,}")),
        parts,
        viewBox=f"0 -6 {WIDTH} {height + 6}",
        width="100%",
        style=f"max-width:{WIDTH}px",
        role="img",
        font_size="12",
        fill="currentColor",
    )


def legend(texts: Texts) -> Markup:
    """Which line is which."""
    marks = []
    for side, word in (("champion", "champion"), ("shadow", "challenger")):
        color, dash = _LINES[side]
        line = tag(
            "svg",
            _shape("line", x1=0, y1=6, x2=26, y2=6, **_stroke(color, dash, 2.0)),
            width=28,
            height=12,
        )
        marks.append(tag("span", line, f" {texts(f'models.{word}')} ", style="margin-right:16px"))
    return tag("div.hr-pad", marks)


def _bounds(values: Float64Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _scaled(
    values: Float64Array, start: float, end: float, low: float | None = None, high: float = 0.0
) -> Float64Array:
    if low is None:
        low, high = (float(values[0]), float(values[-1])) if len(values) else (0.0, 1.0)
    scaled: Float64Array = start + (values - low) / ((high - low) or 1.0) * (end - start)
    return scaled


def _line(x: Float64Array, y: Float64Array, color: str, dash: str) -> Markup:
    """A path with a gap wherever a value is missing."""
    pieces, is_on = [], False
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(down):
            pieces.append(f"{'L' if is_on else 'M'}{across:.1f} {down:.1f}")
        is_on = bool(np.isfinite(down))
    return _shape("path", d="".join(pieces) or "M0 0", fill="none", **_stroke(color, dash, 1.6))


def _stroke(color: str, dash: str, width: float) -> dict[str, object]:
    more = {"stroke_dasharray": dash} if dash else {}
    return {"stroke": color, "stroke_width": width, **more}


def _shape(name: str, **attributes: object) -> Markup:
    """An element of SVG that ends at once: without its end all that follows would lie in it."""
    return Markup(tag(name, **attributes)[:-1] + "/>")


def _frame(top: float, height: float, low: float, high: float, unit: str) -> Markup:
    box = _shape(
        "rect",
        x=LEFT,
        y=top,
        width=WIDTH - 8 - LEFT,
        height=height,
        fill="none",
        stroke="var(--hr-line)",
    )
    named = f"{high:.4g} {unit}".strip()
    return tag("g", box, _left(top + 11, named), _left(top + height - 2, f"{low:.4g}"))


def _left(y: float, text: str) -> Markup:
    return tag("text", text, x=LEFT - 6, y=f"{y:.0f}", text_anchor="end", fill="var(--hr-text-3)")


def _text(x: float, y: float, text: str) -> Markup:
    return tag("text", text, x=f"{x:.0f}", y=f"{y:.0f}", fill="var(--hr-text-2)")


def _rule(y: float, color: str) -> Markup:
    return _shape("line", x1=LEFT, x2=WIDTH - 8, y1=f"{y:.1f}", y2=f"{y:.1f}", stroke=color)


def _times(at_us: Int64Array, y: float) -> list[Markup]:
    if not len(at_us):
        return []
    ends = ((LEFT, int(at_us[0]), "start"), (WIDTH - 8, int(at_us[-1]), "end"))
    return [
        tag(
            "text",
            to_datetime(us).strftime("%Y-%m-%d %H:%M:%S UTC"),
            x=x,
            y=f"{y:.0f}",
            text_anchor=anchor,
            fill="var(--hr-text-3)",
        )
        for x, us, anchor in ends
    ]
