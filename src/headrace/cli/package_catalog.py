"""``headrace app publish | install | list | show | upgrade | rollback | remove``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.apps.asset_types.catalog import known_types
from headrace.apps.catalog import (
    Catalog,
    CatalogEntry,
    Publishers,
    Registry,
    Seen,
    Source,
    check_publishable,
    entry_of,
    write_catalog,
)
from headrace.apps.package import Package, read_package, unpack
from headrace.cli.audit import person
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock, to_datetime
from headrace.security.identity import opened_chain

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
YES = typer.Option(False, "--yes", "-y", help="Do not ask.")
APP = typer.Argument(help="Id of the app.")
PACKAGE = typer.Argument(help="A .hrapp file, or the id of a package that is here.")
FROM = typer.Option("", "--from", help="Another catalog: a folder, or https://...")
VERSION = typer.Option("", "--version", help="Which; without it the newest.")


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group ``app``."""
    group.command("publish")(publish)
    group.command("install")(install)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("upgrade")(upgrade)
    group.command("rollback")(rollback)
    group.command("remove")(remove)


def publish(
    file: Path = typer.Argument(help="The .hrapp file, signed and benched."),
    to: Path | None = typer.Option(None, "--to", help="Folder that is a catalog for others."),
    publisher: str = typer.Option("", "--publisher", help="Whose catalog it is [the package's]."),
    key: Path | None = typer.Option(None, "--key", help="Private key of that publisher."),
    data: Path = DATA,
) -> None:
    """Give a package to others: into this installation's catalog, or into a signed folder."""
    if to is None:
        with _catalog(data) as catalog:
            content = _content(file)
            trusted = read_package(content, catalog.publishers.trust())
            entry = catalog.publish(content, person(), _scenarios(trusted))
        _say(f"{entry.id} {entry.version} can be installed here: headrace app install {entry.id}")
        return
    if key is None:
        raise Misconfigured("CLI-1904", "no key was given", "Give one: --key acme.pem")
    package = read_package(file, None)
    check_publishable(package, scenarios=_scenarios(package))
    write_catalog(to, [package], publisher or package.publisher, _content(key))
    _say(f"{package.id} {package.version} is in the catalog {to}")


def install(
    package: str = PACKAGE,
    version: str = VERSION,
    source: str = FROM,
    yes: bool = YES,
    disabled: bool = typer.Option(False, "--disabled", help="Put it in place, do not run it yet."),
    data: Path = DATA,
) -> None:
    """Install an app: its package is checked and kept, and the site file gets a table for it.

    What it may do is shown first. A package of asset types is kept for apps to use.
    """
    with _catalog(data) as catalog:
        entry = _brought(catalog, package, version, source)
        if entry.kind == "types":
            _say(f"{entry.id} {entry.version} is here for apps to use")
            return
        is_new = entry.id not in catalog.installed()
        _put(catalog, entry, "install" if is_new else "upgrade", yes=yes, enabled=not disabled)
    if is_new:
        _say(f"Next: headrace app bind {entry.id}")


def upgrade(
    package: str = PACKAGE,
    version: str = VERSION,
    source: str = FROM,
    yes: bool = YES,
    data: Path = DATA,
) -> None:
    """Go to a newer version; bindings, settings and state stay."""
    with _catalog(data) as catalog:
        app = package
        if source or package.endswith(".hrapp"):
            entry = _brought(catalog, package, version, source)
            app, version = entry.id, entry.version
        found = catalog.upgrade(app, version)
        _put(catalog, catalog.registry.find(app, found), "upgrade", yes=yes)


def rollback(app: str = APP, yes: bool = YES, data: Path = DATA) -> None:
    """Go back to the version that was installed before."""
    with _catalog(data) as catalog:
        found = catalog.rollback(app)
        _put(catalog, catalog.registry.find(app, found), "rollback", yes=yes)


def remove(
    app: str = APP,
    packages: bool = typer.Option(False, "--packages", help="Its packages too."),
    yes: bool = YES,
    data: Path = DATA,
) -> None:
    """Take an app from the site. Its bindings go; history, alarms' journal and state stay."""
    with _catalog(data) as catalog:
        edit = catalog.remove(app)
        version = catalog.installed()[app]
        _say(
            f"Removed would be the table [app.{app}] with its bindings and settings.\n"
            "What remains: the history of its tags, the journal of its alarms, its state, its events"
            + ("." if packages else f", and its packages ({version} and others).")
        )
        _ask(yes, f"Remove {app} {version}?")
        catalog.finish(edit, app, version, "remove", person())
        for each in catalog.registry.versions().get(app, []) if packages else []:
            catalog.drop(app, each, person())
    _say(f"{app} is removed. Undo: headrace site undo")


def list_(
    source: str = FROM,
    as_json: bool = typer.Option(False, "--json", help="One JSON object a row."),
    data: Path = DATA,
) -> None:
    """Show the packages that are here, with what is installed; or those of another catalog."""
    folder = DataFolder(data.resolve())
    if source:
        entries = list(Source(source, Seen(folder)).index(Publishers(folder).trust()).packages)
        installed = dict[str, str]()
    else:
        entries = Registry(folder).entries()
        with _catalog(data) as catalog:
            installed = catalog.installed() if folder.site_file.exists() else {}
    if as_json:
        for entry in entries:
            row = msgspec.to_builtins(entry) | {
                "installed": installed.get(entry.id) == entry.version
            }
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        return
    heads = ("id", "version", "what", "publisher", "bench", "installed")
    table = Table(*heads, box=None, header_style="bold")
    for entry in entries:
        what = entry.title.get("en", "asset types" if entry.kind == "types" else "")
        is_installed = installed.get(entry.id) == entry.version
        table.add_row(
            *(entry.id, entry.version, escape(what), _publisher(entry), _bench(entry)),
            "yes" if is_installed else "",
        )
    Console().print(table if entries else "No packages yet: headrace app install FILE")


