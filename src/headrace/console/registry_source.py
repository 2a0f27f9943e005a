"""The site registry as the console reads it."""

from __future__ import annotations

from typing import Any

from headrace.console.site_view import TagView
from headrace.model.why_facts import WhyTag
from headrace.site.knowledge import FormulaVersion
from headrace.site.registry import EquipmentNode, Registry
from headrace.site.why import find_tag


class RegistrySource:
    """Tags and equipment of the applied site file; every call may block.

    Args:
        registry: open; this object only reads.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def fingerprint(self) -> str:
        """Text that changes each time a site file was applied."""
        site = self._registry.site()
        return f"{site.revision}/{site.content_hash}" if site else "none"

    def tags(self) -> list[TagView]:
        """All tags in use."""
        fields = TagView.__struct_fields__
        return [
            TagView(**{name: getattr(record, name) for name in fields})
            for record in self._registry.find()
        ]

    def find_tag(self, name: str) -> WhyTag:
        """The tag of a path, an earlier path or an id, also one that left the site file.

        Raises:
            Misconfigured: SITE-1801 when there is none, or several.
        """
        return find_tag(self._registry, name)

    def formula_versions(self, asset_type: str, name: str) -> list[FormulaVersion]:
        """Versions of a formula, oldest first."""
        return self._registry.formula_versions(asset_type, name)

    def about(self) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """Attributes of the site with its types' quantities, and the titles of its equipment."""
        site = self._registry.site()
        if site is None:
            return {}, {}
        titles: dict[str, tuple[str, str]] = {}
        types = self._registry.asset_types()
        _collect(self._registry.equipment(), titles)
        about = {
            "enterprise": site.enterprise,
            "name": site.name,
            "title": site.title,
            "title_zh": site.title_zh,
            "time_zone": site.time_zone,
            "apps": self._registry.apps(),
            "quantities": {kind.name: list(kind.quantities) for kind in types},
        }
        return about, titles


def _collect(node: EquipmentNode, titles: dict[str, tuple[str, str]]) -> None:
    if node.path and (node.title or node.title_zh):
        titles[node.path] = (node.title or node.title_zh, node.title_zh)
    for child in node.children:
        _collect(child, titles)
