"""What pieces of the journal and failed channels change in the store, in few statements each.

All of it runs in a transaction of :class:`headrace.alarms.notify.store.NotifyStore`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.engine import Connection

from headrace.alarms.notify.plan import Delivery, plan_return, rank
from headrace.alarms.notify.schema import DELIVERY
from headrace.model.notify import Notice, NotifyConfig

WAITING_MAX: Final = 100_000
"""Deliveries that wait at most; more would mean that nothing has left for very long."""
PIECE: Final = 500
"""Notices of one transaction, and keys of one question."""


def waiting_count(connection: Connection) -> int:
    """How many deliveries wait, over all channels."""
    wanted = select(func.count()).select_from(DELIVERY).where(DELIVERY.c.state == "waiting")
    return int(connection.execute(wanted).scalar_one())


def hasten(
    connection: Connection, deliveries: Sequence[Delivery], now_us: int
) -> dict[str, list[str]]:
    """Bring the next step of each delivery's alarm forward to now; key of the delivery -> channels."""
    notices = {each.notice.id for each in deliveries}
    columns = (DELIVERY.c.key, DELIVERY.c.notice_id, DELIVERY.c.step, DELIVERY.c.channel)
    waiting = (DELIVERY.c.state == "waiting") & DELIVERY.c.notice_id.in_(notices)
    later: dict[str, list[Any]] = {}
    for row in connection.execute(select(*columns).where(waiting)):
        later.setdefault(row.notice_id, []).append(row)
    found: dict[str, list[str]] = {}
    marks = []
    for each in deliveries:
        after = [row for row in later.get(each.notice.id, ()) if row.step > each.step]
        step = min((row.step for row in after), default=0)
        following = [row for row in after if row.step == step]
        if following:
            found[each.key] = [row.channel for row in following]
            marks += [{"one": row.key} for row in following]
    if marks:
        early = (DELIVERY.c.key == bindparam("one")) & (DELIVERY.c.due_us > now_us)
        sooner = update(DELIVERY).where(early).values(next_us=now_us, due_us=now_us)
        connection.execute(sooner, marks)
    return found


def take_piece(
    connection: Connection,
    changes: Sequence[tuple[Notice, Sequence[Delivery]]],
    config: NotifyConfig,
    now_us: int,
) -> int:
    """One piece of the journal: what it ends, what it begins; gives how many found no room."""
    notices = [each for each, _ in changes]
    told = _told(connection, notices)
    _settle(connection, notices, now_us)
    ends: dict[str, list[Notice]] = {}
    fresh: list[dict[str, Any]] = []
    for notice, planned in reversed(changes):
        if notice.event == "returned":
            planned = plan_return(notice, told.get(notice.id, ()), config)
        over = any(_ends(later, notice) for later in ends.get(notice.alarm, ()))
        for delivery in planned:
            row = _row(delivery)
            if over and notice.event == "raised":
                row |= {"state": "settled", "fell": True, "done_us": now_us}
            fresh.append(row)
        ends.setdefault(notice.alarm, []).append(notice)
    fresh.reverse()
    room = max(WAITING_MAX - waiting_count(connection), 0)
    return _insert(connection, fresh, room)


