"""Assets and asset types as Asset Administration Shells (IDTA 01001-3-0), in JSON, and back.

::

    [asset_type.pump]  ──►  Submodel of kind Template: Quantities, Attributes, Relations, each with its unit
    [asset."hall/p1"]  ──►  AssetAdministrationShell with a Submodel: Attributes and Relations with values

Formulas and tags are not in it: they are how this site measures, not what the asset is. What cannot be taken
from a file is told by its name.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from basyx.aas import model as aas
from basyx.aas.adapter.json import read_aas_json_file, write_aas_json_file

from headrace.model.errors import Misconfigured, Refused
from headrace.model.ids import NAME
from headrace.site.model import Asset, AssetType, SiteModel

FILE_BYTES_MAX: Final = 1 << 25
DEPTH_MAX: Final = 64
TYPE_SEMANTIC: Final = "urn:headrace:aas:asset-type:1"
ASSET_SEMANTIC: Final = "urn:headrace:aas:asset:1"
_GROUPS: Final = ("Quantities", "Attributes", "Relations")
_NAME: Final = "headrace:name"
_UNIT: Final = "headrace:unit"
_PACKAGE: Final = "headrace:package"
_KINDS: Final[Mapping[str, type]] = {"text": str, "condition": bool}


class AasContent(NamedTuple):
    """What a file has for a site. ``refused``: what it has besides, each by its id, with the reason."""

    types: tuple[AssetType, ...]
    assets: tuple[Asset, ...]
    refused: tuple[str, ...]


def aas_json(model: SiteModel) -> bytes:
    """All assets and asset types of a site as an AAS environment in JSON."""
    out = io.StringIO()
    write_aas_json_file(out, environment(model), indent=1)
    return out.getvalue().encode()


def environment(model: SiteModel) -> aas.DictIdentifiableStore[Any]:
    """All assets and asset types of a site as shells and submodels."""
    prefix = f"urn:headrace:site:{model.enterprise}:{model.name}"
    store: aas.DictIdentifiableStore[Any] = aas.DictIdentifiableStore()
    for kind in model.asset_types:
        store.add(_type_submodel(prefix, kind))
    kinds = {kind.name: kind for kind in model.asset_types}
    for asset in model.assets:
        submodel = _asset_submodel(prefix, asset, kinds[asset.type])
        store.add(submodel)
        information = aas.AssetInformation(
            global_asset_id=f"{prefix}:asset:{asset.path}", asset_type=_type_id(prefix, asset.type)
        )
        store.add(
            aas.AssetAdministrationShell(
                information,
                f"{prefix}:shell:{asset.path}",
                id_short=_id_short(asset.path),
                display_name=_titles(asset.title, asset.title_zh),
                submodel={aas.ModelReference.from_referable(submodel)},
                extension=[_extension(_NAME, asset.path)],
            )
        )
    return store


def _type_id(prefix: str, name: str) -> str:
    return f"{prefix}:asset-type:{name}"


def _type_submodel(prefix: str, kind: AssetType) -> aas.Submodel:
    groups = zip(_GROUPS, (kind.quantities, kind.attributes, kind.relations), strict=True)
    return aas.Submodel(
        _type_id(prefix, kind.name),
        [
            _group(
                group,
                (_declared(id_short, n, names[n]) for n, id_short in _id_shorts(names).items()),
            )
            for group, names in groups
        ],
        id_short=_id_short(kind.name),
        display_name=_titles(kind.title, kind.title_zh),
        semantic_id=_semantic(TYPE_SEMANTIC),
        kind=aas.ModellingKind.TEMPLATE,
        extension=[_extension(_NAME, kind.name), _extension(_PACKAGE, kind.package)],
    )


def _declared(id_short: str, name: str, unit: str) -> aas.Property:
    extension = [_extension(_NAME, name), _extension(_UNIT, unit)]
    return aas.Property(id_short, cast("Any", _KINDS.get(unit, float)), extension=extension)


def _asset_submodel(prefix: str, asset: Asset, kind: AssetType) -> aas.Submodel:
    attributes = (
        aas.Property(
            id_short,
            str if isinstance(asset.attributes[name], str) else float,
            asset.attributes[name],
            extension=[_extension(_NAME, name), _extension(_UNIT, kind.attributes[name])],
        )
        for name, id_short in _id_shorts(asset.attributes).items()
    )
    relations = (
        aas.ReferenceElement(
            id_short,
            _semantic(f"{prefix}:asset:{asset.relations[name]}"),
            extension=[_extension(_NAME, name)],
        )
        for name, id_short in _id_shorts(asset.relations).items()
    )
    return aas.Submodel(
        f"{prefix}:asset-data:{asset.path}",
        [_group("Attributes", attributes), _group("Relations", relations)],
        id_short="AssetData",
        semantic_id=_semantic(ASSET_SEMANTIC),
    )


def _group(name: str, elements: Iterable[aas.SubmodelElement]) -> aas.SubmodelElementCollection:
    return aas.SubmodelElementCollection(name, list(elements))


def _extension(name: str, value: str) -> aas.Extension:
    return aas.Extension(name, str, value)


def _semantic(text: str) -> aas.ExternalReference:
    return aas.ExternalReference((aas.Key(aas.KeyTypes.GLOBAL_REFERENCE, text),))


def _titles(en: str, zh: str) -> aas.MultiLanguageNameType | None:
    found = {language: text[:128] for language, text in (("en", en), ("zh", zh)) if text}
    return aas.MultiLanguageNameType(found) if found else None


def _id_short(name: str) -> str:
    """An idShort (AASd-002: a letter first, then A-Z a-z 0-9 _) like a name; that is an extension."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:100]
    return word if word[:1].isalpha() else f"n{word}"


