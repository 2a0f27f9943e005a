"""What one actor may see of the site: its tags, equipment, assets and alarms, and nothing else.

Pages and routes take tags from here, never from the whole site, so that what an actor may not read is not
there for it: not by path, not by id, not in a list, a search or a formula.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

import msgspec

from headrace.alarms.metrics import AlarmMetrics
from headrace.alarms.store import JournalFilter, JournalLine
from headrace.console.alarm_about import AlarmAbout
from headrace.console.alarm_lines import badge
from headrace.console.alarms import Act, AlarmBoard
from headrace.console.site_view import SiteView, TagView, UnitView
from headrace.model.alarm import AlarmState, CommandAnswer
from headrace.model.errors import Refused
from headrace.model.knowledge import AppsConfig, AssetTypeConfig
from headrace.security.audit import AuditChain
from headrace.security.engine import Engine
from headrace.security.policy import Actor, decide, in_force

KEPT_MAX: Final = 64
PAGES_MAX: Final = 100
_OF_TAGS: Final = re.compile(r"\bTag\b|\bkind\b")


def may_see(actor: Actor, equipment: str) -> bool:
    """Whether an actor reads what lies in equipment."""
    return decide(actor, "read", f"equipment/{equipment}").allowed


def is_whole(actor: Actor) -> bool:
    """Whether an actor reads all of the site, so that nothing has to be left out."""
    return not in_force().policies.own and decide(actor, "read", "site").allowed


class Scopes:
    """The site as each actor sees it, kept until the site, the policy or the actor's rights change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Actor, tuple[SiteView, Engine, SiteView]] = OrderedDict()

    def site(self, site: SiteView, actor: Actor) -> SiteView:
        """What ``actor`` may see of ``site``."""
        if is_whole(actor):
            return site
        engine = in_force()
        kept = self._kept.get(actor)
        if kept is None or kept[0] is not site or kept[1] is not engine:
            kept = site, engine, narrowed(site, actor)
            self._kept[actor] = kept
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(actor)
        return kept[2]


def narrowed(site: SiteView, actor: Actor) -> SiteView:
    """The part of a site that an actor may read."""
    units = [unit for unit in (_unit(unit, actor) for unit in site.units) if unit is not None]
    tags = tuple(tag for unit in units for tag in unit.tags)
    shown = {"/".join(unit.path.split("/")[:n]) for unit in units for n in range(1, 9)}
    return replace(
        site,
        tags=tuple(sorted(tags, key=lambda tag: tag.path)),
        units=tuple(units),
        titles={path: title for path, title in site.titles.items() if path in shown},
        by_id={tag.tag_id: tag for tag in tags},
        by_path={tag.path: tag for tag in tags},
        apps=site.apps and _apps(site.apps, actor, {tag.tag_id for tag in tags}),
    )


def _unit(unit: UnitView, actor: Actor) -> UnitView | None:
    """Policies that speak of tags are asked tag by tag; all others say the same of all in a unit."""
    policies = in_force().policies
    own = policies.policies[len(policies.policies) - policies.own :]
    if not any(_OF_TAGS.search(one.text) for one in own):
        return unit if may_see(actor, unit.path) else None
    seen = {tag.tag_id for tag in unit.tags if _may_read(actor, tag)}
    if len(seen) == len(unit.tags):
        return unit
    judged = [tag for tag in unit.tags if not tag.derived] or list(unit.tags)
    keep = [tag.tag_id in seen for tag in judged]
    tags = tuple(tag for tag in unit.tags if tag.tag_id in seen)
    if not tags:
        return None
    return replace(unit, tags=tags, slots=unit.slots[keep], stale_us=unit.stale_us[keep])


def _may_read(actor: Actor, tag: TagView) -> bool:
    return decide(actor, "read", f"tag/{tag.tag_id}", {"equipment": tag.unit_path}).allowed


