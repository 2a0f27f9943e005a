"""What the watch over signals says to people, in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence

TEXTS = {
    "en": {
        "every": "every signal",
        "stuck_title": "Check the sensor {quantities} of {asset}: it shows one value for ever",
        "stuck": "{quantities} has not moved for {run_s:.0f} s; while it was learned it never stood for more"
        " than {run_max_s:.0f} s",
        "drifting_title": "Check the sensor {quantities} of {asset}: it drifts",
        "drifting": "{quantities} moves away steadily ({moved:+.3g}, {reaches:.1f} times its usual reach), and"
        " nothing else there goes with it; something real that it alone sees looks like that too",
        "late_title": "Check the device of {asset}: its samples come late or not at all",
        "late": "{samples:.0f} samples in a minute, usually {samples_min:.0f} at least; {delay_ms:.0f} ms after"
        " their time; silent for {silent_ms:.0f} ms",
        "clock_title": "Set the clock of the device of {asset}",
        "clock": "its samples say a time that is off by {offset_s:+.1f} s",
        "broken_title": "Look at the tool of {asset}: it broke, or the spindle struck something",
        "broken": "a load of {times:.1f} times the greatest ever for {spike_s:.0f} s, then none",
    },
    "zh": {
        "every": "全部信号",
        "stuck_title": "检查{asset}的传感器 {quantities}：读数卡死不变",
        "stuck": "{quantities} 已 {run_s:.0f} 秒没有变化；学习期间最长不变时间为 {run_max_s:.0f} 秒",
        "drifting_title": "检查{asset}的传感器 {quantities}：读数漂移",
        "drifting": "{quantities} 持续偏移（{moved:+.3g}，为通常范围的 {reaches:.1f} 倍），其他量未随之变化；"
        "也可能是只有该传感器能感知的真实变化",
        "late_title": "检查{asset}的设备：数据迟到或中断",
        "late": "每分钟 {samples:.0f} 个样本，通常至少 {samples_min:.0f} 个；延迟 {delay_ms:.0f} 毫秒；"
        "已中断 {silent_ms:.0f} 毫秒",
        "clock_title": "校准{asset}的设备时钟",
        "clock": "样本时间偏差 {offset_s:+.1f} 秒",
        "broken_title": "检查{asset}的刀具：刀具断裂或主轴碰撞",
        "broken": "负载达到历史最大值的 {times:.1f} 倍，持续 {spike_s:.0f} 秒，随后消失",
    },
}


def tell(language: object, key: str, **values: object) -> str:
    """A text in a language; English where it is another one.

    Example:
        >>> tell("en", "clock", offset_s=90.0)
        'its samples say a time that is off by +90.0 s'
    """
    return TEXTS.get(str(language), TEXTS["en"])[key].format(**values)


def named(language: object, quantities: Sequence[str]) -> str:
    """Which signals, as a text; none of them means all."""
    return ", ".join(quantities) or tell(language, "every")
