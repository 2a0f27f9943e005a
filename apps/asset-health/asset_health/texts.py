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
        "baseline": "each fault found late: {stop:g} h of unplanned stop; found early: {planned:g} h planned",
        "learning": "learning what healthy is",
        "standstill": "at rest",
        "new": "driven as never before: learning that too",
        "no_model": "no trained model of remaining life",
        "no_begin": "begin of this life not known: set learn_after",
        "lacks": "lacks what the model takes: {names}",
        "young": "{rows} of {wanted} rows of this life seen",
        "life_title": "Plan the replacement of worn parts of {asset}",
        "life_reason": "{low:.3g} h of running left at least, {hours:.3g} h expected; lead time {lead:g} h",
    },
    "zh": {
        "title": "检查{asset}：状态已偏离健康基线",
        "reason": "连续 {minutes:.0f} 分钟达到限值的 {score:.1f} 倍；{cause}",
        "baseline": "故障发现过晚：非计划停机 {stop:g} 小时；提早发现：计划停机 {planned:g} 小时",
        "learning": "正在学习健康状态",
        "standstill": "停机",
        "new": "出现新的工况，正在学习",
        "no_model": "尚无已训练的剩余寿命模型",
        "no_begin": "本次寿命起点未知：请设置 learn_after",
        "lacks": "缺少模型所需的量：{names}",
        "young": "本次寿命已观测 {rows} 行，需要 {wanted} 行",
        "life_title": "安排更换{asset}的磨损部件",
        "life_reason": "剩余运行时间至少 {low:.3g} 小时，预计 {hours:.3g} 小时；备件与准备时间 {lead:g} 小时",
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
