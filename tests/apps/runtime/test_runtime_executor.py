"""The executor of apps: what it gives depends on what came, never on how it was cut."""

from __future__ import annotations

import random
from types import ModuleType

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_apps import LATE_S, T0, Answer, S, deployment, manifest, module, samples

from headrace import app
from headrace.apps.runtime.effects import Effects, merged
from headrace.apps.runtime.executor import Executor
from headrace.model.app_manifest import Permissions
from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.status import BAD_NO_DATA

LENGTH_S = 60
HOOKS = module()
TOLD = manifest()
BOUND = deployment(TOLD)

_ROW = st.tuples(
    st.sampled_from([11, 12, 13, 21, 22, 99]),
    st.integers(-300, LENGTH_S * 10),
    st.none() | st.floats(-1e6, 1e6),
    st.sampled_from([0, 0, 0, 0x4000_0000, 0x8005_0000]),
    st.integers(0, 5),
)


def executor(state: bytes = b"") -> Executor:
    return Executor(TOLD, HOOKS, BOUND, state, start_us=T0)


def told(effects: Effects) -> bytes:
    """Everything, to the bit."""
    body = (
        effects.samples.to_dict(as_series=False),
        effects.records,
        effects.writes,
        effects.problems,
        effects.calls,
    )
    return msgspec.msgpack.encode(body)


def whole(rows: list) -> Effects:
    one = executor()
    one.feed(samples(rows))
    return one.advance(T0 + (LENGTH_S + LATE_S) * S)


def feed(one: Executor, messages: list, dice: random.Random) -> None:
    """Messages of the log, one or several at once."""
    while messages:
        part, messages = messages[: (count := dice.randint(1, 4))], messages[count:]
        one.feed(pl.concat([batch for _, _, batch in part]), part[-1][0])


@given(
    rows=st.lists(_ROW, max_size=60),
    seed=st.integers(0, 2**32),
    turns=st.lists(st.integers(1, 20), min_size=1, max_size=15),
    kills=st.sets(st.integers(0, 14)),
)
@settings(max_examples=15, deadline=None)
def test_any_order_cut_and_restart_give_the_same_to_the_bit(rows, seed, turns, kills):
    """Messages come in any order within the lateness, each twice maybe, some at once, in steps of any length;
    a killed executor goes on from what was saved, with the log from ``replay_after``."""
    dice = random.Random(seed)
    rows = list(dict.fromkeys(rows))
    expected = told(whole(rows))
    delayed = sorted((row[1] / 10 + dice.random() * (LATE_S - 0.2), row) for row in rows)
    delayed += [dice.choice(delayed)] if delayed else []
    delayed.sort(key=lambda each: each[0])
    log = [(n + 1, at, samples([row])) for n, (at, row) in enumerate(delayed)]
    one, fed, now_s, parts = executor(), 0, 0.0, []
    for turn, step in enumerate([*turns, *([20] * LENGTH_S)]):
        now_s = min(now_s + step, LENGTH_S + LATE_S)
        known = fed
        while fed < len(log) and log[fed][1] <= now_s:
            fed += 1
        feed(one, log[known:fed], dice)
        parts.append(one.advance(T0 + int(now_s * S)))
        if turn in kills:
            one = executor(one.save())
            feed(one, log[one.replay_after : fed], dice)
        if now_s >= LENGTH_S + LATE_S:
            break
    assert told(merged(parts)) == expected


def test_a_window_holds_values_in_the_manifests_units():
    seen: list[app.Window] = []
    made = ModuleType("load_watch")

    @app.on_window("pump", length="4 s", every="4 s", step="1 s", lateness="0 s")
    def watch(window):
        seen.append(window)

    made.watch = watch
    bare = manifest(services=[])
    one = Executor(bare, made, deployment(bare), start_us=T0)
    one.feed(
        samples(
            [
                (11, -50, 2000.0, 0, 1),
                (11, 20, 3000.0, 0, 1),
                (12, 10, 60.0, 0, 1),
                (12, 30, 5.0, 0x8005_0000, 1),
                (21, 5, 7.0, 0, 1),
                (13, 0, 4.0, 0, 1),
            ]
        )
    )
    one.advance(T0 + 4 * S)
    frame = seen[0].frame
    assert frame["asset"].unique(maintain_order=True).to_list() == ["north/p2", "south/p1"]
    first = frame.filter(asset="south/p1")
    assert first["power"].to_list() == [2.0, 2.0, 3.0, 3.0]
    assert first["flow"].to_list() == pytest.approx([None, 3.6, 3.6, None])
    assert first["flow_status"].to_list() == [BAD_NO_DATA, 0, 0, 0x8005_0000]
    assert first["mode"].to_list() == ["m4.0"] * 4
    second = frame.filter(asset="north/p2")
    assert second["power"].to_list() == [None, 7.0, 7.0, 7.0]
    assert second["mode_status"].to_list() == [BAD_NO_DATA] * 4
    assert frame.columns == [
        "asset", "time", "power", "flow", "mode", "power_status", "flow_status", "mode_status",
    ]  # fmt: skip


