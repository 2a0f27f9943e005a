"""From a report to the certificate that goes into the package."""

from __future__ import annotations

import re

from headrace.bench.report import Report
from headrace.bench.trial import Trial
from headrace.model.bench_certificate import Certificate, ScenarioResult

_FIGURE = re.compile(r"(recall|precision|F1|false) (\d+\.\d+)")


def certificate_of(report: Report) -> Certificate:
    """What the report says, without what was skipped: that proves nothing.

    Example:
        >>> certificate_of(Report(subject="app", id="a", version="1.0.0", platform="0", trials=[])).passed
        False
    """
    ran = [each for each in report.trials if each.outcome != "skipped"]
    return Certificate(
        id=report.id,
        version=report.version,
        content_sha256=report.content_sha256,
        headrace=report.platform,
        scenarios={each.scenario: each.sha256 for each in ran},
        results=tuple(map(_result, ran)),
    )


def _result(trial: Trial) -> ScenarioResult:
    failed = [f"{each.asked}; seen: {each.seen}" for each in trial.verdicts if not each.passed]
    if trial.reason:
        failed.append(trial.reason)
    figures = {
        name: float(value)
        for each in trial.verdicts
        if each.kind == "find"
        for name, value in _FIGURE.findall(each.seen)
    }
    return ScenarioResult(
        name=trial.scenario,
        passed=trial.passed,
        checks=len(trial.verdicts),
        failed=tuple(failed),
        figures=figures,
    )
