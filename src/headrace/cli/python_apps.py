"""Whether the site has an app with Python: only then its runtime is started, and costs something."""

from __future__ import annotations

import tomllib
import zipfile
from typing import Any, Final

from headrace.model.folder import DataFolder

MANIFEST_BYTES_MAX: Final = 1 << 20


class PythonApps:
    """Looks at the site file when it changes; cheap enough for a supervisor that looks all the time.

    What is wrong with the file is the keeper's to say: here it means that nothing changed.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._seen: tuple[int, int] = (0, 0)
        self._answer = False

    def are_there(self) -> bool:
        """Whether an enabled app of the site file has Python, by its package."""
        try:
            seen = self._folder.site_file.stat().st_mtime_ns
            stored = (
                self._folder.packages.stat().st_mtime_ns if self._folder.packages.exists() else 0
            )
            if (seen, stored) != self._seen:
                self._seen = (seen, stored)
                self._answer = any(map(self._has_python, self._named()))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return self._answer
        return self._answer

    def _named(self) -> list[str]:
        """Files of the packages of enabled apps."""
        site: dict[str, Any] = tomllib.loads(self._folder.site_file.read_text(encoding="utf-8"))
        apps = site.get("app", {})
        return [
            f"{app_id}-{told['version']}.hrapp"
            for app_id, told in (apps.items() if isinstance(apps, dict) else ())
            if isinstance(told, dict) and told.get("enabled", True) and "version" in told
        ]

    def _has_python(self, name: str) -> bool:
        path = self._folder.packages / name
        if not path.exists():
            return False
        with zipfile.ZipFile(path) as package, package.open("app.toml") as manifest:
            told = tomllib.loads(manifest.read(MANIFEST_BYTES_MAX).decode())
        return bool(told.get("python"))
