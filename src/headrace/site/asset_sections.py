"""``[asset_type.NAME]`` and ``[asset."path"]`` of a site file: quantities, attributes, relations, formulas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from headrace.formula.grammar import KEYWORDS, parse_statement, split_statements
from headrace.formula.measure import TIME, measure_of
from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import Place
from headrace.model.calendar import PlantCalendar
from headrace.model.ids import NAME, PATH_DEPTH_MAX
from headrace.model.knowledge import FormulaState, Placement
from headrace.model.time import US_PER_S
from headrace.site.calendar_section import moment
from headrace.site.model import PLAIN_UNITS, Asset, AssetType, Formula
from headrace.site.notes import Notes, near
from headrace.site.sections import (
    PATH_REMEDY,
    Section,
    check_name,
    is_kind,
    named_tables,
    note_unit,
)
from headrace.site.toml_lines import Key

_TYPE: Final = (
    *("title", "quantities", "attributes", "relations", "max_age"),
    *("formulas", "titles", "shadow", "off", "start", "placement", "package"),
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_WORD_REMEDY: Final = "Use A-Z a-z 0-9 and _, no digit first, and no word of the formula language."
_HEAD: Final = re.compile(r"(alarm[ \t]+)?([^\W\d]\w*)[ \t]*[=:]")
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)")
_PLACEMENTS: Final[tuple[Placement, ...]] = get_args(Placement)
AGE_MAX_US: Final = 400 * 86_400 * US_PER_S


def read_asset_types(
    notes: Notes, data: dict[str, Any], calendar: PlantCalendar
) -> list[AssetType]:
    """The asset types; what their formulas mean is checked when all assets and tags are known."""
    found = []
    tables = named_tables(notes, data, "asset_type")
    for name, table in tables:
        key = ("asset_type", name)
        section = Section(notes, key, table, _TYPE)
        check_name(notes, key, name, "asset type")
        title, title_zh = section.title()
        quantities = _units(section, "quantities", PLAIN_UNITS)
        formulas = _formulas(section, calendar)
        found.append(
            AssetType(
                name=name,
                title=title,
                title_zh=title_zh,
                quantities=quantities,
                attributes=_units(section, "attributes", ("text",)),
                relations=_relations(section, [each for each, _ in tables]),
                max_age_us=_ages(section, quantities),
                formulas=formulas,
                titles=_titles(section, [each.name for each in formulas]),
                package=section.take("package", "a text", ""),
            )
        )
    return found


def _titles(section: Section, formulas: list[str]) -> dict[str, tuple[str, str]]:
    """Formula -> what its derived tags are called."""
    found = {}
    for name, title in section.take("titles", "a table", {}).items():
        place = (*section.key, "titles", name)
        if name not in formulas:
            section.notes.at(
                place, "SITE-1009", f"there is no formula {name!r}", near(name, formulas)
            )
            continue
        found[name] = Section(
            section.notes, (*section.key, "titles"), {"title": title}, ("title",)
        ).title()
    return found


def _units(section: Section, word: str, plain: tuple[str, ...]) -> dict[str, str]:
    """Name -> unit of quantities or attributes."""
    notes, found = section.notes, dict[str, str]()
    for name, unit in section.take(word, "a table", {}).items():
        place = (*section.key, word, name)
        if word == "quantities":
            check_name(notes, place, name, "quantity")
        else:
            _check_word(notes, place, name, "attribute")
        if not isinstance(unit, str):
            notes.at(place, "SITE-1005", f"its unit is {unit!r}, not a text", 'Write "m3/h".')
            continue
        if unit not in plain:
            note_unit(notes, notes.file, unit, place)
        found[name] = unit
    return found


def _check_word(notes: Notes, key: Key, name: str, what: str) -> None:
    """Note a name that a formula could not say."""
    if not _WORD.fullmatch(name) or name in KEYWORDS:
        notes.at(key, "SITE-1110", f"{what} has the name {name!r}", _WORD_REMEDY)


def _relations(section: Section, types: list[str]) -> dict[str, str]:
    notes, found = section.notes, dict[str, str]()
    for name, kind in section.take("relations", "a table", {}).items():
        place = (*section.key, "relations", name)
        _check_word(notes, place, name, "relation")
        if kind not in types:
            remedy = near(str(kind), types)
            notes.at(place, "SITE-1009", f"the asset type {kind!r} is not declared", remedy)
            continue
        found[name] = kind
    return found


def _ages(section: Section, quantities: Mapping[str, str]) -> dict[str, int]:
    value = section.table.get("max_age", {})
    if not isinstance(value, dict):
        age_us = _age_us(section, ("max_age",), value)
        return dict.fromkeys(quantities, age_us) if age_us else {}
    found = {}
    for name, text in value.items():
        place = (*section.key, "max_age", name)
        if name not in quantities:
            remedy = near(name, quantities)
            section.notes.at(place, "SITE-1009", f"there is no quantity {name!r}", remedy)
        elif age_us := _age_us(section, ("max_age", name), text):
            found[name] = age_us
    return found


def _age_us(section: Section, place: tuple[str, ...], text: Any) -> int:
    match = _AGE.fullmatch(text.strip()) if isinstance(text, str) else None
    measure = measure_of(match[2]) if match else None
    if match and measure is not None and measure.dimension == TIME:
        age_us = round(float(match[1]) * measure.factor * US_PER_S)
        if 0 < age_us <= AGE_MAX_US:
            return age_us
    what = f"{'.'.join(place)} is {text!r}, not a length of time"
    key = (*section.key, *place)
    section.notes.at(key, "SITE-1117", what, 'Write for example "10 s" or "5 min", up to 400 d.')
    return 0


# --- formulas -----------------------------------------------------------------------------------------


def _formulas(section: Section, calendar: PlantCalendar) -> tuple[Formula, ...]:
    text = section.take("formulas", "a text", "")
    found: dict[str, Formula] = {}
    for line, source in split_statements(text):
        head = _HEAD.match(source)
        try:
            if head is None:  # nobody can name it: what is wrong is said here
                parse_statement(source, line=line)
                continue
            name = head[2]
            if name in found:
                place = Place(head.start(2), head.end(2))
                first = section.notes.text_line((*section.key, "formulas"), found[name].line)
                raise FormulaProblem("FORM-1004", source, place, line, name=name, first=first)
        except FormulaProblem as problem:
            note_formula(section.notes, section.key[-1], problem)
            continue
        kind: Literal["formula", "alarm"] = "alarm" if head[1] else "formula"
        if not NAME.match(name):
            where = section.notes.text_line((*section.key, "formulas"), line)
            what, remedy = f"a formula has the name {name!r}", _WORD_REMEDY
            section.notes.add(
                section.notes.file, where, _field(section.key[-1]), "SITE-1110", what, remedy
            )
            continue
        found[name] = Formula(name=name, kind=kind, text=source.rstrip(), line=line)
    return tuple(_with_states(section, found, calendar).values())


def _with_states(
    section: Section, found: dict[str, Formula], calendar: PlantCalendar
) -> dict[str, Formula]:
    states: dict[str, FormulaState] = {}
    for word in ("shadow", "off"):
        for name in section.take(word, "a list", []):
            if _is_formula(section, (word,), name, found):
                states[name] = word
    starts = dict[str, int]()
    table = section.take("start", "a table", {})
    times = Section(section.notes, (*section.key, "start"), table, tuple(table))
    for name in table:
        if _is_formula(section, ("start", name), name, found):
            start_us = moment(times, name, calendar)
            if start_us is not None:
                starts[name] = start_us
    placements = _placements(section, found)
    return {
        name: msgspec.structs.replace(
            formula,
            state=states.get(name, "live"),
            start_us=starts.get(name),
            placement=placements.get(name, "platform"),
        )
        for name, formula in found.items()
    }


def _placements(section: Section, found: Mapping[str, Formula]) -> dict[str, Placement]:
    """Where formulas are evaluated: a word for all of the type, or a table of single ones."""
    value = section.table.get("placement", {})
    if not isinstance(value, dict):
        word = _placement(section, ("placement",), value)
        return {
            name: word for name, each in found.items() if each.kind == "formula" and word == "edge"
        }
    placements: dict[str, Placement] = {}
    for name, text in value.items():
        place = ("placement", name)
        if not _is_formula(section, place, name, found):
            continue
        placements[name] = _placement(section, place, text)
        if found[name].kind == "alarm" and placements[name] == "edge":
            what = f"the alarm {name} has the placement edge"
            remedy = "Alarms run on the platform; place the formulas that it reads on the edge."
            section.notes.at((*section.key, *place), "APPS-1401", what, remedy)
    return placements


def _placement(section: Section, place: tuple[str, ...], text: Any) -> Placement:
    if text in _PLACEMENTS:
        return text  # type: ignore[no-any-return] # one of the words
    what = f"{'.'.join(place)} is {text!r}"
    section.notes.at((*section.key, *place), "APPS-1402", what, 'Write "edge" or "platform".')
    return "platform"


def _is_formula(
    section: Section, place: tuple[str, ...], name: Any, found: Mapping[str, Formula]
) -> bool:
    if isinstance(name, str) and name in found:
        return True
    what, remedy = f"there is no formula {name!r}", near(str(name), found)
    section.notes.at((*section.key, *place), "SITE-1009", what, remedy)
    return False


def _field(asset_type: Any) -> str:
    return f"asset_type.{asset_type}.formulas"


def note_formula(notes: Notes, asset_type: Any, problem: FormulaProblem) -> None:
    """Note what is wrong with a formula at its line of the site file."""
    line = notes.text_line(("asset_type", asset_type, "formulas"), problem.line)
    notes.formula(line, _field(asset_type), problem)


# --- assets -------------------------------------------------------------------------------------------


def read_assets(notes: Notes, data: dict[str, Any], types: list[AssetType]) -> list[Asset]:
    """``[asset."area/work_center/work_unit"]`` with its asset type."""
    known = {kind.name: kind for kind in types}
    found = []
    tables = named_tables(notes, data, "asset")
    for path, table in tables:
        key = ("asset", path)
        section = Section(notes, key, table, ("type", "title", "attributes", "relations"))
        title, title_zh = section.title()
        kind = section.take("type", "a text", "", required=True)
        if kind and kind not in known:
            remedy = near(kind, known) or f"Declare it: [asset_type.{kind}]"
            section.wrong("type", f"the asset type {kind!r} is not declared", remedy, "SITE-1009")
        tokens = path.split("/")
        if len(tokens) >= PATH_DEPTH_MAX or not all(NAME.match(token) for token in tokens):
            notes.at(key, "SITE-1006", f"asset has the path {path!r}", PATH_REMEDY)
            continue
        declared = known.get(kind)
        attributes, relations = dict[str, float | str](), dict[str, str]()
        if declared is not None:
            attributes = _attributes(section, declared)
            relations = _leads(section, declared, dict(tables))
        found.append(
            Asset(
                path=path, type=kind, title=title, title_zh=title_zh,
                attributes=attributes, relations=relations,
            )
        )  # fmt: skip
    return found


def _attributes(section: Section, kind: AssetType) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, value in section.take("attributes", "a table", {}).items():
        place = (*section.key, "attributes", name)
        unit = kind.attributes.get(name)
        if unit is None:
            remedy = near(name, kind.attributes) or f"Declare it in [asset_type.{kind.name}]."
            what = f"{kind.name} has no attribute {name!r}"
            section.notes.at(place, "SITE-1009", what, remedy)
            continue
        wanted = "a text" if unit == "text" else "a number"
        if is_kind(value, wanted):
            found[name] = value if unit == "text" else float(value)
        else:
            what = f"{name} is {value!r}, not {wanted}"
            remedy = f"Give {wanted}" + (f" in {unit}." if unit not in ("", "text") else ".")
            section.notes.at(place, "SITE-1005", what, remedy)
    return found


def _leads(section: Section, kind: AssetType, assets: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, path in section.take("relations", "a table", {}).items():
        place = (*section.key, "relations", name)
        wanted = kind.relations.get(name)
        if wanted is None:
            remedy = near(name, kind.relations) or f"Declare it in [asset_type.{kind.name}]."
            what = f"{kind.name} has no relation {name!r}"
            section.notes.at(place, "SITE-1009", what, remedy)
            continue
        other = assets.get(path) if isinstance(path, str) else None
        actual = other.get("type") if isinstance(other, dict) else None
        if actual is None:
            what, remedy = f"there is no asset {path!r}", near(str(path), assets)
            section.notes.at(place, "SITE-1009", what, remedy or "Give the path of an asset.")
        elif actual != wanted:
            what = f"{name} leads to {path}, a {actual}, and not to a {wanted}"
            section.notes.at(place, "SITE-1113", what, f"Give the path of a {wanted}.")
        else:
            found[name] = path
    return found
