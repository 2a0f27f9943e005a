"""``headrace model train``: a model of an installed app, of this site's own history."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.doors import person
from headrace.cli.run import DATA
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder

if TYPE_CHECKING:
    from headrace.apps.models.record import ModelRecord
    from headrace.apps.models.training import Wanted
    from headrace.historian.reader import Reader

BAR: Final = 30


def train(
    app: str = typer.Argument(help="Id of an installed app, such as asset-health."),
    model: str = typer.Argument(help="Name of the model, such as rul."),
    start: str = typer.Option("-30d", "--from", help="now, -1h, or ISO 8601 with a zone."),
    end: str = typer.Option("now", "--to", help="Same forms as --from."),
    assets: list[str] = typer.Option([], "--asset", help="Path; several possible; all."),
    asset_type: str = typer.Option("", "--type", help="Needed type, where the app has several."),
    every: str = typer.Option("1min", help="Distance of rows."),
    held_out: float = typer.Option(0.2, help="Share of the time that is kept for the metrics."),
    seed: int = typer.Option(0, help="Given to the app."),
    prove: bool = typer.Option(
        False, "--prove", help="Train twice: what was held out must not change the model."
    ),
    memory_mb: int = typer.Option(2048, help="Of the training's process."),
    seconds: float = typer.Option(3600.0, help="That it may take."),
    cores: int = typer.Option(1, help="Processes that read the past; 0 is one a core."),
    ray: str = typer.Option("", "--ray", help="Address of a Ray cluster, or auto."),
    data: Path = DATA,
) -> None:
    """Train a model; one that was stopped goes on where it was. It is not used before promote."""
    from headrace.apps.models.history import Asked
    from headrace.apps.models.installed import deployment_of
    from headrace.apps.models.training import Budget, Wanted
    from headrace.historian.times import parse_duration, parse_time
    from headrace.model.time import SystemClock

    if not 0 < held_out < 1:
        raise Misconfigured(
            "APPS-2528", f"{held_out} is no share to hold out", "Give one between 0 and 1."
        )
    folder = DataFolder(data.resolve())
    deployment = deployment_of(folder, app)
    types = deployment.manifest.types
    if not asset_type and len(types) != 1:
        raise Misconfigured(
            "APPS-2528", f"{app} needs several types of assets", f"Give --type: {', '.join(types)}."
        )
    now_us = SystemClock().now_us()
    step_us = max(1, parse_duration(every))
    start_us, end_us = (parse_time(each, now_us) // step_us * step_us for each in (start, end))
    asked = Asked(
        type=asset_type or next(iter(types)),
        start_us=start_us,
        end_us=end_us,
        held_out_us=end_us - round((end_us - start_us) * held_out),
        step_us=step_us,
        assets=tuple(assets),
    )
    wanted = Wanted(
        model=model,
        asked=asked,
        by=person(),
        every=every,
        seed=seed,
        prove=prove,
        budget=Budget(memory_mb=memory_mb, seconds=seconds),
    )
    out = Console(highlight=False)
    for record in asyncio.run(_train(folder, app, wanted, cores, ray)):
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in sorted(record.metrics.items()))
        of = f" of {record.asset}" if record.asset else ""
        proven = "; what was held out had no part in it" if record.lineage.proven else ""
        out.print(
            f"{record.app}/{record.name} version {record.version}{of}, {record.size:,} bytes: "
            f"{metrics or 'no metrics'}{proven}",
            soft_wrap=True,
        )


async def _train(
    folder: DataFolder, app: str, wanted: Wanted, cores: int, ray: str
) -> list[ModelRecord]:
    from headrace.cli.reading import open_history

    cancelled = threading.Event()
    async with AsyncExitStack() as stack:
        reader = await open_history(stack, folder, "model-train")
        try:
            return await asyncio.to_thread(
                _work, folder, app, wanted, reader, cores, ray, cancelled
            )
        except asyncio.CancelledError:
            cancelled.set()  # Ctrl-C: the thread ends the training's process
            raise


def _work(
    folder: DataFolder,
    app: str,
    wanted: Wanted,
    reader: Reader,
    cores: int,
    ray: str,
    cancelled: threading.Event,
) -> list[ModelRecord]:
    from headrace.apps.models.installed import deployment_of, unpacked
    from headrace.apps.models.registry import open_models
    from headrace.apps.models.training import Trainer
    from headrace.historian.pools import LocalPool, RayPool

    deployment = deployment_of(folder, app)
    bar = Progress(
        TextColumn(f"{app}/{wanted.model}"), BarColumn(BAR),
        TextColumn("{task.completed}/{task.total} {task.description}"), TimeElapsedColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    reading = bar.add_task("parts read", total=None)
    training = bar.add_task("trained", total=None)
    pool = RayPool(ray) if ray else LocalPool(cores) if cores != 1 else None
    try:
        with open_models(folder) as registry, unpacked(folder, deployment) as code, bar:
            trainer = Trainer(
                folder, registry, deployment, code,
                told=lambda done, of: bar.update(reading, completed=done, total=of),
                trained=lambda done, of: bar.update(training, completed=done, total=of),
                line=lambda text: bar.console.print(text, markup=False),
            )  # fmt: skip
            return trainer.train(reader, wanted, pool, cancelled)
    finally:
        if pool is not None:
            pool.close()