def test_outputs_are_samples_of_the_apps_own_tags():
    done = whole([(11, 0, 5000.0, 0, 1), (13, 0, 1.0, 0, 1), (21, 0, 2.0, 0, 1)])
    assert set(done.samples["tag_id"]) == {101, 102, 201}
    words = done.samples.filter(pl.col("tag_id") == 102)
    assert words["text"][0] == "m1.0" and words["value"][0] is None
    assert done.samples.filter(tag_id=201)["status"].unique().to_list() == [0]
    ids = [record.id for record in done.records]
    assert len(set(ids)) == len(ids) and ids[0].startswith("load_watch/1.2.0/")


def _hook(given_back) -> ModuleType:
    made = ModuleType("load_watch")

    @app.on_window("pump", length="5 s", every="5 s", step="1 s", lateness="0 s")
    def watch(window):
        window.state["n"] = window.state.get("n", 0) + 1
        window.propose(app.WorkRequest(asset="south/p1", title="t", reason="r"))
        return given_back(window)

    made.watch = watch
    return made


@pytest.mark.parametrize(
    ("given_back", "code"),
    [
        (lambda w: 1 / 0, "APPS-2216"),
        (lambda w: 7, "APPS-2211"),
        (lambda w: w.frame.select("asset", "time", secret="power"), "APPS-2211"),
        (lambda w: w.frame.select("asset", time=pl.lit("soon"), load="power"), "APPS-2211"),
        (lambda w: w.frame.select("time", asset=pl.lit("foreign"), load="power"), "APPS-2212"),
        (
            lambda w: w.frame.select(
                "asset", time=pl.col("time") - pl.duration(days=1), load="power"
            ),
            "APPS-2212",
        ),
        (
            lambda w: pl.concat([w.frame, w.frame]).select("asset", "time", load="power"),
            "APPS-2213",
        ),
        (lambda w: w.state.update(x=object()), "APPS-2219"),
        (lambda w: w.write("south/p1", "power", 1.0), "APPS-2206"),
        (lambda w: w.call("other.thing", Answer(1, 1), Answer), "APPS-2207"),
        (
            lambda w: w.propose(app.WorkRequest(asset="foreign", title="t", reason="r")),
            "APPS-2223",
        ),
        (lambda w: w.history(["secret"], T0, T0 + S), "APPS-2204"),
        (lambda w: w.history(["power"], 0, T0, every="1 ms"), "APPS-2222"),
    ],
)
def test_a_hook_that_does_wrong_is_told_and_undone(given_back, code):
    bare = manifest(services=[])
    one = Executor(bare, _hook(given_back), deployment(bare), start_us=T0)
    before = one.save()
    one.feed(samples([(11, 0, 5000.0, 0, 1)]))
    done = one.advance(T0 + 5 * S)
    assert [problem.code for problem in done.problems] == [code]
    assert not done.records and not done.samples.height and not done.writes
    assert msgspec.msgpack.decode(one.save())["states"] == msgspec.msgpack.decode(before)["states"]


def test_history_needs_a_permission():
    bare = manifest(services=[], permissions=Permissions())
    hook = _hook(lambda w: w.history(["power"], T0, T0 + S))
    one = Executor(bare, hook, deployment(bare), start_us=T0)
    assert [p.code for p in one.advance(T0 + 5 * S).problems] == ["APPS-2204"]


def test_an_alarm_is_told_once_and_may_write_what_is_declared():
    one = executor()
    change = app.AlarmChange(
        asset="south/p1", name="hot", event="alarm", active=True, at_us=T0, id="a7"
    )
    done = one.tell(change, 7)
    assert [(w.edge, w.connection, w.tag, w.value) for w in done.writes] == [
        ("local", "plc_1", "p1/flow", 3.5)
    ]
    again = executor(one.save())
    assert again.tell(change, 7).is_empty
    assert again.tell(msgspec.structs.replace(change, name="cold"), 8).calls == 0
    assert again.event_sequence == 8


def test_a_service_answers_and_says_what_is_wrong():
    one = executor()
    answer, _ = one.serve("what_if", b'{"flow": 4}', T0)
    assert msgspec.json.decode(answer) == {"power": 8.0, "calls": 1}
    answer, _ = executor(one.save()).serve("what_if", b'{"flow": 1}', T0)
    assert msgspec.json.decode(answer)["calls"] == 2
    with pytest.raises(Misconfigured, match=r"APPS-2215.*\$\.flow"):
        one.serve("what_if", b'{"flow": "much"}', T0)
    with pytest.raises(Misconfigured, match="APPS-2214"):
        one.serve("other", b"{}", T0)


def test_what_the_manifest_does_not_name_is_refused_before_anything_runs():
    for wrong in (manifest(services=[]), manifest(types={})):
        with pytest.raises(Misconfigured, match="APPS-2209"):
            Executor(wrong, HOOKS, deployment(wrong, assets=()))
    units = deployment(TOLD)
    broken = msgspec.structs.replace(units.assets[0], units={"power": "m"})
    with pytest.raises(Misconfigured, match="APPS-2208"):
        Executor(TOLD, HOOKS, deployment(TOLD, assets=(broken,)))
    with pytest.raises(Corrupt, match="APPS-2210"):
        Executor(TOLD, HOOKS, BOUND, b"\x81nonsense")
