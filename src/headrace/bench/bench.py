"""A whole bench: a subject, its scenarios, the report and the certificate on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

import headrace
from headrace.apps.package.bench_keys import sign_certificate
from headrace.apps.package.package import CERTIFICATE
from headrace.bench.carrying import carry
from headrace.bench.certificate import certificate_of
from headrace.bench.report import Report, html_of, json_of, junit_of
from headrace.bench.runner import Runner
from headrace.bench.scenario_file import Read
from headrace.bench.subject import Subject
from headrace.bench.trial import Trial, ground_of, stopped
from headrace.bench.worker import Job
from headrace.model.errors import HeadraceError
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
        trials=_trials(jobs, runner),
    )


def bench_own(scenarios: Sequence[Read], runner: Runner, *, name: str = "demo") -> Report:
    """Bench the formulas and alarms that the scenarios' own site has."""
    jobs = [Job(scenario=each.scenario, folder=str(each.folder.resolve())) for each in scenarios]
    return Report(
        subject="site", id=name, platform=headrace.__version__, trials=_trials(jobs, runner)
    )


def _trials(jobs: Sequence[Job], runner: Runner) -> list[Trial]:
    """The trials in the order of the jobs; what has a protocol goes through it here, as no worker may
    open a connection."""
    done: dict[int, Trial] = {}
    ready: dict[int, Job] = {}
    with TemporaryDirectory() as folder:
        for number, job in enumerate(jobs):
            try:
                ready[number] = _through(job, Path(folder, f"{number}.mp"))
            except HeadraceError as error:
                done[number] = stopped(Read(job.scenario, Path(job.folder)), error)
        done |= zip(ready, runner.run(list(ready.values())), strict=False)
    return [done[number] for number in sorted(done)]


def _through(job: Job, to: Path) -> Job:
    if not job.scenario.source.protocol:
        return job
    carried = carry(ground_of(Read(job.scenario, Path(job.folder))), job.scenario)
    to.write_bytes(msgspec.msgpack.encode(carried))
    return msgspec.structs.replace(job, carried=str(to))


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
