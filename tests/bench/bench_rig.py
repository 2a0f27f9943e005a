"""Small apps and scenarios for tests of the bench."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from headrace.bench.scenario_file import read_scenario
from headrace.bench.subject import open_app
from headrace.bench.trial import Trial, run_trial

APPS = Path(__file__).parent / "apps"
MANIFEST = """
id = "{id}"
version = "1.0.0"
title = {{ en = "Tried app", zh = "试用应用" }}
publisher = "tests"
python = "{module}"

[types.pump]
package = "pump"
quantities = {{ {quantities} }}

[formulas]
pump = '''
{formulas}
'''

[[outputs]]
type = "pump"
name = "mean_flow"
unit = "m3/h"

[budgets]
cpu_percent = {cpu}
"""
GOOD = """
import polars as pl
from headrace import app


@app.on_window("pump", length="10 s", every="10 s")
def watch(window):
    mean = window.frame.group_by("asset", maintain_order=True).agg(
        pl.col("time").max(), pl.col("flow").mean().alias("mean_flow")
    )
    return mean.drop_nulls()
"""
SCENARIO = """
name = "recorded"
title = "Two minutes of a pump"
turn_s = 5

[source]
kind = "recording"
file = "pump.csv"
label = "wrong"

[[asset]]
path = "hall/p1"
type = "pump"
quantities = { flow = { column = "flow", unit = "m3/h" }, head = { column = "head", unit = "m" } }
"""


def write_app(
    folder: Path,
    module: str = GOOD,
    *,
    name: str = "tried",
    quantities: str = 'flow = "m3/h", head = "m"',
    formulas: str = 'alarm low: head < 15 m, priority high, message "low"',
    cpu: float = 50.0,
) -> Path:
    """An app's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = MANIFEST.format(
        id=name.replace("_", "-"), module=name, quantities=quantities, formulas=formulas, cpu=cpu
    )
    (folder / "app.toml").write_text(text, "utf-8")
    (folder / f"{name}.py").write_text(module, "utf-8")
    return folder


def write_scenario(folder: Path, musts: str = "", extra: str = "") -> Path:
    """A scenario on a recording of a pump whose head is low from second 60 to 89."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["time,flow,head,wrong"]
    for second in range(120):
        low = 60 <= second < 90
        lines.append(
            f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z,"
            f"{20 + second % 7},{12 if low else 20},{int(low)}"
        )
    (folder / "pump.csv").write_text("\n".join(lines) + "\n", "utf-8")
    path = folder / "recorded.toml"
    path.write_text(SCENARIO.replace("\n[source]", f"{extra}\n[source]", 1) + musts, "utf-8")
    return path


def tried(app: Path, scenario: Path, unpack_to: Path | None = None) -> Trial:
    """The app on the scenario, in this process."""
    return run_trial(read_scenario(scenario), open_app(app, unpack_to or app))


def failed(trial: Trial) -> list[str]:
    """What was not as asked."""
    return [f"{each.asked}: {each.seen}" for each in trial.verdicts if not each.passed]


def must(kind: str, **fields: object) -> str:
    """A ``[[must]]`` of a scenario file."""
    shown = {name: f'"{v}"' if isinstance(v, str) else v for name, v in fields.items()}
    lines: Iterable[str] = (f"{name} = {value}" for name, value in shown.items())
    return "\n".join(["", "[[must]]", f'kind = "{kind}"', *lines, ""])
