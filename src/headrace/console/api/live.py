"""``/api/v1/live``: newest values over a WebSocket, only what changed, at most ten times a second.

::

    you  -> {"tag_ids": ["17", "18"], "round": 1}      what to follow; again to change it
    we   -> {"round": 1, "now": 1700000000000,
             "i": [0, 1], "v": [1.5, null], "s": [0, 2147483648], "t": [ms, ms], "x": {"1": "text"}}

``i`` are places in ``tag_ids``; ids are text, since they may need 63 bits. With ``?tags=path,path`` the
first message names the tags and following begins at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec
import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from headrace.console.api.answers import tag_id_of
from headrace.console.live import WATCHERS_MAX, LiveValues, SlotArray
from headrace.console.receipts import rule_of
from headrace.console.services import Services, check_origin
from headrace.console.site_view import SiteView
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_MS
from headrace.security.policy import Actor
from headrace.security.receipt_rows import TagSet

INTERVAL_S: Final = 0.1
FOLLOWED_MAX: Final = 5_000
CHECK_SESSION_S: Final = 30.0
"""How soon other rights count; a session that is over ends the line at once (``services.watch``)."""


class Follow(msgspec.Struct):
    """What a client asks for."""

    tag_ids: list[str]
    round: int = 0


def make_router(services: Services) -> APIRouter:
    """The live route."""
    router = APIRouter()

    @router.websocket("/api/v1/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        try:
            actor = services.require(socket, "read", "live")
            check_origin(socket)
        except HeadraceError as error:
            await socket.send_json(error.as_dict())
            await socket.close(4401)
            return
        if services.sources.live.watchers >= WATCHERS_MAX:
            await socket.close(1013, "too many live connections; try again later")
            return
        session = _Session(services, socket, actor)
        with (
            services.watch.watching(services.secret(socket)) as over,
            contextlib.suppress(WebSocketDisconnect, RuntimeError),
        ):
            await session.run(over)

    return router


class _Session:
    def __init__(self, services: Services, socket: WebSocket, actor: Actor) -> None:
        self._services = services
        self._actor = actor
        self._rule = ""
        self._tags = TagSet.of(())
        self._asked: list[int] = []
        self._site: SiteView | None = None
        self._socket = socket
        self._live: LiveValues = services.sources.live
        self._slots: SlotArray = np.empty(0, np.int64)
        self._round = 0
        self._version = 0

    async def run(self, over: asyncio.Event) -> None:
        """Until the client goes, or its session ends: ``over``."""
        with self._live.watch() as changed:
            await self._follow_query(changed)
            receiving = asyncio.create_task(self._receive(changed))
            sending = asyncio.create_task(self._send(changed))
            ending = asyncio.create_task(over.wait())
            tasks: set[asyncio.Task[Any]] = {receiving, sending, ending}
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if over.is_set():
                await self._socket.close(4401)

    async def _follow_query(self, changed: asyncio.Event) -> None:
        asked = self._socket.query_params.get("tags", "")
        if not asked:
            return
        site = self._services.site(self._actor)
        views = [site.by_path.get(t) or site.by_id.get(tag_id_of(t)) for t in asked.split(",")]
        tags = [view for view in views if view is not None][:FOLLOWED_MAX]
        await self._socket.send_json(
            {"tags": [{"tag_id": str(v.tag_id), "path": v.path, "unit": v.unit} for v in tags]}
        )
        self._follow([v.tag_id for v in tags], 0)
        changed.set()

    def _follow(self, tag_ids: list[int], round_: int) -> None:
        self._site = self._services.site(self._actor)
        self._asked = tag_ids[:FOLLOWED_MAX]
        known = self._site.by_id
        # An id of no tag keeps its place but gets no slot of its own: nobody can fill our memory.
        self._slots = self._live.slots([t if t in known else -1 for t in self._asked])
        self._tags = TagSet.of(t for t in self._asked if t in known)
        self._rule = rule_of(self._services, self._actor, self._tags.tag_ids().tolist())
        self._round, self._version = round_, 0

    async def _receive(self, changed: asyncio.Event) -> None:
        while True:
            text = await self._socket.receive_text()
            try:
                asked = msgspec.json.decode(text, type=Follow)
            except UNREADABLE as error:
                await self._socket.send_json(
                    {"code": "CONS-1003", "what": str(error), "remedy": "Send tag_ids."}
                )
                continue
            self._follow([tag_id_of(t) for t in asked.tag_ids], asked.round)
            changed.set()

    async def _send(self, changed: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        check_at_s = loop.time() + CHECK_SESSION_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), CHECK_SESSION_S)
            if loop.time() > check_at_s:
                check_at_s = loop.time() + CHECK_SESSION_S
                actor = self._services.actor(self._socket)
                if actor is None:
                    return
                self._actor = actor
            if self._services.site(self._actor) is not self._site:  # other tags, or other rights
                self._follow(self._asked, self._round)
            changed.clear()
            message = self._message()
            if message is not None:
                await self._socket.send_text(message)
                await asyncio.sleep(INTERVAL_S)

    def _message(self) -> str | None:
        change = self._live.changes(self._slots, self._version)
        self._version = change.version
        if not len(change.index):
            return None
        self._services.identity.receipts.note(
            self._actor.name,
            "live",
            self._tags,
            rule=self._rule,
            samples=len(change.index),
            span=(int(change.source_us.min()), int(change.source_us.max()) + 1),
        )
        body: dict[str, Any] = {
            "round": self._round,
            "now": self._services.sources.clock.now_us() // US_PER_MS,
            "i": change.index.tolist(),
            "v": change.value.tolist(),  # NaN leaves as null
            "s": change.status.tolist(),
            "t": (change.source_us / US_PER_MS).tolist(),
        }
        if change.text:
            body["x"] = change.text
        return msgspec.json.encode(body).decode()
