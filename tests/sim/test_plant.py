"""The physics: balances that must hold, counters that never run back, same seed same values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Refused
from headrace.sim.plant.cooling import TANK_INITIAL, TANK_J_K, CoolingLoop
from headrace.sim.plant.machining import ALARM_TOOL_BROKEN
from headrace.sim.plant.plant import WAVEFORM_PATH, Plant
from headrace.sim.plant.pump import SYSTEM_COEFFICIENT, operating_point
from headrace.sim.plant.quantity import generator_for
from headrace.sim.plant.vibration import bpfo_hz

NOON_US = 1_795_363_200_000_000


def run(plant: Plant, steps: int, dt_s: float = 1.0) -> list[dict]:
    start = plant.at_us or NOON_US
    return [plant.step(dt_s, start + round((i + 1) * dt_s * 1e6)) for i in range(steps)]


@given(seed=st.integers(0, 2**31), steps=st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_same_seed_gives_the_same_values_to_the_bit(seed: int, steps: int) -> None:
    one, two = Plant(seed), Plant(seed)
    assert run(one, steps) == run(two, steps)
    assert np.array_equal(one.waveform(), two.waveform())


def test_another_seed_gives_other_noise() -> None:
    assert run(Plant(1), 5) != run(Plant(2), 5)


@given(before=st.integers(1, 60), after=st.integers(1, 60))
@settings(max_examples=8, deadline=None)
def test_a_saved_plant_goes_on_to_the_bit(before: int, after: int) -> None:
    plant = Plant(3)
    run(plant, before)
    plant.waveform()
    saved = json.loads(json.dumps(plant.save()))
    other = Plant(99)
    other.restore(saved)
    assert run(other, after) == run(plant, after)
    assert np.array_equal(other.waveform(), plant.waveform())


@pytest.mark.parametrize("damage", ["version", "machines", "grid"])
def test_a_damaged_state_is_refused_and_changes_nothing(damage: str) -> None:
    plant = Plant(1)
    run(plant, 3)
    saved = plant.save()
    del saved[damage]
    other = Plant(1)
    with pytest.raises(Corrupt, match="SIM-1001"):
        other.restore(saved)
    assert run(other, 3) == run(Plant(1), 3)


def test_counters_never_run_backwards_in_an_hour_of_operation() -> None:
    plant = Plant(5)
    trace = run(plant, 1800, 2.0)
    for unit in plant.units:
        for quantity in unit.quantities:
            if quantity.kind == "counter":
                series = np.array([row[f"{unit.path}/{quantity.name}"] for row in trace])
                assert (np.diff(series) >= 0).all(), quantity.name
    last = trace[-1]
    assert last["machining/milling/cnc_1/part_count"] > 10
    assert last["utilities/compressed_air/compressor_1/load_cycles"] > 48_211


@given(
    loads=st.lists(st.floats(0, 80_000), min_size=1, max_size=30),
    flow=st.floats(0, 40),
    outdoor=st.floats(-20, 40),
    dt_s=st.floats(0.1, 60),
)
@settings(deadline=None)
def test_the_tank_keeps_exactly_the_heat_that_did_not_leave(
    loads: list[float], flow: float, outdoor: float, dt_s: float
) -> None:
    loop = CoolingLoop(generator_for(1, "x"))
    for load in loads:
        loop.step(dt_s, load, (flow, flow), outdoor)
    stored = TANK_J_K * (loop.state.tank_temperature - TANK_INITIAL)
    balance = loop.state.heat_in_j - loop.state.heat_out_j
    assert stored == pytest.approx(balance, rel=1e-6, abs=1.0)
    assert loop.state.heat_out_j >= 0


@given(ratio=st.floats(0.2, 1.1), factor=st.floats(0.3, 1.0))
def test_pumps_obey_the_affinity_laws(ratio: float, factor: float) -> None:
    full = operating_point(ratio, SYSTEM_COEFFICIENT)
    part = operating_point(ratio * factor, SYSTEM_COEFFICIENT)
    assert part.flow_m3_h == pytest.approx(full.flow_m3_h * factor, rel=1e-9)
    assert part.head_m == pytest.approx(full.head_m * factor**2, rel=1e-9)
    assert part.shaft_kw == pytest.approx(full.shaft_kw * factor**3, rel=1e-9)
    assert part.efficiency == pytest.approx(full.efficiency, rel=1e-9)


def test_air_in_the_receiver_balances_delivery_and_consumption() -> None:
    plant = Plant(2)
    before = plant.compressor.state.tank_pressure_bar
    run(plant, 600)
    state = plant.compressor.state
    gained_m3 = (state.tank_pressure_bar - before) * 2.0 / 1.01325
    assert gained_m3 == pytest.approx(state.delivered_m3 - state.consumed_m3, abs=1e-6)
    assert 6.5 < state.tank_pressure_bar < 7.9


def test_meters_count_the_energy_of_the_machines_behind_them() -> None:
    plant = Plant(4)
    run(plant, 1)
    first = {name: meter.state.energy_kwh for name, meter in plant.meters.items()}
    machines = [*plant.machining.values(), *plant.pumps.values(), plant.cooling, plant.compressor]
    before = [machine.state.energy_kwh for machine in machines]
    hvac = plant.hall.state.hvac_energy_kwh
    run(plant, 900)
    used = [m.state.energy_kwh - b for m, b in zip(machines, before, strict=True)]
    gained = {name: m.state.energy_kwh - first[name] for name, m in plant.meters.items()}
    assert gained["meter_1"] == pytest.approx(sum(used[:3]), rel=1e-9)
    assert gained["meter_2"] == pytest.approx(sum(used[3:6]), rel=1e-9)
    assert gained["meter_3"] == pytest.approx(used[6], rel=1e-9)
    others = plant.hall.state.hvac_energy_kwh - hvac + 4.5 * 900 / 3600
    assert gained["meter_4"] == pytest.approx(sum(used) + others, rel=1e-9)


def test_a_meter_shows_power_that_fits_voltage_and_current() -> None:
    row = run(Plant(1), 20)[-1]
    base = "environment/energy/meter_1"
    apparent = sum(row[f"{base}/voltage_l{i}"] * row[f"{base}/current_l{i}"] for i in (1, 2, 3))
    shown = row[f"{base}/active_power"] * 1000 / row[f"{base}/power_factor"]
    assert apparent == pytest.approx(shown, rel=0.02)


def test_tools_wear_while_they_cut_and_load_grows_with_wear() -> None:
    fresh, worn = Plant(1), Plant(1)
    worn.machining["cnc_1"].state.tool_wear_um = [280.0, 280.0, 280.0]
    load = "machining/milling/cnc_1/spindle_load"
    light = [row[load] for row in run(fresh, 40)]
    heavy = [row[load] for row in run(worn, 40)]
    assert max(heavy) > 1.3 * max(light)
    state = fresh.machining["cnc_1"].state
    assert state.cut_volume_cm3 > 0
    assert max(state.tool_wear_um) > 25.0


def test_a_worn_tool_is_replaced_at_its_life() -> None:
    plant = Plant(1)
    plant.machining["cnc_2"].state.tool_wear_um = [299.9, 299.9, 299.9]
    wear = [row["machining/milling/cnc_2/tool_wear"] for row in run(plant, 260)]
    assert max(wear) < 310 and min(wear) < 10


def test_the_program_goes_through_its_states_and_makes_parts() -> None:
    trace = run(Plant(1), 900)
    states = {row["machining/milling/cnc_1/program_state"] for row in trace}
    assert states == {"IDLE", "RUN", "HOLD"}
    positions = [row["machining/milling/cnc_1/axis_x_position"] for row in trace]
    assert max(positions) - min(positions) > 150


def spectrum(plant: Plant, path_steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Amplitudes of one second of waveform in steady cut, and the rotation frequency."""
    for _ in range(path_steps):
        run(plant, 1)
        if plant.machining["cnc_1"].state.phase == "cut":
            break
    run(plant, 4)
    centre = plant.machining["cnc_1"]
    assert centre.state.phase == "cut"
    wave = np.concatenate([plant.waveform() for _ in range(10)])
    assert wave.shape == (1000,)
    amplitude = np.abs(np.fft.rfft(wave)) / 500
    return amplitude, np.fft.rfftfreq(1000, 0.001), centre.state.spindle_speed_rpm / 60


