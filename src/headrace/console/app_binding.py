"""What of the site fits the needed types of an app: a proposal that people correct. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.model.app_manifest import NeededType
from headrace.model.knowledge import APP_DOT, AppsConfig, AssetTypeConfig
from headrace.site.app_assets import scale_of

LIKE: Final = 0.6
"""From this share of equal letters on two names are taken for the same."""


@dataclass
class Proposal:
    """What serves one needed type; by the app's names.

    Attributes:
        type: of the site; "" when none fits. values: attributes that all assets have.
    """

    type: str = ""
    quantities: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    relations: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


def site_types(apps: AppsConfig | None) -> list[AssetTypeConfig]:
    """The site's own asset types, without those of apps."""
    return [kind for kind in apps.types if APP_DOT not in kind.name] if apps is not None else []


def propose(
    name: str,
    needed: NeededType,
    types: Sequence[AssetTypeConfig],
    table: Mapping[str, object],
    chosen: str | None = None,
) -> Proposal:
    """What is written in the site file; where nothing is, what fits best.

    Args:
        table: ``[app.ID]`` as written. chosen: a type of the site that a person chose.

    Example:
        >>> kind = AssetTypeConfig(name="pumpe", quantities={"durchfluss": "m3/h", "druck": "bar"})
        >>> found = propose("pump", NeededType(package="pump", quantities={"flow": "l/s"}), [kind], {})
        >>> found.type, found.quantities
        ('pumpe', {'flow': 'durchfluss'})
    """
    written = _written(name, table)
    if written is not None and chosen is None:
        return _as_written(written, needed, types)
    best, most = Proposal(), -1.0
    for kind in types:
        if chosen not in (None, kind.name):
            continue
        found = _fit(needed, kind)
        share = len(found.quantities.keys() & needed.quantities.keys()) / max(
            len(needed.quantities), 1
        )
        share += 0.5 * (kind.name == needed.package) + 0.1 * _like(kind.name, needed.package)
        if share > most and (chosen is not None or share >= LIKE):
            best, most = found, share
    return best


def _written(name: str, table: Mapping[str, object]) -> dict[str, Any] | None:
    bind = table.get("bind")
    found = bind.get(name) if isinstance(bind, dict) else None
    return found if isinstance(found, dict) else None


def _as_written(
    written: dict[str, Any], needed: NeededType, types: Sequence[AssetTypeConfig]
) -> Proposal:
    """What is not written goes by the same name, as in the site file."""
    its = next(
        (kind for kind in types if kind.name == written.get("type")), AssetTypeConfig(name="")
    )
    ours = {**needed.quantities, **needed.optional}
    same = {
        "quantities": {name: name for name in ours if name in its.quantities},
        "attributes": {name: name for name in needed.attributes if name in its.attributes},
        "relations": {name: name for name in needed.relations if name in its.relations},
    }

    def names(word: str) -> dict[str, str]:
        given = written.get(word, {})
        said = given.items() if isinstance(given, dict) else ()
        return same[word] | {key: value for key, value in said if isinstance(value, str)}

    attributes = written.get("attributes", {})
    values = {
        key: str(value["value"] if isinstance(value, dict) and "value" in value else value)
        for key, value in (attributes.items() if isinstance(attributes, dict) else ())
        if not isinstance(value, str)
    }
    return Proposal(
        type=str(written.get("type", "")),
        quantities=names("quantities"),
        attributes={k: v for k, v in names("attributes").items() if k not in values},
        relations=names("relations"),
        values=values,
        kept={word: written[word] for word in ("assets", "settings") if word in written},
    )


def _fit(needed: NeededType, kind: AssetTypeConfig) -> Proposal:
    quantities = _names(
        {**needed.quantities, **needed.optional}, kind.quantities, alone=needed.quantities
    )
    attributes = _names(needed.attributes, kind.attributes, alone=needed.attributes)
    relations = {name: name for name in needed.relations if name in kind.relations}
    return Proposal(kind.name, quantities, attributes, relations)


def _names(
    ours: Mapping[str, str], its: Mapping[str, str], alone: Mapping[str, str]
) -> dict[str, str]:
    """The same name, then one like it, then the only one left whose unit fits."""
    found = {name: name for name, unit in ours.items() if name in its and _fits(its[name], unit)}
    for name, unit in ours.items():
        if name in found:
            continue
        left = [one for one, had in its.items() if one not in found.values() and _fits(had, unit)]
        like = [one for one in left if _like(one, name) >= LIKE]
        best = max(like, key=lambda one: _like(one, name), default="")
        if not best and len(left) == 1 and name in alone:
            best = left[0]
        if best:
            found[name] = best
    return found


def _fits(its: str, ours: str) -> bool:
    return scale_of(its, ours) is not None


def _like(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio()


def bind_table(
    proposals: Mapping[str, Proposal], needed: Mapping[str, NeededType]
) -> dict[str, dict[str, Any]]:
    """``bind`` of ``[app.ID]``: names that are the same are left out, as people would.

    Example:
        >>> needed = {"pump": NeededType(package="pump", attributes={"rated": "kW"})}
        >>> pumpe = Proposal("pumpe", {"flow": "q", "head": "head"}, values={"rated": "5"})
        >>> bind_table({"pump": pumpe}, needed)
        {'pump': {'type': 'pumpe', 'quantities': {'flow': 'q'}, 'attributes': {'rated': 5.0}}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name, proposal in proposals.items():
        if not proposal.type:
            continue
        table: dict[str, Any] = {"type": proposal.type}
        for word in ("quantities", "relations"):
            given: dict[str, str] = getattr(proposal, word)
            others = {ours: its for ours, its in given.items() if its and its != ours}
            if others:
                table[word] = others
        kinds = needed[name].attributes
        attributes: dict[str, Any] = {
            ours: its for ours, its in proposal.attributes.items() if its and its != ours
        }
        attributes |= {k: _value(v, kinds.get(k, "")) for k, v in proposal.values.items()}
        if attributes:
            table["attributes"] = attributes
        found[name] = {**table, **proposal.kept}
    return found


def _value(text: str, unit: str) -> Any:
    """A number, or a text as a table of its own, since a plain text is the name of an attribute."""
    if unit == "text":
        return {"value": text}
    try:
        return float(text)
    except ValueError:
        return text  # a name: the site file's check says that there is none
