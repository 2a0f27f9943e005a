"""The platform's side of :mod:`headrace.apps.runtime.files`: gives each edge the files of its apps."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.catalog.publishers import Publishers
from headrace.apps.models.handing import hand_over
from headrace.apps.models.laid import FOLDER
from headrace.apps.runtime.files import (
    PIECE_BYTES,
    FileNote,
    Parcel,
    Receipt,
    model_files,
    package_file,
)
from headrace.bus.client import Bus
from headrace.bus.desired import read_desired
from headrace.bus.log import log_subjects
from headrace.bus.subjects import DESIRED_BUCKET, PACKAGE_CALL, Subjects
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError, Transient
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks

LOOK_S: Final = 1.0
OFFER_S: Final = 10.0
CALL_S: Final = 10.0
_EDGE: Final = f"$KV.{DESIRED_BUCKET}.edge."
_log = logging.getLogger(__name__)


class EdgeApps(msgspec.Struct):
    """What is needed here of an edge's desired state."""

    deployments: tuple[AppDeployment, ...] = ()


class EdgeFiles:
    """Keeps the machines of edges supplied.

    Args:
        folder: of the platform. bus: open. subjects: of the site.
    """

    def __init__(self, folder: DataFolder, bus: Bus, subjects: Subjects) -> None:
        self._folder = folder
        self._bus = bus
        self._subjects = subjects
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """For ever: each edge that has apps in a task of its own, so that a slow one holds up nobody."""
        try:
            while True:
                try:
                    await self._look()
                except Transient as error:
                    _log.info("%s", error)
                await asyncio.sleep(LOOK_S)
        finally:
            await end_tasks(*self._tasks.values())

    async def _look(self) -> None:
        subjects = await log_subjects(self._bus, f"KV_{DESIRED_BUCKET}")
        edges = {each.removeprefix(_EDGE) for each in subjects if each.startswith(_EDGE)}
        for edge in edges:
            task = self._tasks.get(edge)
            if (task is None or task.done()) and await self._apps(edge):
                self._tasks[edge] = asyncio.create_task(self._supply(edge))

    async def _apps(self, edge: str) -> tuple[AppDeployment, ...]:
        raw = await read_desired(self._bus, f"edge.{edge}")
        try:
            return msgspec.json.decode(raw, type=EdgeApps).deployments if raw else ()
        except UNREADABLE:
            return ()  # the hub tells

    async def _supply(self, edge: str) -> None:
        """One edge, for as long as it has apps."""
        told, done = "", ""
        offered_s = float("-inf")
        loop = asyncio.get_running_loop()
        while apps := await self._apps_again(edge):
            wanted = " ".join(f"{app.manifest.word} {app.package_sha256}" for app in apps)
            if wanted != done or loop.time() - offered_s > OFFER_S:
                try:
                    for app in apps:
                        await self._give(edge, app)
                    done, told, offered_s = wanted, "", loop.time()
                except (HeadraceError, OSError) as error:
                    if str(error) != told:
                        _log.info("files of apps for edge %s: %s", edge, error)
                    told = str(error)
            await asyncio.sleep(LOOK_S)

    async def _apps_again(self, edge: str) -> tuple[AppDeployment, ...]:
        try:
            return await self._apps(edge)
        except Transient:
            return ()

    async def _give(self, edge: str, app: AppDeployment) -> None:
        """Offer the files of an app, and send what lacks there."""
        parcel, paths = await asyncio.to_thread(parcel_of, self._folder, app)
        subject = self._subjects.edge_call(edge, PACKAGE_CALL)
        while True:
            raw = await self._bus.request(subject, msgspec.msgpack.encode(parcel), timeout_s=CALL_S)
            receipt = msgspec.msgpack.decode(raw, type=Receipt)
            if receipt.name not in paths:
                return
            data = await asyncio.to_thread(_piece, paths[receipt.name], receipt.offset)
            changes = {"name": receipt.name, "offset": receipt.offset, "data": data}
            parcel = msgspec.structs.replace(parcel, **changes)


def parcel_of(folder: DataFolder, app: AppDeployment) -> tuple[Parcel, dict[str, Path]]:
    """All files of an app as they are now, and where they lie.

    Args:
        folder: of the platform.

    Raises:
        Corrupt, Terminal: as :func:`headrace.apps.models.handing.hand_over`. OSError: no package is there.
    """
    manifest = app.manifest
    package = folder.packages / package_file(manifest)
    models: dict[str, Path] = {}
    if manifest.models:
        staged = folder.run / "apps" / "for_edges" / manifest.word
        hand_over(folder, manifest, staged)
        models = _used(model_files(staged / FOLDER))
    note = FileNote(name=package.name, sha256=app.package_sha256, size=package.stat().st_size)
    parcel = Parcel(
        word=manifest.word,
        package=note,
        keys=Publishers(folder).all().get(manifest.publisher, ()),
        models=tuple(_note(name, path) for name, path in models.items()),
    )
    return parcel, {package.name: package, **models}


def _used(files: dict[str, Path]) -> dict[str, Path]:
    """Files of laid models without the bytes of older ones, which none names any more."""
    used = " ".join(path.read_text() for name, path in files.items() if name.endswith(".json"))
    return {n: path for n, path in files.items() if n.endswith(".json") or path.stem in used}


def _note(name: str, path: Path) -> FileNote:
    content = path.read_bytes()
    return FileNote(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _piece(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)
