"""Which assets a formula can run on, and what its names mean there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.formula.check import Quantity
from headrace.historian.formulas import AssetTags, kinds_of
from headrace.historian.reader import Reader
from headrace.model.errors import Misconfigured
from headrace.site.registry import compile_pattern


def equipment_of(paths: Iterable[tuple[str, int]], pattern: str) -> list[AssetTags]:
    """Equipment whose path matches, with the tags right below it.

    Args:
        paths: path and id of each tag.
        pattern: glob over equipment paths, such as ``utilities/*/pump_*``.

    Raises:
        Misconfigured: SITE-2001 when nothing matches.

    Example:
        >>> equipment_of([("hall/pump_1/flow", 7), ("hall/pump_2/flow", 8)], "hall/pump_*")[1].tags
        {'flow': 8}
    """
    matches = compile_pattern(pattern)
    found: dict[str, dict[str, int]] = {}
    for path, tag_id in paths:
        equipment, _, name = path.rpartition("/")
        if matches.fullmatch(equipment):
            found.setdefault(equipment, {})[name] = tag_id
    if not found:
        raise Misconfigured(
            "SITE-2001", f"no equipment matches {pattern!r}", "See it with: headrace site show"
        )
    return [AssetTags(path, tags) for path, tags in sorted(found.items())]


def quantities_of(
    assets: Sequence[AssetTags], units: dict[int, str], reader: Reader
) -> dict[str, Quantity]:
    """What formulas may name on all of the assets, with units and kinds.

    Args:
        units: of tags by id.

    Raises:
        Misconfigured: SITE-2002 when assets have one quantity in different units.
    """
    names = set(assets[0].tags).intersection(*(asset.tags for asset in assets[1:]))
    kinds = kinds_of(reader, [asset.tags[name] for asset in assets for name in names])
    found = {}
    for name in sorted(names):
        ids = [asset.tags[name] for asset in assets]
        different = sorted({units.get(tag_id, "") for tag_id in ids})
        if len(different) > 1:
            raise Misconfigured(
                "SITE-2002",
                f"{name} is in {' and '.join(different)} on {assets[0].path} and others",
                "Evaluate the formula on assets whose quantities have one unit.",
            )
        kind = "text" if any(kinds[tag_id] == "text" for tag_id in ids) else "number"
        found[name] = Quantity(kind, different[0] or "1")  # type: ignore[arg-type] # one of the two
    return found
