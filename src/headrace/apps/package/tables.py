"""Reads a TOML table as a struct and tells everything that is wrong with it at once, each at its line.

``msgspec`` stops at the first problem; who writes a manifest wants them all.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from headrace.site.notes import Notes, near
from headrace.site.toml_lines import Key

T = TypeVar("T", bound=msgspec.Struct)
_WRONG: Final = object()
_EMPTY: Final[dict[Any, Any]] = {str: "", dict: {}, list: [], tuple: ()}


def read_table(notes: Notes, value: dict[str, Any], kind: type[T], key: Key = ()) -> T:
    """A table as a struct. What is wrong is noted and left out: read the problems before you use it.

    Args:
        notes: of the file, with its text; gets APPS-2003 for unknown keys, APPS-2004 for missing ones,
            APPS-2005 for wrong values.
        key: of the table in the file.

    Example:
        >>> from headrace.model.app_manifest import Budgets
        >>> notes = Notes("app.toml", "memry_mb = 3")
        >>> read_table(notes, {"memry_mb": 3}, Budgets).memory_mb, notes.problems[0].remedy
        (256, 'Did you mean memory_mb?')
    """
    read = _struct(notes, key, value, kind, is_whole=True)
    assert isinstance(read, kind)
    return read


def _struct(notes: Notes, key: Key, value: Any, kind: Any, *, is_whole: bool = False) -> Any:
    if not isinstance(value, dict):
        notes.at(key, "APPS-2005", f"{_name(key)} is {value!r}, not a table", "Make it a table.")
        return _WRONG
    config = kind.__struct_config__
    known = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    hints = typing.get_type_hints(kind, include_extras=True)
    allowed = [*known, config.tag_field] if config.tag_field else list(known)
    for word in value:
        if word not in allowed:
            notes.at((*key, word), "APPS-2003", f"unknown key {word!r}", near(word, allowed))
    fields: dict[str, Any] = {}
    for word, field in known.items():
        read: Any = _WRONG
        if word in value:
            read = _value(notes, (*key, word), value[word], hints[field.name])
        elif field.required:
            notes.at(key, "APPS-2004", f"{_name(key)} lacks {word}", f"Add: {word} = ...")
        if read is _WRONG and field.required:
            if not is_whole:
                return _WRONG
            hint = hints[field.name]
            read = _EMPTY.get(get_origin(hint) or hint)
        if read is not _WRONG:
            fields[field.name] = read
    return kind(**fields)


def _value(notes: Notes, key: Key, value: Any, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _struct(notes, key, value, hint)
    if origin in (Union, types.UnionType) and any(_is_struct(each) for each in inner):
        return _tagged(notes, key, value, inner)
    if origin is dict and isinstance(value, dict):
        read = {word: _value(notes, (*key, word), each, inner[1]) for word, each in value.items()}
        return {word: each for word, each in read.items() if each is not _WRONG}
    if origin in (list, tuple) and isinstance(value, list):
        found = [_value(notes, (*key, place), each, inner[0]) for place, each in enumerate(value)]
        return origin(each for each in found if each is not _WRONG)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        what = f"{_name(key)} is {value!r}: {str(error)[:1].lower()}{str(error)[1:]}"
        notes.at(key, "APPS-2005", what, "Give it such a value.")
        return _WRONG


def _tagged(notes: Notes, key: Key, value: Any, kinds: tuple[Any, ...]) -> Any:
    """One of several structs, by the field that says which."""
    if value is None and type(None) in kinds:
        return None
    structs = {each.__struct_config__.tag: each for each in kinds if _is_struct(each)}
    if len(structs) == 1:
        return _struct(notes, key, value, next(iter(structs.values())))
    field = next(iter(structs.values())).__struct_config__.tag_field
    tag = value.get(field) if isinstance(value, dict) else None
    if tag not in structs:
        words = [str(each) for each in structs]
        what = f"{_name(key)} has the {field} {tag!r}"
        notes.at((*key, field), "APPS-2005", what, near(str(tag), words) or f"One of {words}.")
        return _WRONG
    return _struct(notes, key, value, structs[tag])


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _name(key: Key) -> str:
    return ".".join(str(part) for part in key) or "the file"
