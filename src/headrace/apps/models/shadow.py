"""A challenger in shadow: it scores the windows that the champion scores, and its outputs are kept apart.

What it gives is no sample of any tag, so nothing reads it by mistake: it lies as
``models/shadow/<app>/<model>-<version>.parquet`` (output, asset, time, champion, shadow), and is laid beside
the champion's and, where a quantity tells it, beside the truth.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.apps.models import judge
from headrace.apps.models.handing import lay_models, used_by
from headrace.apps.models.process import Lines, run_process
from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import ModelRegistry
from headrace.historian.reader import Reader
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured, error_from_dict
from headrace.model.folder import DataFolder
from headrace.model.sample import TIMESTAMP, Float64Array
from headrace.security.files import make_folder

MEMORY_MB: Final = 2048
BACK_US: Final = 7 * 86_400 * 1_000_000
"""How far before the first window samples are read: windows may be that long."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How champion and challenger compare on one output.

    Attributes:
        windows: results that both gave. only_champion, only_challenger: that one of them gave.
        mean_difference: challenger less champion. rms_difference: root of the mean square.
        correlation: of both; None where one of them stands still.
        truths: results for which the truth is known; the rest is of these, None without any.
        rmse_champion, rmse_challenger: errors. nearer: share of results in which the challenger is nearer.
    """

    output: str
    windows: int
    only_champion: int
    only_challenger: int
    mean_difference: float
    rms_difference: float
    correlation: float | None
    truths: int = 0
    rmse_champion: float | None = None
    rmse_challenger: float | None = None
    nearer: float | None = None


class Shadowed(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found. ``problems``: what hooks of either side failed at."""

    app: str
    model: str
    champion: int
    challenger: int
    start_us: int
    end_us: int
    outputs: list[Agreement]
    problems: list[str] = []


def shadow(
    folder: DataFolder,
    registry: ModelRegistry,
    reader: Reader,
    deployment: AppDeployment,
    code: Path,
    model: str,
    span_us: tuple[int, int],
    *,
    truth: str = "",
    asset: str = "",
    seconds: float = 3600.0,
    cancelled: threading.Event | None = None,
    line: Lines = lambda text: None,
) -> Shadowed:
    """Let champion and challenger score the windows that come due in ``(start, end]``.

    Args:
        truth: quantity of the type that says later what was right; compared with the output at its time.
        asset: path of the one whose own challenger is meant; empty: that of all.

    Raises:
        Misconfigured: APPS-2530 when there is no champion or no challenger, APPS-2531 no such quantity.
        Refused, Terminal: as a training.
    """
    app = deployment.manifest.id
    champion, challenger = pair_of(registry, deployment, model, truth, asset)
    make_folder(folder.models)
    with tempfile.TemporaryDirectory(prefix="shadow-", dir=folder.models) as name:
        place = Path(name)
        names = deployment.manifest.models
        used = used_by(registry, app, names)
        lay_models(registry, used, names, place / "champion")
        lay_models(registry, used | {(model, asset): challenger}, names, place / "challenger")
        _read_samples(reader, deployment, span_us).write_ipc(place / judge.SAMPLES)
        job = judge.Job(
            deployment=deployment,
            code=str(code),
            start_us=span_us[0],
            end_us=span_us[1],
            memory_mb=MEMORY_MB,
        )
        (place / judge.JOB).write_bytes(msgspec.json.encode(job))
        run_process(
            judge.__name__, place, judge.RESULT, f"the shadow of {app}/{model}",
            seconds=seconds, cancelled=cancelled or threading.Event(), line=line,
        )  # fmt: skip
        answer = msgspec.json.decode((place / judge.RESULT).read_bytes(), type=judge.Answer)
        if answer.error:
            raise error_from_dict(answer.error)
        both = _beside(place, deployment)
        _keep(folder, challenger, both)
    both = with_truth(both, reader, deployment, truth)
    names = sorted(both["output"].unique())
    return Shadowed(
        app=app,
        model=model,
        champion=champion.version,
        challenger=challenger.version,
        start_us=span_us[0],
        end_us=span_us[1],
        outputs=[agreement(name, both.filter(pl.col("output") == name)) for name in names],
        problems=answer.problems,
    )


def pair_of(
    registry: ModelRegistry, deployment: AppDeployment, model: str, truth: str, asset: str
) -> tuple[ModelRecord, ModelRecord]:
    """Champion and challenger of a model; an asset without a champion of its own has that of all.

    Raises:
        Misconfigured: APPS-2530 when one of them is missing, APPS-2531 no quantity that tells the truth.
    """
    app = deployment.manifest.id
    challenger = registry.in_use(app, model, "challenger", asset)
    champion = registry.in_use(app, model, "champion", asset)
    champion = champion or registry.in_use(app, model, "champion")
    if champion is None or challenger is None:
        sides = {"champion": champion, "challenger": challenger}
        missing = " and ".join(side for side, each in sides.items() if each is None)
        raise Misconfigured(
            "APPS-2530",
            f"model {app}/{model} has no {missing}" + (f" of {asset}" if asset else ""),
            f"Name one: headrace model promote {app} {model} VERSION [--challenger] --why ...",
        )
    _check_truth(deployment, truth)
    return champion, challenger