def test_the_waveform_shows_rotation_and_the_outer_race_grows_with_wear() -> None:
    healthy, worn = Plant(1), Plant(1)
    worn.machining["cnc_1"].state.bearing_wear = 0.6
    spectra = []
    for plant in (healthy, worn):
        amplitude, frequency, rotation = spectrum(plant, 60)
        near = [np.abs(frequency - hz) <= 1.5 for hz in (rotation, bpfo_hz(rotation))]
        spectra.append(tuple(amplitude[mask].max() for mask in near))
    assert spectra[0][0] > 0.3
    assert spectra[1][1] > 10 * spectra[0][1]
    assert spectra[1][0] == pytest.approx(spectra[0][0], rel=0.2)


def test_pieces_of_the_waveform_join_without_a_jump() -> None:
    whole, pieces = Plant(1), Plant(1)
    for plant in (whole, pieces):
        plant.spindle_waveform.generator = generator_for(9, "quiet")
    arguments = {"rotation_hz": 50.0, "removal_ratio": 0.0, "teeth": 4, "wear": 0.2}
    once = whole.spindle_waveform.take(300, **arguments)
    parts = [pieces.spindle_waveform.take(100, **arguments) for _ in range(3)]
    assert np.allclose(once, np.concatenate(parts))


def test_settings_act_and_everything_else_refuses_a_write() -> None:
    plant = Plant(1)
    run(plant, 10)
    flow = "utilities/pumping/pump_1/flow"
    before = run(plant, 1)[0][flow]
    plant.write("utilities/pumping/pump_1/speed_setpoint", 50.0)
    assert run(plant, 15)[-1][flow] < 0.7 * before
    with pytest.raises(Refused, match="SIM-1002"):
        plant.write(flow, 3.0)
    with pytest.raises(Refused, match="SIM-1003"):
        plant.write("utilities/pumping/pump_1/speed_setpoint", 500.0)
    assert plant.pumps["pump_1"].state.speed_setpoint == 50.0


