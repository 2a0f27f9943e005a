"""``[app.ID]`` of a site file: which installed app serves which assets, and how it is set.

::

    [app.pump-efficiency]
    version = "1.0.0"
    settings = { least_efficiency = 55 }

    [app.pump-efficiency.bind.pump]
    type = "pumpe"
    quantities = { flow = "durchfluss" }
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from headrace.formula.grammar import parse_statement, split_statements
from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import AlarmStatement
from headrace.model.app_manifest import AppManifest, NeededType, Setting, Text, drift_name
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.ids import NAME
from headrace.model.knowledge import APP_DOT, Placement
from headrace.site.app_assets import lay_app, note_app_formula
from headrace.site.app_package import InstalledApp
from headrace.site.model import AppBind, AssetType, Formula, SettingValue, SiteApp, SiteModel
from headrace.site.notes import Notes, near
from headrace.site.registry import compile_pattern
from headrace.site.sections import Section, is_kind, named_tables
from headrace.site.toml_lines import Key

NAME_MAX: Final = 64
_APP: Final = ("version", "enabled", "placement", "settings", "bind")
PLACES: Final[tuple[Placement, ...]] = ("platform", "edge")
_BIND: Final = ("type", "quantities", "attributes", "relations", "assets", "settings")
_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_VERSION: Final = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
_ONE: Final = {"quantities": "quantity", "attributes": "attribute", "relations": "relation"}
_KINDS: Final = {"number": "a number", "text": "a text", "condition": "true or false"}
_DRIFT_ALARM: Final = """alarm {drift}_high: {drift} > 1, off when {drift} < 0.9, priority low,
  message "The inputs of the model {model} are unlike its training" zh "模型{model}的输入与训练时不同",
  cause "The asset is run or has become otherwise, or an instrument has" zh "运行方式、设备状态或仪表发生变化",
  consequence "What the model says may be wrong" zh "模型结果可能不可靠",
  action "Look at the page Models; headrace model drift {app} {model}; train it anew"
    zh "查看模型页面，必要时重新训练", response 8 h"""
Packages = Callable[[str, str], InstalledApp]
"""(id, version) -> the installed package; raises HeadraceError when there is none."""


class _App(NamedTuple):
    """An app while it is read."""

    notes: Notes
    key: Key
    manifest: AppManifest


def read_apps(
    notes: Notes, data: dict[str, Any], model: SiteModel, packages: Packages
) -> tuple[SiteApp, ...]:
    """The apps of a site file, laid on its assets.

    Args:
        model: the site without apps and derived tags. packages: what is installed.
    """
    found = []
    for app_id, table in named_tables(notes, data, "app"):
        key = ("app", app_id)
        section = Section(notes, key, table, _APP)
        version = section.take("version", "a text", "", required=True)
        enabled = section.take("enabled", "true or false", True)
        if not _ID.fullmatch(app_id) or (version and not _VERSION.fullmatch(version)):
            what = f"{app_id!r} {version!r} is no app and its version"
            notes.at(key, "SITE-2104", what, 'Write [app.pump-efficiency], version = "1.0.0".')
            continue
        if not version:
            continue
        try:
            installed = packages(app_id, version)
        except HeadraceError as error:
            field = f"app.{app_id}.version"
            notes.error(notes.file, notes.line_of((*key, "version")), field, error)
            continue
        app = _App(notes, key, installed.manifest)
        if _is_other(app, app_id, version) or _is_too_long(app):
            continue
        found.append(_read_app(app, section, installed, model, enabled=enabled))
    return tuple(found)


def _is_other(app: _App, app_id: str, version: str) -> bool:
    other = app.manifest.id, app.manifest.version
    if other == (app_id, version):
        return False
    what = f"the package of {app_id} {version} is {other[0]} {other[1]}"
    app.notes.at(app.key, "SITE-2105", what, "Install the right one: headrace app install FILE")
    return True


def _is_too_long(app: _App) -> bool:
    words = [(kind, app.manifest.word + APP_DOT + kind) for kind in app.manifest.types]
    for kind, name in words:
        if len(name) > NAME_MAX or not NAME.match(kind):
            what = f"the needed type {kind!r} of {app.manifest.id} cannot be named {name!r}"
            app.notes.at(app.key, "SITE-2106", what, f"The app needs names of {NAME_MAX} at most.")
            return True
    return False


def _read_app(
    app: _App, section: Section, installed: InstalledApp, model: SiteModel, *, enabled: bool
) -> SiteApp:
    manifest = app.manifest
    given = _settings(app, ("settings",), section.take("settings", "a table", {}))
    settings = {name: each.default for name, each in manifest.settings.items()} | given
    placement = _placement(app, section)
    binds = tuple(_binds(app, section, model))
    read = SiteApp(
        manifest=manifest,
        sha256=installed.sha256,
        enabled=enabled,
        placement=placement,
        settings=settings,
        bind=binds,
        types=tuple(_types(app, placement, enabled=enabled)),
    )
    assets, unserved, twice = lay_app(read, model)
    for bind, path in twice:
        what = f"{path} is bound to the type {bind.needed} twice"
        key = (*app.key, "bind", bind.needed)
        app.notes.at(key, "SITE-2107", what, "Let the patterns of assets not meet.")
    return msgspec.structs.replace(read, assets=assets, unserved=unserved)


def _placement(app: _App, section: Section) -> Placement:
    """Where the site wants it, else where its maker does."""
    said = section.take("placement", "a text", app.manifest.placement)
    for place in PLACES:
        if said == place:
            return place
    what, remedy = f"{said!r} is no place of an app", 'Give "platform" or "edge".'
    app.notes.at((*app.key, "placement"), "SITE-2170", what, remedy)
    return app.manifest.placement


def _settings(app: _App, place: Key, table: Mapping[str, Any]) -> dict[str, SettingValue]:
    found: dict[str, SettingValue] = {}
    for name, value in table.items():
        key = (*app.key, *place, name)
        setting = app.manifest.settings.get(name)
        if setting is None:
            what = f"{app.manifest.id} has no setting {name!r}"
            app.notes.at(key, "SITE-1009", what, near(name, app.manifest.settings))
        elif (wrong := _wrong(setting, value)) is not None:
            what = f"{name} is {value!r}, not {wrong}"
            app.notes.at(key, "SITE-2108", what, f"Give {wrong}.")
        else:
            found[name] = float(value) if setting.kind == "number" else value
    return found


def _wrong(setting: Setting, value: Any) -> str | None:
    """What the value should be; None when it is."""
    wanted = _KINDS[setting.kind]
    unit = f" in {setting.unit}" if setting.unit else ""
    if not is_kind(value, wanted):
        return wanted + unit
    if setting.minimum is not None and setting.kind == "number" and value < setting.minimum:
        return f"{setting.minimum:g} or more{unit}"
    if setting.maximum is not None and setting.kind == "number" and value > setting.maximum:
        return f"{setting.maximum:g} or less{unit}"
    return None


# --- bind ---------------------------------------------------------------------------------------------


def _binds(app: _App, section: Section, model: SiteModel) -> Iterable[AppBind]:
    for needed, tables in section.take("bind", "a table", {}).items():
        key = (*app.key, "bind", needed)
        kind = app.manifest.types.get(needed)
        if kind is None:
            what = f"{app.manifest.id} needs no type {needed!r}"
            app.notes.at(key, "SITE-1009", what, near(needed, app.manifest.types))
            continue
        several = isinstance(tables, list)
        for number, table in enumerate(tables if several else [tables]):
            place = (*key, number) if several else key
            bind = _bind(app, Section(app.notes, place, table, _BIND), needed, kind, model)
            if bind is not None:
                yield bind


def _bind(
    app: _App, section: Section, needed: str, kind: NeededType, model: SiteModel
) -> AppBind | None:
    known = {each.name: each for each in model.asset_types}
    name = section.take("type", "a text", "", required=True)
    if name not in known:
        if name:
            remedy = near(name, known)
            section.wrong("type", f"the asset type {name!r} is not declared", remedy, "SITE-1009")
        return None
    its = known[name]
    quantities = _names(section, "quantities", {**kind.quantities, **kind.optional}, its.quantities)
    relations = _names(section, "relations", kind.relations, its.relations)
    attributes, values = _attributes(section, kind, its)
    paths = [asset.path for asset in model.assets if asset.type == name]
    bind = AppBind(
        needed=needed,
        type=name,
        line=section.notes.line_of(section.key),
        quantities=quantities,
        attributes=attributes,
        values=values,
        relations=relations,
        assets=_chosen(section, paths),
        settings=_own_settings(app, section, paths),
    )
    _note_lacking(section, kind, its, bind)
    return bind


def _names(
    section: Section, word: str, ours: Mapping[str, str], its: Mapping[str, str]
) -> dict[str, str]:
    """The app's name -> the site's, as far as both are known."""
    found = {name: name for name in ours if name in its}
    for name, other in section.take(word, "a table", {}).items():
        key = (*section.key, word, name)
        if name not in ours:
            section.notes.at(
                key, "SITE-1009", f"the app has no {_ONE[word]} {name!r}", near(name, ours)
            )
        elif not isinstance(other, str) or other not in its:
            remedy = near(str(other), its)
            section.notes.at(
                key, "SITE-1009", f"the site's type has no {_ONE[word]} {other!r}", remedy
            )
        else:
            found[name] = other
    return found


def _attributes(
    section: Section, kind: NeededType, its: AssetType
) -> tuple[dict[str, str], dict[str, float | str]]:
    """By name of the site's attribute; and of the others what all assets have."""
    table = section.take("attributes", "a table", {})
    values: dict[str, float | str] = {}
    names: dict[str, Any] = {}
    for name, value in table.items():
        given = value.get("value") if isinstance(value, dict) and len(value) == 1 else None
        given = value if is_kind(value, "a number") else given
        wanted = "a text" if kind.attributes.get(name) == "text" else "a number"
        if given is None or name not in kind.attributes:
            names[name] = value
        elif is_kind(given, wanted):
            values[name] = given if wanted == "a text" else float(given)
        else:
            what = f"{name} is {given!r}, not {wanted}"
            section.notes.at((*section.key, "attributes", name), "SITE-1005", what, "Correct it.")
    part = Section(section.notes, section.key, {"attributes": names}, ("attributes",))
    found = _names(part, "attributes", kind.attributes, its.attributes)
    return {name: other for name, other in found.items() if name not in values}, values


