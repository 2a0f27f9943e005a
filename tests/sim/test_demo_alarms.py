"""Each fault of the demo raises the right alarm within its delay, and no other."""

from __future__ import annotations

import demo_plant
import pytest
from demo_plant import DEVICES, Event, demo_config

from headrace.formula.binding import bind
from headrace.sim.plant.plant import Plant

START_S, STOP_S, END_S = 120, 420, 450
HALL, ENERGY = "environment/hall_a", "environment/energy"
# Instruments whose faults are noticed; what is constant, or known to nobody else, is not among them.
STUCK = {
    "utilities/pumping/pump_1": "speed flow head suction_pressure discharge_pressure noise_level"
    " vibration_drive_end vibration_other_end bearing_temperature_drive_end"
    " bearing_temperature_other_end motor_temperature active_power",
    "utilities/compressed_air/compressor_1": "tank_pressure consumed_flow intake_temperature"
    " discharge_temperature oil_temperature oil_pressure separator_pressure_drop vibration"
    " active_power",
    "machining/milling/cnc_1": "spindle_temperature spindle_bearing_temperature axis_x_load"
    " axis_y_load axis_z_load coolant_temperature lubrication_pressure hydraulic_pressure"
    " air_pressure cabinet_temperature active_power",
    "utilities/cooling/loop_1": "tank_temperature tank_level supply_temperature return_temperature"
    " primary_flow secondary_flow outdoor_temperature conductivity ph active_power",
    f"{HALL}/smoke_1": "density temperature signal_strength",
    f"{HALL}/gas_1": "carbon_monoxide carbon_dioxide signal_strength",
    f"{HALL}/climate_1": "temperature humidity dew_point signal_strength",
    f"{ENERGY}/meter_1": "voltage_l1 voltage_l2 voltage_l3 current_l1 current_l2 current_l3 frequency",
}
DRIFT = {
    "utilities/pumping/pump_1": "flow head suction_pressure discharge_pressure efficiency noise_level"
    " vibration_drive_end vibration_other_end bearing_temperature_other_end motor_temperature"
    " motor_current active_power",
    "utilities/compressed_air/compressor_1": "delivered_flow intake_temperature oil_pressure"
    " separator_pressure_drop dew_point vibration motor_current active_power",
    "machining/milling/cnc_1": "coolant_temperature lubrication_pressure hydraulic_pressure"
    # Air pressure is compared with the compressor's, unless that one is in doubt itself.
    " cabinet_temperature - - - - air_pressure",
    "utilities/cooling/loop_1": "tank_temperature tank_level supply_temperature return_temperature"
    " primary_flow heat_load outdoor_temperature ph",
    f"{HALL}/smoke_1": "density temperature battery",
    f"{HALL}/gas_1": "carbon_monoxide battery",
    f"{HALL}/climate_1": "temperature humidity dew_point battery",
    f"{ENERGY}/meter_1": "voltage_l1 voltage_l2 voltage_l3 current_l1 current_l2 current_l3"
    " active_power reactive_power frequency",
}


def raised(*events: Event, seed: int = 1) -> dict[str, float]:
    """Name of each alarm of a run -> seconds since the faults began, of the first time."""
    found: dict[str, float] = {}
    for each in demo_plant.run(events, END_S, seed):
        found.setdefault(each.name, each.start_s - START_S)
    return found


def fault(name: str, target: str, stop_s: int = STOP_S, **parameters: float) -> Event:
    return Event(START_S, stop_s, name, target, parameters)


def hold(found: dict[str, float], within_s: dict[str, float]) -> None:
    assert found.keys() == within_s.keys()
    late = {name: at for name, at in found.items() if not 0 <= at <= within_s[name]}
    assert not late


def silent(device: str) -> set[str]:
    """The alarms that tell of a device without data."""
    tags = next(each.tags for each in DEVICES if each.name == device)
    return {f"{tag.path.split('/')[2]}.no_data" for tag in tags}


