"""The installed app whose models are meant: its deployment on this site, and its unpacked Python."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.apps.package.package import read_package, unpack
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.folder import DataFolder
from headrace.site.app_assets import deployments
from headrace.site.file import load_site
from headrace.site.registry import Registry


def deployment_of(folder: DataFolder, app: str) -> AppDeployment:
    """What the site file says of an app, with the permanent ids of its tags.

    Raises:
        Misconfigured: APPS-2526 when the site has no such app, and what the site file says.
    """
    model = load_site(folder.site_file)
    registry = Registry.of(folder)
    try:
        found = deployments(model, registry.ids())
    finally:
        registry.close()
    for each in found.values():
        if each.manifest.id == app:
            return each
    raise Misconfigured(
        "APPS-2526",
        f"the site has no app {app!r}",
        f"It has {', '.join(sorted(d.manifest.id for d in found.values())) or 'none'}; "
        "see: headrace app list",
    )


@contextmanager
def unpacked(folder: DataFolder, deployment: AppDeployment) -> Iterator[Path]:
    """The files of the app's package, for the time of the block.

    Raises:
        Corrupt: APPS-2527 when the file is not the one that the site runs.
    """
    manifest = deployment.manifest
    package = read_package(folder.packages / f"{manifest.id}-{manifest.version}.hrapp", None)
    if package.sha256 != deployment.package_sha256:
        raise Corrupt(
            "APPS-2527",
            f"the package {package.file_name} is not the one that the site runs",
            "Save the site file again, or install the package again.",
        )
    with tempfile.TemporaryDirectory(prefix="headrace-") as place:
        code = Path(place) / "app"
        unpack(package, code)
        yield code