def _id_shorts(names: Iterable[str]) -> dict[str, str]:
    """Name -> idShort, no two the same, whatever case (AASd-022)."""
    found: dict[str, str] = {}
    used: set[str] = set()
    for name in names:
        word, number = _id_short(name), 1
        while word.casefold() in used:
            number += 1
            word = f"{_id_short(name)}_{number}"
        used.add(word.casefold())
        found[name] = word
    return found


# --- back ---------------------------------------------------------------------------------------------


def read_aas(content: bytes) -> AasContent:
    """What an AAS environment in JSON has for a site.

    Raises:
        Refused: APPS-2131 when it is too large or nested too deeply.
        Misconfigured: APPS-2132 when it is no AAS environment.
    """
    return content_of(parse_json(content))


def content_of(store: Iterable[Any], refused: Iterable[str] = ()) -> AasContent:
    """What shells and submodels have for a site.

    Args:
        refused: what was left out before.
    """
    found = _Taking(store).run()
    return found._replace(refused=(*refused, *found.refused))


def parse_json(content: bytes) -> aas.DictIdentifiableStore[Any]:
    """The shells and submodels of an environment in JSON.

    Raises:
        HeadraceError: what :func:`read_aas` raises.
    """
    if len(content) > FILE_BYTES_MAX:
        raise Refused("APPS-2131", "the file has over 32 MB", "Export fewer assets at once.")
    _check_depth(content)
    try:
        _check_lists(json.loads(content))
        text = io.StringIO(content.decode("utf-8-sig"))
        return read_aas_json_file(text, failsafe=False)
    except (ValueError, KeyError, TypeError, AttributeError, aas.AASConstraintViolation) as error:
        what = f"this is no AAS environment in JSON: {error}"
        raise Misconfigured("APPS-2132", what, "Export it as JSON of version 3.") from error


def _check_lists(found: object) -> None:
    """The parser takes what is no list for none."""
    words = ("assetAdministrationShells", "submodels", "conceptDescriptions")
    if not isinstance(found, dict) or not all(isinstance(found.get(w, []), list) for w in words):
        raise ValueError("it has no lists of shells and submodels")


def _check_depth(content: bytes) -> None:
    depth = 0
    for each in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", content):
        depth += (each in b"[{") - (each in b"]}")
        if depth > DEPTH_MAX:
            raise Refused("APPS-2131", f"it is nested over {DEPTH_MAX} deep", "Correct the file.")


