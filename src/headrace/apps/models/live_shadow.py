"""Champion and challenger as the running site stored them: the tags of outputs beside their ``_shadow`` tags.

Nothing is scored here. Counted is the time in which both were what they are now: of an earlier champion or
challenger under the same tags nothing is mixed in.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import polars as pl

from headrace.apps.models import handing
from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import ModelRegistry
from headrace.apps.models.shadow import Shadowed, agreement, pair_of, with_truth
from headrace.historian.reader import Reader
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured
from headrace.model.sample import TIMESTAMP, microseconds
from headrace.model.time import US_PER_S


class LiveShadow(NamedTuple):
    """What was stored of both.

    Attributes:
        found: how they compare. both: columns output, asset, time, champion, shadow, truth; by these.
        units: of each output.
    """

    found: Shadowed
    both: pl.DataFrame
    units: dict[str, str]


class DriftNow(msgspec.Struct, frozen=True, kw_only=True):
    """The newest drift of one asset; see :mod:`.live_drift`. ``at_us``: end of its stretch."""

    asset: str
    at_us: int
    score: float


def shadow_live(
    reader: Reader,
    registry: ModelRegistry,
    deployment: AppDeployment,
    model: str,
    span_us: tuple[int, int],
    *,
    truth: str = "",
    asset: str = "",
) -> LiveShadow:
    """Compare what the running app gave with the champion and with the challenger in ``[start, end)``.

    Args:
        truth, asset: see :func:`headrace.apps.models.shadow.shadow`.

    Raises:
        Misconfigured: APPS-2530 when there is no champion or no challenger, APPS-2531 no such quantity,
            APPS-2561 when no output of the app names the model.
    """
    champion, challenger = pair_of(registry, deployment, model, truth, asset)
    units = {o.name: o.unit for o in deployment.manifest.outputs if o.model == model}
    names = sorted(units)
    if not names:
        app = deployment.manifest.id
        raise Misconfigured(
            "APPS-2561",
            f"no output of {app} is of the model {model}: nothing of its challenger is stored",
            f'Write model = "{model}" below its [[outputs]], or compare on stored history: headrace '
            f"model shadow {app} {model}",
        )
    start_us = max(span_us[0], *(_since(registry, each) for each in (champion, challenger)))
    both = _beside(reader, deployment, names, asset, (start_us, span_us[1]))
    both = with_truth(both, reader, deployment, truth)
    found = Shadowed(
        app=deployment.manifest.id,
        model=model,
        champion=champion.version,
        challenger=challenger.version,
        start_us=start_us,
        end_us=span_us[1],
        outputs=[agreement(name, both.filter(pl.col("output") == name)) for name in names],
    )
    return LiveShadow(found, both, units)


def drift_now(reader: Reader, deployment: AppDeployment, model: str) -> list[DriftNow]:
    """The newest drift of each asset that has one, by path."""
    owner = {each.drifts[model]: each.path for each in deployment.assets if model in each.drifts}
    rows = reader.last(sorted(owner)) if owner else None
    if rows is None:
        return []
    told = rows.filter(pl.col("value").is_not_null())
    triples = zip(
        told["tag_id"], microseconds(told["source_timestamp"]), told["value"], strict=True
    )
    found = [DriftNow(asset=owner[int(t)], at_us=int(at), score=v) for t, at, v in triples]
    return sorted(found, key=lambda each: each.asset)


def _since(registry: ModelRegistry, record: ModelRecord) -> int:
    """From when on what is stored is of it, as what it is now: the app has taken it up by then."""
    changes = registry.changes(record.app, record.name)
    found = max((each.at_us for each in changes if each.version == record.version), default=0)
    return found + int(2 * handing.FOLLOW_S * US_PER_S)


def _beside(
    reader: Reader,
    deployment: AppDeployment,
    names: list[str],
    asset: str,
    span_us: tuple[int, int],
) -> pl.DataFrame:
    bound = [each for each in deployment.assets if asset in ("", each.path)]
    sides = []
    for side in ("champion", "shadow"):
        owners = [
            (tag, name, each.path)
            for each in bound
            for name, tag in (each.outputs if side == "champion" else each.shadows).items()
            if name in names
        ]
        schema = {"tag_id": pl.Int64, "output": pl.String, "asset": pl.String}
        owner = pl.DataFrame(owners, schema=schema, orient="row")
        ids = sorted(owner["tag_id"])
        rows = reader.read(ids, *span_us) if ids and span_us[0] < span_us[1] else None
        empty = pl.DataFrame(schema={"time": TIMESTAMP, side: pl.Float64, "tag_id": pl.Int64})
        its = empty if rows is None else rows.filter(pl.col("value").is_not_null()).select(
            pl.col("source_timestamp").cast(TIMESTAMP).alias("time"),
            pl.col("value").alias(side),
            pl.col("tag_id").cast(pl.Int64),
        )  # fmt: skip
        sides.append(its.join(owner, on="tag_id", how="inner").drop("tag_id"))
    on = ["output", "asset", "time"]
    both = sides[0].join(sides[1], on=on, how="full", coalesce=True)
    return both.select(*on, "champion", "shadow").sort(on)
