"""REST: the list of alarms, their journal, what people do with them, and transitions as they come."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Annotated, Any, Final, Literal

import msgspec
import polars as pl
from fastapi import APIRouter, Query, Request, Response, WebSocket, WebSocketDisconnect

from headrace.alarms.store import JournalFilter, JournalLine
from headrace.console.alarm_frames import alarm_frame, journal_frame
from headrace.console.alarm_lines import AlarmFilter, chosen, counts, ordered, waits
from headrace.console.alarm_sheets import SheetFormat, export_sheet, plan_import
from headrace.console.alarms import RIGHTS, Act
from headrace.console.api.answers import json_answer, parse_span, parse_time
from headrace.console.api.site_file import whole_body
from headrace.console.live import WATCHERS_MAX
from headrace.console.receipts import told
from headrace.console.services import Services, check_origin
from headrace.console.sources import Sources
from headrace.model.alarm import EventName, Verb
from headrace.model.csv_text import defused
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError, Misconfigured, Refused, Transient

VERBS: Final[dict[str, Verb]] = {
    "acknowledge": "acknowledge",
    "reset": "reset",
    "shelve": "shelve",
    "unshelve": "unshelve",
    "comment": "comment",
    "assign": "assign",
    "out-of-service": "remove_from_service",
    "return": "return_to_service",
}
"""Last part of the address -> what is done."""
ROWS_MAX: Final = 10_000
STREAM_MAX: Final = 500
NUMBER_MAX: Final = 2**63 - 1
CHECK_SESSION_S: Final = 30.0
_SHEET_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
TableFormat = Literal["json", "csv", "arrow"]


class Asked(msgspec.Struct, forbid_unknown_fields=True, rename={"for_": "for"}):
    """What a program wants done.

    Attributes:
        alarms: paths. comment: a text; the reason of a shelf and of out of service.
        for_, until: how long a shelf lasts (``8h``), or when it ends (ISO 8601).
        assignee: of ``assign``; "" takes it away.
        id: chosen by the sender; the same again does nothing and gives the same answer.
    """

    alarms: list[str]
    comment: str = ""
    for_: str = ""
    until: str = ""
    assignee: str = ""
    id: str = ""


def make_router(services: Services) -> APIRouter:
    """The routes below ``/api/v1/alarms``."""
    router = APIRouter(prefix="/api/v1/alarms", tags=["alarms"])
    _add_list(router, services)
    _add_journal(router, services)
    _add_sheet(router, services)
    _add_commands(router, services)
    _add_stream(router, services)
    return router


def _add_list(router: APIRouter, services: Services) -> None:
    @router.get("")
    async def alarms(
        request: Request,
        view: Literal["active", "shelved", "suppressed", "out_of_service", "all"] = "active",
        priority: str = "",
        state: str = "",
        below: str = "",
        search: str = "",
        assignee: str = "",
        sort: Literal["priority", "newest", "state", "asset"] = "priority",
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = 1_000,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        format: TableFormat = "json",
    ) -> Response:
        """Alarms of a view: JSON, CSV or Arrow. ``state`` is a word of ISA-18.2 or ``waits`` (to be
        acknowledged); ``below`` an equipment path; several priorities are parted by commas."""
        board = services.alarms(services.require(request, "read", "alarms"))
        await fresh(services.sources)
        wanted = AlarmFilter(
            view=view,
            priorities=frozenset(priority.split(",")) - {""},
            state=state,
            below=below.strip("/"),
            search=search,
            mine=assignee,
        )
        found = ordered(chosen(board.states, wanted), sort)
        page = found[offset : offset + limit]
        if format != "json":
            return table_answer(alarm_frame(page), format, "alarms")
        rows = [{**msgspec.to_builtins(each), "waits": waits(each)} for each in page]
        return json_answer({"total": len(found), "counts": counts(board.states), "alarms": rows})

    @router.get("/one")
    async def one(request: Request, alarm: str) -> Response:
        """An alarm's state, its definition with guidance, the tags it reads, its newest transitions."""
        board = services.alarms(services.require(request, "read", "alarms"))
        await fresh(services.sources)
        state = board.find(alarm)
        if state is None:
            raise Refused("CONS-1305", f"there is no alarm {alarm!r}", "See GET /api/v1/alarms.")
        about = board.about(state)
        lines = await board.journal(JournalFilter(alarm=alarm, shadow=None, limit=100))
        return json_answer(
            {
                "state": state,
                "definition": about.definition,
                "limit": about.limit,
                "tag_ids": [str(tag_id) for tag_id in about.tag_ids],
                "journal": [_entry(line) for line in lines],
            }
        )


