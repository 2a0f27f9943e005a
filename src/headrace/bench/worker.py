"""The bench's worker: a process of its own that runs scenarios of one app, one after another.

One line of JSON a scenario comes in, one goes out. An app that hangs, crashes or eats memory takes this
process with it and nothing else; one that opens a connection is refused.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from headrace.bench.ground import Carried
from headrace.bench.scenario import Scenario
from headrace.bench.scenario_file import Read
from headrace.bench.subject import Subject
from headrace.bench.trial import Trial, run_trial
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import Refused

_SEALED: Final = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")
_STARTS: Final = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.system")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario to run.

    Attributes:
        folder: that the scenario's files are below.
        manifest: of the app; None benches the site. app: folder of it. sha256: of its content.
        carried: file with what came through the scenario's protocol; empty: of none.
    """

    scenario: Scenario
    folder: str
    manifest: AppManifest | None = None
    app: str = ""
    sha256: str = ""
    carried: str = ""


def run_job(job: Job) -> Trial:
    """Run one scenario."""
    read = Read(job.scenario, Path(job.folder))
    carried = None
    if job.carried:
        carried = msgspec.msgpack.decode(Path(job.carried).read_bytes(), type=Carried)
    if job.manifest is None:
        return run_trial(read, carried=carried)
    subject = Subject(job.manifest, Path(job.app), job.sha256)
    return run_trial(read, subject, carried=carried)


def serve(lines: IO[bytes], answers: IO[bytes]) -> None:
    """Run each job that comes, until there are no more."""
    for line in lines:
        trial = run_job(msgspec.json.decode(line, type=Job))
        answers.write(msgspec.json.encode(trial) + b"\n")
        answers.flush()


def _seal(event: str, given: tuple[Any, ...]) -> None:
    """No app has a connection or a process of its own on the bench."""
    if event in _SEALED:
        where = given[1] if len(given) > 1 else given[:1]
        raise Refused(
            "APPS-2425",
            f"the app opens a connection to {where}; the bench is sealed",
            "Leave it out: an app has its samples, and what its manifest names.",
        )
    if event in _STARTS:
        raise Refused(
            "APPS-2425",
            f"the app starts another process ({event}); the bench is sealed",
            "Do the work in the hook.",
        )


def main() -> None:
    """Entry of the process. What the app prints goes to the error output, never among the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.addaudithook(_seal)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