def _chosen(section: Section, paths: list[str]) -> tuple[str, ...]:
    """The assets that the patterns choose; without a pattern all."""
    if "assets" not in section.table:
        return tuple(paths)
    chosen: set[str] = set()
    for number, pattern in enumerate(section.take("assets", "a list", [])):
        key = (*section.key, "assets", number)
        try:
            expression = compile_pattern(str(pattern))
        except Misconfigured as error:
            field = ".".join(map(str, key))
            section.notes.error(section.notes.file, section.notes.line_of(key), field, error)
            continue
        found = [path for path in paths if expression.fullmatch(path)]
        chosen.update(found)
        if not found:
            remedy = near(str(pattern), paths) or "Give the path of an asset, or one with *."
            section.notes.at(key, "SITE-1009", f"no asset of the type is {pattern!r}", remedy)
    return tuple(path for path in paths if path in chosen)


def _own_settings(
    app: _App, section: Section, paths: list[str]
) -> dict[str, dict[str, SettingValue]]:
    found = {}
    for path, table in section.take("settings", "a table", {}).items():
        key = (*section.key, "settings", path)
        if path not in paths:
            remedy = near(path, paths)
            section.notes.at(key, "SITE-1009", f"no asset of the type is {path!r}", remedy)
        elif not isinstance(table, dict):
            what = f"settings of {path} are {table!r}, not a table"
            section.notes.at(key, "SITE-1005", what, "Make it a table.")
        else:
            found[path] = _settings(app, key[len(app.key) :], table)
    return found


