"""``headrace model``: models of apps: what there is, where it comes from, which one is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.doors import person
from headrace.cli.model_train import train
from headrace.cli.model_watch import drift, shadow
from headrace.cli.run import DATA
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import to_datetime

if TYPE_CHECKING:
    from headrace.apps.models.record import ModelRecord, ModelState
    from headrace.apps.models.registry import ModelRegistry

APP = typer.Argument(help="Id of the app, such as asset-health.")
NAME = typer.Argument(help="Name of the model, such as rul.")
WHY = typer.Option("", "--why", help="The reason; needed, and kept in the audit chain.")
JSON = typer.Option(False, "--json", help="As JSON.")


def register(app: typer.Typer) -> None:
    """Add the group ``model``."""
    group = typer.Typer(
        help="Models of apps: where they come from, which is used (docs/models.md).",
        no_args_is_help=True,
    )
    group.command("list")(list_models)
    group.command("show")(show)
    group.command("train")(train)
    group.command("export")(export)
    group.command("import")(import_file)
    group.command("promote")(promote)
    group.command("rollback")(roll_back)
    group.command("retire")(retire)
    group.command("compare")(compare)
    group.command("shadow")(shadow)
    group.command("drift")(drift)
    app.add_typer(group, name="model")


@contextmanager
def _registry(data: Path) -> Iterator[ModelRegistry]:
    from headrace.apps.models.registry import open_models

    with open_models(DataFolder(data.resolve())) as registry:
        yield registry


def list_models(
    app: str = typer.Argument("", help="Id of an app; all when left out."),
    as_json: bool = JSON,
    data: Path = DATA,
) -> None:
    """List models with version, use, metrics and data window."""
    with _registry(data) as registry:
        found = registry.models(app)
    if as_json:
        _print_json(found)
        return
    table = Table(
        "model", "version", "of", "used as", "metrics", "data", "by", box=None, header_style="bold"
    )
    for each in found:
        window = each.window
        span = f"{_day(window.start_us)} to {_day(window.end_us)}" if window else "-"
        table.add_row(
            f"{each.app}/{each.name}", str(each.version), each.asset or "all", each.state,
            _metrics(each), span, each.lineage.by,
        )  # fmt: skip
    Console(highlight=False).print(table if found else "no models yet: headrace model train")


def show(
    app: str = APP,
    name: str = NAME,
    version: int = typer.Option(0, "--version", help="0: the champion, or the newest."),
    as_json: bool = JSON,
    data: Path = DATA,
) -> None:
    """Show where a version comes from, of which data, how good it is, and what it was used for."""
    with _registry(data) as registry:
        record = registry.get(app, name, version)
        changes = registry.changes(app, name)
        is_signed = registry.is_signed(record)
    if as_json:
        _print_json({"model": record, "changes": changes, "is_signed": is_signed})
        return
    out = Console(highlight=False)
    out.print(f"[bold]{record.app}/{record.name} version {record.version}[/]: {record.state}")
    for line in _about(record):
        out.print(f"  {line}", markup=False, soft_wrap=True)
    out.print("  signature holds" if is_signed else "  [red]signature does not hold[/]")
    for each in changes:
        at = to_datetime(each.at_us).isoformat(timespec="seconds")
        out.print(
            f"  {at} version {each.version} {each.before} -> {each.after} by {each.by}: {each.why}",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _about(record: ModelRecord) -> list[str]:
    lineage, window = record.lineage, record.window
    lines = [f"of {record.asset} alone"] if record.asset else []
    lines += [
        f"onnx {record.sha256}, {record.size:,} bytes: {', '.join(record.operators)}",
        f"inputs {', '.join(record.inputs)}; {record.outputs} outputs",
        f"metrics {_metrics(record)}",
        f"app {lineage.app_version or '-'} code {lineage.code_sha256 or '-'}, platform "
        f"{lineage.platform or '-'}, seed {lineage.seed}, by {lineage.by}",
        f"parent {lineage.parent or '-'}",
    ]
    if window is not None:
        lines.append(
            f"data {_day(window.start_us)} to {_day(window.end_us)}, held out from "
            f"{_day(window.held_out_us)}, {window.rows:,} rows of {len(window.assets)} assets, "
            f"sha256 {window.frames_sha256}"
        )
    return lines


def export(
    app: str = APP,
    name: str = NAME,
    to: Path = typer.Argument(help="File to write."),
    version: int = typer.Option(0, "--version", help="0: the champion, or the newest."),
    data: Path = DATA,
) -> None:
    """Write a version with record and signature to a file, for another installation or an edge."""
    from headrace.security.files import write_whole

    with _registry(data) as registry:
        write_whole(to.resolve(), registry.export(app, name, version), mode=0o644)


def import_file(
    file: Path = typer.Argument(help="From headrace model export."),
    allow_unknown: bool = typer.Option(
        False, "--allow-unknown", help="Also when no trusted key signed it."
    ),
    data: Path = DATA,
) -> None:
    """Take a model in that another installation exported; it is not used before it is promoted."""
    if not file.is_file():
        raise Misconfigured("APPS-2519", f"there is no file {file}", "Name an exported model.")
    with _registry(data) as registry:
        record = registry.import_file(file.read_bytes(), by=person(), allow_unknown=allow_unknown)
    _told(record)


def promote(
    app: str = APP,
    name: str = NAME,
    versions: list[int] = typer.Argument(help="Version; several where models are per asset."),
    challenger: bool = typer.Option(
        False, "--challenger", help="Only to shadow: it is asked too, and its answers lie apart."
    ),
    why: str = WHY,
    data: Path = DATA,
) -> None:
    """Use a version: as the champion, or as the challenger in shadow."""
    state: ModelState = "challenger" if challenger else "champion"
    with _registry(data) as registry:
        for version in versions:
            _told(registry.change(app, name, version, state, by=person(), why=why))


def roll_back(
    app: str = APP,
    name: str = NAME,
    asset: str = typer.Option("", "--asset", help="Of this asset alone; that of all."),
    why: str = WHY,
    data: Path = DATA,
) -> None:
    """Make the champion before this one champion again."""
    with _registry(data) as registry:
        _told(registry.roll_back(app, name, by=person(), why=why, asset=asset))


def retire(
    app: str = APP,
    name: str = NAME,
    version: int = typer.Argument(help="Version."),
    why: str = WHY,
    data: Path = DATA,
) -> None:
    """Let a version be used no more; its record and file stay."""
    with _registry(data) as registry:
        _told(registry.change(app, name, version, "retired", by=person(), why=why))


def compare(
    app: str = APP,
    name: str = NAME,
    versions: list[int] = typer.Argument(None, help="Versions; all when left out."),
    as_json: bool = JSON,
    data: Path = DATA,
) -> None:
    """Lay the metrics of versions beside each other; says so when their data differ."""
    with _registry(data) as registry:
        found = [registry.get(app, name, each) for each in versions or []]
        found = found or registry.models(app, name)
    if as_json:
        _print_json(found)
        return
    names = sorted({metric for each in found for metric in each.metrics})
    table = Table("metric", *(f"{e.version} {e.state}" for e in found), box=None)
    for metric in names:
        values = [e.metrics.get(metric) for e in found]
        table.add_row(metric, *("-" if v is None else f"{v:.6g}" for v in values))
    out = Console(highlight=False)
    out.print(table)
    if len({each.window for each in found}) > 1:
        out.print("[yellow]their data windows differ: the numbers may not be compared[/]")


def _told(record: ModelRecord) -> None:
    Console(highlight=False).print(
        f"{record.app}/{record.name} version {record.version} is {record.state}", soft_wrap=True
    )


def _metrics(record: ModelRecord) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(record.metrics.items())) or "-"


def _day(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M")


def _print_json(what: Any) -> None:
    Console(highlight=False).print_json(msgspec.json.encode(what).decode())
