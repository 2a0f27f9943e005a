"""Floods: the console keeps serving and the plant's data go on while connections are held against it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from attack_log import attack
from attack_target import FLOW, Target

from headrace.console.listener import HEAD_BYTES_MAX, WAITING_MAX
from waiting import until_sync

SHORT, LONG = 1_000, 10_000
ON_TIME_S = 30.0


@contextlib.contextmanager
def held(target: Target, count: int, says: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that were opened and say no more than this."""
    sockets = []
    try:
        for _ in range(count):
            connection = target.raw()
            sockets.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall(says)
        yield sockets
    finally:
        for connection in sockets:
            connection.close()


def goes_on(target: Target, rounds: int = 5) -> None:
    """The plant's samples come through to whoever asks, one after another, none is lost."""
    first_us = time.time_ns() // 1_000
    newest = f"/api/v1/last?tags={FLOW}"
    for n in range(rounds):
        at_us = first_us + n
        target.site.publish({FLOW: 1_000.0 + n}, at_us=at_us)

        def is_there(value: float = 1_000.0 + n) -> bool:
            samples = target.ask(newest).json()["samples"]
            return bool(samples) and samples[0]["value"] == value

        until_sync(is_there, ON_TIME_S, f"sample {n} under the flood")
    span = f"/api/v1/samples?tags={FLOW}&start={first_us}&end={first_us + rounds}"
    until_sync(
        lambda: len(target.ask(span).json()["samples"]) == rounds, ON_TIME_S, "every sample is kept"
    )


@attack(
    "floods/connections that say nothing",
    tries="opens 1,000 connections (10,000 in the long form) and says nothing on any",
    stops="of more than 512 that wait the one that waits longest goes, and each after ten seconds",
    stride="D",
    requirement="SR 7.1",
)
def test_connections_that_say_nothing(target: Target) -> None:
    with held(target, SHORT) as sockets:
        goes_on(target)
        gone = sum(_is_ended(connection) for connection in sockets)
        assert gone >= SHORT - WAITING_MAX - 8


@pytest.mark.soak
def test_ten_thousand_connections(target: Target) -> None:
    with held(target, LONG, b"GET / HTTP/1.1\r\nHost: x\r\n"):
        goes_on(target, 20)


@attack(
    "floods/heads that never end",
    tries="sends the head of a request a byte at a time, and one of 200 kB",
    stops="a head has ten seconds and 64 kB",
    stride="D",
    requirement="SR 7.1",
)
def test_heads_that_never_end(target: Target) -> None:
    with held(target, 100, b"GET /sign-in HTTP/1.1\r\nHost: x\r\nX-Slow: "):
        goes_on(target, 2)
    with target.raw() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(2 * HEAD_BYTES_MAX // 2_048):
            connection.sendall(b"X-Long: " + b"x" * 2_038 + b"\r\n")
        assert connection.recv(100) == b""
    assert target.is_well()


@attack(
    "floods/bodies that never come",
    tries="promises bodies on 200 connections and sends none of them",
    stops="a body has thirty seconds; until then it costs a few kB, and nothing waits for it",
    stride="D",
    requirement="SR 7.1",
)
def test_bodies_that_never_come(target: Target) -> None:
    head = (
        b"POST /api/v1/formula/preview HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        b"Authorization: Bearer %s\r\n\r\n{" % target.tokens["viewer"].encode()
    )
    with held(target, 200, head):
        goes_on(target, 2)
    goes_on(target, 2)  # who has left is none of the log's business
    assert "Traceback" not in (target.site.folder.logs / "console.log").read_text()


@attack(
    "floods/readers that do not read",
    tries="asks for large files on 100 connections and never reads the answers",
    stops="an answer waits in a bounded buffer, and the connection ends after thirty seconds",
    stride="D",
    requirement="SR 7.1",
)
def test_readers_that_do_not_read(target: Target) -> None:
    request = b"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 40
    with held(target, 100, request):
        goes_on(target, 2)


@attack(
    "floods/live values that nobody reads",
    tries="follows 10,000 tags on a socket, sends garbage on it, ids of 5,000 digits, and never reads",
    stops="a socket follows at most 5,000 known tags; only the newest values are ever kept for it",
    stride="D",
    requirement="SR 7.2",
)
async def test_live_values_that_nobody_reads(target: Target) -> None:
    import asyncio
    import json

    ids = ["9" * 5_000, "--1", "²", "-", *[str(n) for n in range(10_000)]]
    async with target.socket("/api/v1/live") as socket_:
        for text in ("[" * 20_000, "\0", "{}", '{"tag_ids": 7}', "x" * 100_000):
            await socket_.send(text)
        await socket_.send(json.dumps({"tag_ids": ids, "round": 3}))
        await asyncio.to_thread(goes_on, target, 1)
        async with asyncio.timeout(30):
            refused = [json.loads(await socket_.recv())["code"] for _ in range(4)]
        assert set(refused) == {"CONS-1003"}


@attack(
    "floods/message too large for a socket",
    tries="sends 4 MB in one message to the live values and to the alarm stream",
    stops="a socket's message has a most of 1 MB; the connection ends",
    stride="D",
    requirement="SR 7.2",
)
async def test_a_message_too_large_for_a_socket(target: Target) -> None:
    import asyncio

    from websockets.exceptions import ConnectionClosed

    for path in ("/api/v1/live", "/api/v1/alarms/stream?after=" + "9" * 30):
        with pytest.raises((ConnectionClosed, ConnectionError)):
            async with asyncio.timeout(60), target.socket(path) as socket_:
                await socket_.send("x" * (4 << 20))
                while True:
                    await socket_.recv()
    assert await asyncio.to_thread(target.is_well)


@attack(
    "floods/poison in the log",
    tries="puts damaged, foreign and empty messages between the plant's batches",
    stops="each reader of the log tells and passes over what is no batch; the rest is stored",
    stride="D",
    requirement="SR 7.1",
)
def test_poison_in_the_log(target: Target) -> None:
    from site_fixture import SUBJECTS

    from headrace.bus.envelope import HEADER_CELLS, HEADER_SEQUENCE

    subject = SUBJECTS.batch("local", "plc_1")
    for n, body in enumerate((b"", b"\0zlib\0x", b"\xff" * 5_000, b"ARROW1\0\0" * 50)):
        headers = {
            HEADER_SEQUENCE: "²/" + "9" * 5_000,
            HEADER_CELLS: "a.b.c",
            "Nats-Msg-Id": f"p{n}",
        }
        target.publish_raw(subject, body, headers if n % 2 else None)
    goes_on(target)


def _is_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
