"""``/api/v1/shared``: what a partner may read by a sharing contract, and nothing else.

The bearer token is the contract's (``hrs_...``). Each answer is taken from the meter and told in the audit
chain before it leaves; an open stream asks the contract anew each second, so that a revoked one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec
import polars as pl
from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from starlette.requests import HTTPConnection

from headrace.console.api.answers import json_answer, parse_span, parse_time
from headrace.console.services import Services
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S
from headrace.security.policy import Actor
from headrace.security.sharing import Granted, SharingRequest
from headrace.security.sharing.contract import SharingContract, Standing, State

STREAM_S: Final = 1.0
LAG_US: Final = 2 * US_PER_S
"""A stream gives what is so old, since samples take a moment to arrive; what comes later is in samples."""
STREAMS_MAX: Final = 32
PATHS_MAX: Final = 1_000


def make_router(services: Services) -> APIRouter:
    """The partner's routes."""
    router = APIRouter(prefix="/api/v1/shared", tags=["shared"])
    streams: set[WebSocket] = set()

    @router.get("")
    async def terms(request: Request) -> Response:
        """The contract of this token: terms, state, rows that are left."""
        contract, standing, state = await asyncio.to_thread(_contract, services, request)
        told = msgspec.to_builtins(contract.terms)
        told["tags"] = [path for path, _ in contract.terms.tags]
        left = contract.terms.rows_max - standing.rows_used
        return json_answer({"id": contract.id, "state": state, "rows_left": left, "terms": told})

    @router.get("/samples")
    async def samples(
        request: Request, tags: str = "", start: str = "-1h", end: str = "now", every: str = ""
    ) -> Response:
        """Samples or aggregates in [start, end), as the contract gives them."""
        contract, _, _ = await asyncio.to_thread(_contract, services, request)
        now_us = services.sources.clock.now_us()
        asked = SharingRequest(
            paths=_paths(tags),
            start_us=parse_time(start, now_us),
            end_us=parse_time(end, now_us),
            every_us=parse_span(every) if every else 0,
        )
        content, _, _ = await _given(services, contract, asked, "shared/samples")
        return Response(content, media_type="application/json")

    @router.websocket("/stream")
    async def stream(socket: WebSocket, tags: str = "") -> None:
        """What comes anew, about once a second, until the contract ends."""
        await socket.accept()
        if len(streams) >= STREAMS_MAX:
            await socket.close(1013, "too many streams; try again later")
            return
        streams.add(socket)
        try:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await _stream(services, socket, _paths(tags))
        except HeadraceError as error:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.send_json(error.as_dict())
                await socket.close(4403)
        finally:
            streams.discard(socket)

    return router


def _contract(
    services: Services, connection: HTTPConnection
) -> tuple[SharingContract, Standing, State]:
    """The contract of the token, when the policy lets its partner in.

    Raises:
        Refused: SEC-1003 without such a token; as the policy says.
    """
    kind, _, secret = connection.headers.get("authorization", "").partition(" ")
    found = services.identity.sharing.of_token(secret.strip()) if kind.lower() == "bearer" else None
    if found is None:
        services.decide(None, "read", "share/none")
        raise AssertionError("nobody is let in without a token")
    name = found[0].terms.partner
    partner = Actor(
        f"partner:{name}", "viewer", kind="partner", tenant=name, factors=frozenset({"token"})
    )
    services.decide(partner, "read", f"share/{found[0].id}")
    return found


def _paths(text: str) -> tuple[str, ...]:
    return tuple(path for path in (part.strip() for part in text.split(",")) if path)[:PATHS_MAX]


async def _given(
    services: Services, contract: SharingContract, asked: SharingRequest, door: str
) -> tuple[bytes, Granted, int]:
    """The answer, metered and told."""
    book = services.identity.sharing
    granted = await asyncio.to_thread(book.grant, contract.id, asked)
    rows = await _rows(services, contract, granted) if granted.rows else []
    body = {"contract": contract.id, "end_us": granted.end_us, "rows": rows}
    content = msgspec.json.encode(body)
    if rows or door == "shared/samples":
        await asyncio.to_thread(book.settle, contract.id, granted, len(rows), content, door)
    elif granted.rows:
        await asyncio.to_thread(book.give_back, contract.id, granted.rows)
    return content, granted, len(rows)


async def _rows(
    services: Services, contract: SharingContract, granted: Granted
) -> list[dict[str, Any]]:
    """Path, time, value and status of each row."""
    history, span = services.sources.history, (granted.start_us, granted.end_us)
    if granted.every_us:
        frame = await history.aggregate(granted.tag_ids, *span, granted.every_us, granted.aggregate)
        if granted.samples_min:
            counts = await history.aggregate(granted.tag_ids, *span, granted.every_us, "Count")
            enough = counts.filter(pl.col("value") >= granted.samples_min)
            frame = frame.join(
                enough, on=["tag_id", "timestamp"], how="semi", maintain_order="left"
            )
    else:
        frame = await history.read(granted.tag_ids, *span, granted.rows)
        frame = frame.rename({"source_timestamp": "timestamp"})
    names = {tag_id: path for path, tag_id in contract.terms.tags}
    frame = frame.head(granted.rows).select(
        pl.col("tag_id").replace_strict(names, return_dtype=pl.String).alias("path"),
        pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
        *(name for name in ("value", "text", "status") if name in frame.columns),
    )
    return frame.to_dicts()


async def _stream(services: Services, socket: WebSocket, paths: tuple[str, ...]) -> None:
    contract, _, _ = await asyncio.to_thread(_contract, services, socket)
    book = services.identity.sharing
    since_us = services.sources.clock.now_us() - LAG_US
    if contract.terms.every_us:
        since_us = since_us // contract.terms.every_us * contract.terms.every_us
    gone = asyncio.create_task(_until_gone(socket))
    try:
        while not gone.done():
            now_us = services.sources.clock.now_us() - LAG_US
            if now_us - since_us >= max(contract.terms.every_us, 1):
                asked = SharingRequest(paths=paths, start_us=since_us, end_us=now_us)
                content, granted, rows = await _given(services, contract, asked, "shared/stream")
                since_us = max(since_us, granted.end_us)
                if rows:
                    await socket.send_text(content.decode())
            else:
                await asyncio.to_thread(book.check, contract.id)
            await asyncio.wait({gone}, timeout=STREAM_S)
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _until_gone(socket: WebSocket) -> None:
    while True:
        await socket.receive_text()
