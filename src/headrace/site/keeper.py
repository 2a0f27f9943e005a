"""The keeper: watches the site file, and makes the desired state on the bus say what it says.

::

    site.toml, tag files ──► check ──► registry ──► bucket `desired`: edge.<edge>, historian, apps, app.<word>,
       packages/                │                                     app_list, site_state
                                └─ wrong ──► bucket `desired`: site_errors; the old state stays

An edge that does not run what it should within 10 s is said so, once, and once more when it follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.bus.broker import write_private
from headrace.bus.client import Bus
from headrace.bus.lease import Lease
from headrace.bus.subjects import ALL_HEALTH, DESIRED_BUCKET, SITE_STATE_KEY, Subjects
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import EdgeConfig
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeState, Event
from headrace.model.knowledge import AppsConfig
from headrace.model.time import Clock, SystemClock
from headrace.security.database import is_shared
from headrace.security.files import make_folder
from headrace.security.shared_files import SharedFiles
from headrace.site.app_assets import deployments
from headrace.site.app_package import FOLDER
from headrace.site.apply import Changes
from headrace.site.desired import edge_configs, historian_config
from headrace.site.file import SiteFiles, check_site
from headrace.site.model import Problem, SiteModel
from headrace.site.registry import Registry
from headrace.site.secrets import Sealer, tell_of
from headrace.site.sharing import SharedSite
from headrace.site.writing import save_version, site_lock

POLL_S: Final = 1.0
FOLLOW_S: Final = 10.0
LEASE_KEY: Final = "keeper"
ERRORS_KEY: Final = "site_errors"
STATE_KEY: Final = SITE_STATE_KEY
APP_KEY: Final = "app."
APP_LIST_KEY: Final = "app_list"
_log = logging.getLogger(__name__)


class EdgeFollow(msgspec.Struct, kw_only=True):
    """Whether an edge runs what it should.

    Attributes:
        desired_hash, running_hash: ``EdgeConfig.content_hash``; running is "" when it was never heard.
        since_us: when the desired state last changed.
        seen_us: when the edge was last heard; 0 never.
    """

    desired_hash: str
    running_hash: str = ""
    since_us: int = 0
    seen_us: int = 0

    @property
    def follows(self) -> bool:
        """It runs exactly the desired state."""
        return self.desired_hash == self.running_hash


class SiteState(msgspec.Struct, kw_only=True):
    """What the keeper last did; key ``site_state`` of the bucket ``desired``.

    Attributes:
        content_hash: of the accepted model. revision: counts accepted changes.
        problems: number of problems in the file now; the list is under ``site_errors``.
    """

    enterprise: str = ""
    site: str = ""
    content_hash: str = ""
    revision: int = 0
    accepted_us: int = 0
    changes: str = ""
    problems: int = 0
    edges: dict[str, EdgeFollow] = {}


Accepted = Callable[[SiteState], None]


class Keeper:
    """One data folder's keeper. :func:`run` drives it; tests drive it step by step.

    Args:
        folder: the data folder with ``site.toml``.
        registry: where ids live.
        accepted: told of each change that came into force, before the edges are.
    """

    def __init__(
        self,
        folder: DataFolder,
        registry: Registry,
        clock: Clock,
        accepted: Accepted | None = None,
    ) -> None:
        self._accepted = accepted
        self.folder = folder
        self.registry = registry
        self.clock = clock
        self.state = SiteState()
        self.problems: list[Problem] = []
        self.pending: dict[str, bytes] = {}
        self.events: list[Event] = []
        self._stamp: tuple[Any, ...] = ()
        self._read_hash = ""
        self._watched: tuple[str, ...] = ("site.toml",)
        self._late: set[str] = set()
        self._sealer = Sealer(folder)
        self._seal_stamp: tuple[Any, ...] = ()
        self._accepted_model: SiteModel | None = None
        self._told_secrets: list[tuple[str, str, str]] = []
        self._heard: dict[str, str] = {}
        self._unserved: dict[tuple[str, str], str] = {}

    def look(self) -> bool:
        """Read the files when they changed since the last look; true when something was done.

        Raises:
            HeadraceError: when the registry refuses or cannot be written; the old state stays.
        """
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return self._look_at_secrets()
        with site_lock(self.folder):
            files = SiteFiles(self.folder.site_file)
            model, problems = check_site(files)
        watched, content_hash = tuple(files.named), files.content_hash()
        changed = content_hash != self._read_hash
        if changed:
            self._accept(model, problems, files)
        self._read_hash = content_hash
        # The stamp is older than what was read; of files that it does not cover, look once more.
        self._stamp = stamp if watched == self._watched else ()
        self._watched = watched
        return changed

    def _look_at_secrets(self) -> bool:
        """Seal anew when a secret or an edge's key changed; true when it did."""
        model = self._accepted_model
        if model is None or (stamp := self._sealer.stamp()) == self._seal_stamp:
            return False
        self._desire_edges(model, self.registry.apps())
        self._seal_stamp = stamp
        self._put_state()
        return True

    def _stamp_now(self) -> tuple[Any, ...]:
        stamps = [_stamp(self.folder.root / name) for name in self._watched]
        return tuple(
            stamps
        )  # of a list: in a thread of Python 3.11 a tuple of a generator failed once

    def _accept(self, model: SiteModel | None, problems: list[Problem], files: SiteFiles) -> None:
        if model is not None:
            try:
                # First, for it may fail: what it cannot open goes out to nobody.
                self._sealer.seal(edge_configs(msgspec.structs.replace(model, tags=()), {}))
                changes = self.registry.apply(model, self.clock.now_us())
            except (Misconfigured, Refused, Corrupt) as error:
                problems = [Problem("site.toml", 1, "site", error.code, error.what, error.remedy)]
            else:
                save_version(self.folder, files.read, self.clock.now_us())
                self._desire(model, changes)
        if problems != self.problems:
            self._say_problems(problems)
        self.problems = problems
        self.state.problems = len(problems)
        self._put(ERRORS_KEY, msgspec.json.encode(problems))
        self._put_state()

    def _say_problems(self, problems: list[Problem]) -> None:
        if problems:
            first = problems[0]
            text = f"the site file has {len(problems)} problems, the last good one stays in force; "
            self._say("warning", "SITE-1301", f"{text}first: {first}", first.remedy)
        elif self.problems:
            self._say("info", "SITE-1302", "the site file has no problems any more", "")

    def _desire(self, model: SiteModel, changes: Changes) -> None:
        self._seal_stamp = self._sealer.stamp()
        apps = self.registry.apps()
        self._desire_edges(model, apps)
        self._accepted_model = model
        historian = historian_config(model, self.registry)
        self._put("historian", msgspec.json.encode(historian))
        self._put("apps", msgspec.json.encode(apps, order="sorted"))
        self._desire_apps(model)
        self._put("notify", msgspec.json.encode(model.notify))
        record = self.registry.site()
        assert record is not None  # it was applied a moment ago
        self.state.enterprise, self.state.site = model.enterprise, model.name
        self.state.content_hash, self.state.revision = record.content_hash, record.revision
        self.state.accepted_us, self.state.changes = record.applied_us, changes.summary()
        if not changes.is_empty:
            self._say("info", "SITE-1303", f"the site file was accepted: {changes.summary()}", "")
            if self._accepted is not None:
                self._accepted(self.state)

    def _desire_apps(self, model: SiteModel) -> None:
        """Each installed app, and their list, by which those that left are known to have left."""
        deployed = deployments(model, self.registry.ids(), self.registry.app_places())
        for word, deployment in deployed.items():
            self._put(f"{APP_KEY}{word}", msgspec.json.encode(deployment, order="sorted"))
        self._put(APP_LIST_KEY, msgspec.json.encode(sorted(deployed)))
        told = {
            (app.manifest.id, each.path): each.why for app in model.apps for each in app.unserved
        }
        for (app_id, path), why in told.items():
            if self._unserved.get((app_id, path)) != why:
                text = f"{app_id} cannot serve {path}: {why}"
                self._say("warning", "SITE-1306", text, "See: headrace app bind " + app_id)
        self._unserved = told

    def _desire_edges(self, model: SiteModel, apps: AppsConfig | None) -> None:
        now_us = self.clock.now_us()
        ids = self.registry.ids()
        deployed = deployments(model, ids, self.registry.app_places()).values()
        configs = edge_configs(model, ids, self.registry.edges(), apps, deployed)
        for edge, config in self._sealer.seal(configs).items():
            self._desire_edge(edge, config, now_us)
        told = tell_of(self._sealer, model)
        for code, text, remedy in told:
            if (code, text, remedy) not in self._told_secrets:
                self._say("warning", code, text, remedy)
        self._told_secrets = told

    def _desire_edge(self, edge: str, config: EdgeConfig, now_us: int) -> None:
        self._put(f"edge.{edge}", msgspec.json.encode(config, order="sorted"))
        desired = config.content_hash()
        follow = self.state.edges.setdefault(edge, EdgeFollow(desired_hash="", since_us=now_us))
        if follow.desired_hash != desired:
            follow.desired_hash, follow.since_us = desired, now_us

    def hear(self, state: EdgeState) -> None:
        """An edge says what it runs; :meth:`judge` looks at it."""
        if state.edge in self.state.edges:
            self._heard[state.edge] = state.config_hash

    def judge(self) -> None:
        """Say which edges do not follow within :data:`FOLLOW_S`, and which follow again."""
        now_us = self.clock.now_us()
        before = {edge: follow.running_hash for edge, follow in self.state.edges.items()}
        for edge, running in self._heard.items():
            follow = self.state.edges[edge]
            follow.running_hash, follow.seen_us = running, now_us
        self._heard.clear()
        if before != {edge: follow.running_hash for edge, follow in self.state.edges.items()}:
            self._put_state()
        for edge, follow in self.state.edges.items():
            waited_s = (now_us - follow.since_us) / 1e6
            if follow.follows and edge in self._late:
                self._late.discard(edge)
                self._say("info", "SITE-1305", f"edge {edge} runs the desired state again", "")
            elif not follow.follows and waited_s > FOLLOW_S and edge not in self._late:
                self._late.add(edge)
                heard = "runs an older state" if follow.seen_us else "was never heard"
                self._say(
                    "warning",
                    "SITE-1304",
                    f"edge {edge} does not run the desired state after {FOLLOW_S:.0f} s: it {heard}",
                    "See whether it runs: headrace status",
                )

    @property
    def has_looked(self) -> bool:
        """Whether it has read a site file."""
        return bool(self._read_hash)

    def tell_conflict(self, kept: Path) -> None:
        """Another console changed the site file at the same time, and was first."""
        text = f"the site file was changed elsewhere at the same time; what was written here is in {kept}"
        _log.warning("SITE-1202 %s", text)
        remedy = "Make that change once more: headrace site show"
        self._say("warning", "SITE-1202", text, remedy)

    def _put_state(self) -> None:
        self._put(STATE_KEY, msgspec.json.encode(self.state))

    def _put(self, key: str, value: bytes) -> None:
        self.pending[key] = value

    def _say(self, severity: Any, code: str, text: str, remedy: str) -> None:
        if len(self.events) < 1_000:
            at_us = self.clock.now_us()
            source = "site/keeper"
            self.events.append(
                Event(
                    at_us=at_us,
                    severity=severity,
                    code=code,
                    source=source,
                    text=text,
                    remedy=remedy,
                )
            )

    async def send(self, bus: Bus) -> None:
        """Put what is pending on the bus, only where the content there differs.

        Raises:
            Transient: when the broker is away; what was not sent stays pending.
        """
        for key in list(self.pending):
            value = self.pending[key]
            try:
                before = await bus.get(DESIRED_BUCKET, key)
                if before != value:
                    await bus.put(DESIRED_BUCKET, key, value)
                if before and key == APP_LIST_KEY:
                    for word in set(msgspec.json.decode(before)) - set(msgspec.json.decode(value)):
                        await bus.remove(DESIRED_BUCKET, f"{APP_KEY}{word}")
            except Refused as error:
                self._say("error", error.code, error.what, error.remedy)
            if self.pending.get(key) is value:
                del self.pending[key]
        subjects = self._subjects()
        while subjects is not None and self.events:
            await bus.publish_event(subjects.event("site"), self.events[0])
            del self.events[0]

    def _subjects(self) -> Subjects | None:
        """Events need a site; before the first accepted file there is none."""
        record = self.registry.site()
        return Subjects(record.enterprise, record.name) if record else None


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


