"""Who is told what and when. Pure: a notice, the settings and the plant calendar in, deliveries out.

::

    raised ── step 0 ── after_min ── step 1 ── after_min ── step 2
       each step: one delivery a channel, planned at once, due later
    acknowledged, returned, withdrawn: what still waits is settled

All steps are planned when the alarm is raised, so an escalation is nothing but a delivery whose time
comes: it needs no timer that a restart could lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from headrace.model.calendar import PlantCalendar, Window
from headrace.model.notify import (
    PRIORITIES,
    ChannelConfig,
    Notice,
    NotifyConfig,
    NotifyRoute,
    QuietHours,
)
from headrace.model.time import US_PER_S, to_datetime

MINUTE_US: Final = 60 * US_PER_S
BACK_OFF_S: Final = (2, 5, 15, 30, 60, 120, 300)
FALL_AFTER: Final = 3
"""Failed attempts after which the next channel is told, while this one is tried on."""
DIGEST_FROM: Final = 4
"""From as many due at once on, one message says them all."""
DIGEST_MAX: Final = 50
BURST: Final = 3


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One notice to one channel.

    Attributes:
        key: transition, channel and step: what was delivered under a key is not delivered again.
        due_us: when it is to be sent. expires_us: when it is given up.
        waited_min: minutes unacknowledged at this step.
        follow: whether a return to normal is told on this channel too.
    """

    key: str
    notice: Notice
    channel: str
    step: int
    route: str
    due_us: int
    expires_us: int
    waited_min: int = 0
    follow: bool = False


def plan(notice: Notice, config: NotifyConfig, calendar: PlantCalendar) -> tuple[Delivery, ...]:
    """All deliveries of a raised alarm, over all steps of all routes that take it.

    Two routes that tell one channel at the same step tell it once.
    """
    assert notice.event == "raised", "only what is raised is planned"
    found: dict[str, Delivery] = {}
    for route in config.routes:
        if not takes(route, notice, calendar):
            continue
        for number, step in enumerate(route.steps):
            due_us = notice.recorded_us + step.after_min * MINUTE_US
            if route.quiet is not None and notice.priority not in route.quiet.passing:
                due_us = quiet_until_us(route.quiet, due_us, calendar)
            for name in step.channels:
                channel = config.channel(name)
                if channel is None:
                    continue  # the settings were checked; it left them since
                made = _delivery(notice, channel, number, due_us)
                made = msgspec.structs.replace(
                    made, route=route.name, waited_min=step.after_min, follow=route.tell_return
                )
                known = found.setdefault(made.key, made)
                if made.follow or made.due_us < known.due_us:
                    found[made.key] = msgspec.structs.replace(
                        known,
                        follow=known.follow or made.follow,
                        due_us=min(known.due_us, made.due_us),
                    )
    return tuple(found.values())


def plan_return(notice: Notice, told: Iterable[str], config: NotifyConfig) -> tuple[Delivery, ...]:
    """Tell the channels that heard of the alarm that it returned to normal."""
    channels = [config.channel(name) for name in dict.fromkeys(told)]
    return tuple(
        _delivery(notice, channel, 0, notice.recorded_us) for channel in channels if channel
    )


def plan_fallback(delivery: Delivery, config: NotifyConfig, now_us: int) -> tuple[Delivery, ...]:
    """The channel that is told in place of one that failed, when there is one."""
    failed = config.channel(delivery.channel)
    channel = config.channel(failed.fallback) if failed is not None else None
    if channel is None:
        return ()
    made = _delivery(delivery.notice, channel, delivery.step, now_us)
    return (msgspec.structs.replace(made, route=delivery.route, waited_min=delivery.waited_min),)


def _delivery(notice: Notice, channel: ChannelConfig, step: int, due_us: int) -> Delivery:
    return Delivery(
        key=f"{notice.id}/{channel.name}/{step}",
        notice=notice,
        channel=channel.name,
        step=step,
        route="",
        due_us=due_us,
        expires_us=due_us + channel.expire_min * MINUTE_US,
    )


