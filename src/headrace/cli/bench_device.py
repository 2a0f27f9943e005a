"""``headrace bench record`` and ``bench device``: a live device to a file, and that file as a device."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
import typer
from rich.console import Console
from rich.markup import escape

from headrace.bench.bench import write_report
from headrace.bench.connectors import bench_connector
from headrace.bench.device_recording import DeviceRecording, RecordedPoint, load_recording
from headrace.bench.recorder import POINTS_MAX, find_points, record_device
from headrace.edge.contract import ConnectorContext
from headrace.historian.times import parse_duration
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_S, SystemClock

if TYPE_CHECKING:  # it loads the servers of all protocols, which no other command of these needs
    from headrace.bench.device_replay import DeviceFault

_FAULT: Final = re.compile(r"(\w+)@([\d.]+)-([\d.]+)(?::(.+))?")


def record(
    protocol: str = typer.Argument(help="opcua, modbus, mqtt or sparkplug."),
    endpoint: str = typer.Argument(help="As in a site file: opc.tcp://host:4840, host:502 ..."),
    for_: str = typer.Option("10m", "--for", help="How long: 30s, 10m, 8h."),
    out: Path = typer.Option(Path("device.hrec"), "--out", help="The file to write."),
    address: list[str] = typer.Option([], "--address", help="What to read; all that is found."),
    option: list[str] = typer.Option([], "--option", help="Of the connection: unit_id=3; several."),
    every: int = typer.Option(1_000, "--every", help="Milliseconds from read to read."),
) -> None:
    """Record a live device: what it has, shows, how fast it answers and what fails. Only reads."""
    connection = ConnectionConfig(
        name="device", protocol=protocol, endpoint=endpoint, options=dict(map(_option, option))
    )
    for_s = parse_duration(for_) / US_PER_S
    recording = asyncio.run(_record(connection, address, for_s, every, out.parent))
    recording.save(out)
    took = recording.exchanges.filter(pl.col("error").is_null())["latency_us"].median()
    answer = f", median answer {took / 1_000:.1f} ms" if isinstance(took, float) else ""
    typer.echo(
        f"{out}: {len(recording.device.points)} points, {recording.samples.height} samples,"
        f" {recording.errors} errors{answer}"
    )


async def _record(
    connection: ConnectionConfig, addresses: list[str], for_s: float, every: int, folder: Path
) -> DeviceRecording:
    context = ConnectorContext(clock=SystemClock(), certificates=folder, secret=str)
    points = [RecordedPoint(address=each) for each in addresses]
    if not points:
        points = await find_points(connection, context)
    console = Console(stderr=True)
    console.print(f"{len(points)} points of at most {POINTS_MAX}", highlight=False)
    with console.status("recording") as status:

        def tell(seconds: float, samples: int, errors: int) -> None:
            status.update(f"{seconds:.0f} of {for_s:.0f} s, {samples} samples, {errors} errors")

        return await record_device(connection, points, context, for_s, interval_ms=every, tell=tell)


def connector(
    name: str = typer.Argument(help="As in a site file: modbus, opcua ... or your own."),
    device: Path | None = typer.Option(
        None, "--device", help="A recorded device; else one of the bench's."
    ),
    case: str = typer.Option("", "--case", help="module:function of a ConnectorCase of your own."),
    only: list[str] = typer.Option([], "--only", help="Names of checks; several."),
    out: Path | None = typer.Option(
        None, "--out", help="Folder for bench.json, bench.xml, bench.html."
    ),
) -> None:
    """Hold a connector against its contract: values, failures, cancelled calls, nothing left open."""
    report = bench_connector(name, device=device, case=case, only=only)
    console = Console()
    for trial in report.trials:
        colour = "green" if trial.passed else "red"
        console.print(f"[{colour}]{trial.outcome}[/]  {trial.scenario}", highlight=False)
        told = trial.reason or next((v.seen for v in trial.verdicts if not v.passed), "")
        if told:
            console.print(f"    {escape(told)}", highlight=False)
    typer.echo(f"{report.count('passed')} of {len(report.trials)} checks passed")
    for path in write_report(report, out) if out is not None else ():
        typer.echo(path)
    raise typer.Exit(0 if report.passed else 1)


def device(
    file: Path = typer.Argument(help="A recorded device."),
    endpoint: str = typer.Option("", "--endpoint", help="To listen on; MQTT: of the broker."),
    fault: list[str] = typer.Option(
        [], "--fault", help="kind@from-until[:address], such as slow@60-120; several."
    ),
    speed: float = typer.Option(1.0, "--speed", help="10 is ten times as fast."),
) -> None:
    """Be a recorded device: a real protocol server that shows what it showed, with faults."""
    if speed <= 0:
        raise Misconfigured("APPS-2434", f"the speed is {speed:g}", "Give one above 0.")
    recording, faults = load_recording(file), [_fault(each) for each in fault]
    asyncio.run(_be(recording, endpoint, faults, speed))


async def _be(
    recording: DeviceRecording, endpoint: str, faults: list[DeviceFault], speed: float
) -> None:
    from headrace.bench.device_replay import DeviceReplay, device_emulator

    emulator = device_emulator(recording, endpoint)
    await emulator.start()
    typer.echo(f"{recording.device.protocol} {emulator.endpoint}")
    try:
        await DeviceReplay(recording, emulator, faults).run(SystemClock(), speed)
    finally:
        await emulator.stop()


def _fault(text: str) -> DeviceFault:
    """A fault as it is written on the command line."""
    from headrace.bench.device_replay import DeviceFault

    found = _FAULT.fullmatch(text)
    fields: dict[str, Any] = {}
    if found is not None:
        kind, start, end, address = found.groups()
        fields = {"kind": kind, "at_s": float(start), "until_s": float(end)}
        fields |= {"addresses": (address,)} if address else {}
    try:
        return msgspec.convert(fields, DeviceFault)
    except msgspec.ValidationError as error:
        raise Misconfigured(
            "APPS-2434",
            f"{text!r} is no fault: {error}",
            "Write kind@from-until[:address]; kinds are off, slow, clock_step, stuck, bad.",
        ) from error


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Misconfigured("APPS-2434", f"{text!r} is no option", "Write --option name=value.")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
