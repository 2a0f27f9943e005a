"""``headrace replay``: serve a recording from a real protocol server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace.bus.broker import free_port, load_address
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock, to_us

PRINTED_TAGS_MAX: Final = 30


def register(app: typer.Typer) -> None:
    """Add ``replay``."""

    @app.command("replay")
    def replay(
        file: Path = typer.Argument(help="CSV with any separator, text columns, Parquet; .gz too."),
        protocol: str = typer.Option(..., "--as", help="opcua, modbus, mqtt or sparkplug."),
        speed: float = typer.Option(1.0, help="Times real time; 0: as fast as it is taken."),
        endpoint: str = typer.Option(
            "", help="Where to listen, or the broker's mqtt:// URL [free port, or our broker]."
        ),
        username: str = typer.Option("", help="At a foreign broker."),
        password: str = typer.Option("", envvar="HEADRACE_REPLAY_PASSWORD", help="There."),
        time_column: str = typer.Option("", help="Column with the times [found]."),
        time_format: str = typer.Option("", help="Form of its texts, as in strftime [found]."),
        time_zone: str = typer.Option("UTC", help="Zone of times that tell no offset."),
        start: str = typer.Option("", help="ISO time of the first row, if the file has no times."),
        interval: float = typer.Option(1.0, help="Seconds from row to row, for the same."),
        names: str = typer.Option("", help="Column names a,b,c of a file without a header."),
        columns: str = typer.Option("", help="Take only these columns: a,b,c."),
        key_column: str = typer.Option("", help="Column that tells the device of a row."),
        prefix: str = typer.Option("", help="Path above the tags [replay/<file>]."),
        site_file: Path | None = typer.Option(None, help="Write connection and tags to this file."),
        resume: Path | None = typer.Option(None, help="Keep the position here; go on from it."),
        data: Path = typer.Option(Path("data"), "--data", help="Folder of our own broker."),
        check: bool = typer.Option(False, "--check", help="Read the file, tell, and stop."),
    ) -> None:
        """Serve a recording from a real server, so that real data come in by the real door."""
        # Imported here: polars and the drivers take half a second.
        from headrace.sim.replay.layout import PROTOCOLS, make_layout
        from headrace.sim.replay.loader import LoadOptions, load
        from headrace.sim.replay.player import load_position
        from headrace.sim.replay.setup import make_replay

        console = Console()
        served = next((each for each in PROTOCOLS if each == protocol), None)
        if served is None:
            raise Misconfigured(
                "SIM-1130", f"cannot replay as {protocol!r}", f"Use one of {', '.join(PROTOCOLS)}."
            )
        options = LoadOptions(
            time_column=time_column,
            time_format=time_format,
            time_zone=time_zone,
            names=_split(names),
            columns=_split(columns),
            key_column=key_column,
            start_us=_start_us(start),
            interval_us=round(interval * 1e6),
        )
        recording = load(file, options)
        layout = make_layout(recording, served, prefix)
        console.print(
            f"[bold]{file.name}[/]: {recording.frame.height} rows, {len(layout.tags)} tags"
        )
        for note in recording.notes:
            console.print(f"  {note}", highlight=False)
        if resume is not None and not endpoint and served in ("opcua", "modbus"):
            known = load_position(resume, recording, served)
            endpoint = known.endpoint if known else ""
        place = _endpoint(served, endpoint, (username, password), data)
        made = make_replay(
            recording, layout, place, SystemClock(), speed=speed, position_file=resume
        )
        _tell_site_part(console, made.site_part, site_file, len(layout.tags))
        if not check:
            asyncio.run(_play(console, made, recording.frame.height))


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _start_us(text: str) -> int | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misconfigured(
            "SIM-1131", f"--start {text!r} is no ISO time", "Write for example 2026-01-31T08:00:00Z"
        ) from error
    return to_us(at if at.tzinfo else at.replace(tzinfo=UTC))


def _endpoint(protocol: str, text: str, credentials: tuple[str, str], data: Path) -> Any:
    from headrace.sim.replay.setup import Endpoint

    if protocol in ("mqtt", "sparkplug"):
        if text and text != "broker":
            return Endpoint(text, text, *credentials)
        address = load_address(DataFolder(data.resolve()))
        return Endpoint(
            address.mqtt_endpoint, "broker", address.device_user, address.device_password
        )
    scheme = "opc.tcp://" if protocol == "opcua" else ""
    url = text or f"{scheme}127.0.0.1:{free_port()}"
    return Endpoint(url, url)


def _tell_site_part(console: Console, part: str, site_file: Path | None, tags: int) -> None:
    if site_file is not None:
        try:
            site_file.write_text(part, encoding="utf-8")
        except OSError as error:
            raise Misconfigured(
                "SIM-1132", f"cannot write {site_file}: {error.strerror}", "Choose another place."
            ) from error
        console.print(f"Connection and tags for a site file: [bold]{site_file}[/]")
    elif tags <= PRINTED_TAGS_MAX:
        console.print("Put this into the site file:\n")
        console.print(part, highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(f"{tags} tags: use --site-file to get them as a part of a site file")


async def _play(console: Console, made: Any, rows: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    player = made.player
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    if player.rows:
        console.print(f"Goes on after row {player.rows}")
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("waiting for a receiver", total=rows, completed=player.rows)

            def show(done: int) -> None:
                progress.update(task, completed=done, description="replaying")

            await player.run(stop, show)
    finally:
        await made.emulator.stop()
    state = "All rows are shown" if player.rows == rows else "Stopped"
    console.print(f"{state}: {player.rows} of {rows}")
