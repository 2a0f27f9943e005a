"""A form of a service's JSON Schema: its fields, its answers checked field by field, its answer as a table.

Only what a flat request of numbers, texts, choices and yes or no needs becomes a field of its own; any
other shape is asked for as JSON. The service checks again: this only tells people sooner.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec

from headrace.model.decoding import UNREADABLE

Kind = Literal["number", "integer", "boolean", "choice", "text", "json"]
FIELDS_MAX: Final = 60
ROWS_MAX: Final = 500
CELL_MAX: Final = 200


class SchemaField(msgspec.Struct, frozen=True, kw_only=True):
    """One field.

    Attributes:
        unit: as the type of the service says it. minimum, maximum: None where there is no bound;
            ``is_above`` and ``is_below``: the bound itself is not allowed.
        help: of the schema. default: None when the field is required.
    """

    name: str
    kind: Kind
    title: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    is_above: bool = False
    is_below: bool = False
    choices: tuple[str, ...] = ()
    required: bool = True
    default: Any = None
    help: str = ""
    length_max: int = 2_000


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an answer: a key of the interface's texts, and what goes into it."""

    field: str
    key: str
    values: dict[str, str] = {}


def fields_of(schema: dict[str, Any]) -> list[SchemaField]:
    """The fields of a request.

    Example:
        >>> fields_of({"type": "object", "required": ["flow"],
        ...            "properties": {"flow": {"type": "number", "unit": "m3/h", "minimum": 0}}})[0].unit
        'm3/h'
    """
    top = _resolved(schema, schema)
    properties = top.get("properties")
    if not isinstance(properties, dict):
        return []
    required = top.get("required", [])
    return [
        _field(str(name), _resolved(part, schema), name in required)
        for name, part in list(properties.items())[:FIELDS_MAX]
    ]


