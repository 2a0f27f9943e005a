"""Each fault acts on the right quantities of its target, and on no other machine's."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.model.errors import Misconfigured, Refused
from headrace.sim.emulators import Value
from headrace.sim.faults import KINDS, Faults
from headrace.sim.plant.plant import Plant

NOON_US = 1_795_363_200_000_000
Row = dict[str, Value]


class RecordedDevice:
    """Remembers what a fault wants of a device."""

    def __init__(self) -> None:
        self.off = False
        self.delay_s = 0.0
        self.offset_us = 0

    def set_off(self, off: bool) -> None:
        self.off = off

    def set_delay(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def set_clock_offset(self, offset_us: int) -> None:
        self.offset_us = offset_us


def site(seed: int = 1) -> Faults:
    return Faults(Plant(seed), {"cnc_1": RecordedDevice(), "pumping_plc": RecordedDevice()})


def run(faults: Faults, steps: int) -> list[Row]:
    rows = []
    for _ in range(steps):
        faults.before_step(1.0)
        at_us = (faults.plant.at_us or NOON_US) + 1_000_000
        rows.append(faults.after_step(faults.plant.step(1.0, at_us)))
    return rows


def with_and_without(
    name: str, target: str, steps: int, warm: int = 60, **parameters: float
) -> tuple[list[Row], list[Row]]:
    """The same site with the fault and without it, after the same warm-up."""
    faulty, healthy = site(), site()
    run(faulty, warm)
    run(healthy, warm)
    faulty.start(name, target, parameters)
    return run(faulty, steps), run(healthy, steps)


def changed(bad: list[Row], good: list[Row]) -> set[str]:
    """Work units of which anything differs in the last row."""
    return {path.split("/")[2] for path in bad[-1] if bad[-1][path] != good[-1][path]}


def mean(rows: list[Row], path: str) -> float:
    return float(np.mean([float(row[path]) for row in rows]))


def test_bearing_wear_shakes_and_warms_its_pump_alone() -> None:
    bad, good = with_and_without("bearing_wear", "pump_1", 60)
    base = "utilities/pumping/pump_1"
    assert mean(bad, f"{base}/vibration_drive_end") > 1.5 * mean(
        good, f"{base}/vibration_drive_end"
    )
    warm = f"{base}/bearing_temperature_drive_end"
    assert float(bad[-1][warm]) > float(good[-1][warm]) + 4
    assert bad[-1][f"{base}/flow"] == good[-1][f"{base}/flow"]
    # Its power goes through the meters, and its heat into the loop and what the loop cools.
    coupled = {"pump_1", "loop_1", "meter_2", "meter_4"}
    heat = {"cnc_1", "cnc_2", "cnc_3", "compressor_1", "pump_2", "meter_1", "meter_3"}
    assert changed(bad, good) <= coupled | heat
    for path in bad[-1]:
        if path.split("/")[2] in heat and isinstance(bad[-1][path], float):
            assert bad[-1][path] == pytest.approx(good[-1][path], rel=2e-3, abs=0.05), path


def test_bearing_wear_is_visible_within_two_seconds() -> None:
    bad, good = with_and_without("bearing_wear", "compressor_1", 2)
    path = "utilities/compressed_air/compressor_1/vibration"
    assert float(bad[-1][path]) > float(good[-1][path]) + 1.0


def test_bearing_wear_of_a_spindle_grows_and_its_repair_ends_it() -> None:
    faults = site()
    run(faults, 30)
    faults.start("bearing_wear", "cnc_1", {"initial": 0.1, "rate_per_min": 1.0})
    run(faults, 30)
    assert faults.plant.machining["cnc_1"].state.bearing_wear == pytest.approx(0.6)
    assert faults.plant.machining["cnc_2"].state.bearing_wear == 0.0
    faults.stop("bearing_wear", "cnc_1")
    run(faults, 1)
    assert faults.plant.machining["cnc_1"].state.bearing_wear == 0.0


def test_cavitation_takes_flow_and_makes_noise() -> None:
    bad, good = with_and_without("cavitation", "pump_2", 6)
    base = "utilities/pumping/pump_2"
    bad, good = bad[-3:], good[-3:]
    assert mean(bad, f"{base}/flow") < 0.9 * mean(good, f"{base}/flow")
    assert mean(bad, f"{base}/head") < 0.9 * mean(good, f"{base}/head")
    assert mean(bad, f"{base}/suction_pressure") < mean(good, f"{base}/suction_pressure") - 0.5
    assert mean(bad, f"{base}/vibration_drive_end") > 2 * mean(good, f"{base}/vibration_drive_end")
    assert mean(bad, f"{base}/noise_level") > mean(good, f"{base}/noise_level") + 5
    assert mean(bad, f"{base}/npsh_margin") < 1.0
    other = "utilities/pumping/pump_1"
    assert mean(bad, f"{other}/flow") == pytest.approx(mean(good, f"{other}/flow"), rel=1e-3)


def test_cavitation_ends_with_a_clean_strainer() -> None:
    faults = site()
    run(faults, 20)
    flow = "utilities/pumping/pump_1/flow"
    before = mean(run(faults, 5), flow)
    faults.start("cavitation", "pump_1")
    assert mean(run(faults, 8)[-3:], flow) < 0.9 * before
    faults.stop("cavitation", "pump_1")
    assert mean(run(faults, 12)[-3:], flow) == pytest.approx(before, rel=0.03)


def test_tool_breakage_spikes_then_alarms_and_stops_its_machine_alone() -> None:
    bad, good = with_and_without("tool_breakage", "cnc_2", 15)
    base = "machining/milling/cnc_2"
    assert max(float(row[f"{base}/spindle_load"]) for row in bad) > 120
    assert max(float(row[f"{base}/spindle_vibration"]) for row in bad) > 8
    assert bad[-1][f"{base}/program_state"] == "ALARM"
    assert bad[-1][f"{base}/alarm_code"] == 1042
    assert good[-1][f"{base}/alarm_code"] == 0
    assert bad[-1][f"{base}/part_count"] == good[-1][f"{base}/part_count"]
    for other in ("cnc_1", "cnc_3"):
        for name in ("spindle_load", "program_state", "tool_wear", "axis_x_position"):
            path = f"machining/milling/{other}/{name}"
            assert bad[-1][path] == good[-1][path]


def test_a_stuck_sensor_shows_one_value_and_the_rest_lives_on() -> None:
    target = "environment/hall_a/climate_1/temperature"
    bad, good = with_and_without("sensor_stuck", target, 20)
    assert len({row[target] for row in bad}) == 1
    assert len({row[target] for row in good}) > 10
    others = [path for path in bad[-1] if path != target]
    assert all(b[path] == g[path] for b, g in zip(bad, good, strict=True) for path in others)


def test_a_drifting_sensor_moves_by_its_rate_and_nothing_else_does() -> None:
    target = "utilities/pumping/pump_1/discharge_pressure"
    bad, good = with_and_without("sensor_drift", target, 30, rate_per_min=6.0)
    assert float(bad[-1][target]) - float(good[-1][target]) == pytest.approx(3.0)
    others = [path for path in bad[-1] if path != target]
    assert all(bad[-1][path] == good[-1][path] for path in others)


def test_device_faults_act_on_the_device_and_leave_the_physics_alone() -> None:
    faults, healthy = site(), site()
    device = faults.devices["cnc_1"]
    assert isinstance(device, RecordedDevice)
    faults.start("device_restart", "cnc_1", {"off_s": 3})
    assert device.off
    run(faults, 2)
    assert device.off
    run(faults, 1)
    assert not device.off and faults.active == []
    faults.start("slow_device", "cnc_1", {"delay_s": 0.5})
    faults.start("clock_step", "cnc_1", {"offset_s": -60})
    assert (device.delay_s, device.offset_us) == (0.5, -60_000_000)
    faults.stop("slow_device", "cnc_1")
    faults.stop("clock_step", "cnc_1")
    assert (device.delay_s, device.offset_us) == (0.0, 0)
    run(healthy, 3)
    assert run(faults, 5) == run(healthy, 5)


def test_faults_are_deterministic() -> None:
    one, _ = with_and_without("cavitation", "pump_1", 10)
    two, _ = with_and_without("cavitation", "pump_1", 10)
    assert one == two


def test_every_fault_can_start_on_every_kind_of_target_and_stop() -> None:
    for name in KINDS:
        faults = site()
        run(faults, 3)
        for target in faults.targets[name]:
            faults.start(name, target)
        run(faults, 2)
        for target in faults.targets[name]:
            faults.stop(name, target)
        assert faults.active == []


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (("fire", "pump_1", {}), "SIM-1010"),
        (("cavitation", "cnc_1", {}), "SIM-1011"),
        (("cavitation", "pump_1", {"depth": 1}), "SIM-1012"),
        (("cavitation", "pump_1", {"pressure_drop_bar": 99}), "SIM-1012"),
        (("cavitation", "pump_1", {"pressure_drop_bar": True}), "SIM-1012"),
        (("cavitation", "pump_1", {"pressure_drop_bar": float("nan")}), "SIM-1012"),
    ],
)
def test_a_wrong_fault_is_refused_and_nothing_acts(
    call: tuple[str, str, dict[str, float]], code: str
) -> None:
    faults = site()
    with pytest.raises(Misconfigured, match=code):
        faults.start(*call)
    assert faults.active == []


def test_starting_twice_and_stopping_nothing_are_refused() -> None:
    faults = site()
    faults.start("cavitation", "pump_1")
    with pytest.raises(Refused, match="SIM-1013"):
        faults.start("cavitation", "pump_1")
    faults.stop("cavitation", "pump_1")
    with pytest.raises(Refused, match="SIM-1014"):
        faults.stop("cavitation", "pump_1")


def test_saved_faults_go_on() -> None:
    faults, other = site(), site()
    faults.start("sensor_drift", "environment/hall_a/gas_1/carbon_monoxide")
    faults.start("slow_device", "cnc_1")
    run(faults, 5)
    other.plant.restore(faults.plant.save())
    other.restore(faults.save())
    assert other.devices["cnc_1"].delay_s == 0.8  # type: ignore[attr-defined]
    assert run(other, 5) == run(faults, 5)


def test_the_list_has_titles_in_two_languages_and_says_what_acts() -> None:
    faults = site()
    faults.start("cavitation", "pump_2")
    listed = {item["name"]: item for item in faults.list_all()}
    assert set(listed) == {
        "bearing_wear",
        "cavitation",
        "tool_breakage",
        "sensor_stuck",
        "sensor_drift",
        "device_restart",
        "slow_device",
        "clock_step",
    }
    assert listed["cavitation"]["active"] == ["pump_2"]
    for item in listed.values():
        assert item["title"]["en"] and item["title"]["zh"]
        assert item["explanation"]["en"] and item["explanation"]["zh"]
        assert item["targets"]
