"""The runtime with a real broker and real processes of apps."""

from __future__ import annotations

import itertools
import os
import signal

import msgspec
import pytest
from site_runtime import SUBJECTS, runtime, site

from headrace.alarms.store import AlarmStore
from headrace.bus.services import services
from headrace.edge.calls import WriteAnswer, WriteCall
from headrace.model.alarm import Transition
from headrace.model.time import SystemClock
from headrace.security.engine import Engine
from headrace.security.identity import opened_chain
from headrace.security.policy import use
from headrace.security.policy_files import PolicyFiles

WATCH = '''
import msgspec
import polars as pl
from headrace import app

class Question(msgspec.Struct):
    factor: float

class Answer(msgspec.Struct):
    value: float

@app.on_window("pump", length="2 s", every="1 s", step="500 ms", lateness="500 ms")
def watch(window):
    window.state["n"] = window.state.get("n", 0) + 1
    window.log.info("window %d", window.state["n"])
    if window.state["n"] % 3 == 0:
        window.propose(app.WorkRequest(asset="south/p1", title="look", reason="third"))
    last = window.frame.group_by("asset", maintain_order=True).last()
    return last.select("asset", time=pl.lit(window.end_us).cast(pl.Datetime("us", "UTC")),
                       load=pl.lit(float(window.state["n"])))

@app.on_alarm("pump", "hot")
def told(alarm, context):
    context.value(app.ValueEntry(asset=alarm.asset, kind=f"{alarm.name} {alarm.event}"))

@app.service
def ask(request: Question, context: app.Context) -> Answer:
    """A question."""
    if request.factor < 0:
        raise ValueError("less than nothing")
    return Answer(request.factor * 2)

@app.service
def logs(request: Question, context: app.Context) -> Answer:
    """Named as a call of the runtime about the app is."""
    return Answer(-1.0)
'''
SERVICE = '[[services]]\nname = "ask"\ntimeout_s = 30.0\ntitle = {en = "Ask", zh = "问"}\n'
SERVICE += '[[services]]\nname = "logs"\ntitle = {en = "Logs", zh = "日志"}\n'


@pytest.fixture
async def plant(folder, broker):
    async with site(folder, broker) as made:
        yield made


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.soak)])
async def test_an_app_gives_samples_once_whatever_is_killed_and_answers(plant, kills):
    """Killed in its work, it counts on as if nothing had been: one sample a second, each with the number
    after the last."""
    now_us = SystemClock().now_us
    async with runtime(plant):
        await plant.install(WATCH, SERVICE)
        await plant.sample(5.0, now_us())
        state = await plant.state(lambda s: s.samples >= 2)
        assert {"landlock", "seccomp"} <= set(state.holds) and state.memory_mb > 10
        call = SUBJECTS.app_call("load_watch", "ask")
        assert msgspec.json.decode(await plant.bus.request(call, b'{"factor": 4}')) == {"value": 8}
        with pytest.raises(Exception, match=r"APPS-2215.*factor"):
            await plant.bus.request(call, b'{"factor": "x"}')
        with pytest.raises(Exception, match=r"APPS-2216.*less than nothing"):
            await plant.bus.request(call, b'{"factor": -1}')
        (told,) = await services(plant.bus)
        figures = {each.name: (each.num_requests, each.num_errors) for each in told.endpoints}
        assert (told.name, figures) == ("load-watch", {"ask": (3, 2), "logs": (0, 0)})
        assert {each.subject for each in told.endpoints} >= {call}
        store = AlarmStore(plant.folder)
        alarm = Transition(
            id="a1", alarm="south/p1/load_watch_hot", key="x.hot", asset="south/p1", event="alarm",
            before="NORM", after="UNACK", at_us=now_us(),
        )  # fmt: skip
        store.write([alarm], [])
        store.close()
        for _ in range(kills):
            known, samples = state.pid, plant.states["load_watch"].samples
            os.kill(known, signal.SIGKILL)
            state = await plant.state(
                lambda s, known=known, samples=samples: (
                    s.pid not in (0, known) and s.samples > samples
                )
            )
        assert state.restarts == kills and state.last_error_code == "APPS-2244"
        assert any("window" in line for line in state.log)
        await plant.event("APPS-2251")
        lines = await plant.bus.request(SUBJECTS.runtime_call("load_watch", "logs"))
        assert any("window 1" in line for line in msgspec.json.decode(lines))
        own = await plant.bus.request(SUBJECTS.app_call("load_watch", "logs"), b'{"factor": 1}')
        assert msgspec.json.decode(own) == {"value": -1.0}
    given = await plant.outputs()
    counts = given["value"].to_list()
    assert counts == [float(n + 1) for n in range(len(counts))]
    times = given["source_timestamp"].to_list()
    assert len(set(times)) == len(times)
    made = [event.record for event in await plant.events() if event.record]
    values = [record["body"]["kind"] for record in made if record["kind"] == "value"]
    assert values == ["hot alarm"]
    records = [record["id"] for record in made if record["kind"] == "work_request"]
    assert records == sorted(set(records)) and len(records) == len(counts) // 3


SET_POINT = """
from headrace import app

@app.on_window("pump", length="2 s", every="1 s", step="500 ms", lateness="500 ms")
def watch(window):
    if not window.state.setdefault("done", False):
        window.state["done"] = True
        window.write("south/p1", "power", 1.5)
"""


