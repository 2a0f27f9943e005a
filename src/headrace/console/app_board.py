"""The apps of the site as pages show them: what runs, with its package, its views and how it does.

The one place where the console meets packages and deployments; pages know neither files nor keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.apps.package import Package, read_package
from headrace.apps.views import read_views
from headrace.model.app_manifest import AppManifest, Service
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.views import View
from headrace.site.keeper import APP_KEY, APP_LIST_KEY

APPS_MAX: Final = 200
FRESH_S: Final = 1.0
DESCRIBED: Final = "described.json"
Read = Callable[[str], Awaitable[bytes | None]]


@dataclass(frozen=True)
class AppView:
    """One app that is on the site.

    Attributes:
        package: None when its file cannot be used here; then ``problem`` says why.
        views: those that can be drawn. schemas: service -> what it takes and gives, as JSON Schema.
    """

    deployment: AppDeployment
    package: Package | None = None
    views: tuple[View, ...] = ()
    problem: HeadraceError | None = None
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def manifest(self) -> AppManifest:
        return self.deployment.manifest

    def file(self, name: str) -> bytes | None:
        """A file of its package, None when there is none."""
        if self.package is None or name not in self.package.names:
            return None
        return self.package.file(name)

    def service(self, name: str) -> Service | None:
        """One of its services."""
        return next((one for one in self.manifest.services if one.name == name), None)


class AppBoard:
    """What pages see of installed apps.

    Args:
        folder: the data folder, with the packages.
        read: gives a key of the desired state, None when there is none.
        monotonic_s: for how long an answer counts as new.
    """

    def __init__(self, folder: DataFolder, read: Read, monotonic_s: Callable[[], float]) -> None:
        self._folder = folder
        self._read = read
        self._monotonic_s = monotonic_s
        self._read_s = float("-inf")
        self._reading = asyncio.Lock()
        self._bodies: dict[str, bytes] = {}
        self._apps: dict[str, AppView] = {}

    async def apps(self) -> list[AppView]:
        """All apps of the site, by id.

        Raises:
            Transient: BUS-1033 when the broker does not answer.
        """
        async with self._reading:
            if self._monotonic_s() - self._read_s > FRESH_S:
                await self._refresh()
                self._read_s = self._monotonic_s()
        return sorted(self._apps.values(), key=lambda app: app.manifest.id)

    async def app(self, app_id: str) -> AppView | None:
        """One app, None when the site has none of this id; one that came a moment ago is there."""
        for _ in range(2):
            found = next((app for app in await self.apps() if app.manifest.id == app_id), None)
            if found is not None:
                return found
            self.forget()
        return None

    def forget(self) -> None:
        """Read anew at the next call: something was changed."""
        self._read_s = float("-inf")

    async def _refresh(self) -> None:
        raw = await self._read(APP_LIST_KEY)
        words = msgspec.json.decode(raw, type=list[str])[:APPS_MAX] if raw else []
        apps: dict[str, AppView] = {}
        bodies: dict[str, bytes] = {}
        for word in words:
            body = await self._read(f"{APP_KEY}{word}")
            if not body:
                continue
            bodies[word] = body
            known = self._apps.get(word)
            if known is not None and known.problem is None and self._bodies.get(word) == body:
                apps[word] = known
                continue
            deployment = msgspec.json.decode(body, type=AppDeployment)
            apps[word] = await asyncio.to_thread(self._opened, deployment)
        self._apps, self._bodies = apps, bodies

    def _opened(self, deployment: AppDeployment) -> AppView:
        """With its package, when the file here is the one that is deployed."""
        manifest = deployment.manifest
        path = self._folder.packages / f"{manifest.id}-{manifest.version}.hrapp"
        try:
            package = read_package(path, None)
            if package.sha256 != deployment.package_sha256:
                raise Misconfigured(
                    "CONS-2301",
                    f"{path.name} is another file than the one that is deployed",
                    "Install the package again on the machine of the console.",
                )
        except HeadraceError as error:
            return AppView(deployment, problem=error)
        app = AppView(deployment, package, schemas=schemas_of(package))
        try:
            views = tuple(read_views(manifest, app.file))
        except HeadraceError as error:
            return AppView(deployment, package, problem=error, schemas=app.schemas)
        return AppView(deployment, package, views, schemas=app.schemas)


def schemas_of(package: Package) -> dict[str, dict[str, Any]]:
    """What the services of a package take and give, as it was written when it was packed."""
    if DESCRIBED not in package.names:
        return {}
    with contextlib.suppress(msgspec.DecodeError):
        found = msgspec.json.decode(package.file(DESCRIBED))
        services = found.get("services") if isinstance(found, dict) else None
        if isinstance(services, dict):
            return {str(k): v for k, v in services.items() if isinstance(v, dict)}
    return {}