def _add_journal(router: APIRouter, services: Services) -> None:
    sources = services.sources

    @router.get("/journal")
    async def journal(
        request: Request,
        start: str = "-1d",
        end: str = "now",
        alarm: str = "",
        below: str = "",
        events: str = "",
        actor: str = "",
        search: str = "",
        before: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = ROWS_MAX,
        format: TableFormat = "json",
    ) -> Response:
        """Transitions by source time in [start, end), newest first: JSON, CSV or Arrow. ``before`` is a
        ``number`` to read on from."""
        who = services.require(request, "read", "alarms")
        board = services.alarms(who)
        now_us = sources.clock.now_us()
        wanted = JournalFilter(
            alarm=alarm,
            area=below.strip("/"),
            events=_events(events),
            actor=actor,
            text=search,
            start_us=parse_time(start, now_us),
            end_us=parse_time(end, now_us) + (1 if end == "now" else 0),
            before_number=before,
            limit=limit,
        )
        lines = await board.journal(wanted)
        if format != "json":
            answer = table_answer(journal_frame(lines), format, "alarm_journal")
            span = (wanted.start_us, wanted.end_us)
            return await told(services, who, "alarms/journal", (), answer, len(lines), span)
        return json_answer({"transitions": [_entry(line) for line in lines]})

    @router.get("/metrics")
    async def figures(
        request: Request,
        start: str = "-1d",
        end: str = "now",
        below: str = "",
        depth: Annotated[int, Query(ge=0, le=10)] = 0,
    ) -> Response:
        """The figures of ISA-18.2 and EEMUA 191 over [start, end): rate, floods, bad actors, chattering,
        standing, stale, priorities, operators. ``depth`` 1 gives them for each area, 2 for each work
        center; 0 for all below ``below``."""
        board = services.alarms(services.require(request, "read", "alarms"))
        now_us = sources.clock.now_us()
        start_us, end_us = parse_time(start, now_us), parse_time(end, now_us)
        if start_us >= end_us:
            raise Misconfigured(
                "CONS-1004", f"the time from {start} to {end} is empty", "Let start lie before end."
            )
        await fresh(sources)
        place = below.strip("/")
        found = await board.metrics(start_us, end_us, below=place, depth=depth)
        return json_answer(
            {"areas": {name: msgspec.to_builtins(one) for name, one in found.items()}}
        )


def _add_sheet(router: APIRouter, services: Services) -> None:
    folder = services.sources.folder

    @router.get("/sheet")
    async def sheet(request: Request, format: SheetFormat = "csv") -> Response:
        """The rationalisation sheet of all alarms as CSV or XLSX: cause, consequence, action, response,
        priority, class."""
        who = services.require(request, "read", "alarm_sheet")
        body = await asyncio.to_thread(export_sheet, folder, format)
        headers = {"Content-Disposition": f'attachment; filename="alarms.{format}"'}
        answer = Response(body, media_type=_SHEET_TYPES[format], headers=headers)
        return await told(services, who, "alarms/sheet", (), answer, 0)

    @router.put("/sheet")
    async def take(request: Request, file: str = "alarms.csv", dry: bool = False) -> Response:
        """Take a sheet back into the alarms' texts, whole or not at all; ``file`` is its name (``.xlsx``
        is a spreadsheet). ``dry`` changes nothing. Answers what changed and the diff of the site file."""
        services.require(request, "edit", "site")
        body = await whole_body(request)

        def change() -> tuple[list[str], str]:
            edit, changed = plan_import(folder, file, body)
            diff = edit.diff() if dry else edit.save()
            return [f"{each.asset_type}.{each.name}" for each in changed], diff

        changed, diff = await asyncio.to_thread(change)
        return json_answer({"changed": changed, "diff": diff})


def _add_commands(router: APIRouter, services: Services) -> None:
    sources = services.sources

    @router.post("/{verb}")
    async def act(request: Request, verb: str) -> Response:
        """Do something with alarms, ``{"alarms": [paths], ...}``: ``acknowledge``, ``reset``, ``shelve``
        (``for`` or ``until``, ``comment``), ``unshelve``, ``assign`` (``assignee``), ``comment``,
        ``out-of-service`` (``comment``), ``return``. Each alarm has an outcome; ``code`` is empty where
        it was done."""
        name = VERBS.get(verb)
        if name is None:
            raise Refused(
                "CONS-1306", f"nobody can {verb!r} an alarm", f"One of: {', '.join(VERBS)}."
            )
        services.require(request, "read", "alarms")
        try:
            asked = msgspec.json.decode(await request.body(), type=Asked)
        except UNREADABLE as error:
            raise Misconfigured(
                "CONS-1003", f"the body does not fit: {error}", 'Send {"alarms": [paths], ...}.'
            ) from error
        act = act_of(name, asked, sources.clock.now_us())
        actor = services.require_all(request, RIGHTS[name], sources.alarms.things(act))
        answer = await sources.alarms.act(actor, act, services.identity.audit)
        refused = len(answer.refused)
        done = len(answer.outcomes) - refused
        return json_answer({"done": done, "refused": refused, **msgspec.to_builtins(answer)})