def takes(route: NotifyRoute, notice: Notice, calendar: PlantCalendar) -> bool:
    """Whether a route takes a notice.

    Example:
        >>> notice = Notice(id="1", alarm="a", event="raised", at_us=0, recorded_us=0,
        ...                 definition="pump.hot", asset="utilities/pump_1", priority="high")
        >>> takes(NotifyRoute(name="all", steps=(), areas=("utilities",)), notice, PlantCalendar())
        True
    """
    chosen = (
        (route.priorities, notice.priority),
        (route.asset_types, notice.asset_type),
        (route.alarms, notice.definition),
    )
    if any(wanted and value not in wanted for wanted, value in chosen):
        return False
    path = f"{notice.asset}/"
    if route.areas and not any(path.startswith(f"{area}/") for area in route.areas):
        return False
    if not (route.shifts or route.teams):
        return True
    shift = shift_at(calendar, notice.recorded_us)
    return (
        shift is not None
        and (not route.shifts or shift.name in route.shifts)
        and (not route.teams or shift.team in route.teams)
    )


def shift_at(calendar: PlantCalendar, at_us: int) -> Window | None:
    """The shift that is worked at a time."""
    if not calendar.shifts:
        return None
    start_us = at_us - calendar.longest_us("shift")
    return next(
        (each for each in calendar.between("shift", start_us, at_us + 1) if at_us < each.end_us),
        None,
    )


def quiet_until_us(quiet: QuietHours, at_us: int, calendar: PlantCalendar) -> int:
    """``at_us``, or the end of the quiet hours that it lies in.

    Example:
        >>> quiet_until_us(QuietHours(start="22:00", end="06:00"), 0, PlantCalendar()) // (60 * MINUTE_US)
        6
    """
    today = to_datetime(at_us).astimezone(calendar.zone).date()
    over_midnight = quiet.end <= quiet.start
    for day in (today - timedelta(days=1), today):
        end_day = day + timedelta(days=1) if over_midnight else day
        end_us = calendar.at(end_day, quiet.end)
        if calendar.at(day, quiet.start) <= at_us < end_us:
            return end_us
    return at_us


def back_off_us(attempts: int, retry_after_s: float = 0.0) -> int:
    """How long to wait after as many failed attempts; what the other side asked for when it is longer.

    Example:
        >>> [back_off_us(count) // 1_000_000 for count in (1, 2, 20)]
        [2, 5, 300]
    """
    own_s = BACK_OFF_S[min(max(attempts, 1), len(BACK_OFF_S)) - 1]
    return int(max(own_s, retry_after_s) * US_PER_S)


class Allowance:
    """How many messages a channel may send: ``rate_per_min`` on average, a few at once.

    Args:
        rate_per_min: what comes back in a minute.
        sent_us: times of messages that were sent before, to go on after a restart.

    Example:
        >>> allowance = Allowance(60)
        >>> allowance.left(0), allowance.spend(0), allowance.left(0), allowance.next_us(0)
        (3, None, 2, 0)
    """

    def __init__(self, rate_per_min: int, sent_us: Sequence[int] = ()) -> None:
        self._per_us = rate_per_min / MINUTE_US
        self._most = float(min(BURST, rate_per_min))
        self._level = self._most
        self._at_us = sent_us[0] if sent_us else 0
        for at_us in sent_us:
            self.spend(at_us)

    def left(self, now_us: int) -> int:
        """Messages that may be sent now."""
        if now_us > self._at_us:
            self._level = min(self._most, self._level + (now_us - self._at_us) * self._per_us)
        self._at_us = now_us
        return int(self._level + 1e-9)

    def spend(self, now_us: int) -> None:
        """One was sent."""
        self.left(now_us)
        self._level = max(self._level - 1.0, 0.0)

    def next_us(self, now_us: int) -> int:
        """When one may be sent."""
        if self.left(now_us):
            return now_us
        return now_us + int((1.0 - self._level) / self._per_us) + 1


def parcel(channel: ChannelConfig, count: int, left: int) -> int:
    """Of ``count`` notices that are due: how many the next message says.

    Few go one by one, a flood as one digest. People get all of it in one, a program at most
    :data:`DIGEST_MAX` at a time, because it is not content with a count.

    Args:
        left: messages that may be sent now; at least one.

    Example:
        >>> robot = ChannelConfig(name="ops", kind="wecom", url="env:OPS")
        >>> parcel(robot, 2, left=3), parcel(robot, 2, left=1), parcel(robot, 1_000, left=3)
        (1, 2, 1000)
    """
    if count < DIGEST_FROM and count <= left:
        return 1
    return min(count, DIGEST_MAX) if channel.kind == "webhook" else count


def rank(priority: str) -> int:
    """Most urgent first; a priority that is not known comes last."""
    return PRIORITIES.index(priority) if priority in PRIORITIES else len(PRIORITIES)
