"""The Python client: read tags, samples and live values of a Headrace site over its REST API.

Example::

    from headrace.client import connect

    with connect("http://127.0.0.1:8080", token="hrt_...") as site:
        site.tags("pump flow")                                   # a Polars frame
        site.read("utilities/pumping/pump_1/flow", start="-1h")
        site.aggregate("utilities/pumping/pump_1/flow", every="1min", start="-1d")
        site.last(["utilities/pumping/pump_1/flow"])

Make a token on the profile page of the console, or with ``headrace user token``.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import polars as pl

from headrace.model.errors import Refused, Transient, error_from_dict
from headrace.model.ledger import EXPLAINED_SCHEMA

TIMEOUT_S: Final = 60.0
PAGE: Final = 1_000
_OUTCOMES: Final[dict[str, Any]] = dict.fromkeys(
    ("alarm", "state", "transition", "code", "what", "remedy"), pl.String()
)
_LIVE: Final[dict[str, Any]] = {
    "tag_id": pl.Int64(),
    "path": pl.String(),
    "value": pl.Float64(),
    "text": pl.String(),
    "status": pl.UInt32(),
    "source_timestamp": pl.Datetime("us", "UTC"),
}


def connect(url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> Site:
    """A client of the site whose console is at ``url``; nothing is sent yet.

    Args:
        url: for example ``http://127.0.0.1:8080``.
        token: a bearer token of a user.
        timeout_s: for each request.

    Example:
        >>> connect("http://127.0.0.1:8080", "hrt_x").url
        'http://127.0.0.1:8080'
    """
    return Site(url, token, timeout_s)


class Site:
    """A site over REST; use :func:`connect`. Every call raises the server's own error class."""

    def __init__(self, url: str, token: str, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s
        )

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def tags(self, search: str = "", *, below: str = "") -> pl.DataFrame:
        """All tags whose path, title or unit has every word of ``search``; one row each."""
        rows: list[dict[str, Any]] = []
        while True:
            found = self._get(
                "tags", search=search, below=below, limit=PAGE, offset=len(rows)
            ).json()
            rows += found["tags"]
            if len(rows) >= found["total"] or not found["tags"]:
                break
        frame = pl.DataFrame(rows, infer_schema_length=None)
        return frame.with_columns(pl.col("tag_id").cast(pl.Int64)) if rows else frame

    def read(
        self,
        tags: str | Iterable[str],
        start: str = "-1h",
        end: str = "now",
        *,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Raw samples in [start, end), sorted by tag and time, with the sample schema.

        Args:
            tags: paths or ids. start, end: ISO 8601 with a zone, ``now`` or ``-1h``.

        Raises:
            HeadraceError: as the server says: CONS-1002 no such tag, CONS-1004 no such time...
            Transient: CONS-1020 when the server does not answer.
        """
        more = {} if limit is None else {"limit": limit}
        answer = self._get(
            "samples", tags=_names(tags), start=start, end=end, format="arrow", **more
        )
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def aggregate(
        self,
        tags: str | Iterable[str],
        every: str,
        aggregate: str = "Average",
        start: str = "-1h",
        end: str = "now",
    ) -> pl.DataFrame:
        """An aggregate of OPC UA Part 13 for each interval of ``every`` (``10s``, ``1min``), or for each
        ``shift``, ``hour``, ``day``, ``week`` or ``month`` of the plant calendar that begins in the time; these
        have the columns ``duration_h``, ``shift``, ``team`` and ``day`` too."""
        answer = self._get(
            "aggregate",
            tags=_names(tags),
            every=every,
            aggregate=aggregate,
            start=start,
            end=end,
            format="arrow",
        )
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def downsample(
        self, tag: str, start: str = "-1h", end: str = "now", *, points: int = 1_000
    ) -> pl.DataFrame:
        """One tag in at most ``points`` buckets of equal width, for drawing long times.

        Returns:
            Per bucket that has samples: ``tag_id``, ``bucket_start``, ``count``, ``bad``, ``minimum`` and
            ``maximum`` with their times, ``first``, ``last``, ``status_worst``. No spike is lost.
        """
        answer = self._get(
            "downsample", tag=tag, start=start, end=end, points=points, format="arrow"
        )
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def last(self, tags: str | Iterable[str]) -> pl.DataFrame:
        """The newest sample of each tag, as it is on the screen now."""
        answer = self._get("last", tags=_names(tags), format="arrow")
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def ledger(
        self,
        start: str = "-1h",
        end: str = "now",
        by: str = "minute",
        connection: str = "",
        group: str = "",
    ) -> pl.DataFrame:
        """Where every sample went: the counts of edge and historian beside each other.

        Args:
            by: ``minute``, ``hour`` or ``connection``.

        Returns:
            One row for each of these and each tag group: ``minute_us`` and all counts of
            :data:`headrace.model.ledger.COUNTS`; ``unexplained`` is 0 where the books close.
        """
        rows = self._get(
            "ledger", start=start, end=end, by=by, connection=connection, group=group
        ).json()["rows"]
        schema = {name: kind for name, kind in EXPLAINED_SCHEMA.items() if name != "epoch"}
        return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)

    def why(self, tag: str) -> dict[str, Any]:
        """Why a tag's value is as old as it is: ``fresh``, ``culprit``, ``headline`` in English and
        Chinese, and every hop from device to screen.

        Args:
            tag: a path or an id.

        Raises:
            Misconfigured: SITE-1801 when there is no such tag.
        """
        answer: dict[str, Any] = self._get("why", tag=tag).json()
        return answer

    def alarms(
        self,
        view: str = "active",
        *,
        priority: str | Iterable[str] = "",
        state: str = "",
        below: str = "",
        search: str = "",
        assignee: str = "",
        sort: str = "priority",
        limit: int = 10_000,
    ) -> pl.DataFrame:
        """Alarms, one row each: what stands in the operator's list, or in another view.

        Args:
            view: ``active``, ``shelved``, ``suppressed``, ``out_of_service`` or ``all``.
            priority: ``urgent``, ``high``, ``medium``, ``low``; none is all.
            state: a word of ISA-18.2, or ``waits`` for what has to be acknowledged.
            below: equipment path. search: words that all occur.
            sort: ``priority``, ``newest``, ``state`` or ``asset``.
        """
        answer = self._get(
            "alarms",
            view=view,
            priority=_names(priority),
            state=state,
            below=below,
            search=search,
            assignee=assignee,
            sort=sort,
            limit=limit,
            format="arrow",
        )
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def alarm(self, alarm: str) -> dict[str, Any]:
        """One alarm by its path: ``state``, ``definition`` with cause and action, ``limit``,
        ``tag_ids``, its newest transitions in ``journal``.

        Raises:
            Refused: CONS-1305 when there is no such alarm.
        """
        found: dict[str, Any] = self._get("alarms/one", alarm=alarm).json()
        return found

    def alarm_journal(
        self,
        start: str = "-1d",
        end: str = "now",
        *,
        alarm: str = "",
        below: str = "",
        events: str | Iterable[str] = "",
        actor: str = "",
        search: str = "",
        limit: int = 10_000,
    ) -> pl.DataFrame:
        """Transitions by source time in [start, end), the newest first; see :meth:`alarms`.

        Args:
            events: such as ``alarm``, ``acknowledge``, ``shelve``; none is all.
        """
        answer = self._get(
            "alarms/journal",
            start=start,
            end=end,
            alarm=alarm,
            below=below,
            events=_names(events),
            actor=actor,
            search=search,
            limit=limit,
            format="arrow",
        )
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def alarm_metrics(
        self, start: str = "-1d", end: str = "now", *, below: str = "", depth: int = 0
    ) -> dict[str, dict[str, Any]]:
        """The figures of ISA-18.2 and EEMUA 191: ``average``, ``peak``, ``floods``, ``bad_actors``...

        Args:
            below: equipment path. depth: 1 for each area, 2 for each work center, 0 the whole.

        Returns:
            Path of the area (``below`` itself for depth 0) -> its figures.
        """
        found: dict[str, dict[str, Any]] = self._get(
            "alarms/metrics", start=start, end=end, below=below, depth=depth
        ).json()["areas"]
        return found

    def act_on_alarms(
        self,
        verb: str,
        alarms: str | Iterable[str],
        *,
        comment: str = "",
        shelve_for: str = "",
        assignee: str = "",
        command_id: str = "",
    ) -> pl.DataFrame:
        """Do something with alarms; one row for each of them, ``code`` is empty where it was done.

        Args:
            verb: ``acknowledge``, ``reset``, ``shelve``, ``unshelve``, ``comment``, ``assign``,
                ``out-of-service`` or ``return``.
            alarms: paths.
            comment: needed by ``shelve``, ``out-of-service`` and ``comment``.
            shelve_for: how long, such as ``8h``. assignee: "" takes it away.
            command_id: of your own; sent again it does nothing and gives the same answer.

        Raises:
            Refused: SEC-1004 when your role may not.
            Transient: BUS-1024 when the apps role does not run.
        """
        body = {
            "alarms": [alarms] if isinstance(alarms, str) else list(alarms),
            "comment": comment,
            "for": shelve_for,
            "assignee": assignee,
            "id": command_id,
        }
        request = self._http.build_request("POST", f"/api/v1/alarms/{quote(verb)}", json=body)
        return pl.DataFrame(self._send(request).json()["outcomes"], schema=_OUTCOMES)

    async def alarm_transitions(self, after: int = -1) -> AsyncIterator[pl.DataFrame]:
        """Transitions as they come, until you stop; ``number`` of the last is where to go on.

        Args:
            after: a number of the journal to begin after; -1 begins with what comes next.

        Raises:
            HeadraceError: what the server refuses.
            Transient: CONS-1020 when the connection ends.
        """
        async with aclosing(self._messages(f"alarms/stream?after={after}")) as messages:
            async for message in messages:
                yield pl.DataFrame(message["transitions"], infer_schema_length=None)

    def write(self, tag: str, value: float | str) -> float | str:
        """Write a value to a device; gives what was read back."""
        answer = self._send(
            self._http.build_request("POST", "/api/v1/write", json={"tag": tag, "value": value})
        )
        written: float | str = answer.json()["value"]
        return written

    async def live(self, tags: str | Iterable[str]) -> AsyncIterator[pl.DataFrame]:
        """Newest samples as they change, at most ten frames a second, until you stop.

        Raises:
            HeadraceError: what the server refuses.
            Transient: CONS-1020 when the connection ends.
        """
        followed: list[dict[str, str]] = []
        async with aclosing(self._messages(f"live?tags={quote(_names(tags))}")) as messages:
            async for message in messages:
                if "tags" in message:
                    followed = message["tags"]
                else:
                    yield _live_frame(message, followed)

    async def _messages(self, route: str) -> AsyncGenerator[dict[str, Any], None]:
        from websockets.asyncio.client import connect as connect_socket
        from websockets.exceptions import WebSocketException

        url = f"{self.url.replace('http', 'ws', 1)}/api/v1/{route}"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with connect_socket(url, additional_headers=headers) as socket:
                async for text in socket:
                    message = msgspec.json.decode(text)
                    _raise_error(message)
                    yield message
        except (WebSocketException, OSError) as error:
            raise Transient(
                "CONS-1020", f"the live connection to {self.url} ended", "Connect again."
            ) from error

    def _get(self, route: str, **query: Any) -> httpx.Response:
        return self._send(self._http.build_request("GET", f"/api/v1/{route}", params=query))

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = self._http.send(request)
        except httpx.HTTPError as error:
            raise Transient(
                "CONS-1020", f"{self.url} does not answer: {error}", "See whether it runs."
            ) from error
        if answer.is_success:
            return answer
        try:
            fields = answer.json()
            raise error_from_dict(fields)
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(
                "CONS-1021",
                f"{self.url} answered {answer.status_code} and no error of ours",
                "See whether the address is that of a Headrace console.",
            ) from error


def _names(tags: str | Iterable[str]) -> str:
    return tags if isinstance(tags, str) else ",".join(tags)


def _raise_error(message: dict[str, Any]) -> None:
    if "code" in message:
        raise error_from_dict(message)


def _live_frame(message: dict[str, Any], followed: list[dict[str, str]]) -> pl.DataFrame:
    chosen = [followed[place] for place in message["i"]]
    texts = message.get("x", {})
    at_us = [int(ms * 1_000) for ms in message["t"]]
    columns = {
        "tag_id": [int(view["tag_id"]) for view in chosen],
        "path": [view["path"] for view in chosen],
        "value": message["v"],
        "text": [texts.get(str(row)) for row in range(len(chosen))],
        "status": message["s"],
        "source_timestamp": pl.Series(at_us, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
    }
    return pl.DataFrame(columns, schema=_LIVE)
