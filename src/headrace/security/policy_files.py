"""The owner's policies in the data folder: ``policies/*.cedar``, checked when read, in force without a restart.

A broken file puts nothing in force: the last good ones stay, also over a restart, since they are kept beside
(``policies/in_force.json``). So nobody gets a right by breaking a file that forbids something.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.audit import AuditChain
from headrace.security.engine import Engine
from headrace.security.files import sync_folder, write_whole
from headrace.security.policy import in_force, use
from headrace.security.policy_text import FILE_MAX, FILES_MAX, PolicySet

WATCH_S: Final = 1.0
_NAME: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}\.cedar$")
Mark = tuple[tuple[str, int, int], ...]


class Tell(Protocol):
    """Where an event goes."""

    def __call__(
        self, severity: Literal["info", "warning", "error"], code: str, text: str, remedy: str
    ) -> None: ...


@dataclass(frozen=True)
class Loaded:
    """What is to be in force.

    Attributes:
        policies: the newest files, or the last good ones when these are broken.
        problem: why the newest files are not in force; None when they are.
    """

    policies: PolicySet
    problem: HeadraceError | None


class PolicyFiles:
    """The policy files of one installation.

    Args:
        folder: its data folder.
    """

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder.policies
        self._kept = self.folder / "in_force.json"

    def mark(self) -> Mark:
        """Another one whenever a file changed: name, size and time of each."""
        found = []
        for path in self.folder.glob("*.cedar"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((path.name, state.st_size, state.st_mtime_ns))
        return tuple(sorted(found))

    def read(self) -> dict[str, str]:
        """Name -> text of each file.

        Raises:
            Misconfigured: SEC-1404 for one that is too large, too many, or not UTF-8.
        """
        paths = sorted(self.folder.glob("*.cedar"))
        if len(paths) > FILES_MAX:
            raise Misconfigured(
                "SEC-1404", f"there are {len(paths)} policy files", f"Keep at most {FILES_MAX}."
            )
        return {path.name: _text(path.name, path.read_bytes()[: 4 * FILE_MAX]) for path in paths}

    def load(self) -> Loaded:
        """What is to be in force now; reads only.

        Raises:
            Corrupt: SEC-1406 when files are broken and what was in force before cannot be read: then
                nothing is decided rather than too much allowed.
        """
        try:
            return Loaded(PolicySet(self.read()), None)
        except HeadraceError as error:
            return Loaded(PolicySet(self._last_good()), error)

    def keep(self, policies: PolicySet) -> None:
        """Remember what is in force, for a start with a broken file."""
        if policies.files != self._last_good():
            write_whole(self._kept, msgspec.json.encode(policies.files), mode=0o600)

    def write(self, name: str, text: str) -> PolicySet:
        """Write a file, when all files together are good with it; an empty text removes it.

        Raises:
            Misconfigured: SEC-1404 for a bad name, SEC-1401 to SEC-1405 for what is wrong in the text.
        """
        if not _NAME.match(name):
            raise Misconfigured(
                "SEC-1404", f"{name!r} is no name of a policy file", "Use letters: quiet.cedar."
            )
        files = self.read()
        files.pop(name, None)
        if text.strip():
            files[name] = text
        policies = PolicySet(files)
        if text.strip():
            write_whole(self.folder / name, text.encode(), mode=0o640)
        elif (self.folder / name).exists():
            (self.folder / name).unlink()
            sync_folder(self.folder)
        return policies

    def _last_good(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._kept.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except UNREADABLE as error:
            raise Corrupt(
                "SEC-1406",
                f"{self._kept} cannot be read, so it is not known which policies were in force",
                "Mend the policy files; then remove it.",
            ) from error


class PolicyWatch:
    """Keeps the files in force in this process, and tells what changed.

    Args:
        files: which. audit: where a change is told. tell: takes an event for people.

    Attributes:
        problem: why the newest files are not in force; None when they are.
    """

    def __init__(self, files: PolicyFiles, audit: AuditChain, tell: Tell) -> None:
        self.files = files
        self.problem: HeadraceError | None = None
        self._audit = audit
        self._tell = tell
        self._mark: Mark | None = None

    def look(self) -> None:
        """Put the files in force when they changed."""
        mark = self.files.mark()
        if mark == self._mark:
            return
        self._mark = mark
        loaded = self.files.load()
        self._take(loaded.policies)
        self.problem = loaded.problem
        if loaded.problem is not None:
            text = f"own policies are not in force, those before stay: {loaded.problem.what}"
            self._tell("error", loaded.problem.code, text, loaded.problem.remedy)

    def _take(self, policies: PolicySet) -> None:
        before = in_force().policies.digest
        if policies.digest == before:
            return
        told = {"digest": policies.digest, "before": before, "policies": policies.own}
        self.files.keep(policies)
        self._audit.record(
            "policy files",
            "policy.accept",
            "policy/own",
            "done",
            files=sorted(policies.files),
            **told,
        )
        use(Engine(policies))
        self._tell("info", "SEC-1407", f"{policies.own} own policies are in force", "")

    async def run(self, stop: asyncio.Event, failed: Callable[[HeadraceError], None]) -> None:
        """Look each second until ``stop`` is set."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WATCH_S)
            try:
                await asyncio.to_thread(self.look)
            except HeadraceError as error:
                self._mark = (
                    None  # the audit database is away: what it could not tell is not in force
                )
                failed(error)


def use_files(folder: DataFolder) -> None:
    """Put a folder's policies in force in this process, once: for the command line.

    Raises:
        Corrupt: SEC-1406, see :meth:`PolicyFiles.load`.
    """
    loaded = PolicyFiles(folder).load()
    if loaded.policies.digest != in_force().policies.digest:
        use(Engine(loaded.policies))


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Misconfigured(
            "SEC-1404", f"{name} is not UTF-8 at byte {error.start}", "Save it as UTF-8."
        ) from error