async def run(
    folder: DataFolder,
    bus: Bus,
    stop: asyncio.Event,
    clock: Clock | None = None,
    accepted: Accepted | None = None,
) -> None:
    """Keep the desired state until ``stop`` is set.

    A file that is wrong, a database that is locked, a broker that is away: each is said and tried
    again at the next look; the state that was accepted last stays in force.

    Args:
        folder: the data folder; ``site.toml`` need not exist yet.
        bus: connected as the platform.
        accepted: told of each change that came into force.
    """
    async with _turn(folder, stop):
        if not stop.is_set():
            await _keep(folder, bus, stop, clock or SystemClock(), accepted)


@asynccontextmanager
async def _turn(folder: DataFolder, stop: asyncio.Event) -> AsyncIterator[None]:
    """Wait until no other keeper works on this folder: two would say everything twice."""
    make_folder(folder.site_versions)
    with (folder.site_versions / "keeper.lock").open("a") as handle:
        while not stop.is_set():
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await _pause(stop)
        yield


async def _pause(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), POLL_S)
    except TimeoutError:
        pass


async def _keep(
    folder: DataFolder,
    bus: Bus,
    stop: asyncio.Event,
    clock: Clock,
    accepted: Accepted | None,
) -> None:
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, clock, accepted)
    office = _Office(folder, bus, clock) if is_shared(folder) else None

    async def hear(message: Any) -> None:
        if ".health.edge." in message.subject:
            try:
                keeper.hear(msgspec.json.decode(message.data, type=EdgeState))
            except UNREADABLE:
                return  # not an edge of ours; its own state shows it as never heard

    unsubscribe = await bus.subscribe(ALL_HEALTH, hear, pending_max=1_000)
    try:
        while not stop.is_set():
            if office is None or await office.is_ours(keeper):
                await _step(keeper, bus)
            elif keeper.has_looked:
                keeper = Keeper(folder, registry, clock, accepted)  # another console keeps it now
            await _pause(stop)
    finally:
        if office is not None:
            await office.close()
        if bus.client.is_connected:
            await unsubscribe()
        registry.close()