def _note_lacking(section: Section, kind: NeededType, its: AssetType, bind: AppBind) -> None:
    """What the whole type lacks no asset of it can have: that is a mistake of the site file."""
    for word, names, has in (
        ("quantities", kind.quantities, bind.quantities),
        ("attributes", kind.attributes, {**bind.attributes, **bind.values}),
    ):
        for name, unit in names.items():
            if name not in has:
                what = f"nothing of {its.name} is bound to {name}, which the app needs"
                remedy = (
                    f'Add: {word} = {{ {name} = "..." }}, with what it is called in {its.name}.'
                )
                section.notes.at(
                    section.key, "SITE-2109", what + (f" in {unit}" if unit else ""), remedy
                )


# --- types --------------------------------------------------------------------------------------------


def _types(app: _App, placement: Placement, *, enabled: bool) -> Iterable[AssetType]:
    manifest = app.manifest
    settings = {name: each.measure for name, each in manifest.settings.items()}
    for name, kind in manifest.types.items():
        title, title_zh = said(manifest.title)
        yield AssetType(
            name=manifest.word + APP_DOT + name,
            title=title,
            title_zh=title_zh,
            quantities=manifest.readable(name),
            attributes={**settings, **kind.attributes},
            relations={
                relation: manifest.word + APP_DOT + other
                for relation, other in kind.relations.items()
                if other in manifest.types
            },
            formulas=(
                *_formulas(app, name, placement, enabled=enabled),
                *_drift_alarms(manifest, name, enabled=enabled),
            ),
            titles={n: said(text) for n, text in manifest.titles.get(name, {}).items()},
            package=kind.package,
        )


def said(text: Text) -> tuple[str, str]:
    """(English, Chinese) of a text.

    Example:
        >>> said({"en": "Efficiency"})
        ('Efficiency', '')
    """
    return text.get("en", ""), text.get("zh", "")


def _formulas(app: _App, needed: str, placement: Placement, *, enabled: bool) -> Iterable[Formula]:
    for line, source in split_statements(app.manifest.formulas.get(needed, "")):
        try:
            statement = parse_statement(source, line=line)
        except FormulaProblem as problem:
            note_app_formula(app.notes, app.manifest, needed, problem)
            continue
        is_alarm = isinstance(statement, AlarmStatement)
        where: Placement = "platform" if is_alarm else placement
        yield Formula(
            name=statement.name,
            kind="alarm" if is_alarm else "formula",
            text=source.rstrip(),
            line=line,
            state="live" if enabled else "off",
            placement=where,
        )


def _drift_alarms(manifest: AppManifest, needed: str, *, enabled: bool) -> Iterable[Formula]:
    """An alarm a model on each asset: its inputs are more unlike the training than chance allows."""
    for model in manifest.models_of(needed):
        drift = drift_name(model)
        yield Formula(
            name=f"{drift}_high",
            kind="alarm",
            text=_DRIFT_ALARM.format(drift=drift, model=model, app=manifest.id),
            state="live" if enabled else "off",
        )
