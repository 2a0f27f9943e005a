"""A connector's ``options`` struct as form fields, and form answers as options again."""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

import msgspec
import msgspec.inspect as mi

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured

Kind = Literal["choice", "boolean", "integer", "number", "text", "list", "json"]


class OptionField(msgspec.Struct, frozen=True, kw_only=True):
    """One field of the form.

    Attributes:
        kind: how it is asked for. ``list`` is comma-separated text, ``json`` any other shape.
        default: what the connector takes when nothing is given.
        choices: for ``choice``.
        minimum, maximum: for numbers; None where there is no bound.
        explained: from the struct's docstring.
    """

    name: str
    kind: Kind
    default: Any
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    explained: str = ""


def fields_of(options: type[msgspec.Struct]) -> list[OptionField]:
    """The form of an ``options`` struct, in its own order.

    Example:
        >>> class Options(msgspec.Struct):
        ...     unit_id: int = 1
        >>> fields_of(Options)[0].kind
        'integer'
    """
    info = mi.type_info(options)
    assert isinstance(info, mi.StructType), "options are a struct by contract"
    texts = _explained(options)
    return [_field(field, texts.get(field.name, "")) for field in info.fields]


def answers_to_options(fields: list[OptionField], answers: dict[str, Any]) -> dict[str, Any]:
    """Options that differ from their defaults.

    Args:
        answers: name -> what was typed or chosen; left out means the default.

    Raises:
        Misconfigured: CONS-1011 for an answer that does not fit its field.
    """
    options = {}
    for field in fields:
        if field.name not in answers:
            continue
        value = _value(field, answers[field.name])
        if value != _plain(field.default):
            options[field.name] = value
    return options


def _field(field: mi.Field, explained: str) -> OptionField:
    default = field.default
    if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    kind, choices, bounds = _kind(field.type)
    return OptionField(
        name=field.name,
        kind=kind,
        default=_plain(None if default is msgspec.NODEFAULT else default),
        choices=choices,
        minimum=bounds[0],
        maximum=bounds[1],
        explained=explained,
    )


def _kind(kind: mi.Type) -> tuple[Kind, tuple[str, ...], tuple[float | None, float | None]]:
    none: tuple[None, None] = (None, None)
    if isinstance(kind, mi.Metadata):
        return _kind(kind.type)
    if isinstance(kind, mi.UnionType):
        known = [member for member in kind.types if not isinstance(member, mi.NoneType)]
        return _kind(known[0]) if len(known) == 1 else ("json", (), none)
    if isinstance(kind, mi.LiteralType) and all(isinstance(v, str) for v in kind.values):
        return "choice", tuple(str(value) for value in kind.values), none
    if isinstance(kind, mi.BoolType):
        return "boolean", (), none
    if isinstance(kind, mi.IntType | mi.FloatType):
        bounds = (_least(kind.ge, kind.gt), _least(kind.le, kind.lt))
        return ("integer" if isinstance(kind, mi.IntType) else "number"), (), bounds
    if isinstance(kind, mi.StrType):
        return "text", (), none
    if isinstance(kind, mi.VarTupleType | mi.ListType) and isinstance(kind.item_type, mi.StrType):
        return "list", (), none
    return "json", (), none


def _least(*bounds: float | None) -> float | None:
    return next((bound for bound in bounds if bound is not None), None)


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _value(field: OptionField, answer: Any) -> Any:
    try:
        return _parsed(field, answer)
    except (ValueError, TypeError, *UNREADABLE) as error:
        raise Misconfigured(
            "CONS-1011",
            f"{field.name} cannot be {answer!r}",
            f"It is of the kind {field.kind}; the default is {field.default!r}.",
        ) from error


def _parsed(field: OptionField, answer: Any) -> Any:
    if field.kind == "boolean":
        return bool(answer)
    text = "" if answer is None else str(answer).strip()
    if field.kind == "list":
        parts = re.split(r"[,\n]", text) if not isinstance(answer, list | tuple) else list(answer)
        return [part.strip() for part in parts if str(part).strip()]
    if field.kind in ("text", "choice"):
        if field.choices and text not in field.choices:
            raise ValueError(text)
        return text
    if not text:
        return field.default
    if field.kind == "json":
        return msgspec.json.decode(text)
    number: float = int(text) if field.kind == "integer" else float(text)
    low, high = field.minimum, field.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(text)
    return number


def _explained(options: type[msgspec.Struct]) -> dict[str, str]:
    """Field name -> its sentence, from the ``Attributes:`` block of the docstring."""
    text = inspect.getdoc(options) or ""
    _, _, block = text.partition("Attributes:")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in block.splitlines():
        entry = re.match(r"^ {4}([a-z_0-9, ]+): (.*)$", line)
        if entry:
            names = [name.strip() for name in entry[1].split(",")]
            found.update(dict.fromkeys(names, entry[2]))
        elif line.startswith("        ") and names:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        elif line.strip():
            names = []
    return {name: text.replace("``", "") for name, text in found.items()}
