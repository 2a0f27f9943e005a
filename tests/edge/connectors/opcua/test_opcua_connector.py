"""The connector against a real server of ours on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from hypothesis import given
from hypothesis import strategies as st

from headrace.edge.connectors.opcua import CONNECTOR, OpcUaOptions
from headrace.edge.connectors.opcua.address import parse_address
from headrace.edge.contract import ScanGroup
from headrace.model import status as codes
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.time import to_datetime
from headrace.security import certificates
from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.sim.emulators.opcua_server import publish_value

T0 = 1_700_000_000_123_456
POINTS = [
    Point("ns=2;s=cnc.load", unit="%"),
    Point("ns=2;s=cnc.count", "int64", 0, writable=True),
    Point("ns=2;s=cnc.on", "bool", False, writable=True),
    Point("ns=2;s=cnc.small", "uint16", 0, writable=True),
    Point("ns=2;s=cnc.name", "string", "", writable=True),
    Point("ns=2;s=cnc.wave", "float64", [0.0] * 8),
    Point('ns=2;s="DB"."row"[2]', "int32", 0),
    Point("nsu=urn:acme:press;s=force", "float32", 0.0, writable=True),
]
LOAD, COUNT, ON, SMALL, NAME, WAVE, SIEMENS, FORCE = (point.address for point in POINTS)


@contextlib.asynccontextmanager
async def device(**settings: Any) -> AsyncIterator[OpcUaEmulator]:
    emulator = OpcUaEmulator(POINTS, **settings)
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.stop()


@pytest.fixture
async def cnc() -> AsyncIterator[OpcUaEmulator]:
    async with device() as emulator:
        yield emulator


def tag(address: str, tag_id: int = 1, **settings: Any) -> TagConfig:
    return TagConfig(
        tag_id=tag_id,
        path=f"area/unit/tag_{tag_id}",
        address=address,
        **{"scan_interval_ms": 50, **settings},
    )


def rows(batch: pl.DataFrame, tag_id: int) -> list[tuple[Any, ...]]:
    mine = batch.filter(pl.col("tag_id") == tag_id)
    times = mine["source_timestamp"].cast(pl.Int64)
    return list(zip(times, mine["value"], mine["text"], mine["status"], strict=True))


async def test_every_kind_of_value_arrives_as_the_model_says(cnc: Any, bench: Any) -> None:
    tags = [
        tag(LOAD, 1),
        tag(COUNT, 2),
        tag(ON, 3),
        tag(NAME, 4),
        tag(WAVE, 5, sample_interval_us=1000),
        tag(f"{WAVE}[3]", 6),
        tag(SIEMENS, 7),
        tag(FORCE, 8),
        tag("i=2256#BuildInfo.ProductName", 9),
        tag("i=2259", 10),
    ]
    connector = await bench.connect(cnc.endpoint)
    await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 10)
    await cnc.update(
        {
            LOAD: 41.5,
            COUNT: 2**60 + 1,
            ON: True,
            NAME: "running 汽车",
            WAVE: [float(i) for i in range(8)],
            SIEMENS: -7,
            FORCE: 0.5,
        },
        T0,
        {LOAD: codes.UNCERTAIN_SENSOR_NOT_ACCURATE | 0x0401},
    )
    batch, readings = await bench.until(
        connector,
        tags,
        lambda b: b.filter(pl.col("source_timestamp").dt.epoch("us") <= T0).height == 15,
    )
    changed = batch.filter(pl.col("source_timestamp").dt.epoch("us") <= T0)
    assert rows(changed, 1) == [(T0, 41.5, None, codes.UNCERTAIN_SENSOR_NOT_ACCURATE | 0x0401)]
    assert rows(changed, 2) == [(T0, float(2**60), str(2**60 + 1), 0)]
    assert rows(changed, 3) == [(T0, 1.0, None, 0)]
    assert rows(changed, 4) == [(T0, None, "running 汽车", 0)]
    assert rows(changed, 5) == [(T0 - (7 - i) * 1000, float(i), None, 0) for i in range(8)]
    assert rows(changed, 6) == [(T0, 3.0, None, 0)]
    assert rows(changed, 7) == [(T0, -7.0, None, 0)]
    assert rows(changed, 8) == [(T0, 0.5, None, 0)]
    assert not any(reading.tag_errors for reading in readings)


async def test_a_structure_field_and_an_enumeration(cnc: Any, bench: Any) -> None:
    tags = [tag("i=2256#BuildInfo.ProductName", 1), tag("i=2256#State", 2), tag("i=2256", 3)]
    connector = await bench.connect(cnc.endpoint)
    batch, readings = await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 3)
    assert rows(batch, 1)[0][1:3] == (None, "Headrace emulator")
    assert rows(batch, 2)[0][1] == 0.0  # ServerState.Running
    assert rows(batch, 3)[0][1:] == (None, None, codes.BAD_CONFIGURATION_ERROR)
    errors = {k: v for reading in readings for k, v in reading.tag_errors.items()}
    assert list(errors) == [3]
    assert errors[3].startswith("EDGE-2012 area/unit/tag_3")
    assert "#Field" in errors[3]
    assert "BuildInfo" in errors[3]


async def test_the_same_value_with_a_new_time_is_a_sample(cnc: Any, bench: Any) -> None:
    tags = [tag(LOAD)]
    connector = await bench.connect(cnc.endpoint)
    await bench.until(connector, tags, lambda b: b.height == 1)
    for i in range(5):
        await cnc.update({LOAD: 7.0}, T0 + i)
    batch, _ = await bench.until(connector, tags, lambda b: b.height >= 5)
    assert rows(batch, 1) == [(T0 + i, 7.0, None, 0) for i in range(5)]


async def test_a_bad_value_is_null_with_the_exact_status(cnc: Any, bench: Any) -> None:
    tags = [tag(LOAD)]
    connector = await bench.connect(cnc.endpoint)
    await bench.until(connector, tags, lambda b: b.height == 1)
    await cnc.update({LOAD: 1.0}, T0, {LOAD: codes.BAD_SENSOR_FAILURE})
    batch, _ = await bench.until(connector, tags, lambda b: b.height == 1)
    assert rows(batch, 1) == [(T0, None, None, codes.BAD_SENSOR_FAILURE)]


async def test_wrong_tags_fail_by_name_and_the_others_go_on(cnc: Any, bench: Any) -> None:
    tags = [
        tag("ns=2;s=nowhere", 1),
        tag(WAVE, 2),
        tag(f"{WAVE}[99]", 3),
        tag("nsu=urn:unknown;s=x", 4),
        tag(LOAD, 5),
        tag(f"{LOAD}[0]", 6),
    ]
    connector = await bench.connect(cnc.endpoint)
    batch, readings = await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 6)
    errors = {k: v for reading in readings for k, v in reading.tag_errors.items()}
    assert sorted(errors) == [1, 2, 3, 4, 6]
    assert "EDGE-2010" in errors[1]
    assert "BadNodeIdUnknown" in errors[1]
    assert "array of 8" in errors[2]
    assert "8 elements" in errors[3]
    assert "EDGE-2021" in errors[4]
    assert "urn:unknown" in errors[4]
    assert rows(batch, 1)[0][1:] == (None, None, codes.BAD_NODE_ID_UNKNOWN)
    assert rows(batch, 5)[0][1] == 0.0


async def test_changed_tags_touch_only_what_changed(cnc: Any, bench: Any) -> None:
    connector = await bench.connect(cnc.endpoint)
    before = [tag(LOAD, 1), tag(COUNT, 2)]
    await bench.until(connector, before, lambda b: b.height == 2)
    after = [tag(LOAD, 1, deadband=3.0), tag(ON, 3)]
    batch, _ = await bench.until(connector, after, lambda b: b.height == 1)
    assert batch["tag_id"].to_list() == [3], "tag 1 was not subscribed again"
    await cnc.update({LOAD: 1.0, COUNT: 9, ON: True}, T0)
    batch, _ = await bench.until(connector, after, lambda b: b.height == 2)
    assert sorted(batch["tag_id"].to_list()) == [1, 3]


async def test_a_cancelled_read_loses_nothing(cnc: Any, bench: Any) -> None:
    tags = [tag(LOAD)]
    connector = await bench.connect(cnc.endpoint)
    group = ScanGroup(0, tuple(tags))
    seen: list[int] = []
    for i in range(30):
        await cnc.update({LOAD: float(i)}, T0 + i)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                reading = await connector.read(group)
                seen += [t for t, *_ in rows(reading.batch, 1)]
    batch, _ = await bench.until(
        connector, tags, lambda b: T0 + 29 in seen + [t for t, *_ in rows(b, 1)]
    )
    seen += [t for t, *_ in rows(batch, 1)]
    first = seen.index(min(t for t in seen if t >= T0))
    assert seen[first:] == list(range(seen[first], T0 + 30))


async def test_an_overflow_of_the_servers_queue_is_noticed(cnc: Any, bench: Any) -> None:
    tags = [tag(LOAD)]
    connector = await bench.connect(cnc.endpoint, queue_size=5)
    await bench.until(connector, tags, lambda b: b.height == 1)
    for i in range(50):
        await cnc.update({LOAD: float(i)}, T0 + i)
    batch, readings = await bench.until(connector, tags, lambda b: b.height >= 5)
    assert [t for t, *_ in rows(batch, 1)] == [T0 + i for i in range(45, 50)]
    assert "EDGE-2011" in [code for reading in readings for code, _ in reading.notices]
    assert rows(batch, 1)[0][3] == 0x0480
    assert sum(reading.missed.get("device", 0) for reading in readings) >= 1


async def test_polling_reads_the_same_values(cnc: Any, bench: Any) -> None:
    await cnc.update({LOAD: 2.5, COUNT: 2**60 + 1, NAME: "x"}, T0)
    tags = [tag(LOAD, 1), tag(COUNT, 2), tag(NAME, 3), tag("ns=2;s=nowhere", 4)]
    connector = await bench.connect(cnc.endpoint, reading="poll")
    batch, readings = await bench.until(connector, tags, lambda b: b.height >= 8)
    assert rows(batch, 1)[:2] == [(T0, 2.5, None, 0)] * 2
    assert rows(batch, 2)[0] == (T0, float(2**60), str(2**60 + 1), 0)
    assert rows(batch, 3)[0] == (T0, None, "x", 0)
    assert rows(batch, 4)[0][3] == codes.BAD_NODE_ID_UNKNOWN
    assert "EDGE-2010" in readings[0].tag_errors[4]
    assert readings[0].expected == 4


@pytest.mark.parametrize(
    ("address", "value", "expected"),
    [
        (COUNT, 12.0, 12.0),
        (COUNT, str(2**60 + 1), str(2**60 + 1)),
        (ON, 1.0, 1.0),
        (ON, "false", 0.0),
        (SMALL, 65535.0, 65535.0),
        (NAME, "héllo", "héllo"),
        (FORCE, 0.25, 0.25),
    ],
)
async def test_write_takes_the_nodes_type_and_reads_back(
    bench: Any, address: str, value: float | str, expected: float | str
) -> None:
    written: list[tuple[str, Any]] = []
    async with device(on_write=lambda a, v: written.append((a, v))) as cnc:
        connector = await bench.connect(cnc.endpoint)
        assert await connector.write(tag(address, writable=True), value) == expected
        assert [a for a, _ in written] == [address]


@pytest.mark.parametrize(
    ("address", "value", "code"),
    [
        (SMALL, 65536.0, "EDGE-2015"),
        (SMALL, 1.5, "EDGE-2015"),
        (SMALL, "many", "EDGE-2015"),
        (ON, 2.0, "EDGE-2015"),
        (FORCE, 1e300, "EDGE-2015"),
        (WAVE, 1.0, "EDGE-2015"),
        (f"{WAVE}[1]", 1.0, "EDGE-2015"),
        ("ns=2;s=nowhere", 1.0, "EDGE-2015"),
    ],
)
async def test_a_value_that_does_not_fit_is_not_written(
    cnc: Any, bench: Any, address: str, value: float | str, code: str
) -> None:
    connector = await bench.connect(cnc.endpoint)
    with pytest.raises(Misconfigured) as caught:
        await connector.write(tag(address), value)
    assert caught.value.code == code


async def test_a_read_only_node_refuses(cnc: Any, bench: Any) -> None:
    connector = await bench.connect(cnc.endpoint)
    with pytest.raises(Refused, match=r"EDGE-2014 .*BadUserAccessDenied"):
        await connector.write(tag(LOAD), 1.0)


async def test_browse_proposes_tags(cnc: Any, bench: Any) -> None:
    connector = await bench.connect(cnc.endpoint)
    root = {item.name: item for item in await connector.browse("")}
    assert root["cnc"].folder
    items = {item.name: item for item in await connector.browse(root["cnc"].address)}
    load = items["load"]
    assert (load.address, load.unit, load.data_type) == (LOAD, "%", "Double")
    assert (load.writable, load.folder, load.proposed_path) == (False, False, "cnc/load")
    assert items["small"].writable
    assert items["wave"].data_type == "Double[]"
    with pytest.raises(Misconfigured, match="EDGE-2020"):
        await connector.browse("ns=2;s=nowhere")


async def test_history_fills_the_gap(bench: Any) -> None:
    async with device(history=True) as cnc:
        for i in range(12_000):
            await cnc.update({LOAD: float(i)}, T0 + i * 1_000)
        connector = await bench.connect(cnc.endpoint, history_resume=True, resume_us=T0 + 4_000_000)
        tags = [tag(LOAD, 1), tag("i=2259", 2)]
        batch, readings = await bench.until(
            connector, tags, lambda b: b["source_timestamp"].n_unique() >= 10_000
        )
        times = sorted({t for t, *_ in rows(batch, 1)})
        assert times == [T0 + i * 1_000 for i in range(2_000, 12_000)]
        notices = [n for reading in readings for n in reading.notices]
        while "EDGE-2018" not in [code for code, _ in notices]:
            notices += (await connector.read(ScanGroup(0, tuple(tags)))).notices


async def test_live_values_wait_for_the_history_before_them(bench: Any) -> None:
    """A live sample that is durable before the gap is filled would hide the rest of the gap."""
    async with device(history=True) as cnc:
        for i in range(12_000):
            await cnc.update({LOAD: float(i)}, T0 + i)
        connector = await bench.connect(cnc.endpoint, history_resume=True, resume_us=T0 + 1)
        group = ScanGroup(0, (tag(LOAD),))
        order: list[int] = []
        live = T0 + 1_000_000
        pages = 0
        while not order or order[-1] != live + pages - 1:
            if pages < 3:
                await cnc.update({LOAD: -1.0}, live + pages)
                pages += 1
            order += [t for t, *_ in rows((await connector.read(group)).batch, 1)]
        first_live = next(i for i, t in enumerate(order) if t >= live)
        past = order[:first_live]
        assert set(range(T0, T0 + 12_000)) <= set(past)
        assert order[-3:] == [live, live + 1, live + 2]


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except Misconfigured as error:
        assert error.code == "EDGE-2009"
    else:
        assert address.identifier


@pytest.mark.parametrize(
    "text", ["", "ns=2", "ns=70000;s=a", "i=x", "i=4294967296", "g=no", "b=**", "x=1", "ns=2;s="]
)
def test_wrong_addresses_are_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="EDGE-2009"):
        CONNECTOR.check_tag(tag(text))


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [
        ("http://host:1", {}),
        ("opc.tcp://host", {}),
        ("opc.tcp://host:99999", {}),
        ("opc.tcp://user:pw@host:1", {}),
        ("opc.tcp://host:1", {"security": "Encrypt"}),
        ("opc.tcp://host:1", {"speed": 1}),
        ("opc.tcp://host:1", {"publishing_interval_ms": 1}),
        ("opc.tcp://host:1", {"timeout_s": 0}),
        ("opc.tcp://host:1", {"password": "x"}),
    ],
)
def test_wrong_connections_are_refused(endpoint: str, options: dict[str, Any]) -> None:
    connection = ConnectionConfig(name="c", protocol="opcua", endpoint=endpoint, options=options)
    with pytest.raises(Misconfigured, match="EDGE-2008 connection c"):
        CONNECTOR.check_connection(connection)


def test_all_options_have_defaults() -> None:
    assert OpcUaOptions() == OpcUaOptions(security="None")


async def test_no_server_is_transient(bench: Any) -> None:
    async with device() as cnc:
        endpoint = cnc.endpoint
    connector = bench.make(endpoint)
    with pytest.raises(Transient, match="EDGE-2001"):
        await connector.connect()


async def test_a_server_that_is_none_is_transient(bench: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        connector = bench.make(f"opc.tcp://127.0.0.1:{port}")
        with pytest.raises(Transient, match="EDGE-200"):
            await connector.connect()


async def test_users(bench: Any) -> None:
    async with device(users={"edge": "right"}) as cnc:
        with pytest.raises(Refused, match=r"EDGE-2003 .*anonymous"):
            await bench.make(cnc.endpoint).connect()
        with pytest.raises(Refused, match="EDGE-2007"):
            await bench.make(cnc.endpoint, username="edge", password="secret:right").connect()
        with pytest.raises(Refused, match=r"EDGE-2003 .*edge"):
            await bench.make(
                cnc.endpoint, username="edge", password="secret:wrong", plain_password=True
            ).connect()
        connector = await bench.connect(
            cnc.endpoint, username="edge", password="secret:right", plain_password=True
        )
        await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)


@pytest.mark.parametrize("security", ["Sign", "SignAndEncrypt"])
async def test_security_needs_trust_first(bench: Any, tmp_path: Path, security: Any) -> None:
    async with device(
        security=[security], certificates=tmp_path / "server", users={"edge": "pässword"}
    ) as cnc:
        options = {"security": security, "username": "edge", "password": "secret:pässword"}
        with pytest.raises(Refused, match="EDGE-2006") as caught:
            await bench.make(cnc.endpoint, **options).connect()
        [entry] = certificates.list_certificates(bench.certificates)
        assert entry.kept_in == "rejected"
        assert f"headrace trust add {entry.thumbprint}" in caught.value.remedy
        certificates.trust(bench.certificates, entry.thumbprint)
        connector = await bench.connect(cnc.endpoint, **options)
        await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
        await cnc.update({LOAD: 3.5}, T0)
        batch, _ = await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
        assert rows(batch, 1) == [(T0, 3.5, None, 0)]
        with pytest.raises(Refused, match="EDGE-2004"):
            other = {"Sign": "SignAndEncrypt", "SignAndEncrypt": "Sign"}[security]
            await bench.make(cnc.endpoint, security=other).connect()


async def test_a_mode_that_is_not_offered_is_named(cnc: Any, bench: Any) -> None:
    with pytest.raises(Refused, match=r"EDGE-2004 .*does not offer Sign .*None"):
        await bench.make(cnc.endpoint, security="Sign").connect()


async def test_restart_of_the_server(cnc: Any, bench: Any) -> None:
    """The session dies with the server; a new connector on the same port gets the same nodes."""
    tags = [tag(LOAD)]
    connector = await bench.connect(cnc.endpoint)
    await bench.until(connector, tags, lambda b: b.height == 1)
    await cnc.update({LOAD: 1.0}, T0)
    await cnc.stop()
    with pytest.raises(Transient):
        await bench.until(connector, tags, lambda _: False)
    await connector.close()
    with pytest.raises(Transient, match="EDGE-2001"):
        await bench.make(cnc.endpoint).connect()
    await cnc.start()
    again = await bench.connect(cnc.endpoint)
    batch, _ = await bench.until(again, tags, lambda b: b.height == 1)
    assert rows(batch, 1) == [(T0, 1.0, None, 0)]
    await cnc.update({LOAD: 2.0}, T0 + 1)
    batch, _ = await bench.until(again, tags, lambda b: b.height == 1)
    assert rows(batch, 1) == [(T0 + 1, 2.0, None, 0)]


class Silence:
    """A proxy that can go silent: both sockets stay open, no byte passes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open = asyncio.Event()
        self.open.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"opc.tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.append(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self.open.wait()
            sink.write(data)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.close()