def _resolved(part: Any, schema: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """A part of the schema where ``$ref`` and a choice of something or nothing are followed."""
    if not isinstance(part, dict) or depth > 8:
        return {}
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        found = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
        rest = {key: value for key, value in part.items() if key != "$ref"}
        return {**_resolved(found, schema, depth + 1), **rest}
    for word in ("anyOf", "oneOf", "allOf"):
        options = [one for one in part.get(word, []) if one != {"type": "null"}]
        if len(options) == 1:
            rest = {key: value for key, value in part.items() if key != word}
            return {**_resolved(options[0], schema, depth + 1), **rest}
    return part


def _field(name: str, part: dict[str, Any], required: bool) -> SchemaField:
    choices = part.get("enum")
    is_choice = isinstance(choices, list) and all(isinstance(one, str) for one in choices)
    kinds: dict[str, Kind] = {
        "number": "number", "integer": "integer", "boolean": "boolean", "string": "text",
    }  # fmt: skip
    kind: Kind = "choice" if is_choice else kinds.get(str(part.get("type")), "json")
    low, high = part.get("minimum"), part.get("maximum")
    above, below = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    return SchemaField(
        name=name,
        kind=kind,
        title=str(part.get("title") or name.replace("_", " ").capitalize()),
        unit=str(part.get("unit", "")),
        minimum=_number(low if low is not None else above),
        maximum=_number(high if high is not None else below),
        is_above=low is None and above is not None,
        is_below=high is None and below is not None,
        choices=tuple(choices) if is_choice and choices else (),
        required=required,
        default=part.get("default"),
        help=str(part.get("description", "")),
        length_max=int(_number(part.get("maxLength")) or 2_000),
    )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def request_of(
    fields: list[SchemaField], answers: dict[str, Any]
) -> tuple[dict[str, Any], list[FieldProblem]]:
    """The request of what was typed, and all that is wrong with it.

    Args:
        answers: name -> what was typed or chosen; an empty one means the default.

    Example:
        >>> field = SchemaField(name="flow", kind="number", title="Flow", minimum=0)
        >>> request_of([field], {"flow": "2.5"})
        ({'flow': 2.5}, [])
        >>> request_of([field], {"flow": "-1"})[1][0].key
        'app_form.least'
    """
    request: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    for field in fields:
        answer = answers.get(field.name)
        if answer is None or (isinstance(answer, str) and not answer.strip()):
            if field.required:
                problems.append(FieldProblem(field=field.name, key="app_form.required"))
            continue
        found = _value(field, answer)
        if isinstance(found, FieldProblem):
            problems.append(found)
        else:
            request[field.name] = found[0]
    return request, problems


def _value(field: SchemaField, answer: Any) -> tuple[Any] | FieldProblem:
    if field.kind in ("number", "integer"):
        return _checked_number(field, answer)
    if field.kind == "boolean":
        return (bool(answer),)
    text = str(answer)
    if field.kind == "json":
        try:
            return (msgspec.json.decode(text),)
        except UNREADABLE:
            return FieldProblem(field=field.name, key="app_form.json")
    if field.kind == "choice" and text not in field.choices:
        return FieldProblem(field=field.name, key="app_form.choice")
    if len(text) > field.length_max:
        values = {"n": str(field.length_max)}
        return FieldProblem(field=field.name, key="app_form.long", values=values)
    return (text,)


def _checked_number(field: SchemaField, answer: Any) -> tuple[Any] | FieldProblem:
    try:
        number = float(str(answer).strip())
    except ValueError:
        return FieldProblem(field=field.name, key="app_form.number")
    whole = field.kind == "integer"
    if not math.isfinite(number) or (whole and not number.is_integer()):
        return FieldProblem(field=field.name, key="app_form.whole" if whole else "app_form.number")
    low, high = field.minimum, field.maximum
    if low is not None and (number <= low if field.is_above else number < low):
        key = "app_form.above" if field.is_above else "app_form.least"
        return FieldProblem(field=field.name, key=key, values={"n": f"{low:g}", "unit": field.unit})
    if high is not None and (number >= high if field.is_below else number > high):
        key = "app_form.below" if field.is_below else "app_form.most"
        return FieldProblem(
            field=field.name, key=key, values={"n": f"{high:g}", "unit": field.unit}
        )
    return (int(number) if whole else number,)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a service gave, as it is shown.

    Attributes:
        facts: (title, value, unit) of its plain fields. columns, rows: of a list of records or of equally
            long lists, as a table; ``numbers`` are the columns that can be drawn.
    """

    facts: tuple[tuple[str, str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    numbers: tuple[str, ...] = ()


def answer_of(schema: dict[str, Any], given: Any) -> Answer:
    """An answer laid out by its shape.

    Example:
        >>> answer_of({}, {"power": 2.5, "curve": [{"flow": 1, "head": 9}, {"flow": 2, "head": 8}]}).columns
        ('flow', 'head')
    """
    if not isinstance(given, dict):
        given = {"answer": given}
    top = _resolved(schema, schema)
    parts = top.get("properties", {}) if isinstance(top.get("properties"), dict) else {}
    facts, columns, rows = [], tuple[str, ...](), tuple[tuple[Any, ...], ...]()
    lists = {k: v for k, v in given.items() if isinstance(v, list)}
    records = next((v for v in lists.values() if v and all(isinstance(x, dict) for x in v)), None)
    if records is not None:
        columns = tuple(dict.fromkeys(key for one in records[:ROWS_MAX] for key in one))
        rows = tuple(tuple(one.get(c) for c in columns) for one in records[:ROWS_MAX])
    elif lists:
        length = max(len(one) for one in lists.values())
        same = {k: v for k, v in lists.items() if len(v) == length}
        columns, rows = tuple(same), tuple(zip(*(v[:ROWS_MAX] for v in same.values()), strict=True))
    for key, value in given.items():
        if isinstance(value, list) and (value is records_of(given) or key in columns):
            continue
        part = _resolved(parts.get(key), schema)
        title = str(part.get("title") or key.replace("_", " ").capitalize())
        facts.append((title, shown(value), str(part.get("unit", ""))))
    numbers = tuple(
        name
        for place, name in enumerate(columns)
        if rows and all(_number(row[place]) is not None for row in rows)
    )
    return Answer(facts=tuple(facts), columns=columns, rows=rows, numbers=numbers)


def records_of(given: dict[str, Any]) -> list[Any] | None:
    """The first list of records of an answer."""
    for value in given.values():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return value
    return None


def shown(value: Any) -> str:
    """A value as a cell shows it.

    Example:
        >>> shown(1234.56789), shown(True), shown(None), shown({"a": 1})
        ('1234.57', 'true', '–', '{"a":1}')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return str(value)[:CELL_MAX]
    return msgspec.json.encode(value).decode()[:CELL_MAX]
