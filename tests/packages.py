"""Packages of apps for tests: the least that the site file asks of one."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path


def package_of(manifest: str) -> bytes:
    """A package with this ``app.toml``."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("app.toml", manifest)
    return body.getvalue()


def install(folder: Path, app_id: str, version: str, manifest: str) -> None:
    """Put a package where the site file of ``folder`` finds it."""
    (folder / "packages").mkdir(exist_ok=True)
    name = f"{app_id}-{version}.hrapp"
    (folder / "packages" / name).write_bytes(package_of(manifest))
