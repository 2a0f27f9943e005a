"""Sums of the value ledger: by month of the plant's calendar, by asset and by app. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo

import msgspec

from headrace.console.app_records import KeptRecord
from headrace.model.time import to_datetime


class ValueSum(msgspec.Struct, frozen=True, kw_only=True):
    """What one group gained.

    Attributes:
        money: by currency; amounts of different ones are never added.
    """

    name: str
    entries: int
    hours: float
    money: dict[str, float]


def sums(entries: Sequence[KeptRecord], name: Callable[[KeptRecord], str]) -> list[ValueSum]:
    """Sums of groups, by the name of the group."""
    found: dict[str, tuple[int, float, dict[str, float]]] = {}
    for entry in entries:
        count, hours, money = found.get(name(entry), (0, 0.0, {}))
        currency, amount = entry.text("currency"), entry.number("money")
        if amount:
            money = {**money, currency: money.get(currency, 0.0) + amount}
        found[name(entry)] = count + 1, hours + entry.number("hours"), money
    return [
        ValueSum(name=key, entries=count, hours=hours, money=money)
        for key, (count, hours, money) in sorted(found.items())
    ]


def by_month(entries: Sequence[KeptRecord], time_zone: str) -> list[ValueSum]:
    """Sums by month of the plant's own clock, oldest first.

    Example:
        >>> entry = KeptRecord(id="1", kind="value", app="a", version="1", hook="h", asset="x", at_us=0,
        ...                    body={"hours": 2, "money": 10.0, "currency": "EUR"})
        >>> by_month([entry, entry], "UTC")[0]
        ValueSum(name='1970-01', entries=2, hours=4.0, money={'EUR': 20.0})
    """
    zone = ZoneInfo(time_zone)
    return sums(entries, lambda one: to_datetime(one.at_us).astimezone(zone).strftime("%Y-%m"))


def money_text(money: dict[str, float]) -> str:
    """Amounts as people read them.

    Example:
        >>> money_text({"EUR": 12500.4, "USD": 3})
        '12\\u202f500 EUR · 3 USD'
    """
    said = [f"{amount:,.0f} {currency}".strip() for currency, amount in sorted(money.items())]
    return " · ".join(said).replace(",", "\u202f")
