"""Which names a view may show: quantities, formulas and outputs of a needed type, and its alarms."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.formula.grammar import parse_file
from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import AlarmStatement
from headrace.model.app_manifest import AppManifest, Text


class ShownName(msgspec.Struct, frozen=True, kw_only=True):
    """One name.

    Attributes:
        unit: of a quantity or output; of a formula empty, its tag says it.
    """

    name: str
    kind: Literal["quantity", "formula", "output", "alarm"]
    unit: str = ""
    title: Text = {}


def shown_names(manifest: AppManifest, needed_type: str) -> dict[str, ShownName]:
    """The names of a needed type; empty for a type that the app does not need.

    Example:
        >>> from headrace.model.app_manifest import NeededType
        >>> needed = {"pump": NeededType(package="pump", quantities={"flow": "m3/h"})}
        >>> app = AppManifest(id="a", version="1.0.0", title={}, types=needed,
        ...                   formulas={"pump": "double = 2 * flow"})
        >>> {name: one.kind for name, one in shown_names(app, "pump").items()}
        {'flow': 'quantity', 'double': 'formula'}
    """
    needed = manifest.types.get(needed_type)
    if needed is None:
        return {}
    found = {
        name: ShownName(name=name, kind="quantity", unit=unit)
        for name, unit in {**needed.quantities, **needed.optional}.items()
    }
    titles = manifest.titles.get(needed_type, {})
    for name, is_alarm in _statements(manifest.formulas.get(needed_type, "")):
        kind: Literal["alarm", "formula"] = "alarm" if is_alarm else "formula"
        found[name] = ShownName(name=name, kind=kind, title=titles.get(name, {}))
    for output in manifest.outputs:
        if output.type == needed_type:
            found[output.name] = ShownName(
                name=output.name, kind="output", unit=output.unit, title=output.title
            )
    return found


def _statements(text: str) -> list[tuple[str, bool]]:
    """(name, is an alarm) of each statement; none of a text that cannot be read, which the package's own
    check tells with its place."""
    try:
        return [(each.name, isinstance(each, AlarmStatement)) for each in parse_file(text)]
    except FormulaProblem:
        return []
