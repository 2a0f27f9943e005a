"""Packages of apps for tests: the least that the site file asks of one."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def installed(folder: Path, app_id: str, version: str, manifest: str) -> Iterator[None]:
    """The same for a site that others use too: in its list of packages if it has one, then gone."""
    path, index = folder / "packages" / f"{app_id}-{version}.hrapp", folder / "packages/index.json"
    install(folder, app_id, version, manifest)
    before = index.read_bytes() if index.exists() else None
    if before is not None:
        content = path.read_bytes()
        entry = {"id": app_id, "version": version, "kind": "app", "size": len(content)}
        entry["sha256"] = hashlib.sha256(content).hexdigest()
        index.write_text(json.dumps([*json.loads(before), entry]))
    try:
        yield
    finally:
        path.unlink()
        if before is not None:
            index.write_bytes(before)
