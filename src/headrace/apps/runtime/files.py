"""How the files of apps come to an edge's own machine: the platform's runtime offers, the edge's one takes.

::

    platform's runtime ── Parcel: what there is ───────────► edge's runtime
                       ◄── Receipt: this one, from this byte ──
                       ── Parcel: the same, with bytes ────►       ... until nothing lacks

Each parcel says all that there is, so neither side remembers anything: after a cut it goes on with what is on
the edge's disk. A file counts there when it is whole, has its hash, and, a package, the signature of a
publisher that is trusted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.catalog.publishers import Publishers
from headrace.apps.models.laid import FOLDER
from headrace.apps.package.package import Trust, read_package
from headrace.model.app_manifest import AppManifest
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Corrupt, HeadraceError, Refused
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder, write_whole
from headrace.security.settings import load_settings

FILE_BYTES_MAX: Final = 1 << 28
MODELS_MAX: Final = 256
PIECE_BYTES: Final = 1 << 19
_MODEL: Final = re.compile(
    r"([a-z]{1,16}/)?([0-9a-f]{64}\.(onnx|baseline)|[a-z][a-z0-9_.-]{0,99}\.json)"
)
"""Below an app's folder of models: bytes by their hash, and what names them."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class FileNote(msgspec.Struct, frozen=True, kw_only=True):
    """A file that there is. ``sha256``: of its bytes, hex."""

    name: str
    sha256: str
    size: int


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """All files of an app, and bytes of one of them.

    Attributes:
        word: of the app. keys: of its publisher, which the platform trusts.
        models: what its process finds below ``.models``; a file that names another comes after it.
        name, offset, data: bytes of one of the files; without a name none.
    """

    word: str
    package: FileNote
    keys: tuple[str, ...] = ()
    models: tuple[FileNote, ...] = ()
    name: str = ""
    offset: int = 0
    data: bytes = b""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The file that lacks, and from which byte on; no name: all are there."""

    name: str = ""
    offset: int = 0


def package_file(manifest: AppManifest) -> str:
    """What the file of an app's package is called."""
    return f"{manifest.id}-{manifest.version}.hrapp"


