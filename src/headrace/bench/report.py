"""The bench's report: JSON, JUnit XML, and one HTML page with its plots in it. Same trials, same bytes.

No time of day, no name of a machine, nothing measured: two runs of the same content give one report.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import msgspec

from headrace.bench.trial import Bar, Line, Trial

VERSION: Final = 1
_WIDTH: Final = 860
_PLOT: Final = 90
_BAR: Final = 16
_LEFT: Final = 270
_COLOURS: Final = {"fault": "#b5651d", "label": "#8a6bbf", "alarm": "#c0392b"}
_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 900px; padding: 0 1rem;
  color: #1d2733; background: #ffffff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid #dfe5ea; }
.passed { color: #2e7d32; } .failed, .error { color: #c0392b; } .skipped { color: #777777; }
svg { width: 100%; height: auto; } code { font-size: .9em; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { color: #e4eaf0; background: #14191f; }
  td, th { border-color: #33404d; } }
"""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a bench.

    Attributes:
        subject: ``app``, ``site`` or ``connector``. id, version: of it. content_sha256: of what was benched.
        platform: version of Headrace.
        trials: by scenario.
    """

    subject: str
    id: str
    platform: str
    trials: list[Trial]
    version: str = ""
    content_sha256: str = ""
    format: int = VERSION

    @property
    def passed(self) -> bool:
        """Whether every scenario that ran passed, and at least one ran."""
        ran = [each for each in self.trials if each.outcome != "skipped"]
        return bool(ran) and all(each.passed for each in ran)

    @property
    def scenarios_sha256(self) -> dict[str, str]:
        """Scenario -> hash of what it says."""
        return {each.scenario: each.sha256 for each in self.trials}

    def count(self, outcome: str) -> int:
        """Trials of this outcome."""
        return sum(each.outcome == outcome for each in self.trials)


def json_of(report: Report) -> bytes:
    """The report as JSON; what was measured on this machine is left out.

    Example:
        >>> json_of(Report(subject="app", id="a", platform="0", trials=[]))[:17]
        b'{\\n  "content_sha2'
    """
    trials = [msgspec.structs.replace(each, measured={}) for each in report.trials]
    whole = msgspec.structs.replace(report, trials=trials)
    return msgspec.json.format(msgspec.json.encode(whole, order="sorted"), indent=2) + b"\n"


def junit_of(report: Report) -> bytes:
    """The report as JUnit XML: a suite a scenario, a case a check."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    cases = [max(len(each.verdicts), 1) for each in report.trials]
    failed = sum(not v.passed for each in report.trials for v in each.verdicts)
    lines.append(
        f'<testsuites name={quoteattr(f"{report.id} {report.version}".strip())} tests="{sum(cases)}"'
        f' failures="{failed}" errors="{report.count("error")}">'
    )
    for trial, count in zip(report.trials, cases, strict=True):
        lines += _suite(trial, count)
    return ("\n".join([*lines, "</testsuites>"]) + "\n").encode()


def _suite(trial: Trial, count: int) -> list[str]:
    failures = sum(not each.passed for each in trial.verdicts)
    name = quoteattr(trial.scenario)
    lines = [
        f'  <testsuite name={name} tests="{count}" failures="{failures}"'
        f' errors="{int(trial.outcome == "error")}" skipped="{int(trial.outcome == "skipped")}">'
    ]
    if trial.protocol:
        told = f'<property name="protocol" value={quoteattr(trial.protocol)}/>'
        lines.append(f"    <properties>{told}</properties>")
    for each in trial.verdicts:
        case = f"    <testcase classname={name} name={quoteattr(each.asked)}"
        if each.passed:
            lines += [f"{case}>", f"      <system-out>{escape(each.seen)}</system-out>"]
        else:
            lines += [f"{case}>", f"      <failure message={quoteattr(each.seen)}/>"]
        lines.append("    </testcase>")
    if not trial.verdicts:
        word = "skipped" if trial.outcome == "skipped" else "error"
        lines += [
            f'    <testcase classname={name} name="runs">',
            f"      <{word} message={quoteattr(f'{trial.reason}. {trial.remedy}')}/>",
            "    </testcase>",
        ]
    return [*lines, "  </testsuite>"]


def html_of(report: Report) -> bytes:
    """The report as one page that needs nothing else."""
    word = "passed" if report.passed else "failed"
    title = f"{report.id} {report.version}".strip()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_e(title)}: bench</title><style>{_STYLE}</style></head><body>",
        f'<h1>{_e(title)}: <span class="{word}">{word}</span></h1>',
        f"<p>{report.count('passed')} of {len(report.trials)} scenarios passed,"
        f" {report.count('failed')} failed, {report.count('error')} could not run,"
        f" {report.count('skipped')} skipped. Headrace {_e(report.platform)}.</p>",
        f"<p>Content <code>{_e(report.content_sha256 or 'none')}</code></p>",
        "<table><tr><th>Scenario</th><th>Outcome</th><th>What it tries</th></tr>",
    ]
    for trial in report.trials:
        parts.append(
            f'<tr><td><a href="#{_e(trial.scenario)}">{_e(trial.scenario)}</a></td>'
            f'<td class="{trial.outcome}">{trial.outcome}</td><td>{_e(trial.title)}</td></tr>'
        )
    parts.append("</table>")
    for trial in report.trials:
        parts += _section(trial)
    return ("\n".join([*parts, "</body></html>"]) + "\n").encode()


