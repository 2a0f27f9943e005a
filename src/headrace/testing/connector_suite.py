"""The contract suite: what every connector must do, checked against a real device emulator.

Each check stands alone: it makes its own device and its own session. A check is an async function
of one :class:`~headrace.testing.connector_case.ConnectorCase` that raises ``AssertionError``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from unittest import mock

import polars as pl

from headrace.edge.contract import BrowseItem, Connector, ScanGroup
from headrace.model import status as status_codes
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.testing.connector_case import (
    ConnectorCase,
    Rig,
    assert_shows,
    assert_value,
    running,
    socket_count,
)

CLOCK_MARGIN_US: Final = 2_000_000
Check = Callable[[ConnectorCase], Awaitable[None]]


async def check_connector(make: Callable[[], ConnectorCase]) -> tuple[str, ...]:
    """Run every check of the contract on a connector.

    Args:
        make: gives a fresh case; called once a check.

    Returns:
        The names of the checks that ran.

    Raises:
        AssertionError: what the connector does wrong; a note names the check.
    """
    for check in CONNECTOR_CHECKS:
        try:
            await check(make())
        except BaseException as error:
            error.add_note(f"in the check {check.__name__} of the connector contract")
            raise
    return tuple(check.__name__ for check in CONNECTOR_CHECKS)


async def imports_without_driver(case: ConnectorCase) -> None:
    """The connector's module loads on a machine that lacks its driver."""
    module = type(case.connector).__module__
    code = (
        "import sys\n"
        f"for name in {list(case.drivers)!r}: sys.modules[name] = None\n"
        f"import {module}\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, f"{module} does not load without driver: {errors.decode()}"


async def describes_itself(case: ConnectorCase) -> None:
    """Name, titles, options with defaults and examples are there and fit each other."""
    kind = case.connector
    assert kind.protocol and all(kind.title), "protocol and title (English, Chinese) must be told"
    assert "read" in kind.abilities, f"abilities {sorted(kind.abilities)} lack read"
    kind.options()
    kind.check_tag(case.tag(kind.address_example))


async def refuses_nonsense_connections(case: ConnectorCase) -> None:
    """``check_connection`` refuses wrong settings with Misconfigured, and does no I/O."""
    async with running(case) as rig:
        good = rig.connection
    nonsense = [
        *case.nonsense_connections,
        (good.endpoint, {**case.options, "no_such_option": 1}),
    ]
    with _no_network():
        case.connector.check_connection(good)
        for endpoint, options in nonsense:
            wrong = _replaced(good, endpoint, dict(options))
            _assert_misconfigured(
                case.connector.check_connection, wrong, f"the connection {endpoint!r} {options!r}"
            )


async def refuses_nonsense_tags(case: ConnectorCase) -> None:
    """``check_tag`` takes every good address and refuses wrong ones with Misconfigured, no I/O."""
    with _no_network():
        for address in case.expected:
            case.connector.check_tag(case.tag(address))
        for address in ("", *case.nonsense_addresses):
            tag = case.tag(address)
            _assert_misconfigured(case.connector.check_tag, tag, f"the address {address!r}")


async def reads_what_the_device_shows(case: ConnectorCase) -> None:
    """Every value, status and time is right; text and great integers are kept exactly."""
    async with running(case) as rig, rig.connected() as connector:
        start_us = rig.clock.now_us() - CLOCK_MARGIN_US
        group = case.group()
        batch, reading = await rig.collect(connector, group)
        assert_shows(rig, batch, group)
        assert not reading.tag_errors, f"errors of good tags: {reading.tag_errors}"
        end_us = rig.clock.now_us() + CLOCK_MARGIN_US
        _assert_times(rig, batch, start_us, end_us)


async def takes_changed_groups(case: ConnectorCase) -> None:
    """A tag that is added to the group is read without a new session."""
    async with running(case) as rig, rig.connected() as connector:
        few = ScanGroup(100, case.group().tags[:1])
        await rig.collect(connector, few)
        batch, _ = await rig.collect(connector, case.group())
        assert_shows(rig, batch, case.group())


async def one_bad_tag_spoils_no_other(case: ConnectorCase) -> None:
    """An unknown address gives a Bad sample with null value and an error; the others stay Good."""
    if not case.missing_address:
        return
    async with running(case) as rig, rig.connected() as connector:
        group = case.group(case.missing_address)
        batch, reading = await rig.collect(connector, group)
        assert_shows(rig, batch, group)
        bad_id = group.tags[-1].tag_id
        bad = batch.filter(pl.col("tag_id") == bad_id).row(-1, named=True)
        assert status_codes.is_bad(bad["status"]), f"the missing tag has {bad['status']:#x}"
        assert bad["value"] is None, f"the missing tag has the value {bad['value']}"
        assert set(reading.tag_errors) == {bad_id}, f"tag_errors are {reading.tag_errors}"


async def closes_in_every_state(case: ConnectorCase) -> None:
    """``close`` raises nothing: unopened, connected, twice, and after the device died."""
    async with running(case) as rig:
        unopened = rig.open()
        await rig.in_time(unopened.close(), "close before connect")
        async with rig.connected() as connector:
            await rig.collect(connector, case.group())
            await rig.in_time(connector.close(), "first close")
        async with rig.connected():
            await rig.kill()


async def says_transient_when_refused(case: ConnectorCase) -> None:
    """A port where nobody listens raises Transient from ``connect``, in time; close works then."""
    async with running(case) as rig:
        connector = rig.open()
        await rig.kill()
        try:
            await _assert_transient(rig, connector.connect(), "connect to a dead port")
        finally:
            await rig.in_time(connector.close(), "close after a failed connect")


async def says_transient_when_killed(case: ConnectorCase) -> None:
    """A server that dies raises Transient from ``read``; a new connector works after its return."""
    async with running(case) as rig:
        async with rig.connected() as connector:
            await rig.collect(connector, case.group())
            await rig.kill()
            await _assert_transient(rig, _read_on(connector, case.group()), "read of a dead server")
        await rig.revive()
        async with rig.connected() as connector:
            batch, _ = await rig.collect(connector, case.group())
            assert_shows(rig, batch, case.group())


async def says_transient_when_slow(case: ConnectorCase) -> None:
    """A device that does not answer within the timeout raises Transient (mode poll)."""
    if case.connector.mode != "poll" or not case.slow_device:
        return
    async with running(case) as rig, rig.connected() as connector:
        await rig.collect(connector, case.group())
        rig.emulator.delay_s = 10 * case.limit_s
        await _assert_transient(rig, connector.read(case.group()), "read of a silent device")


async def leaves_nothing_when_cancelled(case: ConnectorCase) -> None:
    """Neither a cancelled ``read`` nor a close leaves a task or a socket behind."""
    async with running(case) as rig:
        async with rig.connected() as connector:  # so that lazy imports and caches are warm
            await rig.collect(connector, case.group())
        await _settled(rig, 0, 0)
        tasks, sockets = len(asyncio.all_tasks()), socket_count()
        connector = rig.open()
        await rig.in_time(connector.connect(), "connect")
        await rig.collect(connector, case.group())
        if case.connector.mode == "poll":
            rig.emulator.delay_s = case.timeout_s / 2
        reading = asyncio.ensure_future(connector.read(case.group()))
        await asyncio.wait({reading}, timeout=0.05)
        reading.cancel()
        await rig.in_time(asyncio.wait({reading}), "a cancelled read")
        await rig.in_time(connector.close(), "close")
        rig.emulator.delay_s = 0.0
        await _settled(rig, tasks, sockets)
        async with rig.connected() as connector:
            await rig.collect(connector, case.group())
        await _settled(rig, tasks, sockets)


async def grows_no_tasks(case: ConnectorCase) -> None:
    """The number of asyncio tasks is the same after many readings as after one."""
    async with running(case) as rig, rig.connected() as connector:
        await rig.collect(connector, case.group())
        before = len(asyncio.all_tasks())
        for _ in range(30):
            await rig.show()
            await rig.next_reading(connector, case.group())
        after = len(asyncio.all_tasks())
        assert after <= before + 2, f"{before} tasks became {after} after 30 readings"


async def writes_and_reads_back(case: ConnectorCase) -> None:
    """A write gives back what the device then has; refusals and impossible values are told apart."""
    if "write" not in case.connector.abilities:
        return
    async with running(case) as rig, rig.connected() as connector:
        await rig.collect(connector, case.group())
        for address, value in case.writes.items():
            tag = case.tag(address)
            got = await rig.in_time(_write(connector, tag, value), f"write {address}")
            assert got == value, f"{address}: wrote {value!r}, read back {got!r}"
            batch, _ = await rig.collect(connector, ScanGroup(100, (tag,)))
            last = batch.row(-1, named=True)
            assert_value(address, value, last["value"], last["text"])
        for address, value in case.writes_refused.items():
            await _assert_raises(
                Refused, rig.in_time(_write(connector, case.tag(address), value), "write"), address
            )
        for address, value in case.writes_impossible.items():
            await _assert_raises(
                Misconfigured,
                rig.in_time(_write(connector, case.tag(address), value), "write"),
                f"{value!r} to {address}",
            )


async def browses(case: ConnectorCase) -> None:
    """A walk from the root meets what it should; each leaf's address passes ``check_tag``."""
    if "browse" not in case.connector.abilities:
        return
    async with running(case) as rig, rig.connected() as connector:
        found: set[str] = set()
        folders = [""]
        for _ in range(case.browse_depth_max):
            items: list[BrowseItem] = []
            for folder in folders:
                children = await rig.in_time(_browse(connector, folder), f"browse {folder!r}")
                assert len(children) <= 1000, f"{folder!r} has {len(children)} children"
                items += children
            found |= {item.address for item in items}
            for item in items:
                if not item.folder:
                    case.connector.check_tag(case.tag(item.address))
            folders = [item.address for item in items if item.folder]
        missing = set(case.browse_finds) - found
        assert not missing, f"browse does not find {sorted(missing)}"


CONNECTOR_CHECKS: Final[tuple[Check, ...]] = (
    imports_without_driver,
    describes_itself,
    refuses_nonsense_connections,
    refuses_nonsense_tags,
    reads_what_the_device_shows,
    takes_changed_groups,
    one_bad_tag_spoils_no_other,
    closes_in_every_state,
    says_transient_when_refused,
    says_transient_when_killed,
    says_transient_when_slow,
    leaves_nothing_when_cancelled,
    grows_no_tasks,
    writes_and_reads_back,
    browses,
)
"""All checks; give them to ``pytest.mark.parametrize`` to see each by its name."""


async def _read_on(connector: Connector, group: ScanGroup) -> None:
    """Read until it raises: changes from before the death may still come first."""
    while True:
        await connector.read(group)


async def _write(connector: Connector, tag: Any, value: float | str) -> float | str:
    writer: Any = connector
    result: float | str = await writer.write(tag, value)
    return result


async def _browse(connector: Connector, address: str) -> list[BrowseItem]:
    browser: Any = connector
    result: list[BrowseItem] = await browser.browse(address)
    return result


async def _settled(rig: Rig, tasks: int, sockets: int) -> None:
    """Wait until no more tasks and sockets are left than given; (0, 0): until they stand still."""
    deadline_s = rig.clock.monotonic_s() + rig.case.limit_s
    last = (-1, -1)
    still = 0
    while True:
        now = (len(asyncio.all_tasks()), socket_count())
        still = still + 1 if now == last else 0
        if tasks == 0 and still >= 10:
            return
        if tasks and now[0] <= tasks and now[1] <= sockets:
            return
        assert rig.clock.monotonic_s() < deadline_s, (
            f"left behind: {now[0] - tasks} tasks, {now[1] - sockets} sockets"
        )
        last = now
        await asyncio.wait({asyncio.ensure_future(_turn())}, timeout=1.0)


async def _turn() -> None:
    """Let the loop run for a hundredth of a second, without counting on it."""
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, turned.set_result, None)
    await turned


