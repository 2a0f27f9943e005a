"""A whole bench: a subject, its scenarios, the report and the certificate on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

import headrace
from headrace.apps.package.bench_keys import sign_certificate
from headrace.apps.package.package import CERTIFICATE
from headrace.bench.certificate import certificate_of
from headrace.bench.report import Report, html_of, json_of, junit_of
from headrace.bench.runner import Runner
from headrace.bench.scenario_file import Read
from headrace.bench.subject import Subject
from headrace.bench.worker import Job
from headrace.security.files import make_folder, write_whole

FILES: Final = ("bench.json", "bench.xml", "bench.html")


def bench_app(subject: Subject, scenarios: Sequence[Read], runner: Runner) -> Report:
    """Bench an app."""
    jobs = [
        Job(
            scenario=each.scenario,
            folder=str(each.folder.resolve()),
            manifest=subject.manifest,
            app=str(subject.folder.resolve()),
            sha256=subject.sha256,
        )
        for each in scenarios
    ]
    return Report(
        subject="app",
        id=subject.manifest.id,
        version=subject.manifest.version,
        content_sha256=subject.sha256,
        platform=headrace.__version__,
        trials=runner.run(jobs),
    )


def bench_own(scenarios: Sequence[Read], runner: Runner, *, name: str = "demo") -> Report:
    """Bench the formulas and alarms that the scenarios' own site has."""
    jobs = [Job(scenario=each.scenario, folder=str(each.folder.resolve())) for each in scenarios]
    return Report(subject="site", id=name, platform=headrace.__version__, trials=runner.run(jobs))


def write_report(report: Report, folder: Path) -> list[Path]:
    """``bench.json``, ``bench.xml`` (JUnit) and ``bench.html`` in a folder."""
    make_folder(folder, 0o755)
    contents = (json_of(report), junit_of(report), html_of(report))
    paths = [folder / name for name in FILES]
    for path, content in zip(paths, contents, strict=True):
        write_whole(path, content, mode=0o644)
    return paths


def write_certificate(report: Report, folder: Path, key: bytes | None = None) -> Path:
    """``certificate.json`` beside ``app.toml``: what ``headrace app pack`` signs into the package.

    Args:
        key: private, PEM, of this bench; None: it signs nothing.

    Raises:
        Misconfigured: SEC-1740 when the key is none.
    """
    path = folder / CERTIFICATE
    certificate = certificate_of(report)
    if key is not None:
        certificate = sign_certificate(certificate, key)
    content = msgspec.json.format(msgspec.json.encode(certificate), indent=1)
    write_whole(path, content, mode=0o644)
    return path