def _check_truth(deployment: AppDeployment, truth: str) -> None:
    types = deployment.manifest.types.values()
    known = sorted({name for each in types for name in (*each.quantities, *each.optional)})
    if truth and truth not in known:
        raise Misconfigured(
            "APPS-2531",
            f"{deployment.manifest.id} has no quantity {truth!r} that could tell the truth",
            f"It has {', '.join(known)}.",
        )


def _read_samples(
    reader: Reader, deployment: AppDeployment, span_us: tuple[int, int]
) -> pl.DataFrame:
    ids = sorted({tag for asset in deployment.assets for tag in asset.tags.values()})
    begin_us = span_us[0] - BACK_US
    return pl.concat([reader.before(ids, begin_us), reader.read(ids, begin_us, span_us[1])])


def _beside(place: Path, deployment: AppDeployment) -> pl.DataFrame:
    """Output, asset, time, champion, shadow; null where one of them gave nothing."""
    owners = [
        (tag, name, asset.path)
        for asset in deployment.assets
        for name, tag in asset.outputs.items()
    ]
    schema = {"tag_id": pl.Int64, "output": pl.String, "asset": pl.String}
    owner = pl.DataFrame(owners, schema=schema, orient="row")
    sides = []
    for side, name in zip(judge.SIDES, ("champion", "shadow"), strict=True):
        samples = pl.read_ipc(place / f"{side}.arrow").filter(pl.col("value").is_not_null())
        sides.append(
            samples.select("tag_id", time="source_timestamp", value="value").rename({"value": name})
        )
    both = sides[0].join(sides[1], on=["tag_id", "time"], how="full", coalesce=True)
    return (
        both.join(owner, on="tag_id", how="inner")
        .select("output", "asset", "time", "champion", "shadow")
        .sort("output", "asset", "time")
    )


def _keep(folder: DataFolder, challenger: ModelRecord, both: pl.DataFrame) -> None:
    place = folder.models / "shadow" / challenger.app
    make_folder(place)
    file = place / f"{challenger.name}-{challenger.version}.parquet"
    fresh = file.with_suffix(".new")
    both.write_parquet(fresh)
    fresh.replace(file)


def with_truth(
    both: pl.DataFrame, reader: Reader, deployment: AppDeployment, truth: str
) -> pl.DataFrame:
    """The same with a column ``truth``: the newest sample of the quantity at or before each result."""
    tags = {each.path: each.tags[truth] for each in deployment.assets if truth in each.tags}
    if not tags or not both.height:
        return both.with_columns(truth=pl.lit(None, pl.Float64))
    first_us, last_us = both.select(
        low=pl.col("time").min().to_physical(), high=pl.col("time").max().to_physical()
    ).row(0)
    ids = sorted(tags.values())
    rows = pl.concat([reader.before(ids, first_us), reader.read(ids, first_us, last_us + 1)])
    known = rows.filter(pl.col("value").is_not_null()).select(
        pl.col("tag_id").cast(pl.Int64),
        pl.col("source_timestamp").cast(TIMESTAMP).alias("time"),
        pl.col("value").alias("truth"),
    )
    tag_of = pl.col("asset").replace_strict(tags, default=None, return_dtype=pl.Int64)
    found = both.with_columns(tag_id=tag_of).sort("time")
    joined = found.join_asof(known.sort("time"), on="time", by="tag_id", check_sortedness=False)
    return joined.drop("tag_id").sort("output", "asset", "time")


def agreement(output: str, both: pl.DataFrame) -> Agreement:
    """How two columns of results compare.

    Args:
        both: columns ``champion``, ``shadow`` and ``truth``, each may be null.

    Example:
        >>> both = pl.DataFrame({"champion": [1.0, 2.0], "shadow": [1.5, 2.5], "truth": [1.5, None]})
        >>> found = agreement("rul", both)
        >>> found.mean_difference, found.correlation, found.rmse_champion, found.rmse_challenger
        (0.5, 1.0, 0.5, 0.0)
    """
    paired = both.drop_nulls(["champion", "shadow"])
    old, new = paired["champion"].to_numpy(), paired["shadow"].to_numpy()
    told = paired.drop_nulls("truth")
    truth = told["truth"].cast(pl.Float64).to_numpy()
    wrong_old, wrong_new = told["champion"].to_numpy() - truth, told["shadow"].to_numpy() - truth
    moves = len(old) > 1 and old.std() > 0 and new.std() > 0
    has_truth = len(truth) > 0
    return Agreement(
        output=output,
        windows=paired.height,
        only_champion=both["shadow"].null_count(),
        only_challenger=both["champion"].null_count(),
        mean_difference=float((new - old).mean()) if len(old) else 0.0,
        rms_difference=_rms(new - old),
        correlation=round(float(np.corrcoef(old, new)[0, 1]), 12) if moves else None,
        truths=len(truth),
        rmse_champion=_rms(wrong_old) if has_truth else None,
        rmse_challenger=_rms(wrong_new) if has_truth else None,
        nearer=float((np.abs(wrong_new) < np.abs(wrong_old)).mean()) if has_truth else None,
    )


def _rms(values: Float64Array) -> float:
    return float(np.sqrt((values**2).mean())) if len(values) else 0.0