class Receiver:
    """Takes files of apps on an edge's machine.

    Args:
        folder: of the edge. wanted: word -> what the desired state wants to run here; nothing else is taken.

    Attributes:
        problems: word -> why its files were refused.
    """

    def __init__(
        self, folder: DataFolder, wanted: Callable[[], Mapping[str, AppDeployment]]
    ) -> None:
        self._folder = folder
        self._wanted = wanted
        self._hashes: dict[Path, tuple[int, int, str]] = {}
        self.problems: dict[str, HeadraceError] = {}

    def take(self, raw: bytes) -> bytes:
        """Keep what a parcel brings; gives the receipt.

        Raises:
            Refused: APPS-2270 when it is of nothing that is to run here, or its names or sizes are none;
                what a package is refused for. Corrupt: APPS-2271 when a file has another hash.
        """
        try:
            parcel = msgspec.msgpack.decode(raw, type=Parcel)
        except UNREADABLE as error:
            raise Corrupt("APPS-2271", f"files of an app come damaged: {error}") from error
        deployment = self._wanted().get(parcel.word)
        if deployment is None or deployment.package_sha256 != parcel.package.sha256:
            raise Refused(
                "APPS-2270",
                f"{parcel.word[:80]!r} with this package is not to run here",
                "It is offered again when the desired state is here.",
            )
        self._check(parcel, deployment.manifest)
        try:
            if parcel.name:
                self._keep(parcel, deployment.manifest)
            receipt = self._lacking(parcel)
        except HeadraceError as error:
            self.problems[parcel.word] = error
            raise
        if not receipt.name:
            self.problems.pop(parcel.word, None)
        return msgspec.msgpack.encode(receipt)

    def has_package(self, deployment: AppDeployment) -> bool:
        """Whether the package that is to run is here."""
        path = self._folder.packages / package_file(deployment.manifest)
        return self._hash(path) == deployment.package_sha256

    def _check(self, parcel: Parcel, manifest: AppManifest) -> None:
        notes = (parcel.package, *parcel.models)
        wrong = parcel.package.name != package_file(manifest) or len(notes) > MODELS_MAX
        wrong |= not all(_MODEL.fullmatch(note.name) for note in parcel.models)
        for note in notes:
            wrong |= not _SHA256.fullmatch(note.sha256) or not 0 < note.size <= FILE_BYTES_MAX
        if wrong:
            raise Refused(
                "APPS-2270",
                f"the files that are offered for {manifest.id} are none of an app",
                "Update the hub: headrace --version",
            )

    def _place(self, parcel: Parcel, note: FileNote) -> Path:
        if note is parcel.package:
            return self._folder.packages / note.name
        return received_models(self._folder, parcel.word) / note.name

    def _part(self, note: FileNote) -> Path:
        return self._folder.run / "apps" / "incoming" / f"{note.sha256}.part"

    def _keep(self, parcel: Parcel, manifest: AppManifest) -> None:
        """Put bytes to those that are there; the last ones make the file."""
        note = next((n for n in (parcel.package, *parcel.models) if n.name == parcel.name), None)
        if note is None:
            raise Refused("APPS-2270", f"there is no file {parcel.name[:80]!r}", "Offer it first.")
        part = self._part(note)
        if parcel.offset != _size(part) or self._hash(self._place(parcel, note)) == note.sha256:
            return  # it came twice, or out of order: the receipt says what lacks
        make_folder(part.parent, 0o700)
        with part.open("ab") as file:
            file.write(parcel.data)
        if _size(part) < note.size:
            return
        content = part.read_bytes()
        part.unlink()
        if hashlib.sha256(content).hexdigest() != note.sha256:
            raise Corrupt("APPS-2271", f"{note.name} has not the hash that it was offered with")
        if note is parcel.package:
            read_package(content, self._trust(parcel, manifest))
        to = self._place(parcel, note)
        make_folder(to.parent)
        write_whole(to, content, mode=0o644)

    def _trust(self, parcel: Parcel, manifest: AppManifest) -> Trust:
        """Whose packages count here: this machine's own publishers, where it has a list of them."""
        keys = Publishers(self._folder).all() or {manifest.publisher: parcel.keys}
        return Trust(keys, load_settings(self._folder).apps.unsigned)

    def _lacking(self, parcel: Parcel) -> Receipt:
        for note in (parcel.package, *parcel.models):
            if self._hash(self._place(parcel, note)) != note.sha256:
                return Receipt(name=note.name, offset=_size(self._part(note)))
        names = {note.name for note in parcel.models}
        for name, path in model_files(received_models(self._folder, parcel.word)).items():
            if name not in names:
                path.unlink()
        return Receipt()

    def _hash(self, path: Path) -> str:
        """SHA-256 of a file; "" when it is not there. A file is read again when it changed."""
        try:
            stat = path.stat()
        except OSError:
            return ""
        known = self._hashes.get(path)
        if known is None or known[:2] != (stat.st_mtime_ns, stat.st_size):
            known = stat.st_mtime_ns, stat.st_size, hashlib.sha256(path.read_bytes()).hexdigest()
            self._hashes[path] = known
        return known[2]


def received_models(folder: DataFolder, word: str) -> Path:
    """Where an edge keeps the models that it was given for an app."""
    return folder.models / word


def model_files(folder: Path) -> dict[str, Path]:
    """Name below the folder -> file; what names others comes after them."""
    every = (path for path in folder.rglob("*.*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in every}
    names = sorted(found, key=lambda name: (name.endswith(".json"), name))
    return {name: found[name] for name in names}


def hand_received(folder: DataFolder, manifest: AppManifest, files: Path) -> bool:
    """On an edge's machine: lay the models that it was given into the folder of an app's files; gives whether
    something changed. What :func:`headrace.apps.models.handing.hand_over` is on the platform."""
    there, to = model_files(received_models(folder, manifest.word)), files / FOLDER
    changed = False
    for name, path in there.items():
        content, target = path.read_bytes(), to / name
        if not target.is_file() or target.read_bytes() != content:
            make_folder(target.parent)
            write_whole(target, content, mode=0o644)
            changed = True
    for name, path in model_files(to).items():
        if name.endswith(".json") and name not in there:
            path.unlink()
            changed = True
    return changed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
