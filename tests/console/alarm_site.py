"""The alarms of the site of ``site_fixture``, as an engineer writes them into its site file."""

from __future__ import annotations

PUMPS = ("utilities/pumping/pump_1", "utilities/pumping/pump_2")
CNCS = ("machining/milling/cnc_1", "machining/milling/cnc_2")
TEXTS = {
    "pump.low_flow": (
        'alarm low_flow: flow < 20 m3/h for 30 s, off above 24 m3/h for 10 s, priority high, '
        'message "Flow too low" zh "流量过低", cause "Strainer blocked, or the suction valve is not open" '
        'zh "过滤器堵塞，或吸入阀未打开", consequence "The pump runs dry within 10 minutes" '
        'zh "泵将在 10 分钟内干转", action "Open the suction valve; then clean strainer S-12" '
        'zh "打开吸入阀，然后清洗过滤器 S-12", response 10 min, group "pump trip"'
    ),
    "pump.overload": (
        'alarm overload: power > 45 kW for 5 s, off below 42 kW, priority urgent, '
        'message "Motor overloaded" zh "电机过载", '
        'cause "Pump blocked or bearing seized" zh "泵堵转或轴承卡死", '
        'action "Stop the pump and start its neighbour" zh "停泵并启动备用泵", latched, group "pump trip"'
    ),
    "cnc.spindle_high": (
        'alarm spindle_high: spindle_load > 90 % for 10 s, priority medium, '
        'message "Spindle load high" zh "主轴负载高", action "Check the tool for wear" zh "检查刀具磨损"'
    ),
    "cnc.idle": 'alarm idle: spindle_load < 2 % for 15 min, priority low, message "Spindle idle" zh "主轴空闲"',
}  # fmt: skip
_QUANTITIES = {
    "pump": {"flow": "m3/h", "head": "m", "power": "kW"},
    "cnc": {"spindle_load": "%", "spindle_speed": "1/min", "power": "kW"},
}


def alarm_sections() -> list[str]:
    """Asset types with their alarms, and the assets."""
    lines = []
    for kind, quantities in _QUANTITIES.items():
        units = ", ".join(f'{name} = "{unit}"' for name, unit in quantities.items())
        texts = "\n".join(text for key, text in TEXTS.items() if key.startswith(f"{kind}."))
        lines.append(
            f"[asset_type.{kind}]\nquantities = {{ {units} }}\nformulas = '''\n{texts}\n'''"
        )
    for kind, paths in (("pump", PUMPS), ("cnc", CNCS)):
        lines += [f'[asset."{path}"]\ntype = "{kind}"' for path in paths]
    return lines
