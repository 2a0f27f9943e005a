"""What engineers know of the demo's machines: attributes, relations, the plant calendar, and the formulas
and alarms of each asset type, which lie as texts in ``knowledge/``."""

from __future__ import annotations

from importlib import resources
from typing import Final

from headrace.formula.grammar import parse_file
from headrace.formula.tree import Statement
from headrace.sim.plant.plant import WAVEFORM_PATH, WAVEFORM_UNIT, Unit
from headrace.sim.plant.quantity import Quantity

ATTRIBUTES: Final[dict[str, dict[str, tuple[str, float]]]] = {
    # Of the pumps' data sheet: at rated speed on their closed loop.
    "pump": {
        "rated_speed": ("1/min", 2900.0),
        "rated_flow": ("m3/h", 25.82),
        "rated_head": ("m", 20.0),
    },
}
"""Asset type -> attribute -> unit and value, the same on all assets of the type."""
RELATIONS: Final[dict[str, dict[str, str]]] = {
    "machining_centre": {"supply": "compressor"},
    "cooling_loop": {"to_machines": "pump", "to_cooler": "pump"},
    **{
        kind: {"next": kind, "previous": kind}
        for kind in ("smoke_sensor", "gas_sensor", "climate_sensor")
    },
}
"""Asset type -> relation -> type that it leads to."""
_LEADS_TO: Final = {
    "supply": "utilities/compressed_air/compressor_1",
    "to_machines": "utilities/pumping/pump_1",
    "to_cooler": "utilities/pumping/pump_2",
}
RING: Final = 4
CALENDAR: Final = (
    "[calendar]",
    'rotation_start = "2026-01-05"',
    'holidays = { 2026-12-25 = "Christmas", 2026-12-26 = "Christmas", 2027-01-01 = "New Year" }',
    *(
        line
        for name, start, end, teams in (
            ("early", "06:00", "14:00", '["A", "B", "C"]'),
            ("late", "14:00", "22:00", '["B", "C", "A"]'),
            ("night", "22:00", "06:00", '["C", "A", "B"]'),
        )
        for line in (
            "[[calendar.shift]]",
            f'name = "{name}"',
            f'start = "{start}"',
            f'end = "{end}"',
            f"teams = {teams}",
        )
    ),
)
"""Three shifts a day with three teams, and the holidays of a winter."""


TITLES_ZH: Final = {
    "apparent_power": "视在功率",
    "approach_to_air": "逼近环境温差",
    "carried": "输送热量",
    "cavitating": "正在汽蚀",
    "celsius": "摄氏温度",
    "cost_of_cooling": "冷却能耗比",
    "cutting_vibration": "切削振动",
    "cycle_energy": "单件能耗",
    "demand": "需量",
    "dew_expected": "预期露点",
    "down_shift": "班次停机时间",
    "drifts": "仪表漂移",
    "energy_day": "日电量",
    "energy_shift": "班次电量",
    "expected_flow": "预期流量",
    "expected_head": "预期扬程",
    "expected_power": "预期功率",
    "gamma": "露点系数",
    "head_loss": "扬程损失",
    "heat_shift": "班次热量",
    "hydraulic_power": "水力功率",
    "load_share": "加载比例",
    "loads_per_hour": "每小时加载次数",
    "loud": "噪声过大",
    "monoxide_8h": "一氧化碳8小时均值",
    "monoxide_peak": "一氧化碳峰值",
    "off_air": "偏离环境温度",
    "off_bearing": "轴承读数异常",
    "off_cold": "冷端读数异常",
    "off_curve": "偏离特性曲线",
    "off_oil": "油温读数异常",
    "off_power": "功率读数异常",
    "off_suction": "吸入侧读数异常",
    "off_winding": "绕组读数异常",
    "overload": "过载",
    "parts_shift": "班次产量",
    "performance": "性能",
    "power_excess": "功率偏高",
    "productive": "生产中",
    "pumped": "泵送量",
    "race_defect": "滚道缺陷",
    "rise": "温升",
    "rough": "振动过大",
    "specific_energy": "单位能耗",
    "specific_power": "比功率",
    "starved": "吸入不足",
    "steady": "工况稳定",
    "stuck": "读数卡死",
    "suspect": "读数可疑",
    "turning": "正在运转",
    "unbalance": "不平衡度",
    "utilisation": "利用率",
    "vapour_pressure": "水汽压",
    "vibration_ratio": "振动比",
    "vibration_trend": "振动趋势",
    "volume_shift": "班次气量",
    "warmth": "轴承温差",
    "wear_index": "磨损指数",
    "wire_to_water": "整机效率",
}
"""Formula -> what its values are called in Chinese."""


def titles_of(kind: str) -> list[str]:
    """Lines of the site file with the titles of a type's formulas.

    Example:
        >>> titles_of("pump")[0]
        'hydraulic_power = { en = "Hydraulic power", zh = "水力功率" }'
    """
    names = [s.name for s in parse_file(statements(kind)) if isinstance(s, Statement)]
    return [
        f'{name} = {{ en = "{name.capitalize().replace("_", " ")}", zh = "{TITLES_ZH[name]}" }}'
        for name in names
    ]


def statements(kind: str) -> str:
    """Formulas and alarms of an asset type.

    Example:
        >>> statements("pump").splitlines()[1]
        'hydraulic_power = 998 kg/m3 * 9.80665 m/s2 * flow * head -> kW'
    """
    file = resources.files("headrace.sim").joinpath("knowledge", f"{kind}.formula")
    return file.read_text("utf-8")


def unit_of(quantity: Quantity) -> str:
    """The unit in the asset type: texts and conditions are said as what they are."""
    return {"bool": "condition", "string": "text"}.get(quantity.data_type, quantity.unit)


def quantities_of(unit: Unit) -> dict[str, str]:
    """Name -> unit of what an asset's type has; the accelerometer is on one machine alone."""
    units = {quantity.name: unit_of(quantity) for quantity in unit.quantities}
    if WAVEFORM_PATH.startswith(f"{unit.path}/"):
        units[WAVEFORM_PATH.rpartition("/")[2]] = WAVEFORM_UNIT
    return units


def relations_of(unit: Unit) -> dict[str, str]:
    """Relation -> path of the asset that it leads to; sensors hang in a ring."""
    found = {}
    for name in RELATIONS.get(unit.asset_type, {}):
        if name in _LEADS_TO:
            found[name] = _LEADS_TO[name]
        else:
            base, _, number = unit.path.rpartition("_")
            step = 1 if name == "next" else -1
            found[name] = f"{base}_{(int(number) - 1 + step) % RING + 1}"
    return found