def _told(connection: Connection, notices: Sequence[Notice]) -> dict[str, list[str]]:
    """Return to normal -> the channels that heard of the alarm's last episode and follow it."""
    alarms = {each.alarm for each in notices if each.event == "returned"}
    if not alarms:
        return {}
    earlier = DELIVERY.alias()
    newest = (
        select(func.max(earlier.c.recorded_us))
        .where(earlier.c.alarm == DELIVERY.c.alarm, earlier.c.event == "raised")
        .scalar_subquery()
    )
    columns = (DELIVERY.c.alarm, DELIVERY.c.notice_id, DELIVERY.c.recorded_us, DELIVERY.c.channel)
    heard = (DELIVERY.c.event == "raised") & (DELIVERY.c.recorded_us == newest)
    heard &= DELIVERY.c.alarm.in_(alarms) & (DELIVERY.c.state == "sent") & DELIVERY.c.follow
    last: dict[str, tuple[str, int, list[str]]] = {}
    for alarm, notice_id, recorded_us, channel in connection.execute(select(*columns).where(heard)):
        last.setdefault(alarm, (notice_id, recorded_us, []))[2].append(channel)
    told = {}
    for notice in notices:
        notice_id, recorded_us, channels = last.get(notice.alarm, ("", 0, []))
        if notice.event == "raised" and notice.id != notice_id:
            last.pop(notice.alarm, None)  # of this episode nobody has heard yet
        elif notice.event == "returned" and recorded_us <= notice.recorded_us:
            told[notice.id] = channels
    return told


def _ends(later: Notice, notice: Notice) -> bool:
    return later.id != notice.id and later.recorded_us >= notice.recorded_us


def _settle(connection: Connection, notices: Sequence[Notice], now_us: int) -> None:
    """End what waits of the alarms that something happened to; nothing of it falls any more.

    News of a return waits on; a new alarm or its end takes the place of the old one.
    """
    by_alarm: dict[str, list[Notice]] = {}
    for notice in notices:
        by_alarm.setdefault(notice.alarm, []).append(notice)
    columns = (DELIVERY.c.key, DELIVERY.c.alarm, DELIVERY.c.notice_id, DELIVERY.c.recorded_us)
    live = (DELIVERY.c.event == "raised") & (
        (DELIVERY.c.state == "waiting") | DELIVERY.c.fell.is_(False)
    )
    wanted = select(*columns).where(DELIVERY.c.alarm.in_(list(by_alarm)), live)
    over = [
        {"one": row.key}
        for row in connection.execute(wanted)
        if any(
            each.id != row.notice_id and each.recorded_us >= row.recorded_us
            for each in by_alarm[row.alarm]
        )
    ]
    if over:
        own = DELIVERY.c.key == bindparam("one")
        waiting = own & (DELIVERY.c.state == "waiting")
        connection.execute(update(DELIVERY).where(own).values(fell=True), over)
        settled = update(DELIVERY).where(waiting).values(state="settled", done_us=now_us)
        connection.execute(settled, over)


def _insert(connection: Connection, rows: Sequence[dict[str, Any]], room: int) -> int:
    """Add rows whose key is not known, as long as there is room; gives how many found none."""
    known: set[str] = set()
    keys = [row["key"] for row in rows]
    for start in range(0, len(keys), PIECE):
        some = DELIVERY.c.key.in_(keys[start : start + PIECE])
        known |= set(connection.execute(select(DELIVERY.c.key).where(some)).scalars())
    fresh = {row["key"]: row for row in rows if row["key"] not in known}
    kept = list(fresh.values())[:room]
    if kept:
        connection.execute(insert(DELIVERY), kept)
    return len(fresh) - len(kept)


def add_deliveries(connection: Connection, planned: Sequence[Delivery]) -> int:
    """Keep deliveries whose key is not known yet; gives how many."""
    lost = _insert(connection, [_row(each) for each in planned], len(planned))
    return len(planned) - lost


def _row(delivery: Delivery) -> dict[str, Any]:
    notice = delivery.notice
    return {
        "key": delivery.key,
        "notice_id": notice.id,
        "alarm": notice.alarm,
        "event": notice.event,
        "channel": delivery.channel,
        "step": delivery.step,
        "route": delivery.route,
        "rank": rank(notice.priority),
        "state": "waiting",
        "fell": False,
        "done_us": 0,
        "follow": delivery.follow,
        "recorded_us": notice.recorded_us,
        "due_us": delivery.due_us,
        "next_us": delivery.due_us,
        "expires_us": delivery.expires_us,
        "body": msgspec.json.encode(delivery).decode(),
    }
