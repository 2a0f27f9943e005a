"""Reads a recording: any CSV, whitespace-separated text, Parquet; wide or long; gzip or not.

Exact: a number is the float64 nearest to its digits or an int64, nothing is rounded; a column with
any text in it stays text; what was decided is told in ``Recording.notes``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.sample import TIMESTAMP
from headrace.sim.emulators import PointType
from headrace.sim.replay.times import looks_like_time, made_up_times, parse_times

TIME: Final = "source_timestamp"
DEFAULT_START_US: Final = 1_577_836_800_000_000  # 2020-01-01
_SEPARATORS: Final = (";", "\t", "|", ",")
_NULLS: Final = ("", "NA", "N/A", "n/a", "null", "NULL", "None")
_INTEGER: Final = r"^[+-]?(0|[1-9]\d{0,17})$"
# Digits with leading zeros are a name ("007"), not a number.
_FLOAT: Final = (
    r"^[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^[+-]?([nN]a[nN]|[iI]nf(inity)?)$"
)
_BOOLEAN: Final = r"^(?i:true|false)$"
_SERIES_NAMES: Final = {"tag", "name", "series", "metric", "variable", "sensor", "point", "signal"}
_VALUE_NAMES: Final = {"value", "val", "values"}
_TYPES: Final[dict[type[pl.DataType], PointType]] = {
    pl.Float64: "float64",
    pl.Int64: "int64",
    pl.Boolean: "bool",
    pl.String: "string",
}


@dataclass(frozen=True)
class LoadOptions:
    """How to read a recording; every field has a default that looks for itself.

    Attributes:
        time_column: name of the column with the times; "" finds it.
        time_format: strftime form of its texts; "" finds it.
        time_zone: IANA zone of times that tell no offset.
        names: column names of a file without a header.
        columns: which to take; none takes all.
        key_column: column that tells which device a row belongs to.
        start_us: UTC microseconds of the first row, for recordings without times.
        interval_us: time from row to row, for recordings without times.
    """

    time_column: str = ""
    time_format: str = ""
    time_zone: str = "UTC"
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    key_column: str = ""
    start_us: int | None = None
    interval_us: int = 1_000_000


@dataclass(frozen=True)
class Column:
    """One series of a recording.

    Attributes:
        name: as in the file and in ``Recording.frame``. token: as a tag's name.
        data_type: ``float64``, ``int64``, ``bool`` or ``string``.
    """

    name: str
    token: str
    data_type: PointType


@dataclass(frozen=True)
class Recording:
    """A recording in memory.

    Attributes:
        name: token made of the file's name.
        frame: ``source_timestamp`` Datetime(us, UTC), then the columns, sorted by time; rows of
            equal time keep the file's order.
        columns: the value columns. keys: device token of each row; None without a key column.
        notes: what was found and decided, for people.
        sha256: of the file.
    """

    name: str
    frame: pl.DataFrame
    columns: tuple[Column, ...]
    keys: pl.Series | None
    notes: tuple[str, ...]
    sha256: str


def token_of(text: str) -> str:
    """A name for tags and devices from any text.

    Example:
        >>> token_of("LV ActivePower (kW)"), token_of("Volume Flow RateRMS")
        ('lv_activepower_kw', 'volume_flow_raterms')
    """
    token = re.sub(r"[^A-Za-z0-9_-]+", "_", text.strip()).strip("_").lower()
    return token[:64] or "x" + hashlib.sha256(text.encode()).hexdigest()[:8]


def load(path: Path, options: LoadOptions | None = None) -> Recording:
    """Read a recording.

    Args:
        path: the file. options: how to read it.

    Raises:
        Misconfigured: SIM-1101 no such file, SIM-1102 nothing to read in it, SIM-1103 an unknown
            column, SIM-1104 no time where one was asked for, SIM-1105 and SIM-1106 times that are
            not clear, SIM-1107 two columns of one name.
        Corrupt: SIM-1108 when the file is damaged.
    """
    wanted = options or LoadOptions()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "SIM-1101", f"cannot read the recording {path}: {error.strerror}", "Check its path."
        ) from error
    notes: list[str] = []
    frame, typed = _read(path, content, wanted, notes)
    if frame.height == 0 or frame.width == 0:
        raise Misconfigured("SIM-1102", f"{path} has no rows", "Give a recording with data.")
    frame, time_column = _with_time(frame, wanted, notes)
    if not typed:
        frame = _type_columns(frame, notes)
    frame = _widen(frame, notes)
    frame = _sort(frame, notes)
    keys = None
    if wanted.key_column:
        _check_columns(frame, (wanted.key_column,))
        keys = _key_tokens(frame[wanted.key_column])
    names = wanted.columns or tuple(
        name for name in frame.columns if name not in (TIME, wanted.key_column, time_column)
    )
    _check_columns(frame, names)
    columns = tuple(Column(n, token_of(n), _TYPES[type(frame.schema[n])]) for n in names)
    _check_tokens(columns)
    frame = frame.select(TIME, *names)
    _note_duplicates(frame, keys, notes)
    stem = path.name.split(".")[0]
    sha256 = hashlib.sha256(content).hexdigest()
    return Recording(token_of(stem), frame, columns, keys, tuple(notes), sha256)


def _read(
    path: Path, content: bytes, options: LoadOptions, notes: list[str]
) -> tuple[pl.DataFrame, bool]:
    """The file as a table, and whether its columns have their types (text files have none)."""
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        if content[:4] == b"PAR1":
            return _normalise(pl.read_parquet(io.BytesIO(content)), notes), True
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        raise Corrupt("SIM-1108", f"{path} is damaged: {error}", "Get the file again.") from error
    return _read_text(path, _decode(content, notes), options, notes), False


def _decode(content: bytes, notes: list[str]) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append("the text is not UTF-8; read as GB 18030")
        return content.decode("gb18030", errors="replace")


def _read_text(path: Path, text: str, options: LoadOptions, notes: list[str]) -> pl.DataFrame:
    lines = [line for line in text[:200_000].splitlines()[:50] if line.strip()]
    if not lines:
        raise Misconfigured("SIM-1102", f"{path} has no rows", "Give a recording with data.")
    separator = _find_separator(lines)
    if separator == " ":
        joined = (re.sub(r"\s+", "\t", line.strip()) for line in text.splitlines())
        text, separator = "\n".join(line for line in joined if line), "\t"
        lines = text.splitlines()[:50]
    fields = lines[0].split(separator)
    header = not options.names and not all(re.match(_FLOAT, f.strip().strip('"')) for f in fields)
    try:
        frame = pl.read_csv(
            io.StringIO(text),
            separator=separator,
            has_header=header,
            new_columns=None if header else _names(path, options, len(fields)),
            infer_schema=False,
            null_values=list(_NULLS),
        )
    except pl.exceptions.PolarsError as error:
        raise Corrupt(
            "SIM-1108", f"{path} cannot be read as a table: {error}", "Look at its lines."
        ) from error
    if not header:
        notes.append("no header; the columns are " + ", ".join(frame.columns))
    if separator == ";" and _has_decimal_comma(frame):
        notes.append("numbers have a decimal comma")
        frame = frame.with_columns(
            pl.when(pl.col(c).str.contains(r"^[+-]?\d+,\d+$"))
            .then(pl.col(c).str.replace(",", "."))
            .otherwise(pl.col(c))
            .alias(c)
            for c in frame.columns
        )
    return frame.rename({name: name.strip() for name in frame.columns})


def _find_separator(lines: list[str]) -> str:
    counts = {s: [line.count(s) for line in lines] for s in _SEPARATORS}
    steady = [s for s in _SEPARATORS if counts[s][0] and len(set(counts[s])) == 1]
    if steady:
        return steady[0]
    present = [s for s in _SEPARATORS if counts[s][0]]
    if present:
        return max(present, key=lambda s: min(counts[s]))
    return " " if len(lines[0].split()) > 1 else ","


def _names(path: Path, options: LoadOptions, count: int) -> list[str]:
    names = list(options.names) or [f"c{i + 1}" for i in range(count)]
    if len(names) != count:
        raise Misconfigured(
            "SIM-1103",
            f"{path} has {count} columns, and {len(names)} names were given",
            "Give one name a column.",
        )
    return names


def _has_decimal_comma(frame: pl.DataFrame) -> bool:
    head = frame.head(20)
    return any(head[c].drop_nulls().str.contains(r"^[+-]?\d+,\d+$").any() for c in frame.columns)


def _type_columns(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    return frame.with_columns(_typed(frame[c], notes) for c in frame.columns if c != TIME)


def _typed(texts: pl.Series, notes: list[str]) -> pl.Series:
    """The column as int64, float64 or bool where every text is one; else as it is."""
    plain = texts.str.strip_chars()
    present = plain.drop_nulls()
    if present.len() == 0:
        return plain.cast(pl.Float64)
    if present.str.contains(_INTEGER).all():
        return plain.cast(pl.Int64)
    if present.str.contains(_FLOAT).all():
        large = r"^[+-]?\d{16,}$"
        if present.str.contains(large).any():
            notes.append(
                f"{texts.name}: more digits than float64 holds; kept as text, to the digit"
            )
            return texts
        return plain.cast(pl.Float64)
    if present.str.contains(_BOOLEAN).all():
        return plain.str.to_lowercase() == "true"
    odd = present.filter(~present.str.contains(_FLOAT))
    if odd.len() < present.len():
        notes.append(
            f"{texts.name}: {odd.len()} of {present.len()} are text ({odd[0]!r}); kept as text"
        )
    return texts


def _normalise(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Parquet's types as ours: int64, float64, bool, text, times."""
    columns = []
    for series in frame.get_columns():
        kind = series.dtype
        if kind == pl.UInt64 and (series.drop_nulls() > 2**63 - 1).any():
            columns.append(series.cast(pl.String))
            notes.append(f"{series.name}: integers beyond int64; kept as text, to the digit")
        elif kind.is_integer():
            columns.append(series.cast(pl.Int64))
        elif kind.is_float():
            columns.append(series.cast(pl.Float64))
        elif kind in (pl.Boolean, pl.String) or isinstance(kind, pl.Datetime):
            columns.append(series)
        elif kind == pl.Date:
            columns.append(series.cast(pl.Datetime("us")))
        elif isinstance(kind, pl.Categorical | pl.Enum | pl.Decimal):
            columns.append(series.cast(pl.String))
        else:
            notes.append(f"{series.name}: left out, its type {kind} has no place in a tag")
    return pl.DataFrame(columns)


