"""Notices and settings that the tests of notifications share."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.model.notify import (
    ChannelConfig,
    EscalationStep,
    Notice,
    NotifyConfig,
    NotifyRoute,
)

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00Z
MINUTE_US = 60_000_000


def notice(number: int = 1, event: Any = "raised", at_us: int = START_US, **fields: Any) -> Notice:
    """A transition of the alarm ``pump.hot`` of pump ``number``."""
    made = Notice(
        id=f"{event}-{number}-{at_us}",
        alarm=f"utilities/pumping/pump_{number}/hot",
        event=event,
        at_us=at_us,
        recorded_us=at_us,
        definition="pump.hot",
        asset=f"utilities/pumping/pump_{number}",
        asset_type="pump",
        asset_title=(f"Pump {number}", f"{number} 号泵"),
        priority="high",
        message=("bearing too hot", "轴承过热"),
        cause=("lack of oil", "缺油"),
        action=("stop the pump", "停泵"),
        value="84.2 degC",
    )
    return msgspec.structs.replace(made, **fields)


def channel(name: str, kind: Any = "wecom", **fields: Any) -> ChannelConfig:
    """A channel; robots take their URL from the variable ``ROBOT``."""
    if kind == "email":
        fields = {
            "server": "127.0.0.1",
            "sender": "h@mill.example",
            "to": ("a@mill.example",),
        } | fields
    else:
        fields = {"url": "env:ROBOT"} | fields
    return ChannelConfig(name=name, kind=kind, **fields)


def route(*steps: tuple[int, str], name: str = "all", **fields: Any) -> NotifyRoute:
    """``route((0, "phone"), (10, "chief"))``."""
    made = tuple(EscalationStep(after_min=after, channels=tuple(to.split())) for after, to in steps)
    return NotifyRoute(name=name, steps=made, **fields)


def config(channels: list[ChannelConfig], routes: list[NotifyRoute]) -> NotifyConfig:
    """Settings with a site and a console."""
    return NotifyConfig(
        site="Mill",
        site_zh="工厂",
        console_url="https://mill.example",
        channels=tuple(channels),
        routes=tuple(routes),
    )
