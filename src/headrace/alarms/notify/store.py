"""What is due, what was sent and every attempt, in the metadata database; synced when a call returns.

::

    delivery   waiting ──► sent        delivered; never again under its key
                      ├──► settled     acknowledged, returned or withdrawn before it was due
                      ├──► expired     not delivered in time
                      └──► failed      refused for good, or its channel is no more
    attempt    open ──► sent, retry, limited, refused; found open at a start: lost (a kill came between)

One process writes; a test message of the command line only adds an attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple

import msgspec
from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from headrace.alarms.notify.plan import Delivery, plan_fallback
from headrace.alarms.notify.robots import Outcome
from headrace.alarms.notify.schema import ATTEMPT, DELIVERY, METADATA, POSITION
from headrace.alarms.notify.taking import PIECE, add_deliveries, hasten, take_piece
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.notify import Notice, NotifyConfig
from headrace.security.database import metadata_url, open_engine, writing

PATIENCE_S: Final = 10.0
KEPT_US: Final = 90 * 86_400 * 1_000_000
KEPT_ROWS_MAX: Final = 200_000
DeliveryState = Literal["waiting", "sent", "settled", "expired", "failed"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as logs show it.

    Attributes:
        kind: ``alarm``, ``digest``, ``return`` or ``test``. count: notices that it says.
        result: ``open`` while it is under way, ``lost`` when a kill came between, or an outcome's.
        code, text: of the other side. title: of the message.
    """

    id: int
    channel: str
    kind: str
    at_us: int
    took_us: int
    count: int
    result: str
    code: str
    text: str
    title: str


class Due(NamedTuple):
    """What a channel is to send now: the most urgent, and how many there are in all."""

    deliveries: tuple[Delivery, ...]
    total: int
    attempts: int


class Fallen(NamedTuple):
    """What fell to the next channels.

    Attributes:
        total: deliveries. channels: who is told now. nowhere: those for whom there is nobody left.
    """

    total: int
    channels: frozenset[str]
    nowhere: tuple[Delivery, ...]