def _with_time(
    frame: pl.DataFrame, options: LoadOptions, notes: list[str]
) -> tuple[pl.DataFrame, str]:
    if options.time_column:
        _check_columns(frame, (options.time_column,))
    named = [c for c in frame.columns if looks_like_time(c) or frame[c].dtype.is_temporal()]
    for name in [options.time_column] if options.time_column else [*named, frame.columns[0]]:
        found = _times_of(frame[name], options, named=name in named or bool(options.time_column))
        if found is None:
            continue
        if options.start_us is not None:
            raise Misconfigured(
                "SIM-1104",
                f"the recording has its own times in {name!r}",
                "Leave out --start; it is for recordings without times.",
            )
        times, form = found
        notes.append(f"times are in {name!r} ({form})")
        return frame.drop(name).insert_column(0, times.alias(TIME)), name
    if options.time_column:
        raise Misconfigured(
            "SIM-1104",
            f"column {options.time_column!r} holds no times: {frame[options.time_column][0]!r}",
            "Name the right column with --time-column, and its form with --time-format.",
        )
    start_us = DEFAULT_START_US if options.start_us is None else options.start_us
    times = made_up_times(frame.height, start_us, options.interval_us)
    seconds = options.interval_us / 1e6
    notes.append(f"no time column: rows get times every {seconds:g} s from {times[0]}")
    return frame.insert_column(0, times.alias(TIME)), ""


