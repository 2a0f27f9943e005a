"""Whole streams out of the broker and back: with their sequence numbers, times, keys and consumers.

The broker's own snapshot: consistent while others publish, and a stream that is put back has the identity
that it had, so that a position in a table still means the same message. Chunks are acknowledged one by one,
so neither side buffers more than a few.

Source: NATS ADR-2 and the JetStream API ``$JS.API.STREAM.SNAPSHOT`` and ``.RESTORE``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.msg import Msg

from headrace.bus.client import Bus
from headrace.model.errors import Transient

CHUNK_BYTES: Final = 128 << 10
CHUNK_WAIT_S: Final = 30.0
PENDING_CHUNKS: Final = 1_024
_ERRORS: Final = (nats.errors.Error, TimeoutError, OSError)


class SavedStream(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream was when it was saved.

    Attributes:
        name: of the stream.
        config, state: as the broker tells them; both are needed to put it back.
        first_sequence, last_sequence: what it holds.
    """

    name: str
    config: dict[str, Any]
    state: dict[str, Any]
    first_sequence: int
    last_sequence: int


async def stream_names(bus: Bus) -> list[str]:
    """Every stream of the broker, those of keys and of MQTT too.

    Raises:
        Transient: BUS-1801 when the broker does not answer.
    """
    found: list[str] = []
    while True:
        told = await _ask(bus, "$JS.API.STREAM.NAMES", {"offset": len(found)})
        page = told.get("streams") or []
        found += page
        if not page or len(found) >= told.get("total", 0):
            return sorted(found)


async def save_stream(bus: Bus, name: str, write: Callable[[bytes], Any]) -> SavedStream:
    """Save a stream as it is at one moment.

    Args:
        write: takes its bytes, chunk by chunk.

    Raises:
        Transient: BUS-1801 when the broker does not answer, or breaks off.
    """
    inbox = bus.client.new_inbox()
    chunks = await bus.client.subscribe(
        inbox,
        pending_msgs_limit=PENDING_CHUNKS,
        pending_bytes_limit=PENDING_CHUNKS * CHUNK_BYTES,
    )
    try:
        request = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": CHUNK_BYTES}
        told = await _ask(bus, f"$JS.API.STREAM.SNAPSHOT.{name}", request)
        while True:
            message: Msg = await chunks.next_msg(timeout=CHUNK_WAIT_S)
            if not message.data:
                _check_end(message, name)
                break
            await asyncio.to_thread(write, message.data)
            if message.reply:
                await message.respond(b"")
    except _ERRORS as error:
        raise _broken(name, error) from error
    finally:
        await chunks.unsubscribe()
    state = told["state"]
    return SavedStream(
        name=name,
        config=told["config"],
        state=state,
        first_sequence=int(state["first_seq"]),
        last_sequence=int(state["last_seq"]),
    )


async def load_stream(bus: Bus, saved: SavedStream, chunks: Iterable[bytes]) -> None:
    """Put a stream back into a broker that has none of that name.

    Raises:
        Transient: BUS-1801 when the broker does not take it.
    """
    request = {"config": saved.config, "state": saved.state}
    told = await _ask(bus, f"$JS.API.STREAM.RESTORE.{saved.name}", request)
    subject = told["deliver_subject"]
    try:
        for chunk in chunks:
            answer = await bus.client.request(subject, chunk, timeout=CHUNK_WAIT_S)
            if answer.data:
                _check(json.loads(answer.data), saved.name)
        last = await bus.client.request(subject, b"", timeout=CHUNK_WAIT_S)
        _check(json.loads(last.data or b"{}"), saved.name)
    except (*_ERRORS, ValueError) as error:
        raise _broken(saved.name, error) from error


async def _ask(bus: Bus, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = await bus.client.request(subject, json.dumps(request).encode(), timeout=10)
    except _ERRORS as error:
        raise _broken(subject, error) from error
    told: dict[str, Any] = json.loads(answer.data)
    _check(told, subject)
    return told


def _check(told: dict[str, Any], name: str) -> None:
    if "error" in told:
        raise _broken(name, told["error"].get("description", told["error"]))


def _check_end(message: Msg, name: str) -> None:
    status = (message.headers or {}).get("Status", "204")
    if status != "204":
        raise _broken(name, f"it ended with {status}")


def _broken(name: str, why: object) -> Transient:
    return Transient(
        "BUS-1801",
        f"the broker does not copy {name}: {why or type(why).__name__}",
        "See whether it runs and has space; then try again.",
    )