async def _assert_transient(rig: Rig, awaitable: Awaitable[Any], what: str) -> None:
    await _assert_raises(Transient, rig.in_time(awaitable, what), what)


async def _assert_raises(kind: type[Exception], awaitable: Awaitable[Any], what: str) -> None:
    try:
        await awaitable
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {error!r}, not {kind.__name__}") from error
    raise AssertionError(f"{what} raises nothing, not {kind.__name__}")


def _assert_misconfigured(call: Callable[[Any], None], argument: object, what: str) -> None:
    try:
        call(argument)
    except Misconfigured as error:
        assert error.remedy, f"{what} is refused without a remedy: {error}"
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {error!r}, not Misconfigured") from error
    raise AssertionError(f"{what} is not refused")


def _assert_times(rig: Rig, batch: pl.DataFrame, start_us: int, end_us: int) -> None:
    source = batch["source_timestamp"].to_physical()
    received = batch["received_timestamp"].to_physical()
    assert received.is_between(start_us, end_us).all(), "received_timestamp is not now"
    if rig.case.device_time:
        wrong = set(source.to_list()) - set(rig.shown_us)
        assert not wrong or rig.case.tag_settings, f"source timestamps nobody told: {wrong}"
    else:
        assert source.is_between(start_us, end_us).all(), "source_timestamp is not now"


def _replaced(good: ConnectionConfig, endpoint: str, options: dict[str, Any]) -> ConnectionConfig:
    return ConnectionConfig(
        name=good.name, protocol=good.protocol, endpoint=endpoint, options=options, tags=good.tags
    )


@contextlib.contextmanager
def _no_network() -> Iterator[None]:
    """Whoever touches the network inside meets an AssertionError."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a check without I/O touched the network")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket.socket, "connect_ex", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
    ):
        yield
