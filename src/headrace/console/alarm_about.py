"""What a person has to know of an alarm beside its state: its definition, its limit, the tags it reads.

All of it stands in the alarm's own text, which the desired state of the apps role carries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from headrace.alarms.definition import AlarmDefinition, definition_of
from headrace.formula.grammar import parse_statement
from headrace.formula.measure import measure_of
from headrace.formula.tree import Binary, For, Name, Node, Number
from headrace.model.errors import HeadraceError
from headrace.model.knowledge import AppsConfig, AssetConfig, FormulaConfig

_SIGNS: Final = {">": ">", "<": "<", ">=": "≥", "<=": "≤", "=": "=", "!=": "≠"}


class AlarmAbout(NamedTuple):
    """What an alarm's text says on one asset.

    Attributes:
        definition: None when the text is no more.
        limit: what a plain comparison compares with, such as ``> 80 degC``, else "".
        tag_ids: of the quantities that the condition reads on the asset, in their order.
    """

    definition: AlarmDefinition | None = None
    limit: str = ""
    tag_ids: tuple[int, ...] = ()

    def limit_in(self, unit: str) -> float | None:
        """The limit as a number in a unit; None without one, or of another dimension.

        Example:
            >>> AlarmAbout(limit="> 25 degC").limit_in("K")
            298.15
        """
        words = self.limit.split(" ", 2)
        limit = measure_of(words[2]) if len(words) == 3 else None
        shown = measure_of(unit or "1")
        if limit is None or shown is None or limit.dimension != shown.dimension:
            return None
        si = float(words[1]) * limit.factor + limit.offset
        return round((si - shown.offset) / shown.factor, 9)


class AlarmTexts:
    """The alarms' texts of one desired state; each is parsed when it is first asked for.

    Args:
        config: what the apps role runs; None when there is nothing yet.
    """

    def __init__(self, config: AppsConfig | None = None) -> None:
        formulas = config.formulas if config else ()
        self._texts = {
            f"{one.asset_type}.{one.name}": one for one in formulas if one.kind == "alarm"
        }
        assets = config.assets if config else ()
        self._assets = {(asset.type, asset.path): asset for asset in assets}
        self._types = {kind.name: kind for kind in config.types} if config else {}
        self._read: dict[str, tuple[AlarmDefinition, Node, str] | None] = {}
        self._known: dict[tuple[str, str], AlarmAbout] = {}

    @property
    def defined(self) -> bool:
        """Whether any alarm is defined."""
        return bool(self._texts)

    def about(self, key: str, asset: str) -> AlarmAbout:
        """What is known of an alarm; nothing when its text is no more.

        Args:
            key: ``<asset type>.<name>``. asset: path.
        """
        found = self._known.get((key, asset))
        if found is None:
            found = self._known[key, asset] = self._about(key, asset)
        return found

    def _about(self, key: str, asset: str) -> AlarmAbout:
        if key not in self._read:
            self._read[key] = _read(self._texts.get(key))
        read = self._read[key]
        if read is None:
            return AlarmAbout()
        definition, expression, source = read
        place = key.rpartition(".")[0], asset
        tag_ids = tuple(dict.fromkeys(self._tag_ids(expression, place)))
        return AlarmAbout(definition, limit_of(expression, source), tag_ids)

    def _tag_ids(self, expression: Node, place: tuple[str, str]) -> Iterator[int]:
        for name in names_of(expression):
            found = self._tag_id(self._assets.get(place), name)
            if found is not None:
                yield found

    def _tag_id(self, asset: AssetConfig | None, name: str) -> int | None:
        """Of a quantity or an earlier formula, here or on the asset that a relation leads to."""
        if asset is None:
            return None
        relation, dot, rest = name.partition(".")
        if dot:
            kind = self._types.get(asset.type)
            place = (
                kind.relations.get(relation, "") if kind else "",
                asset.relations.get(relation, ""),
            )
            return self._tag_id(self._assets.get(place), rest)
        return asset.tags.get(name, asset.outputs.get(name))


def _read(config: FormulaConfig | None) -> tuple[AlarmDefinition, Node, str] | None:
    if config is None:
        return None
    try:
        statement = parse_statement(config.text)
        return definition_of(config), statement.expression, statement.source
    except HeadraceError:
        return None  # the keeper checked it and says what is wrong; the state is shown all the same


def limit_of(expression: Node, source: str) -> str:
    """What a plain comparison with a number compares with; "" for any other condition.

    Example:
        >>> hot = parse_statement("alarm hot: t >= 80 degC for 5 min")
        >>> limit_of(hot.expression, hot.source)
        '≥ 80 degC'
    """
    bare = expression.condition if isinstance(expression, For) else expression
    if not isinstance(bare, Binary) or not isinstance(bare.right, Number):
        return ""
    sign, place = _SIGNS.get(bare.operator), bare.right.place
    return f"{sign} {source[place.start : place.end]}" if sign else ""


def names_of(node: Any) -> Iterator[str]:
    """Names in an expression, in their order."""
    if isinstance(node, Name):
        yield node.name
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield from names_of(getattr(node, field.name))
    elif isinstance(node, tuple):
        for part in node:
            yield from names_of(part)