async def test_a_write_reaches_the_edge_once_in_the_unit_of_the_tag(plant):
    """The app says 1.5 kW; the tag is in W."""
    asked: list[WriteCall] = []

    async def take(raw: bytes) -> bytes:
        asked.append(msgspec.json.decode(raw, type=WriteCall))
        return msgspec.json.encode(WriteAnswer(value=asked[-1].value))

    await plant.bus.answer(SUBJECTS.edge_call("local", "write"), take)
    async with runtime(plant):
        more = '[permissions]\nwrites = ["pump.power"]\n'
        await plant.install(SET_POINT, more, "set-point", unit="W")
        await plant.sample(5.0, SystemClock().now_us())
        await plant.event("APPS-2248", "set_point")
        state = await plant.state(lambda s: bool(s.pid), "set_point")
        os.kill(state.pid, signal.SIGKILL)
        await plant.state(
            lambda s: s.pid not in (0, state.pid) and s.position_us > state.position_us, "set_point"
        )
    assert [(c.tag_id, c.value, c.actor) for c in asked] == [(11, 1500.0, "app/set_point")]


QUIET = """
@id("quiet_pumps")
@says("pumps are set by people")
forbid (principal is App, action == Action::"write", resource in Equipment::"p1");
"""


async def test_a_write_that_the_policy_forbids_reaches_no_edge_and_the_event_says_why(plant):
    """The file is put there while the app runs, as a security officer would."""
    asked: list[bytes] = []

    async def take(raw: bytes) -> bytes:
        asked.append(raw)
        return msgspec.json.encode(WriteAnswer(value=0.0))

    await plant.bus.answer(SUBJECTS.edge_call("local", "write"), take)
    source = SET_POINT.replace("window.state.setdefault(", "window.settings.setdefault(")
    source = source.replace('window.state["done"] = True', "pass")
    try:
        async with runtime(plant):
            more = '[permissions]\nwrites = ["pump.power"]\n'
            await plant.install(source, more, "set-point")
            await plant.sample(5.0, SystemClock().now_us())
            await plant.event("APPS-2248", "set_point")
            PolicyFiles(plant.folder).write("quiet.cedar", QUIET)
            event = await plant.event("APPS-2281", "set_point")
            before = len(asked)
            state = plant.states["set_point"]
            await plant.state(lambda s: s.calls > state.calls + 1, "set_point")
            assert plant.states["set_point"].last_error_code == "APPS-2281"
    finally:
        use(Engine())
    assert "pumps are set by people" in event.text and "quiet_pumps" in event.text
    assert len(asked) == before >= 1
    with opened_chain(plant.folder) as chain:
        told = chain.entries(actor="app/set_point", action="write")
    assert told[0].outcome == "denied" and {"begun", "done"} <= {each.outcome for each in told}


FORBIDDEN = {
    "opens-socket": ("__import__('socket').socket()", "APPS-2224"),
    "reads-file": ("open('/etc/passwd')", "APPS-2224"),
    "writes-device": ("window.write('south/p1', 'power', 1.0)", "APPS-2206"),
    "reads-past": ("window.history(['power'], 0, 1)", "APPS-2204"),
    "gives-more": ("return window.frame.select('asset', 'time', x='power')", "APPS-2211"),
}

GREEDY = {
    "takes-memory": ("window.state.setdefault('n', 0); keep = bytearray(600 << 20)", "APPS-2242"),
    "takes-cpu": ("while True: pass", "APPS-2243"),
}


async def test_an_app_that_does_more_than_it_declares_is_stopped(plant):
    """Five of them at once and one that takes too much memory, and one beside them that goes on."""
    logged = '    window.log.info("window %d", window.state["n"])'
    async with runtime(plant):
        await plant.install(WATCH, SERVICE)
        for app_id, (line, _) in FORBIDDEN.items():
            await plant.install(WATCH.replace(logged, f"    {line}"), SERVICE, app_id)
        greedy = WATCH.replace(logged, f"    {GREEDY['takes-memory'][0]}")
        await plant.install(greedy, SERVICE, "takes-memory")
        for app_id, (_, code) in FORBIDDEN.items():
            word = app_id.replace("-", "_")
            state = await plant.state(lambda s: s.state == "stopped", word)
            assert state.pid == 0 and state.last_error_code == code
            assert (await plant.event(code, word)).source == f"app/{app_id}"
            assert not state.samples
        await plant.event("APPS-2242", "takes_memory")
        before = plant.states["load_watch"].samples
        await plant.state(lambda s: s.samples > before)


@pytest.mark.soak
async def test_a_greedy_app_is_slowed_down_then_ended_and_others_go_on(plant, monkeypatch):
    """One takes memory, one all of a core: each is ended with an event and tried again later; the one
    beside them gives its second's sample all the time."""
    monkeypatch.setattr("headrace.apps.runtime.meter.START_CPU_S", 1.5)
    logged = '    window.log.info("window %d", window.state["n"])'
    budgets = "[budgets]\nmemory_mb = 300\n"
    async with runtime(plant, greedy_s=2.0):
        await plant.install(WATCH, SERVICE)
        await plant.state(lambda s: s.samples >= 1)
        for app_id, (line, _) in GREEDY.items():
            more = SERVICE + budgets
            await plant.install(WATCH.replace(logged, f"    {line}"), more, app_id)
        await plant.state(lambda s: s.throttled > 0.5 and s.state == "throttled", "takes_cpu")
        for app_id, (_, code) in GREEDY.items():
            word = app_id.replace("-", "_")
            event = await plant.event(code, word)
            assert event.severity == "error" and app_id in event.text
            state = await plant.state(lambda s: s.restarts >= 1, word)
            assert state.samples == 0
        assert plant.states["load_watch"].restarts == 0
    times = (await plant.outputs())["source_timestamp"].to_list()
    steps = {(later - before).total_seconds() for before, later in itertools.pairwise(times)}
    assert steps == {1.0}
