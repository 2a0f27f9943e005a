"""Time columns of recordings: found, parsed exactly to UTC microseconds, or made up when there is none."""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from headrace.model.errors import Misconfigured
from headrace.model.sample import TIMESTAMP

# One format must fit every row. The day comes first where a text could be both; that is checked.
_FORMATS: Final = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y%m%d %H:%M:%S%.f",
    "%Y%m%d%H%M%S",
    "%d %m %Y %H:%M:%S%.f",
    "%d %m %Y %H:%M",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S%.f",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S%.f",
    "%m/%d/%Y %H:%M",
    "%d-%m-%Y %H:%M:%S%.f",
    "%d-%m-%Y %H:%M",
)
_OFFSET: Final = r"(Z|[+-]\d\d:?\d\d)$"
_NAMES: Final = re.compile(
    r"^(.*[_ /])?(date|time|datetime|timestamp|ts|t|epoch|date/time|time_?stamp|zeit|datum"
    r"|时间|日期)([_ ].*)?$",
    re.IGNORECASE,
)
_EPOCH_UNITS: Final = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
_NUMBER: Final = r"^[+-]?\d+(\.\d+)?$"


def looks_like_time(name: str) -> bool:
    """Whether a column's name says that it holds times.

    Example:
        >>> looks_like_time("Date/Time"), looks_like_time("cycle_time_s"), looks_like_time("flow")
        (True, True, False)
    """
    return bool(_NAMES.match(name.strip()))


def parse_times(
    texts: pl.Series, time_zone: str = "UTC", time_format: str = "", *, epoch: bool = True
) -> tuple[pl.Series, str] | None:
    """Times of a text column, or None when they are not times.

    Args:
        texts: String, no nulls.
        time_zone: IANA name for times that tell no offset.
        time_format: strftime form; "" tries the usual ones.
        epoch: whether plain numbers may be times since 1970.

    Returns:
        Datetime(us, UTC), and the form that fitted, for people.

    Raises:
        Misconfigured: SIM-1105 when day and month could be swapped in every row; SIM-1106 when a
            local time does not exist or is ambiguous in ``time_zone``.

    Example:
        >>> parse_times(pl.Series(["13 01 2018 00:10"]))[1]
        '%d %m %Y %H:%M, UTC'
    """
    if texts.len() == 0:
        return None
    if texts.str.contains(_NUMBER).all() and not time_format:
        return _parse_epoch(texts) if epoch else None
    plain = texts.str.strip_chars().str.replace("T", " ", literal=True)
    if plain.str.contains(_OFFSET).all():
        return _parse_with_offset(plain)
    found = [
        (form, parsed)
        for form in ((time_format,) if time_format else _FORMATS)
        if (parsed := plain.str.to_datetime(form, time_unit="us", strict=False)).null_count() == 0
    ]
    if not found:
        return None
    form, parsed = found[0]
    for other_form, other in found[1:]:
        if not (other == parsed).all():
            raise Misconfigured(
                "SIM-1105",
                f"the times fit {form} and {other_form}, and mean different days",
                f'Say which: --time-format "{form}"',
            )
    return _localise(parsed, time_zone), f"{form}, {time_zone}"


def _localise(parsed: pl.Series, time_zone: str) -> pl.Series:
    try:
        local = parsed.dt.replace_time_zone(time_zone)
    except pl.exceptions.PolarsError as error:
        raise Misconfigured(
            "SIM-1106",
            f"the times cannot be read as local times of {time_zone}: {error}",
            "Give the zone that the recorder used, or a file with UTC times.",
        ) from error
    return local.dt.convert_time_zone("UTC").cast(TIMESTAMP)


def _parse_with_offset(plain: pl.Series) -> tuple[pl.Series, str] | None:
    texts = plain.str.replace(r" ?Z$", "+00:00")
    for form in ("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M%:z", "%Y-%m-%d %H:%M:%S%.f%z"):
        parsed = texts.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        if parsed.null_count() == 0:
            return parsed.cast(TIMESTAMP), "ISO 8601 with offset"
    return None


def _parse_epoch(texts: pl.Series) -> tuple[pl.Series, str] | None:
    """Numbers since 1970; the unit follows from the magnitude. Digits are kept, not rounded."""
    largest = texts.cast(pl.Float64).abs().max()
    assert isinstance(largest, float)
    unit = next((name for limit, name in _EPOCH_UNITS if largest >= limit), None)
    if unit is None:
        return None
    whole = texts.str.extract(r"^([+-]?\d+)", 1).cast(pl.Int64)
    decimals = {"s": 6, "ms": 3, "us": 0, "ns": 0}[unit]
    fraction = texts.str.extract(r"\.(\d+)$", 1).fill_null("")
    digits = fraction.str.pad_end(decimals, "0").str.slice(0, decimals)
    rest = digits.str.replace(r"^$", "0").cast(pl.Int64)
    at_us = whole // 1000 if unit == "ns" else whole * 10**decimals + rest
    return at_us.cast(TIMESTAMP), f"{unit} since 1970"


def made_up_times(count: int, start_us: int, interval_us: int) -> pl.Series:
    """``start + row * interval`` for recordings without times.

    Example:
        >>> made_up_times(2, 0, 1_000_000).dt.epoch("s").to_list()
        [0, 1]
    """
    rows = pl.int_range(0, count, dtype=pl.Int64, eager=True)
    return (rows * interval_us + start_us).cast(TIMESTAMP)
