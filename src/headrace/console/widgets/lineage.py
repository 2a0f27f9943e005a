"""Where a model comes from, as a drawing: data and code left, the version in the middle, its parent right.

Pure: a record and its relatives in, SVG out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.apps.models.record import ModelRecord
from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, tag
from headrace.model.time import to_datetime

WIDTH: Final = 860
BOX: Final = 250
LINE: Final = 18
PAD: Final = 12
GAP: Final = 55


def lineage(record: ModelRecord, versions: Sequence[ModelRecord], texts: Texts) -> Markup:
    """The drawing of one version.

    Args:
        versions: of the same model, to name its parent.
    """
    data, code, model, parent = _words(record, versions, texts)
    left = [(data, 0.0), (code, _height(data) + 20)]
    bottom = max(left[1][1] + _height(code), _height(model) + 20 + _height(parent))
    middle = BOX + GAP
    parts = [_box(lines, 0, top) for lines, top in left]
    parts.append(_box(model, middle, 0, "var(--hr-accent, #2a6)"))
    parts.append(_box(parent, middle * 2, 0))
    for lines, top in left:
        parts.append(_arrow(BOX, top + _height(lines) / 2, middle, _height(model) / 2))
    parts.append(_arrow(middle * 2, _height(parent) / 2, middle + BOX, _height(model) / 2))
    said = "; ".join(" ".join(lines) for lines in (data, code, model, parent))
    return tag(
        "svg",
        tag("title", said),
        parts,
        viewBox=f"-1 -1 {WIDTH + 2} {bottom + 2:.0f}",
        width="100%",
        style=f"max-width:{WIDTH}px",
        role="img",
        font_size="12",
        fill="currentColor",
    )


def _words(
    record: ModelRecord, versions: Sequence[ModelRecord], texts: Texts
) -> tuple[list[str], list[str], list[str], list[str]]:
    window, origin = record.window, record.lineage
    data = [texts("models.data")]
    if window is None:
        data.append(texts("models.unknown"))
    else:
        data += [
            f"{_day(window.start_us)} – {_day(window.end_us)}",
            f"{texts('models.held_out')} {_day(window.held_out_us)}",
            texts("models.rows", rows=f"{window.rows:,}", assets=str(len(window.assets))),
            f"sha256 {window.frames_sha256[:16]}",
        ]
    code = [
        texts("models.code"),
        f"{record.app} {origin.app_version}",
        f"sha256 {origin.code_sha256[:16]}",
        f"Headrace {origin.platform}, seed {origin.seed}",
    ]
    model = [
        f"{record.name} {record.version}",
        f"sha256 {record.sha256[:16]}",
        f"{texts('models.by')} {origin.by}",
        f"{len(record.inputs)} → {record.outputs}",
    ]
    known = [each for each in versions if each.sha256 == origin.parent]
    parent = [texts("models.parent")]
    parent.append(f"{record.name} {known[0].version}" if known else texts("models.none"))
    return data, code, model, parent


def _height(lines: list[str]) -> float:
    return len(lines) * LINE + 2 * PAD - 6


def _box(lines: list[str], left: float, top: float, color: str = "currentColor") -> Markup:
    frame = Markup(
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX}" height="{_height(lines):.0f}" rx="6" '
        f'fill="none" stroke="{color}" stroke-opacity="0.6"/>'
    )
    rows = [
        tag(
            "text",
            line,
            x=f"{left + PAD:.0f}",
            y=f"{top + PAD + LINE * (place + 0.6):.0f}",
            font_weight="600" if place == 0 else "400",
        )
        for place, line in enumerate(lines)
    ]
    return tag("g", frame, rows)


def _arrow(x: float, y: float, to_x: float, to_y: float) -> Markup:
    middle = (x + to_x) / 2
    return Markup(
        f'<path d="M{x:.0f},{y:.0f} C{middle:.0f},{y:.0f} {middle:.0f},{to_y:.0f} '
        f'{to_x:.0f},{to_y:.0f}" fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
    )


def _day(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d")
