"""What of the site serves the needed types of an app, as a form that people correct. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.apps.asset_types.proposal import Proposal as Fitted
from headrace.apps.asset_types.proposal import TypeProposal
from headrace.model.app_manifest import NeededType
from headrace.model.knowledge import APP_DOT, AppsConfig, AssetTypeConfig


@dataclass
class Proposal:
    """What serves one needed type; by the app's names.

    Attributes:
        type: of the site; "" when that is to be chosen. values: attributes that all assets have.
        kept: of the site file, as it is. reasons: why a name is proposed.
        several: tables, where several types of the site serve it; they are kept as they are.
    """

    type: str = ""
    quantities: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    relations: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    several: list[dict[str, Any]] = field(default_factory=list)


def site_types(apps: AppsConfig | None) -> list[AssetTypeConfig]:
    """The site's own asset types, without those of apps."""
    return [kind for kind in apps.types if APP_DOT not in kind.name] if apps is not None else []


def form_of(
    name: str,
    needed: NeededType,
    types: Sequence[AssetTypeConfig],
    table: Mapping[str, object],
    fitted: Fitted,
) -> Proposal:
    """What is written in the site file; where nothing is, what is clear. What is not is asked.

    Args:
        table: ``[app.ID]`` as written. fitted: what :func:`headrace.apps.asset_types.proposal.propose` says.
    """
    bind = table.get("bind")
    written = bind.get(name) if isinstance(bind, dict) else None
    if isinstance(written, list) and len(written) == 1:
        written = written[0]
    if isinstance(written, list):
        return Proposal(several=written)
    if isinstance(written, dict):
        return _as_written(written, needed, types)
    found = [each for each in fitted.types if each.needed == name]
    if len(found) > 1:
        return Proposal(several=fitted.section()["bind"][name])
    return _of(found[0], needed, types) if found else Proposal()


def _of(kind: TypeProposal, needed: NeededType, types: Sequence[AssetTypeConfig]) -> Proposal:
    its = next((one for one in types if one.name == kind.type), AssetTypeConfig(name=kind.type))
    clear = {
        each.name: each.chosen.name for each in kind.names if each.chosen is not None
    }  # the rest is asked
    numbers = {**needed.quantities, **needed.optional}
    return Proposal(
        type=kind.type,
        quantities={name: one for name, one in clear.items() if name in numbers},
        attributes={name: one for name, one in clear.items() if name in needed.attributes},
        relations={name: name for name in needed.relations if name in its.relations},
        reasons={each.name: each.chosen.reason for each in kind.names if each.chosen is not None},
    )


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


def bind_table(
    proposals: Mapping[str, Proposal], needed: Mapping[str, NeededType]
) -> dict[str, Any]:
    """``bind`` of ``[app.ID]``: names that are the same are left out, as people would.

    Example:
        >>> needed = {"pump": NeededType(package="pump", attributes={"rated": "kW"})}
        >>> pumpe = Proposal("pumpe", {"flow": "q", "head": "head"}, values={"rated": "5"})
        >>> bind_table({"pump": pumpe}, needed)
        {'pump': {'type': 'pumpe', 'quantities': {'flow': 'q'}, 'attributes': {'rated': 5.0}}}
    """
    found: dict[str, Any] = {}
    for name, proposal in proposals.items():
        if proposal.several:
            found[name] = proposal.several
            continue
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