def _apps(apps: AppsConfig, actor: Actor, tag_ids: set[int]) -> AppsConfig:
    seen = {asset.path for asset in apps.assets if may_see(actor, asset.path)}
    assets = tuple(
        msgspec.structs.replace(
            asset,
            tags={name: one for name, one in asset.tags.items() if one in tag_ids},
            outputs={name: one for name, one in asset.outputs.items() if one in tag_ids},
            relations={name: path for name, path in asset.relations.items() if path in seen},
        )
        for asset in apps.assets
        if asset.path in seen
    )
    kinds = _with_related({asset.type for asset in assets}, {one.name: one for one in apps.types})
    return msgspec.structs.replace(
        apps,
        assets=assets,
        types=tuple(one for one in apps.types if one.name in kinds),
        formulas=tuple(one for one in apps.formulas if one.asset_type in kinds),
    )


def _with_related(kinds: set[str], types: dict[str, AssetTypeConfig]) -> set[str]:
    """Asset types, and those that their relations lead to: a formula is checked against both."""
    found, fresh = set(kinds), set(kinds)
    while fresh:
        led = {to for name in fresh if name in types for to in types[name].relations.values()}
        fresh = led - found
        found |= fresh
    return found


class ScopedBoard:
    """The alarms that an actor may see; used as :class:`headrace.console.alarms.AlarmBoard`."""

    def __init__(self, board: AlarmBoard, actor: Actor) -> None:
        self._board = board
        self._actor = actor

    def _sees(self, asset: str) -> bool:
        return may_see(self._actor, asset)

    @property
    def states(self) -> tuple[AlarmState, ...]:
        return tuple(state for state in self._board.states if self._sees(state.asset))

    @property
    def badge(self) -> tuple[int, str]:
        return badge(self.states)

    @property
    def version(self) -> int:
        return self._board.version

    @property
    def problem(self) -> str:
        return self._board.problem

    @property
    def recent(self) -> int:
        """A flood is judged of the whole site, which this actor does not see."""
        return 0

    @property
    def flood_since_us(self) -> int:
        return 0

    @property
    def defined(self) -> bool:
        return bool(self.states)

    @property
    def watchers(self) -> int:
        return self._board.watchers

    def about(self, alarm: AlarmState) -> AlarmAbout:
        return self._board.about(alarm)

    def find(self, path: str) -> AlarmState | None:
        found = self._board.find(path)
        return found if found is not None and self._sees(found.asset) else None

    def watch(self) -> AbstractContextManager[asyncio.Event]:
        return self._board.watch()

    async def refresh(self) -> None:
        await self._board.refresh()

    async def journal(self, wanted: JournalFilter) -> list[JournalLine]:
        """As many lines as are wanted, read on past those that are left out."""
        found: list[JournalLine] = []
        for _ in range(PAGES_MAX):
            lines = await self._board.journal(wanted)
            found += [line for line in lines if self._sees(line.transition.asset)]
            if len(lines) < wanted.limit or len(found) >= wanted.limit:
                break
            wanted = msgspec.structs.replace(wanted, before_number=lines[-1].number)
        return found[: wanted.limit]

    async def metrics(
        self, start_us: int, end_us: int, *, below: str = "", depth: int = 0
    ) -> dict[str, AlarmMetrics]:
        """Of equipment that the actor sees.

        Raises:
            Refused: SEC-1004 for equipment that it does not see, so also for the whole site.
        """
        if not self._sees(below):
            raise Refused(
                "SEC-1004",
                f"{self._actor.name} may not read the alarms of {below or 'the whole site'}",
                "Name equipment that you may see: below=utilities.",
            )
        return await self._board.metrics(start_us, end_us, below=below, depth=depth)

    async def after(self, number: int, limit: int) -> list[JournalLine]:
        while lines := await self._board.after(number, limit):
            found = [line for line in lines if self._sees(line.transition.asset)]
            if found:
                return found
            number = lines[-1].number
        return []

    async def last_number(self) -> int:
        return await self._board.last_number()

    async def act(self, actor: Actor, act: Act, audit: AuditChain) -> CommandAnswer:
        return await self._board.act(actor, act, audit)
