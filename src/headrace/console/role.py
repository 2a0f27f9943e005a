"""The console process: web pages, REST, live values, and the keeper of the desired state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import uvicorn

from headrace.alarms.store import AlarmStore
from headrace.bus.broker import BrokerAddress, is_loopback
from headrace.bus.client import Bus, open_bus
from headrace.bus.outbox import Outbox
from headrace.bus.subjects import Subjects
from headrace.console.app import build_app
from headrace.console.history import History
from headrace.console.listener import allow_open_files, bounded_protocol
from headrace.console.receipts import keep_receipts
from headrace.console.registry_source import RegistrySource
from headrace.console.services import Services
from headrace.console.sources import Sources
from headrace.console.why import answer_calls
from headrace.historian.reader import open_reader
from headrace.model.errors import HeadraceError, Refused
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.security.listener import Listener, ListenerFiles
from headrace.security.policy_files import PolicyFiles, PolicyWatch
from headrace.site import keeper
from headrace.site.keeper import SiteState
from headrace.site.registry import Registry

STOP_S: Final = 2.5
RENEW_LOOK_S: Final = 1.0
_log = logging.getLogger(__name__)


async def run(
    folder: DataFolder,
    address: BrokerAddress,
    subjects: Subjects,
    stop: asyncio.Event,
    *,
    host: str = "127.0.0.1",
    port: int,
) -> None:
    """Serve the console until ``stop`` is set; then end within 3 s.

    Args:
        folder: the data folder. address: of its broker. subjects: of its site.
        host, port: where to listen; loopback unless told otherwise.

    Raises:
        Transient: BUS-1025 when the broker does not come within 30 s.
        Refused: SEC-1621 when it would listen off loopback without TLS.
    """
    shown = _shown(folder, host)
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(address, "console"))
        tail = Outbox(bus, subjects.event("console", "tail"), "console/tail", clock)
        stack.push_async_callback(end_tasks, asyncio.create_task(tail.run()))
        reader = await stack.enter_async_context(
            open_reader(folder, bus, catch_up=False, report=tail.report)
        )
        registry = await asyncio.to_thread(Registry.of, folder)
        stack.callback(registry.close)
        identity = Identity(folder, clock)
        stack.callback(identity.close)
        alarm_store = await asyncio.to_thread(AlarmStore, folder)
        stack.callback(alarm_store.close)
        sources = Sources(
            folder,
            bus,
            subjects,
            site_source=RegistrySource(registry),
            history=History(reader),
            alarm_store=alarm_store,
            clock=clock,
        )
        stack.callback(sources.notifications.close)
        await answer_calls(sources)
        policies = await _watched(stack, folder, identity, stop, bus, subjects)
        app = build_app(Services(sources, identity, policies=policies))
        await _serve(app, sources, identity, stop, host, port, shown)


async def _watched(
    stack: contextlib.AsyncExitStack,
    folder: DataFolder,
    identity: Identity,
    stop: asyncio.Event,
    bus: Bus,
    subjects: Subjects,
) -> PolicyWatch:
    """The own policies, in force now and after each change until ``stop`` is set."""
    told = Outbox(bus, subjects.event("console", "policy"), "console/policy", SystemClock())
    stack.push_async_callback(end_tasks, asyncio.create_task(told.run()))
    policies = PolicyWatch(PolicyFiles(folder), identity.audit, told.report)
    await asyncio.to_thread(policies.look)
    failed = partial(_policy_failed, told)
    stack.push_async_callback(end_tasks, asyncio.create_task(policies.run(stop, failed)))
    return policies


def _policy_failed(told: Outbox, error: HeadraceError) -> None:
    told.report("error", error.code, f"policies were not looked at: {error.what}", error.remedy)


async def _serve(
    app: object,
    sources: Sources,
    identity: Identity,
    stop: asyncio.Event,
    host: str,
    port: int,
    shown: ListenerFiles | None,
) -> None:
    def accepted(state: SiteState) -> None:
        told = {"revision": state.revision, "hash": state.content_hash, "changes": state.changes}
        identity.audit.record("site file", "site.accept", f"site/{state.site}", "done", **told)

    config = uvicorn.Config(
        app,  # type: ignore[arg-type] # an ASGI app
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
        ws_max_size=1 << 20,
        server_header=False,
        http=bounded_protocol(allow_open_files()),
        ssl_certfile=None if shown is None else str(shown.certificate),
        ssl_keyfile=None if shown is None else str(shown.key),
    )
    config.load()
    server = _Server(config)
    renewing = asyncio.create_task(renew_shown(config.ssl, sources.folder, shown))
    parts: tuple[Coroutine[Any, Any, object], ...] = (
        sources.follow(stop),
        keeper.run(sources.folder, sources.bus, stop, sources.clock, accepted),
        keep_receipts(identity.receipts, stop),
        sources.alarms.follow(stop),
        server.serve(),
    )
    tasks = {asyncio.create_task(part) for part in parts}
    stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await end_tasks(renewing)
    server.should_exit = True
    _, late = await asyncio.wait(tasks, timeout=STOP_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done - {stopping}:
        task.result()


def _shown(folder: DataFolder, host: str) -> ListenerFiles | None:
    """The certificate that the listener shows; none on loopback."""
    if is_loopback(host):
        return None
    files = Listener(folder).files()
    if files is None:
        raise Refused(
            "SEC-1621",
            f"the console would listen on {host} without TLS",
            "Start it with: headrace up --listen, which makes certificates.",
        )
    return files


async def renew_shown(
    context: ssl.SSLContext | None, folder: DataFolder, shown: ListenerFiles | None
) -> None:
    """Show a new certificate as soon as its file is another; who is connected stays so."""
    if context is None or shown is None:
        return
    known = shown.certificate.read_bytes()
    while True:
        await asyncio.sleep(RENEW_LOOK_S)
        try:
            files = await asyncio.to_thread(Listener(folder).files)
            if files is None or (found := files.certificate.read_bytes()) == known:
                continue
            context.load_cert_chain(files.certificate, files.key)
            known = found
        except (OSError, HeadraceError) as error:  # ssl.SSLError too: half of a pair is there yet
            _log.warning("the listener's certificate stays what it was: %s", error)


class _Server(uvicorn.Server):
    """Leaves the signals to whoever runs the role."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def] # uvicorn's own hook
        yield
