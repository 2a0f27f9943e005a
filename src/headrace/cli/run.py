"""``headrace run ROLE``: one process of an installation, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import tomllib
from pathlib import Path

import typer

from headrace.bus.broker import BrokerAddress, load_address, write_private
from headrace.bus.driver import load_nats
from headrace.bus.subjects import Subjects
from headrace.cli.processes import die_with_parent
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder
from headrace.security.redaction import guard_logs

END_S = 10.0
"""How long a role may take to end by itself after SIGTERM."""
DATA = typer.Option(Path("data"), "--data", help="Data folder of the installation.")


def register(app: typer.Typer) -> None:
    """Add ``run`` and its roles."""
    group = typer.Typer(
        help="Run one role in the foreground (what 'up' does for you).", no_args_is_help=True
    )

    @group.callback()
    def lighten() -> None:
        load_nats()  # before any role imports it

    @group.command("edge")
    def edge(
        data: Path = DATA, edge: str = typer.Option("local", help="Name of this edge.")
    ) -> None:
        """Read and write devices."""
        from headrace.edge.role import run

        _run(data, lambda f, a, s, stop: run(f, a.as_role("edge"), s, stop, edge=edge))

    @group.command("historian")
    def historian(
        data: Path = DATA,
        partition: str = typer.Option("0/1", help="Which part of the log: 0/2 and 1/2 share it."),
    ) -> None:
        """Store samples."""
        from headrace.historian.partition import parse_partition
        from headrace.historian.role import run

        part = parse_partition(partition)
        _run(
            data,
            lambda f, a, s, stop: run(f, a.as_role("historian"), s, stop, partition=part),
        )

    @group.command("console")
    def console(
        data: Path = DATA,
        host: str = typer.Option("127.0.0.1", help="Address to listen on."),
        port: int = typer.Option(8080, help="Port to listen on."),
    ) -> None:
        """Serve the API and the web pages, and keep the desired state."""
        from headrace.console.role import run

        _run(
            data, lambda f, a, s, stop: run(f, a.as_role("console"), s, stop, host=host, port=port)
        )

    _others(group)
    _add_keepers(group)
    app.add_typer(group, name="run")


def _others(group: typer.Typer) -> None:
    @group.command("apps")
    def apps(
        data: Path = DATA,
        edge: str = typer.Option(
            "", help="Beside this edge: the formulas that are placed there, and no alarms."
        ),
    ) -> None:
        """Evaluate formulas and alarms as samples come."""
        from headrace.apps.role import run

        _run(data, lambda f, a, s, stop: run(f, a.as_role("apps"), s, stop, edge=edge))

    @group.command("runtime")
    def runtime(
        data: Path = DATA,
        edge: str = typer.Option("", help="Beside this edge: the apps that are placed there."),
    ) -> None:
        """Run the Python of installed industrial apps, each in a process of its own."""
        from headrace.apps.runtime.role import run

        def role(f, a, s, stop):  # type: ignore[no-untyped-def] # as the others
            return run(f, a.as_role("runtime"), s, stop, edge=edge, door=a if edge else None)

        _run(data, role)


def _add_keepers(group: typer.Typer) -> None:
    """The roles that touch no samples, and the demo's devices."""

    @group.command("hub")
    def hub(data: Path = DATA) -> None:
        """Take edges on other machines in, and keep them of one mind with this hub."""
        from headrace.site.hub import run

        _run(data, run)

    @group.command("security")
    def security(data: Path = DATA) -> None:
        """Say the broker who may connect, end what is revoked, and watch certificates."""
        from headrace.site.security_role import run

        _run(data, run)

    @group.command("sim")
    def sim(data: Path = DATA, seed: int = typer.Option(1, help="Same seed, same site.")) -> None:
        """Simulate the demo site's devices."""
        from headrace.sim.role import run

        _run(data, lambda f, a, s, stop: run(f, a.as_role("sim"), s, stop, seed=seed))


def site_subjects(folder: DataFolder) -> Subjects:
    """Subjects of this folder's site.

    The names are those of ``run/site.json``, written at the start: what the registry accepted once, it
    keeps, so a role that starts while the file says another name goes on with the right one.

    Raises:
        Misconfigured: CLI-1002 when no name is known and the site file gives none.
    """
    kept = folder.run / "site.json"
    if kept.exists():
        return Subjects(*json.loads(kept.read_text()))
    enterprise, site = named_site(folder)
    keep_site(folder, enterprise, site)
    return Subjects(enterprise, site)


def keep_site(folder: DataFolder, enterprise: str, site: str) -> None:
    """From now on the roles of this folder use these names."""
    make_folder(folder.run, 0o700)
    write_private(folder.run / "site.json", json.dumps([enterprise, site]))


def named_site(folder: DataFolder) -> tuple[str, str]:
    """Enterprise and name of the site, as the site file says.

    Raises:
        Misconfigured: CLI-1002 when it names none.
    """
    try:
        site = tomllib.loads(folder.site_file.read_text(encoding="utf-8"))["site"]
        Subjects(site["enterprise"], site["name"])  # refuses what cannot be part of a subject
    except (OSError, ValueError, KeyError, TypeError, HeadraceError) as error:
        lacking = isinstance(error, KeyError | TypeError)
        reason = "enterprise or name is not there" if lacking else error
        raise Misconfigured(
            "CLI-1002",
            f"{folder.site_file} names no site: {reason}",
            f"Give it a [site] with enterprise and name, then: headrace site check {folder.site_file}",
        ) from error
    return site["enterprise"], site["name"]


def _run(data: Path, role) -> None:  # type: ignore[no-untyped-def] # the roles' own signatures differ in keywords
    die_with_parent(signal.SIGTERM)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING
    )
    guard_logs()
    folder = DataFolder(data.resolve())
    asyncio.run(_until_signal(folder, load_address(folder), site_subjects(folder), role))
    # All is closed and on disk. Without this the interpreter takes seconds to look for cycles in what
    # the role held, such as the address spaces of simulated devices.
    gc.freeze()


async def _until_signal(  # type: ignore[no-untyped-def]
    folder: DataFolder, address: BrokerAddress, subjects: Subjects, role
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    working = asyncio.ensure_future(role(folder, address, subjects, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    _, late = await asyncio.wait({working}, timeout=END_S)
    for task in late:
        task.cancel()  # it may wait for a broker that is gone
    with contextlib.suppress(asyncio.CancelledError):
        await working
