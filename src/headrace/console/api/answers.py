"""Answers and arguments that several routes share: formats, tag lists, times."""

from __future__ import annotations

import io
import re
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
import polars as pl
from fastapi import Response

from headrace.console.site_view import SiteView, TagView
from headrace.model.csv_text import defused
from headrace.model.errors import Misconfigured, Refused
from headrace.model.time import US_PER_S, to_us

Format = Literal["json", "csv", "arrow", "parquet"]
TAGS_MAX: Final = 1_000
ID_DIGITS_MAX: Final = 19
TIME_MIN_US: Final = -2_208_988_800 * US_PER_S
"""1900-01-01; no device of a plant has measured before."""
TIME_MAX_US: Final = 7_258_118_400 * US_PER_S
"""2200-01-01."""
SPAN_MAX_US: Final = TIME_MAX_US - TIME_MIN_US
_RELATIVE: Final = re.compile(r"^(?:now)?\s*-\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)$")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)$")


def json_answer(body: Any, status: int = 200) -> Response:
    """Plain data as JSON; NaN leaves as null."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def tag_list(site: SiteView, text: str, limit: int = TAGS_MAX) -> list[TagView]:
    """The tags that a comma-separated list of ids or paths names.

    Raises:
        Refused: CONS-1002 for one that is not there, CONS-1005 for more than ``limit``.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) > limit:
        raise Refused("CONS-1005", f"{len(names)} tags were asked for", f"At most {limit} at once.")
    found = []
    for name in names:
        view = site.by_path.get(name)
        if view is None:
            view = site.by_id.get(tag_id_of(name))
        if view is None:
            raise Refused(
                "CONS-1002", f"there is no tag {name!r}", "Search with /api/v1/tags?search=."
            )
        found.append(view)
    if not found:
        raise Misconfigured("CONS-1003", "no tag was named", "Give tags=path,path.")
    return found


def tag_id_of(text: str) -> int:
    """The id that a text of digits names; -1, which no tag has, for anything else.

    Example:
        >>> tag_id_of("17"), tag_id_of("--1"), tag_id_of("9" * 5000)
        (17, -1, -1)
    """
    is_id = text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX
    return int(text) if is_id else -1


def parse_time(text: str, now_us: int) -> int:
    """UTC microseconds from ISO 8601 with a zone, ``now``, ``-1h``, or a whole number of microseconds.

    Raises:
        Misconfigured: CONS-1004 for anything else, and for what lies before 1900 or after 2200.

    Example:
        >>> parse_time("-1h", 7_200_000_000), parse_time("1970-01-01T00:00:01Z", 0)
        (3600000000, 1000000)
    """
    text = text.strip()
    if text == "now":
        return now_us
    relative = _RELATIVE.match(text)
    if relative:
        span_us = min(float(relative[1]) * _SECONDS[relative[2]] * US_PER_S, 2.0 * SPAN_MAX_US)
        return _bounded(now_us - int(span_us), text)
    if text.isascii() and text.isdigit() and len(text) < 19:
        return _bounded(int(text), text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Misconfigured(
            "CONS-1004",
            f"{text!r} is no time",
            "Use 2026-01-31T08:00:00Z (with a zone), -1h, now, or microseconds since 1970.",
        )
    if not 1900 <= at.year < 2200:
        raise _out_of_time(text)
    return to_us(at)


def _bounded(at_us: int, text: str) -> int:
    if not TIME_MIN_US <= at_us <= TIME_MAX_US:
        raise _out_of_time(text)
    return at_us


def _out_of_time(text: str) -> Misconfigured:
    return Misconfigured(
        "CONS-1004", f"{text[:40]!r} lies before 1900 or after 2200", "Give a time between them."
    )


def parse_span(text: str) -> int:
    """Microseconds from ``10s``, ``5min``, ``1h``.

    Raises:
        Misconfigured: CONS-1004 for anything else.
    """
    found = _SPAN.match(text.strip())
    wanted_us = float(found[1]) * _SECONDS[found[2]] * US_PER_S if found else 0.0
    span_us = int(wanted_us) if wanted_us <= SPAN_MAX_US else 0
    if span_us <= 0:
        raise Misconfigured("CONS-1004", f"{text!r} is no span of time", "Use 10s, 5min or 1h.")
    return span_us


def frame_answer(batch: pl.DataFrame, format_: Format, name: str, site: SiteView) -> Response:
    """A batch as JSON rows, CSV with paths and units, Arrow IPC stream or Parquet."""
    body = io.BytesIO()
    if format_ == "arrow":
        batch.write_ipc_stream(body)
        return _download(body, "application/vnd.apache.arrow.stream", f"{name}.arrow")
    if format_ == "json":
        rows = batch.with_columns(pl.col("tag_id").cast(pl.String))
        rows = rows.with_columns(pl.col(pl.Datetime).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
        return json_answer({"samples": rows.to_dicts()})
    views = [(t, site.by_id[t].path, site.by_id[t].unit) for t in batch["tag_id"].unique()
             if t in site.by_id]  # fmt: skip
    names = pl.DataFrame(
        views, schema={"tag_id": pl.Int64, "path": pl.String, "unit": pl.String}, orient="row"
    )
    wide = batch.join(names, on="tag_id", how="left", maintain_order="left")
    wide = wide.select("path", "unit", *batch.columns)
    if format_ == "csv":
        defused(wide).write_csv(body, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
        return _download(body, "text/csv; charset=utf-8", f"{name}.csv")
    wide.write_parquet(body, compression="zstd")
    return _download(body, "application/vnd.apache.parquet", f"{name}.parquet")


def _download(body: io.BytesIO, media_type: str, filename: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(body.getvalue(), media_type=media_type, headers=headers)
