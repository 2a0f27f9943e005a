"""What the app says to people, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asset_health.anomaly import Cause

CAUSES_MAX = 3
_SHARE_MIN = 0.05

TEXTS = {
    "en": {
        "title": "Inspect {asset}: it is no longer as when it was healthy",
        "reason": "{score:.1f} times its limit for {minutes:.0f} min; {cause}",
        "life_title": "Plan an overhaul of {asset}",
        "life_reason": "{hours:.0f} h of life left ({lower:.0f} to {upper:.0f} h), less than {limit:.0f} h",
        "baseline": "each fault found late: {stop:g} h of unplanned stop; found early: {planned:g} h planned",
        "learning": "learning what healthy is",
        "standstill": "at rest",
    },
    "zh": {
        "title": "检查{asset}：状态已偏离健康基线",
        "reason": "连续 {minutes:.0f} 分钟达到限值的 {score:.1f} 倍；{cause}",
        "life_title": "安排{asset}大修",
        "life_reason": "剩余寿命 {hours:.0f} 小时（{lower:.0f} 至 {upper:.0f} 小时），低于 {limit:.0f} 小时",
        "baseline": "故障发现过晚：非计划停机 {stop:g} 小时；提早发现：计划停机 {planned:g} 小时",
        "learning": "正在学习健康状态",
        "standstill": "停机",
    },
}


def say(language: object, key: str, **values: object) -> str:
    """A text in a language; English where it is another one."""
    return TEXTS.get(str(language), TEXTS["en"])[key].format(**values)


def cause_text(causes: Sequence[Cause], units: Mapping[str, str]) -> str:
    """Which quantities moved, by how much and with which share; the same in every language.

    Example:
        >>> cause_text([Cause("flow", 0.9, -3.25, -4.0), Cause("head", 0.01, 0.1, 0.2)], {"flow": "m3/h"})
        'flow -3.25 m3/h (90 %)'
    """
    named = [cause for cause in causes[:CAUSES_MAX] if cause.share >= _SHARE_MIN]
    parts = [
        f"{cause.quantity} {cause.moved:+.3g} {units.get(cause.quantity, '')}".strip()
        + f" ({100 * cause.share:.0f} %)"
        for cause in named
    ]
    return ", ".join(parts)
