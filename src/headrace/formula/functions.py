"""The functions of the language: how each is written, and what it makes of units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Shape = Literal["value", "window", "duration", "clock", "calendar"]
UnitRule = Literal[
    "same", "difference", "root", "square", "plain", "per_second", "times_second", "second"
]


class Option(NamedTuple):
    """A number in a function's brackets: its name, what it may be, and in which unit; "" for a bare one."""

    name: str
    least: float
    most: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    Attributes:
        usage: how it is written, for messages and help.
        shape: ``value``: of values of one time; ``window``: over a window in brackets or with per;
            ``duration``: of a quantity and a duration; ``clock``: of a quantity alone; ``calendar``: what
            the plant calendar says of a moment, of nothing else.
        operands: how many quantities it takes, at least and at most.
        unit: of the result: that of the first operand, of its differences, and so on.
        wants: what its first operand must be.
        options: numbers in brackets after the quantities, with what they may be.
        named: the same by name, with their values when they are left out.
        help, help_zh: one line.
    """

    usage: str
    shape: Shape
    help: str
    help_zh: str
    operands: tuple[int, int] = (1, 1)
    unit: UnitRule = "same"
    wants: Literal["number", "condition", "any", "same"] = "number"
    options: tuple[Option, ...] = ()
    named: tuple[tuple[str, float], ...] = ()


def _window(
    name: str, text: str, chinese: str, unit: UnitRule = "same", wants: str = "number"
) -> Function:
    return Function(f"{name}(x, 15 min)", "window", text, chinese, unit=unit, wants=wants)  # type: ignore[arg-type] # one of the four


FUNCTIONS: Final[dict[str, Function]] = {
    "abs": Function("abs(x)", "value", "without its sign", "绝对值"),
    "sqrt": Function("sqrt(x)", "value", "square root", "平方根", unit="root"),
    "exp": Function("exp(x)", "value", "e to the power", "指数函数", unit="plain"),
    "ln": Function("ln(x)", "value", "natural logarithm", "自然对数", unit="plain"),
    "log10": Function("log10(x)", "value", "decimal logarithm", "常用对数", unit="plain"),
    "sin": Function("sin(x)", "value", "sine of an angle", "正弦", unit="plain"),
    "cos": Function("cos(x)", "value", "cosine of an angle", "余弦", unit="plain"),
    "tan": Function("tan(x)", "value", "tangent of an angle", "正切", unit="plain"),
    "round": Function("round(x)", "value", "to the nearest whole number", "四舍五入"),
    "floor": Function("floor(x)", "value", "next whole number below", "向下取整"),
    "ceil": Function("ceil(x)", "value", "next whole number above", "向上取整"),
    "sign": Function("sign(x)", "value", "-1, 0 or 1", "符号", unit="plain"),
    "clamp": Function(
        "clamp(x, low, high)",
        "value",
        "within limits; what was cut is GoodClamped",
        "限幅；被限制的值状态为 GoodClamped",
        operands=(3, 3),
    ),
    "least": Function("least(x, y)", "value", "the least of several", "多个量中的最小者", (2, 16)),
    "greatest": Function(
        "greatest(x, y)", "value", "the greatest of several", "多个量中的最大者", (2, 16)
    ),
    "coalesce": Function(
        "coalesce(x, y)",
        "value",
        "the first that is not Bad; a substitute is Uncertain",
        "第一个状态不为 Bad 的值；替代值状态为 Uncertain",
        (2, 16),
    ),
    "mean": _window("mean", "mean of the samples", "样本均值"),
    "time_mean": _window("time_mean", "mean weighted by time", "时间加权均值"),
    "min": _window("min", "the least", "最小值"),
    "max": _window("max", "the greatest", "最大值"),
    "std": _window("std", "standard deviation of the samples", "标准差", "difference"),
    "sum": _window("sum", "sum of the samples", "样本之和", "difference"),
    "count": _window("count", "number of usable samples", "可用样本数", "plain", "any"),
    "first": _window("first", "the first value", "首个值", wants="any"),
    "last": _window("last", "the last value", "末个值", wants="any"),
    "integral": _window(
        "integral", "area below the values over time", "对时间的积分", "times_second"
    ),
    "duration": _window(
        "duration", "how long a condition was true", "条件成立的时长", "second", "condition"
    ),
    "transitions": _window("transitions", "how often it changed", "变化次数", "plain", "any"),
    "slope": _window("slope", "change per time, by least squares", "最小二乘斜率", "per_second"),
    "correlation": Function(
        "correlation(x, y, 15 min)",
        "window",
        "Pearson's correlation of two quantities",
        "两个量的皮尔逊相关系数",
        operands=(2, 2),
        unit="plain",
    ),
    "percentile": Function(
        "percentile(x, 95, 15 min)",
        "window",
        "the value that so many percent do not exceed",
        "百分位数",
        options=(Option("percentage", 0.0, 100.0),),
    ),
    "band_energy": Function(
        "band_energy(x, 10 Hz, 1 kHz, 1 s)",
        "window",
        "mean square of what vibrates in a band of frequencies, by FFT",
        "某频带内振动的均方值（FFT）",
        unit="square",
        options=(Option("low", 0.0, 1e9, "Hz"), Option("high", 1e-9, 1e9, "Hz")),
    ),
    "delta": Function(
        "delta(counter, rollover 65536, 15 min)",
        "window",
        "what a counter counted; knows roll-over and reset",
        "计数器增量，可处理翻转与清零",
        unit="difference",
        named=(("rollover", 0.0),),
    ),
    "derivative": Function(
        "derivative(x)",
        "clock",
        "change per time since the last value",
        "对时间的变化率",
        unit="per_second",
    ),
    "lag": Function("lag(x, 5 min)", "duration", "as it was so long ago", "滞后值", wants="any"),
    "hold": Function(
        "hold(x, 10 s)",
        "duration",
        "Uncertain when no new value came for so long",
        "超过该时长无新值则状态为 Uncertain",
        wants="any",
    ),
    "ewma": Function(
        "ewma(x, 10 min)",
        "duration",
        "mean with weights that fade with this time constant",
        "指数加权移动平均",
    ),
    "shift": Function(
        'shift() = "night"',
        "calendar",
        'the shift that is being worked; "" when none is',
        '当前班次名称；无班次时为 ""',
        (0, 0),
    ),
    "team": Function(
        'team() = "B"',
        "calendar",
        'the team of that shift; "" when nobody is named',
        '当班班组；未指定时为 ""',
        (0, 0),
    ),
    "holiday": Function(
        "not holiday()",
        "calendar",
        "whether the day is a holiday of the plant",
        "当天是否为工厂节假日",
        (0, 0),
    ),
    "planned_stop": Function(
        "not planned_stop()",
        "calendar",
        "whether a planned stop of the plant lasts",
        "是否处于计划停机",
        (0, 0),
    ),
    "status": Function(
        "status(x) is good",
        "value",
        "for: status(x) is good",
        "用于 status(x) is good",
        wants="any",
    ),
}