def _place(folder: DataFolder) -> str:
    """A name for this folder on this machine that no other has."""
    path = folder.run / "installation.id"
    if not path.exists():
        make_folder(folder.run, 0o700)
        write_private(path, secrets.token_hex(8))
    return f"{socket.gethostname()}/{path.read_text()}"


class _Office:
    """Who keeps the desired state where several consoles have folders of their own."""

    def __init__(self, folder: DataFolder, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._site = SharedSite(folder, bus, clock)
        self._packages = SharedFiles(folder, FOLDER)
        self.lease = Lease(bus, LEASE_KEY, _place(folder), clock)

    async def is_ours(self, keeper: Keeper) -> bool:
        """Whether this console holds the lease, and its folder has the files that all agreed on."""
        held = await self.lease.hold()
        try:
            await asyncio.to_thread(self._packages.step)  # first: the site file names them
            in_step = await self._site.step()
        except HeadraceError as error:
            _log.warning("%s", error)
            return False
        while self._site.conflicts:
            keeper.tell_conflict(self._site.conflicts.pop())
            with contextlib.suppress(Transient):
                await keeper.send(self._bus)
        return held and in_step

    async def close(self) -> None:
        """Let another console keep the site."""
        await asyncio.to_thread(self._packages.close)
        await self.lease.release()


async def _step(keeper: Keeper, bus: Bus) -> None:
    try:
        await asyncio.to_thread(keeper.look)
    except HeadraceError as error:
        keeper.problems = [Problem("site.toml", 1, "site", error.code, error.what, error.remedy)]
        keeper.pending[ERRORS_KEY] = msgspec.json.encode(keeper.problems)
    keeper.judge()
    try:
        await keeper.send(bus)
    except Transient:
        return  # stays pending; the client reconnects by itself