class NotifyStore:
    """The deliveries and attempts of one installation.

    Args:
        folder: its data folder; the tables are made when they are not there.

    Raises:
        Transient: ALARM-2006 when the database does not answer; every call may raise it.
    """

    def __init__(self, folder: DataFolder) -> None:
        folder.root.mkdir(parents=True, exist_ok=True)
        with _answering():
            self._engine: Engine = open_engine(metadata_url(folder), METADATA, PATIENCE_S)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _answering(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _answering(), writing(self._engine) as connection:
            yield connection

    # what comes in

    def take(
        self,
        changes: Sequence[tuple[Notice, Sequence[Delivery]]],
        config: NotifyConfig,
        position: str,
        now_us: int,
    ) -> int:
        """Keep what transitions ask for; gives how many deliveries found no room.

        Whoever else writes waits for a piece of it only. What was taken before is not taken again, so
        after a kill between two pieces all of it may be taken once more.

        Args:
            changes: each notice in the order of the journal, with what is planned for it when it
                was raised.
            position: where to go on in the journal after a restart; kept with the last piece.
        """
        lost = 0
        for start in range(0, max(len(changes), 1), PIECE):
            with self._writing() as connection:
                lost += take_piece(connection, changes[start : start + PIECE], config, now_us)
                if start + PIECE >= len(changes):
                    _put_position(connection, position)
        return lost

    def position(self) -> str:
        """Where the journal was read to; empty at the first start."""
        with self._reading() as connection:
            row = connection.execute(select(POSITION.c.value)).first()
        return row.value if row is not None else ""

    # what goes out

    def recover(self) -> int:
        """Attempts that a kill cut short are lost ones; gives how many. Their deliveries wait on."""
        with self._writing() as connection:
            found = connection.execute(
                update(ATTEMPT)
                .where(ATTEMPT.c.result == "open", ATTEMPT.c.kind != "test")
                .values(result="lost", text="the notifier ended before it knew the answer")
            )
        return int(found.rowcount)

    def expire(self, channel: str, now_us: int) -> list[Delivery]:
        """Give up what was not delivered in time; gives them."""
        past = (
            (DELIVERY.c.state == "waiting")
            & (DELIVERY.c.channel == channel)
            & (DELIVERY.c.expires_us <= now_us)
        )
        with self._reading() as connection:
            if connection.execute(select(DELIVERY.c.key).where(past).limit(1)).first() is None:
                return []
        with self._writing() as connection:
            bodies = connection.execute(select(DELIVERY.c.body).where(past)).scalars().all()
            connection.execute(update(DELIVERY).where(past).values(state="expired", done_us=now_us))
        return [_decode(body) for body in bodies]

    def due(self, channel: str, now_us: int, limit: int) -> Due:
        """What a channel is to send now, most urgent and then oldest first."""
        where = _due(channel, now_us)
        with self._reading() as connection:
            rows = connection.execute(
                select(DELIVERY.c.body, DELIVERY.c.attempts)
                .where(where)
                .order_by(*_ORDER)
                .limit(limit)
            ).all()
            count = len(rows) if len(rows) < limit else _count(connection, where)
        return Due(
            tuple(_decode(row.body) for row in rows),
            count,
            max((row.attempts for row in rows), default=0),
        )

    def next_us(self, channel: str, earliest_us: int, *, dead: bool) -> int | None:
        """When a channel has something to do next; None: nothing waits.

        Args:
            earliest_us: it sends nothing before.
            dead: what becomes due falls to the next channel.
        """
        waiting = (DELIVERY.c.state == "waiting") & (DELIVERY.c.channel == channel)
        with self._reading() as connection:
            next_us, expires_us = connection.execute(
                select(func.min(DELIVERY.c.next_us), func.min(DELIVERY.c.expires_us)).where(waiting)
            ).one()
            falls_us = None
            if dead:
                due = select(func.min(DELIVERY.c.due_us)).where(waiting, DELIVERY.c.fell.is_(False))
                falls_us = connection.execute(due).scalar()
        if next_us is None:
            return None
        times = (max(next_us, earliest_us), expires_us, falls_us)
        return min(int(each) for each in times if each is not None)

    def begin(self, channel: str, kind: str, title: str, now_us: int, count: int) -> int:
        """An attempt at the first ``count`` of what is due begins; gives its number."""
        with self._writing() as connection:
            number = _attempt(connection, channel, kind, title, now_us, count)
            keys = (
                select(DELIVERY.c.key).where(_due(channel, now_us)).order_by(*_ORDER).limit(count)
            )
            connection.execute(
                update(DELIVERY).where(DELIVERY.c.key.in_(keys)).values(attempt=number)
            )
        return number

    def finish(self, number: int, outcome: Outcome, now_us: int, retry_us: int = 0) -> None:
        """What became of an attempt, and of its deliveries.

        Args:
            retry_us: when to try again at the latest; 0: after the delivery's own back-off.
        """
        own = DELIVERY.c.attempt == number
        waiting = own & (DELIVERY.c.state == "waiting")
        with self._writing() as connection:
            _finish(connection, number, outcome, now_us)
            if outcome.result == "sent":
                # Also what was settled meanwhile: it was delivered.
                connection.execute(
                    update(DELIVERY)
                    .where(own, DELIVERY.c.state.in_(("waiting", "settled")))
                    .values(state="sent", done_us=now_us, attempts=DELIVERY.c.attempts + 1)
                )
            elif outcome.result == "refused":
                connection.execute(
                    update(DELIVERY)
                    .where(waiting)
                    .values(state="failed", done_us=now_us, attempts=DELIVERY.c.attempts + 1)
                )
            else:
                connection.execute(
                    update(DELIVERY)
                    .where(waiting)
                    .values(next_us=retry_us, attempts=DELIVERY.c.attempts + 1)
                )

    def abandon(self, channels: Sequence[str], now_us: int) -> dict[str, int]:
        """What waits for channels that are no more has failed; channel -> how many."""
        gone = (DELIVERY.c.state == "waiting") & DELIVERY.c.channel.not_in(channels)
        with self._writing() as connection:
            rows = connection.execute(
                select(DELIVERY.c.channel, func.count()).where(gone).group_by(DELIVERY.c.channel)
            ).all()
            if rows:
                connection.execute(
                    update(DELIVERY).where(gone).values(state="failed", done_us=now_us)
                )
        return {row[0]: row[1] for row in rows}

    def fall(self, channel: str, config: NotifyConfig, now_us: int, *, dead: bool) -> Fallen:
        """Tell the next channel of what this one has not delivered, once for each delivery.

        At most :data:`PIECE` of them; call again until there are none.

        Args:
            dead: the channel fails again and again: what waits for it falls too, and waits on.
        """
        states = ("failed", "expired", "waiting") if dead else ("failed", "expired")
        where = (
            (DELIVERY.c.channel == channel)
            & (DELIVERY.c.event == "raised")
            & DELIVERY.c.fell.is_(False)
            & (DELIVERY.c.due_us <= now_us)
            & DELIVERY.c.state.in_(states)
        )
        with self._reading() as connection:
            if connection.execute(select(DELIVERY.c.key).where(where).limit(1)).first() is None:
                return Fallen(0, frozenset(), ())
        with self._writing() as connection:
            found = connection.execute(
                select(DELIVERY.c.key, DELIVERY.c.body).where(where).limit(PIECE)
            )
            rows = found.all()
            deliveries = [_decode(row.body) for row in rows]
            hastened = hasten(connection, deliveries, now_us)
            left = [each for each in deliveries if each.key not in hastened]
            instead = {each.key: plan_fallback(each, config, now_us) for each in left}
            add_deliveries(connection, [each for made in instead.values() for each in made])
            marks = [{"one": row.key} for row in rows]
            own = DELIVERY.c.key == bindparam("one")
            connection.execute(update(DELIVERY).where(own).values(fell=True), marks)
        channels = {name for names in hastened.values() for name in names}
        channels |= {each.channel for made in instead.values() for each in made}
        return Fallen(
            len(rows),
            frozenset(channels),
            tuple(each for each in left if not instead[each.key]),
        )

    # what people see

    def record_test(self, channel: str, title: str, now_us: int) -> int:
        """A test message is sent; gives the attempt's number for :meth:`finish_test`."""
        with self._writing() as connection:
            return _attempt(connection, channel, "test", title, now_us, 0)

    def finish_test(self, number: int, outcome: Outcome, now_us: int) -> None:
        """What became of a test message."""
        with self._writing() as connection:
            _finish(connection, number, outcome, now_us)

    def log(self, *, channel: str = "", start_us: int = 0, limit: int = 200) -> list[Attempt]:
        """Attempts, newest first."""
        wanted = select(ATTEMPT).where(ATTEMPT.c.at_us >= start_us)
        if channel:
            wanted = wanted.where(ATTEMPT.c.channel == channel)
        wanted = wanted.order_by(ATTEMPT.c.id.desc()).limit(limit)
        with self._reading() as connection:
            return [Attempt(**row) for row in connection.execute(wanted).mappings()]

    def sent_us(self, channel: str, start_us: int) -> list[int]:
        """When a channel sent messages since, oldest first."""
        return sorted(
            each.at_us
            for each in self.log(channel=channel, start_us=start_us, limit=1_000)
            if each.result == "sent"
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Channel -> state -> deliveries."""
        wanted = select(DELIVERY.c.channel, DELIVERY.c.state, func.count()).group_by(
            DELIVERY.c.channel, DELIVERY.c.state
        )
        found: dict[str, dict[str, int]] = {}
        with self._reading() as connection:
            for channel, state, count in connection.execute(wanted):
                found.setdefault(channel, {})[state] = count
        return found

    def state_of(self, key: str) -> DeliveryState | None:
        """The state of one delivery; None when it is not known."""
        with self._reading() as connection:
            wanted = select(DELIVERY.c.state).where(DELIVERY.c.key == key)
            state: DeliveryState | None = connection.execute(wanted).scalar()
        return state

    def tidy(self, now_us: int) -> None:
        """Forget what is done for 90 days, and the oldest of what is more than 200,000."""
        with self._writing() as connection:
            for table, at, done in (
                (DELIVERY, DELIVERY.c.done_us, DELIVERY.c.state != "waiting"),
                (ATTEMPT, ATTEMPT.c.at_us, ATTEMPT.c.result != "open"),
            ):
                before_us = now_us - KEPT_US
                newest = select(at).where(done).order_by(at.desc()).offset(KEPT_ROWS_MAX).limit(1)
                beyond = connection.execute(newest).scalar()
                if beyond is not None:
                    before_us = max(before_us, beyond)
                connection.execute(delete(table).where(done, at <= before_us))


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise Transient(
            "ALARM-2006",
            f"the store of notifications does not answer: {str(error.orig).splitlines()[0]}",
            "See whether the metadata database runs and its disk has room; it is tried again.",
        ) from error


_ORDER: Final = (DELIVERY.c.rank, DELIVERY.c.recorded_us, DELIVERY.c.key)


def _due(channel: str, now_us: int) -> Any:
    return (
        (DELIVERY.c.state == "waiting")
        & (DELIVERY.c.channel == channel)
        & (DELIVERY.c.next_us <= now_us)
    )


def _count(connection: Connection, where: Any) -> int:
    wanted = select(func.count()).select_from(DELIVERY).where(where)
    return int(connection.execute(wanted).scalar_one())


def _decode(body: str) -> Delivery:
    return msgspec.json.decode(body, type=Delivery)


def _attempt(
    connection: Connection, channel: str, kind: str, title: str, now_us: int, count: int
) -> int:
    made = connection.execute(
        insert(ATTEMPT).values(
            channel=channel, kind=kind, at_us=now_us, count=count, result="open", title=title
        )
    )
    key = made.inserted_primary_key
    assert key is not None, "the table has one"
    return int(key[0])


def _finish(connection: Connection, number: int, outcome: Outcome, now_us: int) -> None:
    connection.execute(
        update(ATTEMPT)
        .where(ATTEMPT.c.id == number)
        .values(
            result=outcome.result,
            code=outcome.code[:64],
            text=outcome.text[:500],
            took_us=now_us - ATTEMPT.c.at_us,
        )
    )


def _put_position(connection: Connection, position: str) -> None:
    changed = connection.execute(
        update(POSITION).where(POSITION.c.name == "journal").values(value=position)
    )
    if not changed.rowcount:
        connection.execute(insert(POSITION).values(name="journal", value=position))