async def test_half_open_tcp_is_noticed_within_seconds(cnc: Any, bench: Any) -> None:
    proxy = Silence(int(cnc.endpoint.rpartition(":")[2]))
    endpoint = await proxy.start()
    connector = await bench.connect(endpoint, timeout_s=1.0)
    await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
    proxy.open.clear()
    with pytest.raises(Transient, match=r"EDGE-2001 .*did not answer"):
        await bench.until(connector, [tag(LOAD)], lambda _: False, timeout_s=6.0)
    async with asyncio.timeout(3.0):
        await connector.close()
    await proxy.stop()


async def test_a_silent_server_at_connect_is_given_up(bench: Any) -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    endpoint = f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(5.0):
        with pytest.raises(Transient, match=r"EDGE-2001 .*did not answer"):
            await bench.make(endpoint, timeout_s=0.5).connect()
    server.close()


async def test_a_slow_device_is_no_dead_device(cnc: Any, bench: Any) -> None:
    cnc.delay_s = 0.3
    connector = await bench.connect(cnc.endpoint, timeout_s=2.0)
    batch, _ = await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
    assert batch.height == 1


async def test_a_text_in_a_number_node_is_kept_as_given(cnc: Any, bench: Any) -> None:
    connector = await bench.connect(cnc.endpoint)
    tags = [tag(LOAD), tag(COUNT, 2)]
    await bench.until(connector, tags, lambda b: b.height == 2)
    wrong = ua.DataValue(
        ua.Variant("ERR 7"), ua.StatusCode(codes.UNCERTAIN), to_datetime(T0), to_datetime(T0)
    )
    publish_value(cnc._shown[LOAD].attribute, wrong)
    await cnc.update({COUNT: 5}, T0)
    batch, _ = await bench.until(connector, tags, lambda b: b.height == 2)
    assert rows(batch, 1) == [(T0, None, "ERR 7", codes.UNCERTAIN)]
    assert rows(batch, 2) == [(T0, 5.0, None, 0)]


