"""Every fault of the demo, switched on and off by the command line: what the platform then says."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pytest
from bookkeeping import check_closed
from installation import Installation
from observing import CLOCK, Observer
from silent_proxy import SilentProxy

from headrace.alarms.store import AlarmStore
from headrace.bus.broker import free_port
from headrace.model import status as st
from headrace.model.time import US_PER_S
from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.site.edit import SiteEdit
from headrace.site.model import Tag
from waiting import until_sync

pytestmark = [pytest.mark.kill]

PUMPING = "utilities/pumping"
LOOP = "utilities/cooling/loop_1"
MILLING = "machining/milling"
VIBRATION = {
    "pump_1": f"{PUMPING}/pump_1/vibration_drive_end",
    "pump_2": f"{PUMPING}/pump_2/vibration_drive_end",
    "compressor_1": "utilities/compressed_air/compressor_1/vibration",
}
ONE_OF_EACH = {
    "cnc_1": f"{MILLING}/cnc_1/spindle_vibration",
    "cnc_2": f"{MILLING}/cnc_2/spindle_vibration",
    "cnc_3": f"{MILLING}/cnc_3/spindle_vibration",
    "pumping_plc": f"{PUMPING}/pump_1/flow",
    "compressor_plc": "utilities/compressed_air/compressor_1/tank_pressure",
    "cooling_plc": f"{LOOP}/tank_temperature",
    "hall_sensors": "environment/hall_a/climate_3/temperature",
    "hall_gateway": "environment/hall_a/climate_1/temperature",
}
GAP_MAX_S = 3.5


@pytest.fixture(autouse=True)
def all_good_again(demo: Installation, seen: Observer) -> Iterator[None]:
    """After each fault every tag of the site is Good and every connection connected again."""
    yield
    try:
        until_sync(lambda: not seen.not_good(), 45, "every tag Good again")
        until_sync(lambda: all(seen.is_in(n, "connected") for n in ONE_OF_EACH), 20, "connected")
    except AssertionError as error:
        raise AssertionError(f"{sorted(seen.not_good())[:9]}\n{demo.logs()}") from error


def command(demo: Installation, *arguments: str) -> str:
    """Run ``headrace sim fault ...``; gives what it prints."""
    data = ["--data", str(demo.folder.root)]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "sim", "fault", *arguments, *data],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def fault(demo: Installation, name: str, target: str, *settings: str) -> Iterator[int]:
    """The fault acts inside; gives the moment from which it certainly does."""
    sets = [part for setting in settings for part in ("--set", setting)]
    assert name in command(demo, "start", name, target, *sets)
    try:
        yield CLOCK.now_us()
    finally:
        command(demo, "stop", name, target)


def mean_of(seen: Observer, path: str, since_us: int, count: int = 5) -> float:
    """Mean of the next values of a tag."""
    until_sync(lambda: len(seen.values(path, since_us)) >= count, 30, f"{count} values of {path}")
    return float(np.mean(seen.values(path, since_us)[-count:]))


def before(seen: Observer, path: str) -> float:
    return mean_of(seen, path, CLOCK.now_us() - 20 * US_PER_S)


def gap_s(seen: Observer, path: str, since_us: int) -> float:
    """The longest time between two values of a tag since a moment, and up to now."""
    at = seen.received(path, since_us)["received_timestamp"].to_physical().to_list()
    edges = [since_us, *at, CLOCK.now_us()]
    return max(b - a for a, b in itertools.pairwise(edges)) / US_PER_S


def others_go_on(seen: Observer, since_us: int, but: str) -> None:
    gaps = {name: gap_s(seen, path, since_us) for name, path in ONE_OF_EACH.items() if name != but}
    assert max(gaps.values()) < GAP_MAX_S, gaps


def active_alarms(demo: Installation) -> set[str]:
    """Paths of the alarms whose conditions hold."""
    store = AlarmStore(demo.folder)
    try:
        return {state.alarm for state in store.states() if state.active}
    finally:
        store.close()


def newest_is(seen: Observer, path: str, status: int) -> bool:
    return seen.statuses()[path] == status


def is_marked(seen: Observer, path: str, start_us: int) -> bool:
    """Whether the loss of the device is among its samples; they stay, its state may be over soon."""
    return st.BAD_NO_COMMUNICATION in seen.samples(path, start_us)["status"].to_list()


def test_bearing_wear_shows_on_that_machine_alone(demo: Installation, seen: Observer):
    calm = {name: before(seen, path) for name, path in VIBRATION.items()}
    bearing = f"{PUMPING}/pump_1/bearing_temperature_drive_end"
    cool = before(seen, bearing)
    with fault(demo, "bearing_wear", "pump_1", "initial=0.9") as start_us:
        assert mean_of(seen, VIBRATION["pump_1"], start_us) > 1.5 * calm["pump_1"]
        for name in ("pump_2", "compressor_1"):
            assert mean_of(seen, VIBRATION[name], start_us) < 1.3 * calm[name], name
        until_sync(
            lambda: (seen.values(bearing, start_us) or [cool])[-1] > cool + 1.0,
            60,
            "a warm bearing",
        )
        assert seen.statuses()[bearing] == st.GOOD
    end_us = CLOCK.now_us() + US_PER_S
    assert mean_of(seen, VIBRATION["pump_1"], end_us) < 1.3 * calm["pump_1"]


def test_cavitation_lowers_flow_and_head_and_is_loud(demo: Installation, seen: Observer):
    names = ("flow", "head", "npsh_margin", "noise_level")
    calm = {name: before(seen, f"{PUMPING}/pump_2/{name}") for name in names}
    other = before(seen, f"{PUMPING}/pump_1/head")
    with fault(demo, "cavitation", "pump_2") as start_us:
        now = {
            name: mean_of(seen, f"{PUMPING}/pump_2/{name}", start_us + 3 * US_PER_S)
            for name in names
        }
        assert now["flow"] < 0.95 * calm["flow"] and now["head"] < 0.95 * calm["head"]
        assert now["npsh_margin"] < calm["npsh_margin"] - 1.0
        assert now["noise_level"] > calm["noise_level"] + 2.0
        same = mean_of(seen, f"{PUMPING}/pump_1/head", start_us)
        assert same == pytest.approx(other, rel=0.1)
        alarm = f"{PUMPING}/pump_2/cavitation"
        until_sync(lambda: alarm in active_alarms(demo), 120, "its alarm")
        # A machine that this one shares its processor with may keep data back for a while.
        others = {name for name in active_alarms(demo) if not name.endswith("/no_data")}
        assert others == {alarm}
    until_sync(lambda: alarm not in active_alarms(demo), 120, "its end")


def test_a_broken_tool_stops_that_machine_with_an_alarm(demo: Installation, seen: Observer):
    def states(machine: str, since_us: int) -> list[str]:
        return seen.samples(f"{MILLING}/{machine}/program_state", since_us)["text"].to_list()

    with fault(demo, "tool_breakage", "cnc_2") as start_us:
        until_sync(lambda: "ALARM" in states("cnc_2", start_us), 60, "ALARM of cnc_2")
        alarm = f"{MILLING}/cnc_2/alarm_code"
        until_sync(lambda: 1042.0 in seen.values(alarm, start_us), 10, "alarm code 1042")
        for machine in ("cnc_1", "cnc_3"):
            assert "ALARM" not in states(machine, start_us)
    end_us = CLOCK.now_us()
    until_sync(lambda: 0.0 in seen.values(alarm, end_us), 60, "no alarm")
    assert states("cnc_2", end_us)[-1] != "ALARM"


def test_a_stuck_sensor_shows_one_value_with_good_quality(demo: Installation, seen: Observer):
    stuck, free = f"{PUMPING}/pump_1/flow", f"{PUMPING}/pump_1/head"
    with fault(demo, "sensor_stuck", stuck) as start_us:
        from_us = start_us + 2 * US_PER_S
        until_sync(lambda: len(seen.values(stuck, from_us)) >= 5, 20, "five values")
        assert len(set(seen.values(stuck, from_us))) == 1
        assert set(seen.samples(stuck, from_us)["status"].to_list()) == {st.GOOD}
        assert len(set(seen.values(free, from_us))) > 1
    end_us = CLOCK.now_us()
    until_sync(lambda: len(set(seen.values(stuck, end_us))) > 2, 20, "it moves again")


def test_a_drifting_sensor_moves_away_with_good_quality(demo: Installation, seen: Observer):
    path = "environment/hall_a/climate_1/temperature"
    calm = before(seen, path)
    with fault(demo, "sensor_drift", path, "rate_per_min=120") as start_us:
        until_sync(lambda: max(seen.values(path, start_us), default=0) > calm + 8, 30, "a drift")
        drift = seen.samples(path, start_us + US_PER_S).filter(pl.col("value").is_not_null())
        slope = np.diff(drift["value"].to_numpy()) / (
            np.diff(drift["source_timestamp"].to_physical().to_numpy()) / US_PER_S
        )
        assert float(np.median(slope)) == pytest.approx(2.0, abs=0.5), "120 a minute"
        assert set(drift["status"].to_list()) == {st.GOOD}
    assert mean_of(seen, path, CLOCK.now_us() + US_PER_S) == pytest.approx(calm, abs=3)


@pytest.mark.parametrize(
    "device",
    ["cooling_plc", "cnc_2", "hall_gateway", pytest.param("hall_sensors", marks=pytest.mark.soak)],
)
def test_a_restarted_device_comes_back_by_itself(demo: Installation, seen: Observer, device: str):
    path, start_us = ONE_OF_EACH[device], CLOCK.now_us()
    until_sync(lambda: seen.connection(device) is not None, 20, "its state")
    reconnects = seen.connection(device).reconnects  # type: ignore[union-attr] # it is known
    command(demo, "start", "device_restart", device, "--set", "off_s=8")
    broker = device.startswith("hall")
    if device == "hall_gateway":
        wanted = st.UNCERTAIN_LAST_USABLE_VALUE  # its death makes its tags stale at once
        until_sync(lambda: newest_is(seen, path, wanted), 15, "stale")
    elif not broker:
        until_sync(lambda: seen.is_in(device, "waiting"), 15, "the connection waits")
        for tag in seen.tags_of(device):
            until_sync(lambda tag=tag: is_marked(seen, tag, start_us), 15, f"the mark of {tag}")
    until_sync(lambda: gap_s(seen, path, start_us) > 3, 15, "a gap")
    came_us = CLOCK.now_us()
    until_sync(lambda: len(seen.values(path, came_us)) > 2, 45, "values again")
    until_sync(lambda: seen.is_in(device, "connected"), 10, "connected")
    if not broker:
        assert seen.connection(device).reconnects > reconnects  # type: ignore[union-attr]
        assert seen.events(start_us, "EDGE-1010")
    others_go_on(seen, start_us, device)


def test_a_slow_device_slows_no_other_and_is_said(demo: Installation, seen: Observer):
    start_us = CLOCK.now_us()
    with fault(demo, "slow_device", "pumping_plc", "delay_s=0.4"):
        until_sync(lambda: seen.is_in("pumping_plc", "degraded"), 30, "it is said")
        slow = seen.connection("pumping_plc")
        assert slow is not None and slow.last_error_code == "EDGE-1018"
        assert slow.expected > slow.read, "polls that could not be made count as expected"
        said = seen.events(start_us, "EDGE-1018")
        assert [event.source for event in said] == ["edge/local/pumping_plc"]
        others_go_on(seen, start_us, "pumping_plc")
    until_sync(lambda: seen.is_in("pumping_plc", "connected"), 20, "fast again")
    assert seen.events(start_us, "EDGE-1019")


def test_a_stepped_clock_is_shown_and_collection_goes_on(demo: Installation, seen: Observer):
    path = ONE_OF_EACH["cnc_3"]
    with fault(demo, "clock_step", "cnc_3", "offset_s=-600") as start_us:

        def offset_s() -> float:
            state = seen.connection("cnc_3")
            return (state.device_clock_offset_us or 0) / US_PER_S if state else 0.0

        until_sync(lambda: abs(offset_s() + 600) < 10, 20, "the offset is known")

        def ahead_s() -> float:
            stepped = seen.received(path, start_us)
            ahead = stepped["source_timestamp"] - stepped["received_timestamp"]
            return ahead.dt.total_seconds().min() or 0.0

        until_sync(lambda: ahead_s() == pytest.approx(-600, abs=10), 20, "source times as told")
        assert seen.is_in("cnc_3", "connected")
        others_go_on(seen, start_us, "cnc_3")
    until_sync(lambda: abs(offset_s()) < 10, 20, "the right time again")
    end_us = CLOCK.now_us()
    until_sync(lambda: seen.received(path, end_us).height > 3, 20, "collection goes on")


@contextmanager
def tags_csv(demo: Installation, old: str, new: str) -> Iterator[None]:
    """The tag list with one text changed, as a person would do it in an editor."""
    file = demo.folder.root / "tags.csv"
    good = file.read_text()
    assert good.count(old) == 1
    put(file, good.replace(old, new))
    try:
        yield
    finally:
        put(file, good)


def put(file, text: str) -> None:  # type: ignore[no-untyped-def] # a path
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(text)
    temporary.replace(file)


@pytest.mark.parametrize(
    ("old", "new", "path", "status", "code"),
    [
        (
            "cooling_plc,input:31:float32:DCBA",
            "cooling_plc,input:9000:float32:DCBA",
            f"{LOOP}/ph",
            st.BAD_NODE_ID_UNKNOWN,
            "EDGE-3",
        ),
        (
            "cnc_2,ns=2;s=cnc_2.machine.feed_rate",
            "cnc_2,ns=2;s=cnc_2.machine.nothing",
            f"{MILLING}/cnc_2/feed_rate",
            st.BAD_NODE_ID_UNKNOWN,
            "BadNodeIdUnknown",
        ),
        (
            "cooling_plc,holding:3:string8:BADC",
            "cooling_plc,holding:3:bcd32",
            f"{LOOP}/firmware",
            0x8007_0000,  # BadDecodingError: text where digits are declared
            "EDGE-3",
        ),
    ],
    ids=["modbus address", "opcua node", "value out of type"],
)
def test_one_wrong_tag_is_bad_and_the_rest_stay_good(
    demo: Installation, seen: Observer, old: str, new: str, path: str, status: int, code: str
):
    connection = old.partition(",")[0]
    with tags_csv(demo, old, new):
        until_sync(lambda: newest_is(seen, path, status), 30, f"{path} Bad")
        until_sync(lambda: seen.is_in(connection, "degraded"), 10, "degraded")
        state = seen.connection(connection)
        assert state is not None and set(state.tag_errors) == {path}
        assert code in state.tag_errors[path]
        until_sync(lambda: seen.not_good() == {path}, 30, "all others Good")


def endpoint_of(demo: Installation, name: str) -> str:
    return str(SiteEdit(demo.folder)._data["connection"][name]["endpoint"])


@contextmanager
def endpoint(demo: Installation, name: str, other: str) -> Iterator[None]:
    """A connection that points elsewhere."""
    right = endpoint_of(demo, name)

    def change(text: str) -> None:
        edit = SiteEdit(demo.folder)
        edit.change_connection(name, endpoint=text)
        edit.save()

    change(other)
    try:
        yield
    finally:
        change(right)


def test_a_wrong_endpoint_waits_says_so_and_touches_nothing_else(
    demo: Installation, seen: Observer
):
    start_us, port = CLOCK.now_us(), free_port()
    with endpoint(demo, "compressor_plc", f"127.0.0.1:{port}"):
        until_sync(lambda: seen.is_in("compressor_plc", "waiting"), 20, "waiting")
        state = seen.connection("compressor_plc")
        assert state is not None
        assert str(port) in state.last_error and state.last_error_remedy
        path = ONE_OF_EACH["compressor_plc"]
        until_sync(lambda: newest_is(seen, path, st.BAD_NO_COMMUNICATION), 20, "the mark")
        assert seen.not_good() == set(seen.tags_of("compressor_plc"))
        others_go_on(seen, start_us, "compressor_plc")


@pytest.mark.parametrize("name", ["pumping_plc", pytest.param("cnc_3", marks=pytest.mark.soak)])
def test_half_open_tcp_is_noticed_and_mends_itself(demo: Installation, seen: Observer, name: str):
    right = endpoint_of(demo, name)
    port = urlsplit(right if "://" in right else f"tcp://{right}").port
    assert port is not None
    proxy, path = SilentProxy(port), ONE_OF_EACH[name]
    try:
        with endpoint(demo, name, right.replace(str(port), str(proxy.port))):
            until_sync(
                lambda: (
                    (s := seen.connection(name)) is not None
                    and str(proxy.port) in s.endpoint
                    and s.state == "connected"
                ),
                30,
                "connected through the proxy",
            )
            silent_us = CLOCK.now_us()
            proxy.set_silent(True)
            until_sync(lambda: seen.is_in(name, "waiting"), 40, "silence is noticed")
            until_sync(lambda: newest_is(seen, path, st.BAD_NO_COMMUNICATION), 10, "the mark")
            others_go_on(seen, silent_us, name)
            proxy.set_silent(False)
            until_sync(lambda: seen.is_in(name, "connected"), 45, "it comes back by itself")
            back_us = CLOCK.now_us()
            until_sync(lambda: len(seen.values(path, back_us)) > 2, 20, "values again")
    finally:
        proxy.stop()


@contextmanager
def guarded_server() -> Iterator[str]:
    """An OPC UA server that lets one user in; gives its endpoint."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = OpcUaEmulator([Point("ns=2;s=a.b", "float64", 1.0)], users={"anna": "a long secret"})

    def do(work) -> None:  # type: ignore[no-untyped-def] # any coroutine
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    do(server.start())
    do(server.update({"ns=2;s=a.b": 7.5}, CLOCK.now_us()))
    try:
        yield server.endpoint
    finally:
        do(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_a_refused_user_needs_a_person_and_a_right_one_gets_in(demo: Installation, seen: Observer):
    path = "machining/milling/guarded/value"

    def options(password: str) -> dict[str, object]:
        return {"username": "anna", "password": password, "plain_password": True}

    with guarded_server() as at:
        edit = SiteEdit(demo.folder)
        edit.add_connection("guarded", "opcua", at, options=options("a wrong guess"))
        edit.add_tags([Tag(path, "guarded", "ns=2;s=a.b")])
        edit.save()
        start_us = CLOCK.now_us()
        until_sync(lambda: seen.is_in("guarded", "refused"), 30, "refused")
        state = seen.connection("guarded")
        assert state is not None and state.last_error_remedy
        assert "a wrong guess" not in state.last_error + state.last_error_remedy
        others_go_on(seen, start_us, "guarded")
        edit = SiteEdit(demo.folder)
        edit.change_connection("guarded", options=options("a long secret"))
        edit.save()
        until_sync(lambda: seen.values(path, 0) == [7.5], 30, "its value")
        edit = SiteEdit(demo.folder)
        edit.remove_connection("guarded", with_tags=True)
        edit.save()
    until_sync(lambda: seen.connection("guarded") is None, 20, "it is gone")


def test_the_books_of_all_that_close(demo: Installation):
    """Whatever was done to the machines above: once the edge is another one, nothing is unexplained."""
    killed_us = CLOCK.now_us()
    demo.kill("edge")
    sums = check_closed(demo.folder, killed_us, edge="local")  # the apps role goes on
    assert sums["stored"] > 1_000