def test_a_feed_override_of_zero_holds_the_program() -> None:
    plant = Plant(1)
    plant.write("machining/milling/cnc_1/feed_override", 0.0)
    run(plant, 30)
    volume = plant.machining["cnc_1"].state.cut_volume_cm3
    run(plant, 30)
    assert plant.machining["cnc_1"].state.cut_volume_cm3 == volume


def test_every_quantity_has_a_description_and_values_are_plain() -> None:
    plant = Plant(1)
    row = run(plant, 1)[0]
    assert WAVEFORM_PATH not in row
    for unit in plant.units:
        for quantity in unit.quantities:
            assert quantity.description
            value = row[f"{unit.path}/{quantity.name}"]
            wanted = {"bool": bool, "string": str, "float64": float, "float32": float}
            assert type(value) is wanted.get(quantity.data_type, int) or (
                quantity.kind == "setting" and type(value) is float
            ), quantity.name


def test_a_broken_tool_raises_its_alarm_until_it_is_replaced() -> None:
    plant = Plant(1)
    run(plant, 8)
    plant.machining["cnc_1"].break_tool()
    trace = run(plant, 15)
    last, base = trace[-1], "machining/milling/cnc_1"
    assert last[f"{base}/program_state"] == "ALARM"
    assert last[f"{base}/alarm_code"] == ALARM_TOOL_BROKEN
    assert max(row[f"{base}/spindle_load"] for row in trace) > 120
    plant.machining["cnc_1"].replace_tool()
    assert run(plant, 10)[-1][f"{base}/program_state"] == "RUN"
