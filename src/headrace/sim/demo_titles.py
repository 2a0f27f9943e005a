"""What people read in the demo site: titles of equipment and quantities, in English and Chinese, and
which quantities of an asset matter most."""

from __future__ import annotations

from typing import Final

Title = tuple[str, str]

AREAS: Final[dict[str, Title]] = {
    "machining": ("Machining", "机加工"),
    "utilities": ("Utilities", "公用工程"),
    "environment": ("Environment", "环境"),
}
WORK_CENTERS: Final[dict[str, Title]] = {
    "machining/milling": ("Milling", "铣削"),
    "utilities/pumping": ("Pumping", "泵站"),
    "utilities/compressed_air": ("Compressed air", "压缩空气"),
    "utilities/cooling": ("Cooling", "冷却"),
    "environment/hall_a": ("Hall A", "A 车间"),
    "environment/energy": ("Energy", "能源"),
}
TYPES: Final[dict[str, Title]] = {
    "machining_centre": ("Machining centre", "加工中心"),
    "pump": ("Pump", "泵"),
    "compressor": ("Compressor", "空压机"),
    "cooling_loop": ("Cooling loop", "冷却回路"),
    "smoke_sensor": ("Smoke sensor", "烟雾传感器"),
    "gas_sensor": ("Gas sensor", "气体传感器"),
    "climate_sensor": ("Climate sensor", "温湿度传感器"),
    "power_meter": ("Power meter", "电能表"),
}
METERS: Final[dict[str, Title]] = {
    "meter_1": ("Meter 1: machining", "电能表 1：机加工"),
    "meter_2": ("Meter 2: cooling", "电能表 2：冷却"),
    "meter_3": ("Meter 3: compressor", "电能表 3：空压机"),
    "meter_4": ("Meter 4: whole site", "电能表 4：全厂"),
}
KEY_QUANTITIES: Final[dict[str, tuple[str, ...]]] = {
    "machining_centre": ("program_state", "spindle_load", "spindle_vibration"),
    "pump": ("flow", "head", "vibration_drive_end"),
    "compressor": ("tank_pressure", "delivered_flow", "vibration"),
    "cooling_loop": ("supply_temperature", "return_temperature", "heat_load"),
    "smoke_sensor": ("density", "temperature", "alarm"),
    "gas_sensor": ("carbon_monoxide", "carbon_dioxide", "alarm"),
    "climate_sensor": ("temperature", "humidity", "dew_point"),
    "power_meter": ("active_power", "power_factor", "active_energy"),
}
_CHINESE: Final = {
    "active_energy": "有功电能",
    "active_power": "有功功率",
    "air_pressure": "气源压力",
    "alarm": "报警",
    "alarm_code": "报警代码",
    "axis_x_load": "X 轴负载",
    "axis_x_position": "X 轴位置",
    "axis_x_temperature": "X 轴温度",
    "axis_y_load": "Y 轴负载",
    "axis_y_position": "Y 轴位置",
    "axis_y_temperature": "Y 轴温度",
    "axis_z_load": "Z 轴负载",
    "axis_z_position": "Z 轴位置",
    "axis_z_temperature": "Z 轴温度",
    "battery": "电池电量",
    "bearing_temperature_drive_end": "驱动端轴承温度",
    "bearing_temperature_other_end": "非驱动端轴承温度",
    "cabinet_temperature": "电柜温度",
    "carbon_dioxide": "二氧化碳",
    "carbon_monoxide": "一氧化碳",
    "conductivity": "电导率",
    "consumed_flow": "用气量",
    "coolant_flow": "切削液流量",
    "coolant_level": "切削液液位",
    "coolant_pressure": "切削液压力",
    "coolant_temperature": "切削液温度",
    "current_l1": "L1 相电流",
    "current_l2": "L2 相电流",
    "current_l3": "L3 相电流",
    "cut_volume": "累计切除量",
    "cutting_time": "切削时间",
    "cycle_time": "循环时间",
    "delivered_flow": "供气量",
    "density": "烟雾浓度",
    "dew_point": "露点",
    "discharge_pressure": "出口压力",
    "discharge_temperature": "排气温度",
    "door_closed": "安全门关闭",
    "efficiency": "效率",
    "fan_speed": "风机转速",
    "feed_override": "进给倍率",
    "feed_rate": "进给速度",
    "firmware": "固件版本",
    "flow": "流量",
    "frequency": "频率",
    "head": "扬程",
    "heat_load": "热负荷",
    "heat_load_total": "累计吸热量",
    "heat_rejected": "散热功率",
    "heat_rejected_total": "累计散热量",
    "humidity": "湿度",
    "hydraulic_pressure": "液压压力",
    "idle_pressure": "卸载压力",
    "intake_temperature": "进气温度",
    "last_cycle_time": "上次循环时间",
    "level_low": "液位低",
    "load_cycles": "加载次数",
    "load_pressure": "加载压力",
    "load_time": "加载时间",
    "loaded": "加载",
    "lubrication_pressure": "润滑压力",
    "makeup_valve_open": "补水阀打开",
    "makeup_volume": "累计补水量",
    "material_removal_rate": "材料去除率",
    "motor_current": "电机电流",
    "motor_temperature": "电机温度",
    "noise_level": "噪声",
    "npsh_margin": "汽蚀余量裕度",
    "oil_pressure": "油压",
    "oil_temperature": "油温",
    "operating_days": "运行天数",
    "outdoor_temperature": "室外温度",
    "part_count": "工件计数",
    "ph": "pH 值",
    "power_factor": "功率因数",
    "power_on_time": "通电时间",
    "primary_flow": "一次侧流量",
    "program_name": "程序名",
    "program_progress": "程序进度",
    "program_state": "程序状态",
    "reactive_power": "无功功率",
    "ready": "就绪",
    "return_temperature": "回水温度",
    "run_time": "运行时间",
    "running": "运行",
    "secondary_flow": "二次侧流量",
    "separator_pressure_drop": "油分压差",
    "serial_number": "序列号",
    "service_due": "需要保养",
    "signal_strength": "信号强度",
    "speed": "转速",
    "speed_setpoint": "转速设定",
    "spindle_bearing_temperature": "主轴轴承温度",
    "spindle_load": "主轴负载",
    "spindle_override": "主轴倍率",
    "spindle_power": "主轴功率",
    "spindle_speed": "主轴转速",
    "spindle_speed_setpoint": "主轴转速设定",
    "spindle_temperature": "主轴温度",
    "spindle_torque": "主轴扭矩",
    "spindle_vibration": "主轴振动",
    "spindle_vibration_waveform": "主轴振动波形",
    "starts": "启动次数",
    "suction_pressure": "吸入压力",
    "supply_temperature": "供水温度",
    "tank_level": "水箱液位",
    "tank_pressure": "储气罐压力",
    "tank_temperature": "水箱温度",
    "temperature": "温度",
    "temperature_setpoint": "温度设定",
    "tool_changes": "换刀次数",
    "tool_life_remaining": "刀具剩余寿命",
    "tool_number": "刀具号",
    "tool_wear": "刀具磨损",
    "vibration": "振动",
    "vibration_drive_end": "驱动端振动",
    "vibration_other_end": "非驱动端振动",
    "voltage_l1": "L1 相电压",
    "voltage_l2": "L2 相电压",
    "voltage_l3": "L3 相电压",
}
_SPELT: Final = {
    "cnc": "CNC",
    "npsh": "NPSH",
    "ph": "pH",
    "l1": "L1",
    "l2": "L2",
    "l3": "L3",
    "x": "X",
    "y": "Y",
    "z": "Z",
}


def quantity_title(name: str) -> Title:
    """Title of a quantity.

    Example:
        >>> quantity_title("axis_x_load")
        ('Axis X load', 'X 轴负载')
    """
    words = " ".join(_SPELT.get(word, word) for word in name.split("_"))
    english = words if words.startswith("pH") else words[:1].upper() + words[1:]
    return english, _CHINESE[name]


def asset_title(name: str, asset_type: str) -> Title:
    """Title of an asset of the demo.

    Example:
        >>> asset_title("cnc_2", "machining_centre")
        ('CNC 2', '加工中心 2')
    """
    if name in METERS:
        return METERS[name]
    kind, number = name.rsplit("_", 1)
    english, chinese = TYPES[asset_type]
    return ("CNC" if kind == "cnc" else english) + f" {number}", f"{chinese} {number}"
