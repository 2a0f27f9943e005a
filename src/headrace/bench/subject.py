"""What is benched: an app's folder or package, or a site file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from headrace.apps.package.manifest import MANIFEST, read_manifest
from headrace.apps.package.package import content_sha256, pack, read_folder, read_package, unpack
from headrace.bench.ground import Ground
from headrace.bench.laying import Laid, lay_app
from headrace.bench.learned import Models
from headrace.bench.platform import Program
from headrace.bench.program import AppProgram, load_module
from headrace.bench.scenario import Scenario
from headrace.bench.scenario_file import Read, read_scenario, read_scenarios, read_shared
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import Misconfigured

SCENARIOS = "scenarios"


@dataclass(frozen=True)
class Subject:
    """An app that lies in a folder.

    Attributes:
        folder: of it. sha256: of its content, as the package says it.
    """

    manifest: AppManifest
    folder: Path
    sha256: str

    def lay(self, ground: Ground, scenario: Scenario) -> Laid:
        """Bind it to the assets of a scenario's site.

        Raises:
            Misconfigured: as of :func:`headrace.bench.laying.lay_app`.
        """
        return lay_app(self.manifest, pack(self.folder), ground, scenario)

    def program(self, laid: Laid, ground: Ground, models: Models | None = None) -> Program | None:
        """Its Python on some assets; None of an app without any.

        Raises:
            Misconfigured: as of :class:`headrace.bench.program.AppProgram`.
        """
        if not self.manifest.python:
            return None
        return AppProgram(laid, self.load, ground.start_us, models)

    def load(self) -> ModuleType:
        """Its Python, imported anew.

        Raises:
            Misconfigured: APPS-2422 when it cannot be imported.
        """
        return load_module(self.folder, self.manifest.python)


def open_app(path: Path, unpack_to: Path) -> Subject:
    """An app's folder, or a package.

    Args:
        unpack_to: empty folder for the files of a package; a folder stays where it is.

    Raises:
        HeadraceError: APPS-20xx when it is none, or not what its list and signature say.
    """
    folder = path
    if path.is_file():
        unpack(read_package(path, None), unpack_to)
        folder = unpack_to
    files = read_folder(folder)
    if MANIFEST not in files:
        raise Misconfigured(
            "APPS-2402", f"{path} holds asset types, not an app", "There is nothing to bench in it."
        )
    manifest = read_manifest(files[MANIFEST], files, files.__getitem__)
    return Subject(manifest, folder, content_sha256(files))


def scenarios_of(folder: Path, named: list[str]) -> list[Read]:
    """The scenarios to bench with: those of the app's folder, or those that are named.

    Args:
        named: files, folders, or such as ``demo/cavitation``; empty: ``scenarios/`` below the folder.

    Raises:
        Misconfigured: APPS-2401 to APPS-2404 when one is wrong; APPS-2407 when there is none.
    """
    found: list[Read] = []
    for each in named or [str(folder / SCENARIOS)]:
        path = Path(each)
        if path.is_dir():
            found += read_scenarios(path)
        elif path.exists() or path.suffix == ".toml":
            found.append(read_scenario(path))
        elif named:
            found.append(read_shared(each))
    if not found:
        raise Misconfigured(
            "APPS-2407",
            f"there is no scenario in {folder / SCENARIOS}",
            "Write one (docs/bench.md), or name one: --scenario demo/cavitation.",
        )
    return found
