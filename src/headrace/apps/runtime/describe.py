"""What the Python of an app declares, as plain data: so that nobody else has to run it to know.

``python -m headrace.apps.runtime.describe FOLDER SCRATCH`` runs as a process of its own, enclosed as an
app is; its last line is the description.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_type_hints

import msgspec

from headrace.app.hooks import Declared, Hook, hooks_of
from headrace.apps.runtime.executor import check_hooks, request_type
from headrace.apps.runtime.loading import load_module
from headrace.apps.runtime.sandbox import enclose
from headrace.model.app_manifest import AppManifest
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError, Misconfigured, Terminal, error_from_dict

DESCRIBE_S: Final = 60.0
MEMORY_MB: Final = 1_024
ENVIRONMENT: Final = {
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
}


class DescribedService(msgspec.Struct, frozen=True, kw_only=True):
    """A service: JSON Schemas (2020-12) of request and answer, and its docstring."""

    request: dict[str, Any]
    answer: dict[str, Any]
    help: str = ""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """``described.json`` of a package."""

    hooks: list[Declared] = []
    services: dict[str, DescribedService] = {}


def describe(manifest: AppManifest, module: ModuleType) -> Described:
    """What a module declares.

    Raises:
        Misconfigured: APPS-2203, APPS-2209 where it and the manifest do not fit together, APPS-2226 a
            type of a service has no JSON Schema.
    """
    hooks = hooks_of(module)
    check_hooks(manifest, hooks)
    names = Declared.__struct_fields__
    return Described(
        hooks=[Declared(**{name: getattr(hook, name) for name in names}) for hook in hooks],
        services={hook.name: _service(hook) for hook in hooks if hook.kind == "service"},
    )


def _service(hook: Hook) -> DescribedService:
    request = request_type(hook)
    answer = get_type_hints(hook.function, include_extras=True)["return"]
    try:
        return DescribedService(
            request=msgspec.json.schema(request),
            answer=msgspec.json.schema(answer),
            help=inspect.getdoc(hook.function) or "",
        )
    except (TypeError, *UNREADABLE) as error:
        raise Misconfigured(
            "APPS-2226",
            f"service {hook.name}: its types have no JSON Schema: {error}",
            "Use msgspec.Struct with plain fields.",
        ) from error


def described(folder: Path) -> bytes:
    """``described.json`` of an app's folder; its Python runs in a process of its own, enclosed.

    Args:
        folder: in which ``app.toml`` lies. An app without Python has an empty description.

    Raises:
        Misconfigured: what :func:`describe` raises.
        Terminal: APPS-2225 it cannot be imported, APPS-2227 it does not come to an end.
    """
    own = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-s", "-m", "headrace.apps.runtime.describe", str(folder)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(own)}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [*command, scratch],
                capture_output=True,
                timeout=DESCRIBE_S,
                env=environment,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise Terminal(
            "APPS-2227",
            f"the Python in {folder} does not end within {DESCRIBE_S:.0f} s of its import",
            "Do nothing at import but declare.",
        ) from error
    said = done.stdout.splitlines()[-1:] or [b""]
    if said[0].startswith(b"+"):
        return said[0][1:]
    if said[0].startswith(b"-"):
        raise error_from_dict(json.loads(said[0][1:]))
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
    raise Terminal(
        "APPS-2227",
        f"the Python in {folder} ended with {done.returncode} at its import: {last}",
        "Do nothing at import but declare.",
    )


def main() -> None:
    """The process itself."""
    folder = Path(sys.argv[1]).resolve()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the app prints is not the answer
    try:
        raw = tomllib.loads((folder / "app.toml").read_text(encoding="utf-8"))
        manifest = msgspec.convert(raw, AppManifest)
        enclose(folder, Path(sys.argv[2]), memory_mb=MEMORY_MB)
        found = Described()
        if manifest.python:
            found = describe(manifest, load_module(folder, manifest))
        out.write(b"\n+" + msgspec.json.encode(found, order="sorted") + b"\n")
    except HeadraceError as error:
        out.write(b"\n-" + msgspec.json.encode(error.as_dict()) + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