def test_every_alarm_says_what_it_is_and_what_to_do() -> None:
    config = demo_config()
    bounds = bind(config)
    assert {asset for asset, _, _ in bounds.missing} == {
        f"machining/milling/cnc_{n}" for n in (2, 3)
    }, "all but the waveform's formula are evaluated everywhere"
    served = {bound.key.split(".")[0] for bound in bounds.bound if bound.role == "alarm"}
    assert served == {kind.name for kind in config.types}
    for formula in config.formulas:
        if formula.kind == "alarm":
            for word in ("priority", "message", "cause", "consequence", "action", "response", "zh"):
                assert f"{word} " in formula.text, (formula.name, word)


def test_faults_of_machines_and_sensors() -> None:
    found = raised(
        fault("bearing_wear", "pump_1"),
        fault("cavitation", "pump_2"),
        fault("bearing_wear", "compressor_1"),
        fault("bearing_wear", "cnc_1"),
        fault("tool_breakage", "cnc_2"),
        fault("sensor_stuck", f"{HALL}/smoke_1/density"),
        fault("sensor_drift", f"{HALL}/climate_1/temperature"),
        fault("sensor_stuck", f"{ENERGY}/meter_2/current_l1"),
        fault("sensor_drift", f"{ENERGY}/meter_1/frequency"),
    )
    hold(
        found,
        {
            "pump_1.bearing_wear": 60,
            "pump_2.cavitation": 5,
            "compressor_1.bearing_wear": 40,
            "cnc_1.bearing_wear": 60,
            "cnc_2.tool_broken": 20,
            "smoke_1.sensor_stuck": 70,
            "climate_1.sensor_drift": 150,
            "meter_2.sensor_stuck": 70,
            "meter_1.sensor_drift": 120,
        },
    )


def test_faults_of_devices() -> None:
    found = raised(
        fault("device_restart", "pumping_plc", off_s=60),
        fault("device_restart", "hall_gateway", off_s=60),
        fault("device_restart", "cooling_plc", off_s=5),
        fault("clock_step", "cnc_2"),
        fault("clock_step", "cnc_3", offset_s=-600),
        fault("slow_device", "compressor_plc"),
    )
    hold(
        found,
        dict.fromkeys(
            silent("pumping_plc") | silent("cnc_2") | silent("cnc_3") | silent("hall_gateway"), 32
        ),
    )


def sweeps(name: str, instruments: dict[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """One instrument of each machine in a run."""
    most = max(len(text.split()) for text in instruments.values())
    lists = {asset: text.split() for asset, text in instruments.items()}
    return [
        (name, [(asset, each[n]) for asset, each in lists.items() if each[n : n + 1] > ["-"]])
        for n in range(most)
    ]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "targets"), sweeps("sensor_stuck", STUCK) + sweeps("sensor_drift", DRIFT)
)
def test_each_instrument_that_fails_is_noticed(name: str, targets: list[tuple[str, str]]) -> None:
    found = raised(*(fault(name, f"{asset}/{quantity}") for asset, quantity in targets))
    within_s = 70 if name == "sensor_stuck" else 290
    hold(found, {f"{asset.rpartition('/')[2]}.{name}": within_s for asset, _ in targets})


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 4])
def test_nothing_is_wrong_with_machines_that_are_well(seed: int) -> None:
    assert [each.name for each in demo_plant.run((), 3_600, seed)] == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
def test_each_machine_that_fails_is_noticed(seed: int) -> None:
    plant, wear = Plant(1), {"compressor_1": 40.0}
    events = [fault("bearing_wear", "compressor_1")]
    expected = {"compressor_1.bearing_wear": wear["compressor_1"]}
    for n, pump in enumerate(plant.pumps):
        name, within_s = (("bearing_wear", 60.0), ("cavitation", 5.0))[(n + seed) % 2]
        events.append(fault(name, pump))
        expected[f"{pump}.{name}"] = within_s
    for n, centre in enumerate(plant.machining):
        name = ("bearing_wear", "tool_breakage")[(n + seed) % 2]
        events.append(fault(name, centre))
        alarm = {"tool_breakage": "tool_broken"}.get(name, name)
        expected[f"{centre}.{alarm}"] = 60.0
    hold(raised(*events, seed=seed), expected)