async def test_a_lost_subscription_ends_the_session(cnc: Any, bench: Any) -> None:
    connector = await bench.connect(cnc.endpoint, timeout_s=1.0)
    await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
    service = cnc._server.iserver.subscription_service
    await service.delete_subscriptions(list(service.subscriptions))
    with pytest.raises(Transient, match="EDGE-2002"):
        await bench.until(connector, [tag(LOAD)], lambda _: False, timeout_s=10.0)


async def test_a_server_without_time_gives_our_time_and_says_so(cnc: Any, bench: Any) -> None:
    connector = await bench.connect(cnc.endpoint)
    await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
    publish_value(cnc._shown[LOAD].attribute, ua.DataValue(ua.Variant(3.0), ua.StatusCode()))
    batch, readings = await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
    assert batch["source_timestamp"].to_list() == batch["received_timestamp"].to_list()
    assert "EDGE-2017" in [code for reading in readings for code, _ in reading.notices]


async def test_the_channel_is_renewed_while_values_flow(bench: Any, tmp_path: Path) -> None:
    async with device(security=["SignAndEncrypt"], certificates=tmp_path / "server") as cnc:
        with pytest.raises(Refused, match="EDGE-2006"):
            await bench.make(cnc.endpoint, security="SignAndEncrypt").connect()
        [entry] = certificates.list_certificates(bench.certificates)
        certificates.trust(bench.certificates, entry.thumbprint)
        connector = bench.make(cnc.endpoint, security="SignAndEncrypt")
        connector._session._client.secure_channel_timeout = 600
        await connector.connect()
        tokens: set[int] = set()
        seen = 0
        while len(tokens) < 4:
            seen += 1
            await cnc.update({LOAD: float(seen)}, T0 + seen)
            await bench.until(
                connector,
                [tag(LOAD)],
                lambda b, wanted=seen: b.filter(pl.col("value") == wanted).height == 1,
            )
            channel = connector._session._client.uaclient.protocol._connection
            tokens.add(channel.security_token.TokenId)
        assert seen > 4