def _section(trial: Trial) -> list[str]:
    parts = [
        f'<h2 id="{_e(trial.scenario)}">{_e(trial.scenario)}:'
        f' <span class="{trial.outcome}">{trial.outcome}</span></h2>',
        f"<p>{_e(trial.title)}</p>",
    ]
    if trial.reason:
        return [*parts, f'<p class="{trial.outcome}">{_e(trial.reason)}. {_e(trial.remedy)}</p>']
    if trial.seconds:
        parts.append(_figures(trial))
    parts.append("<table><tr><th></th><th>Must</th><th>Seen</th></tr>")
    for each in trial.verdicts:
        word = "passed" if each.passed else "failed"
        mark = "✓" if each.passed else "✗"
        parts.append(
            f'<tr><td class="{word}">{mark}</td><td>{_e(each.asked)}</td><td>{_e(each.seen)}</td></tr>'
        )
    parts.append("</table>")
    parts += [f"<p>{_e(each)}</p>" for each in trial.notes]
    if not trial.seconds:
        return parts
    return [*parts, f"<p>Scenario <code>{trial.sha256}</code></p>", plot_of(trial)]


def _figures(trial: Trial) -> str:
    way = f"Through {_e(trial.protocol)}: " if trial.protocol else ""
    return (
        f"<p>{way}{trial.seconds:g} s, {trial.assets} assets, {trial.samples} samples in,"
        f" {trial.results} given, {trial.calls} calls of hooks, {trial.restarts} restarts.</p>"
    )


def plot_of(trial: Trial) -> str:
    """The trial as SVG: faults, labelled times and alarms as bars, then its curves."""
    length = max(trial.seconds, 1e-9)
    rows: list[str] = []
    top = 18
    for bar in trial.bars[:60]:
        rows += _bar(bar, top, length)
        top += _BAR
    for line in trial.lines:
        rows += _curve(line, top + 6, length)
        top += _PLOT
    ticks = []
    for n in range(6):
        x, second = _LEFT + (_WIDTH - _LEFT - 10) * n / 5, length * n / 5
        ticks.append(
            f'<line x1="{x:.1f}" y1="14" x2="{x:.1f}" y2="{top}" stroke="#8884" />'
            f'<text x="{x:.1f}" y="11" font-size="10" text-anchor="middle">{second:.4g} s</text>'
        )
    head = (
        f'<svg viewBox="0 0 {_WIDTH} {top + 8}" xmlns="http://www.w3.org/2000/svg"'
        f' fill="currentColor" role="img" aria-label={quoteattr(trial.scenario)}>'
    )
    return "".join([head, *ticks, *rows, "</svg>"])


def _x(second: float, length: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - 10) * min(max(second / length, 0.0), 1.0)


def _bar(bar: Bar, top: int, length: float) -> list[str]:
    start, end = _x(bar.start_s, length), _x(bar.end_s, length)
    return [
        _name(bar.what, top + 11),
        f'<rect x="{start:.1f}" y="{top + 2}" width="{max(end - start, 2.0):.1f}" height="11"'
        f' fill="{_COLOURS[bar.kind]}"><title>{_e(bar.kind)} {bar.start_s:g} s to {bar.end_s:g} s'
        "</title></rect>",
    ]


def _curve(line: Line, top: int, length: float) -> list[str]:
    known = [each for each in line.value if each is not None]
    if not known:
        return [_name(f"{line.asset}/{line.name}: no numbers", top + 12)]
    low, high = min(known), max(known)
    height, span = _PLOT - 18, (high - low) or 1.0
    paths, pen = [], "M"
    for second, value in zip(line.second, line.value, strict=True):
        if value is None:
            pen = "M"
            continue
        y = top + height - (value - low) / span * height
        paths.append(f"{pen}{_x(second, length):.1f} {y:.1f}")
        pen = "L"
    return [
        _name(f"{line.asset}/{line.name}", top + 12),
        _name(f"{low:.5g} to {high:.5g}", top + 27, faint=True),
        f'<path d="{"".join(paths)}" fill="none" stroke="#2471a3" stroke-width="1.2" />',
    ]


def _name(text: str, y: float, *, faint: bool = False) -> str:
    shown = text if len(text) <= 46 else "…" + text[-45:]
    style = ' opacity="0.65"' if faint else ""
    return f'<text x="0" y="{y:.1f}" font-size="10.5"{style}>{_e(shown)}</text>'


def _e(text: str) -> str:
    return html.escape(text)


def timing_of(trials: Sequence[Trial]) -> dict[str, dict[str, str]]:
    """Scenario -> what was measured on this machine: for the screen, never for a report."""
    return {each.scenario: dict(each.measured) for each in trials if each.measured}