def _times_of(
    series: pl.Series, options: LoadOptions, *, named: bool
) -> tuple[pl.Series, str] | None:
    if series.null_count():
        return None
    if isinstance(series.dtype, pl.Datetime):
        if series.dtype.time_zone is None:
            zoned = series.dt.replace_time_zone(options.time_zone)
            return zoned.dt.convert_time_zone("UTC").cast(TIMESTAMP), options.time_zone
        return series.dt.convert_time_zone("UTC").cast(TIMESTAMP), "with zone"
    if series.dtype not in (pl.String, pl.Int64, pl.Float64):
        return None
    return parse_times(series.cast(pl.String), options.time_zone, options.time_format, epoch=named)


def _widen(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """A long recording (time, name, value) as a wide one; a wide one as it is."""
    if frame.width != 3:
        return frame
    names = [c for c in frame.columns if c.lower() in _SERIES_NAMES]
    values = [c for c in frame.columns if c.lower() in _VALUE_NAMES]
    if len(names) != 1 or len(values) != 1:
        return frame
    name, value = names[0], values[0]
    notes.append(f"long form: {frame[name].n_unique()} series in {name!r}")
    # Two values of one series at one time stay two rows.
    counted = frame.with_columns(
        pl.col(name).cast(pl.String),
        pl.int_range(pl.len()).over(TIME, name).alias("_copy"),
    )
    wide = counted.pivot(on=name, index=[TIME, "_copy"], values=value, maintain_order=True)
    return wide.drop("_copy")


def _sort(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    if frame[TIME].is_sorted():
        return frame
    notes.append("rows were not in the order of time; sorted")
    return frame.sort(TIME, maintain_order=True)


def _key_tokens(series: pl.Series) -> pl.Series:
    texts = series.cast(pl.String).fill_null("none")
    tokens = {
        text: token_of(f"{series.name}_{text}" if text[:1].isdigit() else text)
        for text in texts.unique()
    }
    return texts.replace_strict(tokens, return_dtype=pl.String)


def _note_duplicates(frame: pl.DataFrame, keys: pl.Series | None, notes: list[str]) -> None:
    marks = frame.select(TIME) if keys is None else frame.select(TIME, keys.alias("_key"))
    copies = marks.height - marks.unique().height
    if copies:
        first = marks.filter(marks.is_duplicated())[TIME][0]
        notes.append(f"{copies} rows have a time that an earlier row has (first at {first})")


def _check_columns(frame: pl.DataFrame, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in frame.columns:
            raise Misconfigured(
                "SIM-1103",
                f"the recording has no column {name!r}",
                f"It has {', '.join(frame.columns)}.",
            )


def _check_tokens(columns: tuple[Column, ...]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        if column.token in seen:
            raise Misconfigured(
                "SIM-1107",
                f"columns {seen[column.token]!r} and {column.name!r} give one tag {column.token!r}",
                "Take one of them with --columns.",
            )
        seen[column.token] = column.name