def show(
    package: str = PACKAGE,
    version: str = VERSION,
    as_json: bool = typer.Option(False, "--json", help="As JSON."),
    data: Path = DATA,
) -> None:
    """Show what a package is, needs and may, whose it is, what the bench said, and its files."""
    if package.endswith(".hrapp"):
        read = read_package(Path(package), None)
    else:
        read = Registry(DataFolder(data.resolve())).read(package, version)
    entry = entry_of(read)
    if as_json:
        sys.stdout.write(msgspec.json.encode(entry).decode() + "\n")
        return
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(entry):
        table.add_row(f"[bold]{name}[/]", escape(value))
    for result in read.certificate.results if read.certificate else ():
        how = "passed" if result.passed else f"failed: {'; '.join(result.failed)}"
        table.add_row("[bold]scenario[/]", escape(f"{result.name}: {how}"))
    for name in read.names:
        table.add_row("[bold]file[/]", f"{name}  {len(read.file(name)):,} bytes")
    for done in [] if package.endswith(".hrapp") else _history(data, package):
        table.add_row("[bold]done[/]", done)
    Console().print(table)


def _history(data: Path, app: str) -> Iterator[str]:
    with _catalog(data) as catalog:
        for each in catalog.history(app):
            at = to_datetime(each.at_us).strftime("%Y-%m-%d %H:%M")
            yield f"{at} {each.what} {each.version} by {each.by}"


def _scenarios(package: Package) -> dict[str, str]:
    """Name -> SHA-256 of its scenarios, as the bench reads them."""
    from headrace.bench.scenario_file import read_scenarios

    with TemporaryDirectory() as scratch:
        files = Path(scratch) / "app"
        unpack(package, files)
        return {each.scenario.name: each.sha256 for each in read_scenarios(files / "scenarios")}


# --- parts ----------------------------------------------------------------------------------------------


@contextmanager
def _catalog(data: Path) -> Iterator[Catalog]:
    folder = DataFolder(data.resolve())
    with opened_chain(folder) as audit:
        yield Catalog(
            folder,
            audit,
            SystemClock(),
            {name: [each.version] for name, each in known_types().items()},
        )


def _brought(catalog: Catalog, package: str, version: str, source: str) -> CatalogEntry:
    """The package in the registry: from a file, from another catalog, or there already."""
    if package.endswith(".hrapp"):
        return catalog.take(_content(Path(package)), person())
    if not source:
        return catalog.registry.find(package, version)
    other, trust = Source(source, catalog.seen), catalog.publishers.trust()
    found = [
        each
        for each in other.index(trust).packages
        if each.id == package and version in ("", each.version)
    ]
    if not found:
        raise Misconfigured(
            "CLI-1905",
            f"the catalog {source} has no {package} {version}".rstrip(),
            f"See what it has: headrace app list --from {source}",
        )
    newest = max(found, key=lambda each: each.numbers)
    return catalog.take(other.fetch(newest, trust).content, person())


def _put(
    catalog: Catalog, entry: CatalogEntry, what: str, *, yes: bool, enabled: bool = True
) -> None:
    edit = catalog.install(entry.id, entry.version, person(), enabled=enabled)
    for name, value in _facts(entry):
        _say(f"{name:>12}  {value}")
    sys.stdout.write(edit.diff())
    _ask(yes, f"{what.capitalize()} {entry.id} {entry.version}?")
    catalog.finish(edit, entry.id, entry.version, what, person())
    _say(f"{entry.id} {entry.version} is installed.")


def _facts(entry: CatalogEntry) -> Iterator[tuple[str, str]]:
    yield "id", f"{entry.id} {entry.version}"
    yield "title", entry.title.get("en", "")
    yield "publisher", _publisher(entry)
    yield "license", entry.license or "none is named"
    yield "bench", _bench(entry)
    needs = {**entry.types, **entry.requires}
    yield "needs", ", ".join(f"{name} {text}".rstrip() for name, text in needs.items()) or "nothing"
    yield "code", "Python, in a process of its own" if entry.has_python else "none: formulas only"
    yield "may", ", ".join(entry.permissions) or "read its quantities and give its outputs"
    yield "sha256", entry.sha256


def _publisher(entry: CatalogEntry) -> str:
    return (entry.publisher or "nobody") + ("" if entry.is_signed else " (not signed)")


def _bench(entry: CatalogEntry) -> str:
    if entry.kind == "types":
        return ""
    if not entry.scenarios:
        return "not benched"
    passed = round(entry.rating * entry.scenarios)
    signed = f", signed by the bench {entry.bench}" if entry.bench else ""
    return f"{passed} of {entry.scenarios} scenarios, on {entry.benched_on}{signed}"


def _ask(yes: bool, question: str) -> None:
    if yes or (sys.stdin.isatty() and typer.confirm(question)):
        return
    _say("Nothing was done; add --yes to do it.")
    raise typer.Exit(1)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "CLI-1906", f"{file} cannot be read: {error.strerror}", "Give the path of the file."
        ) from error


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)
