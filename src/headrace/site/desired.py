"""Cuts a checked site into what each edge runs and what the historian must know."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.model.deployment import AppDeployment
from headrace.model.desired import (
    ConnectionConfig,
    EdgeConfig,
    HistorianConfig,
    TagConfig,
    TagGroupConfig,
)
from headrace.model.knowledge import LOCAL_EDGE, AppsConfig
from headrace.site.app_places import parts_of
from headrace.site.file import connection_config, tag_config
from headrace.site.model import SiteModel
from headrace.site.placement import edge_apps
from headrace.site.protection_section import rules_of
from headrace.site.registry import Registry


def edge_configs(
    model: SiteModel,
    ids: dict[str, int],
    known_edges: Iterable[str] = (),
    apps: AppsConfig | None = None,
    deployed: Iterable[AppDeployment] = (),
) -> dict[str, EdgeConfig]:
    """Edge -> all that it runs. Connections are sorted by name, tags by id: equal content, equal hash.

    Args:
        ids: path -> tag_id, from :meth:`Registry.ids` after the model was applied.
        known_edges: edges that exist besides; those without a connection are told to run nothing.
        apps: what engineers wrote; each edge gets what it evaluates of it.
        deployed: installed apps; each edge gets those that serve assets there, as far as they do.
    """
    tags: dict[str, list[TagConfig]] = {}
    for tag in model.tags:
        tags.setdefault(tag.connection, []).append(tag_config(tag, ids[tag.path]))
    connections: dict[str, list[ConnectionConfig]] = {edge: [] for edge in known_edges}
    for connection in sorted(model.connections, key=lambda each: each.name):
        own = tuple(sorted(tags.get(connection.name, ()), key=lambda tag: tag.tag_id))
        rules = rules_of(model.protections, {tag.path: tag.tag_id for tag in own})
        config = msgspec.structs.replace(connection_config(connection, own), protection=rules)
        connections.setdefault(connection.edge, []).append(config)
    every = tuple(deployed)
    return {
        edge: EdgeConfig(
            enterprise=model.enterprise,
            site=model.name,
            edge=edge,
            connections=tuple(own),
            apps=edge_apps(apps, edge) if apps is not None else None,
            zones=model.zones,
            deployments=parts_of(every, edge) if edge != LOCAL_EDGE else (),
        )
        for edge, own in sorted(connections.items())
    }


def historian_config(model: SiteModel, registry: Registry) -> HistorianConfig:
    """Groups with their retention, and the tags outside ``default``.

    Retired tags stay in their group, so that their samples leave when they were meant to; when their
    group itself is gone they are kept.
    """
    groups = {
        group.name: TagGroupConfig(retention_days=group.retention_days) for group in model.groups
    }
    return HistorianConfig(
        groups=groups,
        tag_groups={
            record.tag_id: record.group
            for record in sorted(
                registry.find("*", include_retired=True), key=lambda record: record.tag_id
            )
            if record.group != "default" and record.group in groups
        },
    )
