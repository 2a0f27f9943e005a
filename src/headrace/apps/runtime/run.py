"""One installed app: its files, its user at the broker, its process, and what holds that to its budget.

A process over its CPU budget is stopped and continued (SIGSTOP, SIGCONT) so that it gets its share and no
more; one whose messages or rows are too many is answered later. One that is held back for most of a
minute, or has more memory than its budget, is ended and started again after a while, with an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec

from headrace.apps.models.daily import DailyLook
from headrace.apps.models.handing import Hand, follow_models, hand_over
from headrace.apps.package.package import read_package, unpack
from headrace.apps.runtime.describe import ENVIRONMENT
from headrace.apps.runtime.gate import Alarms, Gate, Past
from headrace.apps.runtime.keeping import UNKNOWN, Keeping
from headrace.apps.runtime.outside import Doorman
from headrace.apps.runtime.process import ERROR_MARK
from headrace.apps.runtime.tail import Tail
from headrace.apps.runtime.wire import Start
from headrace.apps.runtime.writing import SitePolicy, Writing
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.model.app_state import LOG_LINES_MAX, AppEvent, AppState, AppStateName
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Terminal, error_from_dict
from headrace.model.folder import DataFolder
from headrace.model.health import Severity
from headrace.model.tasks import end_tasks
from headrace.model.time import US_PER_S, Clock
from headrace.security.files import make_folder

SOURCE: Final = Path(__file__).resolve().parents[3]
TICK_S: Final = 0.1
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
STEADY_S: Final = 60.0
GREEDY_S: Final = 60.0
GREEDY_SHARE: Final = 0.5
LINES_MAX: Final = 500
LINE_BYTES_MAX: Final = 1 << 16
STOP_S: Final = 3.0
TOLD_EACH_S: Final = 10.0


class Secrets(Protocol):
    """Who gives an app its user at the broker."""

    def secret(self, word: str) -> str:
        """A secret that counts from now on; an older one does not."""
        ...


@dataclass(frozen=True)
class Place:
    """What all apps of a runtime share.

    Attributes:
        greedy_s: how long an app may be held back before it is ended.
        policy: of the site, asked before each write; None: nothing is written. tail: the newest of the log,
            read once for all. keepings: by app; see :meth:`keeping`.
        edge: on whose machine that is; empty: on the platform. hand: gives an app its models.
    """

    folder: DataFolder
    address: BrokerAddress
    bus: Bus
    subjects: Subjects
    clock: Clock
    secrets: Secrets
    past: Past
    alarms: Alarms
    tell: Callable[[str, AppEvent], None]
    policy: SitePolicy | None
    tail: Tail | None = None
    keepings: dict[str, Keeping] = field(default_factory=dict)
    greedy_s: float = GREEDY_S
    edge: str = ""
    hand: Hand = hand_over

    def keeping(self, app_id: str) -> Keeping:
        """The note of an app, one object however often it starts."""
        if app_id not in self.keepings:
            self.keepings[app_id] = Keeping(
                self.bus, self.subjects, self.clock, app_id, self.alarms.last, self.edge
            )
        return self.keepings[app_id]


class AppRun:
    """An app from its deployment to its end.

    Args:
        place: see :class:`Place`. deployment: enabled, with Python.
    """

    def __init__(self, place: Place, deployment: AppDeployment) -> None:
        self._place = place
        self.deployment = deployment
        self._manifest = deployment.manifest
        self.gate = Gate(
            place.bus,
            place.subjects,
            place.clock,
            deployment,
            place.past,
            place.alarms,
            self._event,
            place.keeping(self._manifest.id),
            Writing(place.bus, place.subjects, place.clock, deployment, place.policy, self._noted),
            place.tail,
        )
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self._state: AppStateName = "starting"
        self._since_us = place.clock.now_us()
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopped = False
        self._restarts = 0
        self._next_try_us = 0
        self._error: HeadraceError | None = None
        self._error_us = 0
        self._greedy_s = 0.0
        self._again = asyncio.Event()
        self._told: dict[str, float] = {}

    async def run(self) -> None:
        """Until it is cancelled; its process is gone then."""
        wait_s = RETRY_FIRST_S
        looking = asyncio.create_task(self._daily_look())
        try:
            await self.gate.open()
            while True:
                begun_s = self._place.clock.monotonic_s()
                error = await self._one_life()
                self._fail(error)
                if self._place.clock.monotonic_s() - begun_s > STEADY_S:
                    wait_s = RETRY_FIRST_S
                for_good = self.gate.forbidden is not None or isinstance(error, Misconfigured)
                await self._wait(None if for_good else wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
                self._restarts += 1
        finally:
            await end_tasks(looking)
            await self.gate.close()
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def _daily_look(self) -> None:
        place = self._place
        if place.edge:
            return  # where the table is
        await DailyLook(place.folder, place.clock, self.deployment, self._event).run()

    def start_again(self) -> None:
        """A person wants it to be tried at once."""
        self._again.set()

    def lines(self) -> list[str]:
        """The newest lines of its log, oldest first."""
        return list(self._lines)

    def state(self) -> AppState:
        """What is to be said of it now."""
        gate, meter, now_us = self.gate, self.gate.meter, self._place.clock.now_us()
        messages, rows, throttled = meter.rates()
        is_live = self._process is not None
        return AppState(
            app=self._manifest.id,
            version=self._manifest.version,
            at_us=now_us,
            state=self._shown(throttled),
            since_us=self._since_us,
            pid=self._process.pid if self._process is not None else 0,
            memory_mb=round(meter.memory_mb, 1) if is_live else 0.0,
            cpu_percent=round(meter.cpu_percent, 1) if is_live else 0.0,
            messages_per_s=round(messages, 2),
            rows_per_s=round(rows, 2),
            throttled=round(throttled, 3),
            restarts=self._restarts,
            next_try_us=self._next_try_us,
            last_error_code=self._error.code if self._error else "",
            last_error=self._error.what if self._error else "",
            last_error_remedy=self._error.remedy if self._error else "",
            last_error_us=self._error_us,
            position_us=gate.position_us,
            lag_us=max(0, now_us - gate.position_us) if gate.position_us else 0,
            assets=len(self.deployment.assets),
            calls=gate.calls,
            samples=gate.samples,
            records=gate.records,
            holds=gate.holds,
            log=list(self._lines)[-LOG_LINES_MAX:],
            edge=self._place.edge,
        )

    def _shown(self, throttled: float) -> AppStateName:
        if self._state != "running":
            return self._state
        if throttled > GREEDY_SHARE:
            return "throttled"
        return "running" if self.gate.has_caught_up else "catching_up"

    # -- one life -------------------------------------------------------------------------------

    async def _one_life(self) -> HeadraceError:
        """From start to end of a process; gives why it ended."""
        self._enter("starting")
        self._next_try_us = 0
        try:
            start = await asyncio.to_thread(self._prepare)
            process, opening = await self._spawn(start)
            self._process = process
        except HeadraceError as error:
            return error
        except OSError as error:
            return Terminal("APPS-2240", f"{self._manifest.id} cannot be started: {error}")
        reading = asyncio.create_task(self._read(process))
        files = Path(start.folder)
        models = follow_models(self._place.folder, self._manifest, files, self._place.hand)
        following = asyncio.create_task(models)
        try:
            return await self._watch(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await asyncio.wait({reading}, timeout=STOP_S)
            await end_tasks(reading, following, *opening)
            self._process = None
            self.gate.end_life()

    @property
    def _scratch(self) -> Path:
        return self._place.folder.run / "apps" / self._manifest.word / "scratch"

    def _prepare(self) -> Start:
        """Files out of the package, a scratch folder that is empty, a secret.

        Raises:
            Misconfigured: what the package is wrong in. Corrupt: APPS-2241 another package of that name.
        """
        folder = self._place.folder
        manifest, word = self._manifest, self._manifest.word
        files = folder.run / "apps" / word / self.deployment.package_sha256[:16]
        if not files.exists():
            package = read_package(
                folder.packages / f"{manifest.id}-{manifest.version}.hrapp", None
            )
            if package.sha256 != self.deployment.package_sha256:
                raise Corrupt(
                    "APPS-2241",
                    f"the package of {manifest.id} {manifest.version} is not the one that was bound",
                    "Install it again, or correct the site file.",
                )
            shutil.rmtree(files.parent, ignore_errors=True)
            unpack(package, files)
        if manifest.models:
            self._place.hand(folder, manifest, files)
        shutil.rmtree(self._scratch, ignore_errors=True)
        make_folder(self._scratch, 0o700)
        address = self._place.address
        return Start(
            urls=list(address.urls),
            user=word,
            secret=self._place.secrets.secret(word),
            authority_pem=address.authority_pem,
            subject=self._place.subjects.app_own(word),
            folder=str(files.resolve()),
            scratch=str(self._scratch.resolve()),
            life=self.gate.new_life(),
            deployment=self.deployment,
        )

    async def _spawn(
        self, start: Start
    ) -> tuple[asyncio.subprocess.Process, list[asyncio.Task[None]]]:
        """The process, and the task that opens connections for it when its manifest names any."""
        network = self._manifest.permissions.network
        if not network:
            return await self._process_of(start, ()), []
        ours, its = socket.socketpair()
        start.outside = its.fileno()
        try:
            process = await self._process_of(start, (start.outside,))
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        doorman = Doorman(self._manifest.id, network, self.gate.forbid)
        return process, [asyncio.create_task(doorman.serve(ours))]

    async def _process_of(
        self, start: Start, descriptors: tuple[int, ...]
    ) -> asyncio.subprocess.Process:
        scratch = {"TMPDIR": start.scratch, "HOME": start.scratch}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-s", "-u", "-m", "headrace.apps.runtime.process", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**ENVIRONMENT, **scratch, "PYTHONPATH": str(SOURCE)},
            cwd=start.scratch,
            start_new_session=True,
            pass_fds=descriptors,
            limit=LINE_BYTES_MAX,
        )
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it ended already: its code says why
            process.stdin.write(msgspec.json.encode(start) + b"\n")
            await process.stdin.drain()
            process.stdin.close()
        return process

    async def _watch(self, process: asyncio.subprocess.Process) -> HeadraceError:
        """Hold it to its budget until it ends, or is to be ended."""
        self._greedy_s, stopped = 0.0, False
        waiting = asyncio.create_task(process.wait())
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=TICK_S)
                meter = self.gate.meter
                if not meter.look(process.pid, self._place.clock.monotonic_s()):
                    continue
                if self.gate.holds and self._state == "starting":
                    self._enter("running")
                over = self._over(process)
                if over is not None:
                    return over
                if (meter.owed_s > 0) != stopped:
                    stopped = not stopped
                    process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
                if stopped:
                    meter.held(TICK_S)
        except ProcessLookupError:
            await asyncio.wait({waiting}, timeout=STOP_S)
        finally:
            await end_tasks(waiting)
        return self._ended(process.returncode)

    def _over(self, process: asyncio.subprocess.Process) -> HeadraceError | None:
        """Why it is to be ended now; None when it may go on."""
        gate, meter, budgets = self.gate, self.gate.meter, self._manifest.budgets
        if gate.forbidden is not None:
            problem = gate.forbidden
            return Terminal(problem.code, problem.what, problem.remedy)
        if meter.is_over_memory:
            return Terminal(
                "APPS-2242",
                f"{self._manifest.id} took {meter.memory_mb:.0f} MB of {budgets.memory_mb}",
                "Raise its budgets.memory_mb, or ask who wrote it.",
            )
        throttled = meter.rates()[2]
        self._greedy_s = self._greedy_s + TICK_S if throttled > GREEDY_SHARE else 0.0
        if self._greedy_s > self._place.greedy_s:
            return Terminal(
                "APPS-2243",
                f"{self._manifest.id} wants more than its budget without end: it was held back for "
                f"{100 * throttled:.0f} % of the time (CPU {budgets.cpu_percent:g} %, "
                f"{budgets.messages_per_s:g} messages/s, {budgets.rows_per_s:g} rows/s)",
                "Raise its budgets, or ask who wrote it.",
            )
        del process
        return None

    def _ended(self, code: int | None) -> HeadraceError:
        for line in reversed(self._lines):
            if line.startswith(ERROR_MARK):
                return error_from_dict(json.loads(line[len(ERROR_MARK) :]))
        said = next((line for line in reversed(self._lines) if line.strip()), "it said nothing")
        what = f"{self._manifest.id} ended with {code}: {said[:200]}"
        return Terminal("APPS-2244", what, "It is started again; see its log.")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Its log, line by line; a line that is too long is cut."""
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:
                self._lines.append("(a line of more than 64 KiB)")
                continue
            if not raw:
                return
            text = raw.decode(errors="replace").rstrip("\n")
            if text:
                self._lines.append(text)

    # -- what is told ---------------------------------------------------------------------------

    async def _wait(self, seconds: float | None) -> None:
        """Until it is tried again; None: until a person says so, or the app is changed."""
        self._enter("stopped" if seconds is None else "waiting")
        if seconds is not None:
            self._next_try_us = self._place.clock.now_us() + int(seconds * US_PER_S)
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()

    def _fail(self, error: HeadraceError) -> None:
        self._error, self._error_us = error, self._place.clock.now_us()
        self._event("error", error.code, error.what, error.remedy)

    def _noted(self, event: AppEvent) -> bool:
        """Keep what is wrong; whether people are to be told: of one code at most each ten seconds."""
        now_s = self._place.clock.monotonic_s()
        if event.severity == "warning":
            self._error = Terminal(event.code, event.text, event.remedy)
            self._error_us = event.at_us
        is_known = now_s - self._told.get(event.code, -TOLD_EACH_S) < TOLD_EACH_S
        if is_known and event.severity != "error" and event.code != UNKNOWN:
            return False
        self._told[event.code] = now_s
        return True

    def _event(self, severity: Severity, code: str, text: str, remedy: str) -> None:
        """Tell people."""
        event = AppEvent(
            at_us=self._place.clock.now_us(),
            severity=severity,
            code=code,
            source=f"app/{self._manifest.id}",
            text=text,
            remedy=remedy,
        )
        if self._noted(event):
            self._place.tell(self._manifest.word, event)

    def _enter(self, state: AppStateName) -> None:
        self._state, self._since_us = state, self._place.clock.now_us()