def act_of(verb: Verb, asked: Asked, now_us: int) -> Act:
    """The act that a body asks for.

    Raises:
        Misconfigured: CONS-1004 for a time that is none.
    """
    until_us = 0
    if asked.for_:
        until_us = now_us + parse_span(asked.for_)
    elif asked.until:
        until_us = parse_time(asked.until, now_us)
    return Act(
        verb=verb,
        alarms=tuple(asked.alarms),
        comment=asked.comment,
        until_us=until_us,
        assignee=asked.assignee,
        id=asked.id,
    )


def _add_stream(router: APIRouter, services: Services) -> None:
    @router.websocket("/stream")
    async def stream(socket: WebSocket, after: int = -1) -> None:
        """Transitions as they come, ``{"transitions": [...]}``; ``?after=`` a number of the journal
        begins there, else with what comes next."""
        await socket.accept()
        try:
            board = services.alarms(services.require(socket, "read", "alarms"))
            check_origin(socket)
            last = min(after, NUMBER_MAX) if after >= 0 else await board.last_number()
        except HeadraceError as error:
            await socket.send_json(error.as_dict())
            await socket.close(4401)
            return
        if board.watchers >= WATCHERS_MAX:
            await socket.close(1013, "too many live connections; try again later")
            return
        with services.watch.watching(services.secret(socket)) as over:
            gone = asyncio.create_task(_until_gone(socket, over))
            try:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await _send_transitions(services, socket, last, gone)
                    await socket.close(4401)  # whoever asked may ask no more, unless gone already
            finally:
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)


async def _until_gone(socket: WebSocket, over: asyncio.Event) -> None:
    """Until the client goes, or its session is over."""
    reading = asyncio.create_task(_read_all(socket))
    ending = asyncio.create_task(over.wait())
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reading.cancel()
        ending.cancel()
        await asyncio.gather(reading, ending, return_exceptions=True)


async def _read_all(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.receive_text()


async def _send_transitions(
    services: Services, socket: WebSocket, last: int, gone: asyncio.Task[None]
) -> None:
    loop = asyncio.get_running_loop()
    actor = services.actor(socket)
    if actor is None:
        return
    board = services.alarms(actor)
    check_at_s = loop.time() + CHECK_SESSION_S
    with board.watch() as changed:
        changed.set()
        while not gone.done():
            woken = asyncio.create_task(changed.wait())
            await asyncio.wait(
                {woken, gone}, timeout=CHECK_SESSION_S, return_when=asyncio.FIRST_COMPLETED
            )
            woken.cancel()
            changed.clear()
            if gone.done():
                return
            if loop.time() > check_at_s:
                check_at_s = loop.time() + CHECK_SESSION_S
                actor = services.actor(socket)
                if actor is None:
                    return
                board = services.alarms(actor)  # it may have other rights by now
            while lines := await board.after(last, STREAM_MAX):
                last = lines[-1].number
                body = {"transitions": [_entry(line) for line in lines]}
                await socket.send_text(msgspec.json.encode(body).decode())


def _entry(line: JournalLine) -> dict[str, Any]:
    return {"number": line.number, **msgspec.to_builtins(line.transition)}


def _events(text: str) -> tuple[EventName, ...]:
    try:
        return msgspec.convert(
            [e.strip() for e in text.split(",") if e.strip()], tuple[EventName, ...]
        )
    except msgspec.ValidationError as error:
        raise Misconfigured(
            "CONS-1003",
            f"events={text!r}: {error}",
            "Give names of events, such as alarm,acknowledge.",
        ) from error


async def fresh(sources: Sources) -> None:
    """Make the list as new as the store.

    Raises:
        Transient: CONS-1307 when the store cannot be read: no old list for a new one.
    """
    await sources.alarms.refresh()
    if sources.alarms.problem:
        raise Transient("CONS-1307", sources.alarms.problem, "See whether the database runs.")


def table_answer(frame: pl.DataFrame, format_: TableFormat, name: str) -> Response:
    """A frame as CSV or Arrow IPC stream, to be saved."""
    body = io.BytesIO()
    if format_ == "arrow":
        frame.write_ipc_stream(body)
        media = "application/vnd.apache.arrow.stream"
    else:
        defused(frame).write_csv(body, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
        media = "text/csv; charset=utf-8"
    headers = {"Content-Disposition": f'attachment; filename="{name}.{format_}"'}
    return Response(body.getvalue(), media_type=media, headers=headers)
