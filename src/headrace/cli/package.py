"""``headrace app``: begin, check, test, pack and sign an industrial app. The rest of the group registers
itself from modules beside this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from headrace.apps.package import (
    check_folder,
    pack,
    read_folder,
    read_package,
    with_signature,
)
from headrace.apps.package.beginning import TEMPLATES, begin_app
from headrace.apps.package.manifest import MANIFEST, read_manifest
from headrace.apps.package.package import CERTIFICATE, certificate_of
from headrace.cli import app_bind, package_catalog, package_trust
from headrace.cli.app_running import add_running
from headrace.cli.bench import bench_an_app
from headrace.cli.private_key import read_key
from headrace.formula.cases import run_cases
from headrace.model.errors import HeadraceError, Misconfigured, Refused
from headrace.security.files import write_whole
from headrace.security.package_keys import new_key, public_of
from headrace.site.model import Problem

FOLDER = typer.Argument(Path(), help="Folder of the app, with app.toml.")
KEY = typer.Option(None, "--key", help="Private key of the publisher: headrace app key.")


def register(app: typer.Typer) -> None:
    """Add the group ``app``."""
    group = typer.Typer(
        help="Industrial apps: write, check, sign, share, install.", no_args_is_help=True
    )
    group.command("new")(new)
    group.command("check")(check)
    group.command("test")(test)
    group.command("bench")(bench_an_app)
    group.command("key")(key_)
    group.command("pack")(pack_)
    group.command("sign")(sign)
    package_catalog.add_to(group)
    app_bind.add_to(group)
    package_trust.add_to(group)
    add_running(group)
    app.add_typer(group, name="app")


def new(
    folder: Path = typer.Argument(help="To be made; its name becomes the app's id."),
    template: str = typer.Option("formulas", "--template", help=", ".join(TEMPLATES)),
    publisher: str = typer.Option("", "--publisher", help="Whose app it is, such as acme."),
) -> None:
    """Begin an app that passes its own check, tests and bench."""
    for name in begin_app(folder, template, publisher):
        _out().print(f"  {folder / name}", highlight=False, soft_wrap=True)
    _out().print(f"Next: headrace app check {folder}", highlight=False, soft_wrap=True)


def check(
    folder: Path = FOLDER,
    as_json: bool = typer.Option(False, "--json", help="Problems as JSON."),
    language: str = typer.Option("en", "--language", help="Of messages about formulas: en or zh."),
) -> None:
    """Check an app: manifest, formulas, views, and what its Python declares. Exit code 2 when wrong."""
    problems = problems_of(folder)
    if language == "zh":
        problems = [each.in_chinese() for each in problems]
    if as_json:
        sys.stdout.write(msgspec.json.encode(problems).decode() + "\n")
    for each in [] if as_json else problems:
        _out().print(escape(str(each)), highlight=False, soft_wrap=True)
        if each.caret:
            _out().print(escape(each.caret), highlight=False)
    if problems:
        raise typer.Exit(2)
    if not as_json:
        _out().print(f"{folder} is right.", highlight=False, soft_wrap=True)


def problems_of(folder: Path) -> list[Problem]:
    """Everything that is wrong with an app's folder; what it declares only where the rest is right."""
    problems = check_folder(folder)
    files = read_folder(folder)
    if problems or MANIFEST not in files:
        return problems
    manifest = read_manifest(files[MANIFEST], files, files.__getitem__)
    from headrace.apps.views import ViewRefused, read_views

    try:
        read_views(manifest, files.get)
    except ViewRefused as refused:
        problems += [
            Problem(f"views/{each.file}", each.line, each.field, each.code, each.what, each.remedy)
            for each in refused.problems
        ]
    if manifest.python and not problems:
        try:
            _described(folder)
        except HeadraceError as error:
            where = f"{manifest.python}.py"
            problems.append(Problem(where, 1, "python", error.code, error.what, error.remedy))
    return problems


def _described(folder: Path) -> bytes:
    from headrace.apps.runtime.describe import described

    return described(folder)


def test(folder: Path = FOLDER) -> None:
    """Run the app's own tests: *.formula cases, and test_*.py by pytest. Exit code 3 when one fails."""
    files = read_folder(folder)
    cases = [
        name for name in sorted(files) if name.startswith("tests/") and name.endswith(".formula")
    ]
    python = [n for n in files if n.startswith("tests/") and Path(n).name.startswith("test_")]
    if not cases and not python:
        raise Misconfigured(
            "CLI-1901", f"{folder} has no tests", "Write tests/NAME.formula or tests/test_NAME.py."
        )
    failed = total = 0
    for name in cases:
        evaluations, failures = run_cases(files[name].decode())
        total, failed = total + evaluations, failed + len(failures)
        for failure in failures:
            _out().print(f"[red]{name}:{failure.line}[/] {escape(failure.text)}")
    if cases:
        _out().print(f"{total - failed} of {total} evaluations hold", highlight=False)
    if python:
        failed += _pytest(folder)
    if failed:
        raise typer.Exit(3)


def _pytest(folder: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": _path(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        ).returncode
    except OSError as error:
        raise Misconfigured(
            "CLI-1902", f"the tests cannot be run: {error}", "pip install pytest"
        ) from error


def _path(folder: Path) -> str:
    return os.pathsep.join([str(folder.resolve()), *sys.path[1:]])


def key_(file: Path = typer.Argument(help="To be made, such as acme.pem.")) -> None:
    """Make a publisher's key: the private half in a file of mode 600, the public half printed."""
    if file.exists():
        raise Refused("CLI-1903", f"there is a file {file} already", "Name another file.")
    secret = new_key()
    write_whole(file, secret, mode=0o600)
    Console(stderr=True).print(
        f"{file} is the private key; keep it and a copy of it safe.\n"
        "The public key, to trust with: headrace app trust add PUBLISHER KEY",
        highlight=False,
        soft_wrap=True,
    )
    sys.stdout.write(public_of(secret) + "\n")


def pack_(
    folder: Path = FOLDER,
    out: Path = typer.Option(Path(), "--out", help="Folder for the package."),
    key: Path | None = KEY,
) -> None:
    """Make one .hrapp file of an app; the same folder gives the same bytes."""
    problems = problems_of(folder)
    if problems:
        for each in problems:
            _out().print(escape(str(each)), highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    files = read_folder(folder)
    has_python = (
        MANIFEST in files and read_manifest(files[MANIFEST], files, files.__getitem__).python
    )
    content = pack(folder, read_key(key), described=_described(folder) if has_python else None)
    package = read_package(content, None)
    path = out / package.file_name
    write_whole(path, content, mode=0o644)
    _out().print(f"{path}  {package.sha256}", highlight=False, soft_wrap=True)
    if CERTIFICATE in files and certificate_of(files) is None:
        _note("Its certificate is of other content and was left out: headrace app bench")
    elif package.certificate is None and package.kind == "app":
        _note("It was not benched; it cannot be published: headrace app bench")
    if not package.is_signed:
        _note("Nobody signed it: headrace app sign")


def sign(
    file: Path = typer.Argument(help="The .hrapp file; it is written anew."), key: Path = KEY
) -> None:
    """Sign a package as its publisher."""
    secret = read_key(key)
    if secret is None:
        raise Misconfigured("CLI-1904", "no key was given", "Give one: --key acme.pem")
    package = read_package(with_signature(read_package(file, None).content, secret), None)
    write_whole(file, package.content, mode=0o644)
    _out().print(
        f"{file} is signed as {package.publisher or 'nobody'}'s  {package.sha256}",
        highlight=False,
        soft_wrap=True,
    )


def _note(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def _out() -> Console:
    return Console()