class _Taking:
    """One file, as it is taken."""

    def __init__(self, store: Iterable[Any]) -> None:
        self._all = sorted(store, key=lambda each: str(each.id))
        self._submodels = {each.id: each for each in self._all if isinstance(each, aas.Submodel)}
        self.refused: list[str] = []
        self._used: set[str] = set()

    def run(self) -> AasContent:
        types = {kind.name: kind for kind in self._types()}
        assets = tuple(self._assets(types))
        for each in self._all:
            if each.id not in self._used:
                self._refuse(each, "it says nothing of an asset or asset type of Headrace")
        return AasContent(tuple(types.values()), assets, tuple(self.refused))

    def _refuse(self, each: Any, why: str) -> None:
        self._used.add(each.id)
        self.refused.append(f"{type(each).__name__} {each.id}: {why}")

    def _types(self) -> Iterable[AssetType]:
        for each in self._submodels.values():
            if _meaning(each) != TYPE_SEMANTIC:
                continue
            name = _said(each, _NAME)
            if not NAME.match(name):
                self._refuse(each, f"it has the name {name!r}")
                continue
            quantities, attributes, relations = (self._units(each, group) for group in _GROUPS)
            title, title_zh = _title(each)
            self._used.add(each.id)
            yield AssetType(
                name=name,
                title=title,
                title_zh=title_zh,
                quantities=quantities,
                attributes=attributes,
                relations=relations,
                package=_said(each, _PACKAGE),
            )

    def _units(self, submodel: aas.Submodel, group: str) -> dict[str, str]:
        return {_said(each, _NAME): _said(each, _UNIT) for each in self._elements(submodel, group)}

    def _elements(self, submodel: aas.Submodel, group: str) -> list[Any]:
        found = []
        for each in submodel.submodel_element:
            if each.id_short != group or not isinstance(each, aas.SubmodelElementCollection):
                if each.id_short not in _GROUPS:
                    self._lose(submodel, each)
                continue
            for part in each.value:
                if isinstance(part, aas.Property | aas.ReferenceElement) and _said(part, _NAME):
                    found.append(part)
                else:
                    self._lose(submodel, part)
        return found

    def _lose(self, submodel: aas.Submodel, each: Any) -> None:
        said = f"{type(each).__name__} {each.id_short} of {submodel.id}: it has no place in a site file"
        if said not in self.refused:
            self.refused.append(said)

    def _assets(self, types: Mapping[str, AssetType]) -> Iterable[Asset]:
        for shell in self._all:
            if not isinstance(shell, aas.AssetAdministrationShell):
                continue
            data = [self._submodels.get(ref.key[-1].value) for ref in shell.submodel]
            mine = next((one for one in data if one and _meaning(one) == ASSET_SEMANTIC), None)
            kind = str(shell.asset_information.asset_type or "").rpartition(":asset-type:")[2]
            if mine is None or kind not in types:
                why = "none of its submodels is of an asset of Headrace"
                self._refuse(
                    shell, why if mine is None else f"its type {kind!r} is not in the file"
                )
                continue
            self._used |= {shell.id, mine.id}
            yield self._asset(shell, mine, kind)

    def _asset(self, shell: aas.AssetAdministrationShell, data: aas.Submodel, kind: str) -> Asset:
        attributes = {_said(e, _NAME): e.value for e in self._elements(data, "Attributes")}
        relations = {
            _said(e, _NAME): str(e.value.key[-1].value).rpartition(":asset:")[2]
            for e in self._elements(data, "Relations")
            if isinstance(e, aas.ReferenceElement) and e.value is not None
        }
        title, title_zh = _title(shell)
        return Asset(
            path=_said(shell, _NAME),
            type=kind,
            title=title,
            title_zh=title_zh,
            attributes={
                name: value if isinstance(value, str) else float(value)
                for name, value in attributes.items()
                if isinstance(value, str | float | int)
            },
            relations=relations,
        )


def _said(each: Any, name: str) -> str:
    found = (one.value for one in each.extension if one.name == name)
    return str(next(found, "") or "")


def _meaning(submodel: aas.Submodel) -> str:
    keys = submodel.semantic_id.key if submodel.semantic_id is not None else ()
    return str(keys[-1].value) if keys else ""


def _title(each: Any) -> tuple[str, str]:
    names = dict(each.display_name or {})
    return names.get("en", ""), names.get("zh", "")


# --- into a site file -----------------------------------------------------------------------------------


def site_tables(content: AasContent) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """``[asset_type.NAME]`` and ``[asset."path"]`` tables of what a file has; what is empty is left out."""
    types = {
        kind.name: _table(
            title=_title_table(kind.title, kind.title_zh), package=kind.package,
            quantities=kind.quantities, attributes=kind.attributes, relations=kind.relations,
        )
        for kind in content.types
    }  # fmt: skip
    assets = {
        asset.path: _table(
            title=_title_table(asset.title, asset.title_zh), type=asset.type,
            attributes=asset.attributes, relations=asset.relations,
        )
        for asset in content.assets
    }  # fmt: skip
    return types, assets


def _title_table(en: str, zh: str) -> str | dict[str, str]:
    return {"en": en, "zh": zh} if zh else en


def _table(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
