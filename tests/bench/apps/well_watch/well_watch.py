"""Means of a minute, and work where the head is low for long."""

from __future__ import annotations

import polars as pl

from headrace import app


@app.on_window("pump", length="60 s", every="20 s", step="1 s")
def watch(window: app.Window) -> pl.DataFrame:
    mean = window.frame.group_by("asset", maintain_order=True).agg(
        pl.col("time").max(), pl.col("flow").mean().alias("mean_flow"), pl.col("head").mean()
    )
    told = set(window.state.get("told", []))
    for asset, head in mean.select("asset", "head").rows():
        if head is not None and head < window.settings["limit"] and asset not in told:
            told.add(asset)
            window.propose(
                app.WorkRequest(asset=asset, title="Clean the strainer", reason="The head is low")
            )
    window.state["told"] = sorted(told)
    return mean.drop("head").drop_nulls()
