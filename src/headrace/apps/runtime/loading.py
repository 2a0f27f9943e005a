"""An app's Python out of its unpacked folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from headrace.model.app_manifest import AppManifest
from headrace.model.errors import HeadraceError, Terminal


def load_module(folder: Path, manifest: AppManifest) -> ModuleType:
    """Import the module that a manifest names; one of another app by that name is put out first.

    Args:
        folder: of the unpacked package, in which ``app.toml`` lies.

    Raises:
        Terminal: APPS-2225 when it cannot be imported.
        Misconfigured: what its declarations raise.
    """
    name = manifest.python
    for known in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[known]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except HeadraceError:
        raise
    except Exception as error:
        raise Terminal(
            "APPS-2225",
            f"the Python of {manifest.id}, {name}, cannot be imported: {type(error).__name__}: {error}",
            "See the app's log; whoever wrote the app can tell.",
        ) from error
    finally:
        sys.path.remove(str(folder))
