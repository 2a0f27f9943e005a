"""``headrace model shadow`` and ``drift``: how a challenger does, and whether the world has moved on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.run import DATA
from headrace.model.folder import DataFolder

if TYPE_CHECKING:
    from headrace.apps.models.shadow import Shadowed
    from headrace.apps.models.watch import Watched
    from headrace.historian.reader import Reader

Found = TypeVar("Found")
APP = typer.Argument(help="Id of the app, such as asset-health.")
NAME = typer.Argument(help="Name of the model, such as rul.")
JSON = typer.Option(False, "--json", help="As JSON.")


def shadow(
    app: str = APP,
    model: str = NAME,
    start: str = typer.Option("-7d", "--from", help="now, -1h, or ISO 8601 with a zone."),
    end: str = typer.Option("now", "--to", help="Same forms as --from."),
    truth: str = typer.Option("", help="Quantity that tells what was right."),
    asset: str = typer.Option("", "--asset", help="Its own challenger; that of all."),
    live: bool = typer.Option(
        False, "--live", help="Compare what the running site has stored of both; score nothing."
    ),
    as_json: bool = JSON,
    data: Path = DATA,
) -> None:
    """Compare champion and challenger: what each gives for the windows of stored history, or with --live
    what the running site stored of both."""
    folder = DataFolder(data.resolve())

    def work(reader: Reader) -> Shadowed:
        from headrace.apps.models.installed import deployment_of, unpacked
        from headrace.apps.models.live_shadow import shadow_live
        from headrace.apps.models.registry import open_models
        from headrace.apps.models.shadow import shadow as score
        from headrace.historian.times import parse_time
        from headrace.model.time import SystemClock

        now_us = SystemClock().now_us()
        span = parse_time(start, now_us), parse_time(end, now_us)
        deployment = deployment_of(folder, app)
        with open_models(folder) as registry:
            if live:
                return shadow_live(
                    reader, registry, deployment, model, span, truth=truth, asset=asset
                ).found
            with unpacked(folder, deployment) as code:
                return score(
                    folder,
                    registry,
                    reader,
                    deployment,
                    code,
                    model,
                    span,
                    truth=truth,
                    asset=asset,
                )

    found = asyncio.run(_read(folder, "model-shadow", work))
    out = Console(highlight=False)
    if as_json:
        out.print_json(msgspec.json.encode(found).decode())
        return
    out.print(f"{app}/{model}: champion {found.champion}, challenger {found.challenger}")
    table = Table(
        "output", "results of both", "only one", "mean difference", "rms difference",
        "correlation", "error of champion", "of challenger", "nearer", box=None,
    )  # fmt: skip
    for each in found.outputs:
        numbers = (
            each.mean_difference, each.rms_difference, each.correlation, each.rmse_champion,
            each.rmse_challenger, each.nearer,
        )  # fmt: skip
        alone = each.only_champion + each.only_challenger
        shown = ("-" if number is None else f"{number:.4g}" for number in numbers)
        table.add_row(each.output, str(each.windows), str(alone), *shown)
    out.print(table)
    for problem in found.problems:
        out.print(problem, markup=False, style="red")


def drift(
    app: str = APP,
    model: str = NAME,
    version: int = typer.Option(0, "--version", help="0: the champion, or the newest."),
    last: str = typer.Option("1d", help="Length of the newest stretch, and of a block."),
    end: str = typer.Option("now", "--to", help="Its end."),
    alpha: float = typer.Option(0.05, help="False alarms, as a share of looks at a quantity."),
    as_json: bool = JSON,
    data: Path = DATA,
) -> None:
    """Compare the newest data with the training window. Ends with 1 when a quantity drifted."""
    folder = DataFolder(data.resolve())

    def work(reader: Reader) -> Watched:
        from headrace.apps.models.installed import deployment_of
        from headrace.apps.models.registry import open_models
        from headrace.apps.models.watch import look_for_drift
        from headrace.historian.times import parse_duration, parse_time
        from headrace.model.time import SystemClock

        end_us = parse_time(end, SystemClock().now_us())
        with open_models(folder) as registry:
            record = registry.get(app, model, version)
        length_us = parse_duration(last)
        return look_for_drift(reader, deployment_of(folder, app), record, end_us, length_us, alpha)

    found = asyncio.run(_read(folder, "model-drift", work))
    out = Console(highlight=False)
    if as_json:
        out.print_json(msgspec.json.encode(found).decode())
    else:
        _show(found, out)
    if found.drifted:
        raise typer.Exit(1)


def _show(found: Watched, out: Console) -> None:
    table = Table("asset", "quantity", "", "PSI", "KS", "p", "blocks", "missing", "", box=None)
    for each in found.quantities:
        verdict = "[red]drifted[/]" if each.drifted else "" if each.can_tell else "too few blocks"
        table.add_row(
            each.asset, each.quantity, each.kind, f"{each.psi:.3f}", f"{each.ks:.3f}",
            f"{each.p:.3f}", str(each.blocks), f"{each.missing:.0%}", verdict,
        )  # fmt: skip
    out.print(table)
    out.print(
        f"{len(found.drifted)} of {len(found.quantities)} drifted; by chance at most "
        f"{found.by_chance:.1f} would be told; the model as a whole: p {found.p:.3f}"
    )


async def _read(folder: DataFolder, name: str, work: Callable[[Reader], Found]) -> Found:
    from headrace.cli.reading import open_history

    async with AsyncExitStack() as stack:
        reader = await open_history(stack, folder, name)
        return await asyncio.to_thread(work, reader)