async def test_close_works_on_what_was_never_opened(bench: Any) -> None:
    await bench.make("opc.tcp://127.0.0.1:1").close()


async def test_a_tag_appears_when_the_server_gets_its_node(bench: Any) -> None:
    """A refused item is tried again without a new session."""
    async with device() as cnc:
        connector = await bench.connect(cnc.endpoint)
        tags = [tag("ns=2;s=later"), tag(LOAD, 2)]
        await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 2)
        server = cnc._server
        await server.get_objects_node().add_variable(
            ua.NodeId("later", 2), ua.QualifiedName("later", 2), 5.5
        )
        connector._subscription._retry_s = 0.0
        batch, _ = await bench.until(
            connector, tags, lambda b: b.filter(pl.col("value") == 5.5).height == 1
        )
        assert batch.filter(pl.col("value") == 5.5)["tag_id"].to_list() == [1]


def test_checks_need_no_driver_and_its_absence_is_named() -> None:
    """A site file is checked on machines without asyncua."""
    script = """
import sys
sys.modules["asyncua"] = None
from pathlib import Path
from headrace.edge.connectors.opcua import CONNECTOR
from headrace.edge.contract import ConnectorContext
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured
from headrace.model.time import SystemClock
connection = ConnectionConfig(name="c", protocol="opcua", endpoint="opc.tcp://h:1")
CONNECTOR.check_connection(connection)
context = ConnectorContext(clock=SystemClock(), certificates=Path(), secret=str)
try:
    CONNECTOR.open(connection, context)
except Misconfigured as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("EDGE-1001 the driver of connection c is not installed")
    assert "headrace[opcua]" in done.stdout


@pytest.mark.parametrize("reading", ["subscribe", "poll"])
async def test_a_server_that_takes_few_operations_a_call(
    cnc: Any, bench: Any, reading: str
) -> None:
    """BadTooManyOperations makes the calls smaller, not the connection useless."""
    server = cnc._server.iserver
    asked: list[int] = []

    def limited(service: Any, items: Any) -> Any:
        def call(parameters: Any, *more: Any) -> Any:
            asked.append(len(getattr(parameters, items)))
            if asked[-1] > 2:
                raise ServiceError(ua.StatusCodes.BadTooManyOperations)
            return service(parameters, *more)

        return call

    server.attribute_service.read = limited(server.attribute_service.read, "NodesToRead")
    subscriptions = server.subscription_service
    subscriptions.create_monitored_items = limited(
        subscriptions.create_monitored_items, "ItemsToCreate"
    )
    connector = await bench.connect(cnc.endpoint, reading=reading)
    tags = [tag(point.address, i) for i, point in enumerate(POINTS)]
    await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == len(POINTS))
    assert max(asked) > 2
    assert asked[-1] <= 2


async def test_a_queue_that_the_server_makes_too_short_is_told(cnc: Any, bench: Any) -> None:
    cnc._server.iserver.max_monitored_item_queue_size = 1
    connector = await bench.connect(cnc.endpoint, publishing_interval_ms=500)
    create = connector._session.call

    async def revise(request: Any, response: Any) -> Any:
        answer = await create(request, response)
        if response is ua.CreateMonitoredItemsResponse:
            answer.Results[0].RevisedSamplingInterval = 50.0
        return answer

    connector._session.call = revise
    _, readings = await bench.until(connector, [tag(LOAD)], lambda b: b.height == 1)
    assert "EDGE-2023" in [code for reading in readings for code, _ in reading.notices]
