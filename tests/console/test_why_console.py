"""Why, as a console answers it: its live feed cut, a page without one, roles, and words in two languages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from site_fixture import RunningSite

from headrace.alarms.store import AlarmStore
from headrace.bus import subjects as bus_subjects
from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.client import connect
from headrace.console.history import History
from headrace.console.site_view import TagView
from headrace.console.sources import Sources
from headrace.console.texts import Texts, table
from headrace.console.why import answer_calls, explain
from headrace.console.why_text import WhyText
from headrace.edge import agent as agent_module
from headrace.edge.agent import Agent
from headrace.edge.calls import Calls
from headrace.edge.contract import Reading
from headrace.historian import role as historian_role
from headrace.historian.reader import open_reader
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock, to_datetime
from headrace.model.why_facts import ScreenFacts, WhyTag
from headrace.security.identity import Identity
from headrace.site.why import ask_console

SUBJECTS = Subjects("acme", "mill")
CLOCK = SystemClock()
TAG = WhyTag(tag_id=7, path="a/b/flow", connection="plc", edge="local", scan_interval_ms=200)
EDGE = EdgeConfig(
    enterprise="acme",
    site="mill",
    edge="local",
    connections=(
        ConnectionConfig(
            name="plc",
            protocol="counting",
            endpoint="x",
            tags=(TagConfig(tag_id=7, path="a/b/flow", address="x", scan_interval_ms=200),),
        ),
    ),
)


class Counting:
    """A connector that is its own type: each poll gives the next number."""

    mode = "poll"
    count = 0

    def check_connection(self, _: ConnectionConfig) -> None: ...

    def open(self, *_: object) -> Counting:
        return self

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, _: object) -> Reading:
        self.count += 1
        now_us = CLOCK.now_us()
        batch = make_batch(
            np.array([7]),
            np.array([now_us]),
            np.array([float(self.count)]),
            received_timestamp_us=now_us,
        )
        return Reading(batch, 1)


class OneTag:
    """A site of one tag."""

    def fingerprint(self) -> str:
        return "1"

    def tags(self) -> list[TagView]:
        return [TagView(tag_id=7, path="a/b/flow", connection="plc", scan_interval_ms=200)]

    def about(self) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        return {"name": "mill"}, {}

    def find_tag(self, name: str) -> WhyTag:
        return TAG


@pytest.fixture
def folder(tmp_path: Any) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
async def sources(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sources]:
    """Broker, historian, edge and the console's sources, all on one loop."""
    address: BrokerAddress = prepare_address(folder)
    process = start_broker(folder, address, sync_interval="2m")
    kind = Counting()
    monkeypatch.setattr(agent_module, "connector_type", lambda _: kind)
    stop = asyncio.Event()
    try:
        async with open_bus(address, "test") as bus, open_bus(address, "console") as own:
            await ensure_streams(bus)
            history = asyncio.create_task(historian_role.run(folder, address, SUBJECTS, stop))
            agent = Agent(
                bus, address, SUBJECTS, edge="local", certificates=folder.certificates, clock=CLOCK
            )
            await Calls(agent, CLOCK, "local").serve(bus, SUBJECTS)
            health = asyncio.create_task(agent.publish_health())
            await agent.apply(EDGE)
            alarm_store = AlarmStore(folder)
            async with open_reader(folder, own, catch_up=False) as reader:
                made = Sources(
                    folder,
                    own,
                    SUBJECTS,
                    site_source=OneTag(),
                    history=History(reader),
                    alarm_store=alarm_store,
                    clock=CLOCK,
                )
                await answer_calls(made)
                following = asyncio.create_task(made.follow(stop))
                yield made
                stop.set()
                await asyncio.gather(following, history)
            await end_tasks(health)
            await agent.stop()
            alarm_store.close()
    finally:
        stop_broker(process)


async def until_reason(sources: Sources, hop: str, reason: str, **page: Any) -> Any:
    """The diagnosis that has this reason at this hop."""
    async with asyncio.timeout(40):
        while True:
            found = await explain(sources, TAG, **page)
            if found.culprit == hop and (not hop or found.hop(hop).reason == reason):
                return found
            await asyncio.sleep(0.05)


def feeds(bus: Bus) -> list[Any]:
    """The console's subscriptions to the samples."""
    return [s for s in bus.client._subs.values() if s.subject == bus_subjects.ALL_BATCHES]


async def test_a_live_feed_that_is_cut_is_the_screens(sources: Sources):
    await until_reason(sources, "", "")
    for feed in feeds(sources.bus):
        await sources.bus.client._send_unsubscribe(feed._id)  # the broker sends no more
    found = await until_reason(sources, "screen", "screen_cut")
    assert {hop.state for hop in found.hops[:-1]} == {"proven"}
    asked = await ask_console(sources.bus, SUBJECTS, 7)
    assert isinstance(asked, ScreenFacts) and asked.at_us - asked.feed_us > 3_000_000
    words = WhyText(Texts("zh"), found, to_datetime(0).tzinfo)  # type: ignore[arg-type] # UTC
    assert words.headline().startswith("屏幕：控制台的实时数值已中断")
    for feed in feeds(sources.bus):
        await sources.bus.client._send_subscribe(feed)
    await until_reason(sources, "", "", browser=True, browser_source_us=CLOCK.now_us())
    found = await explain(sources, TAG, browser=False)
    assert (found.culprit, found.hop("screen").reason) == ("screen", "browser_cut")
    answer = await sources.bus.request(SUBJECTS.console_call("why"), b"{not json")
    facts = msgspec.json.decode(answer, type=ScreenFacts)
    assert facts.connected and facts.feed_us and not facts.source_us, "the feed's age alone"


def test_every_reason_of_the_diagnosis_has_its_sentence():
    """The rules in the source name reasons; each must be there in both languages."""
    import re
    from pathlib import Path

    import headrace.model.why as module
    import headrace.model.why_derived as derived

    text = Path(module.__file__).read_text(encoding="utf-8")
    rules = Path(derived.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r"_(?:proven|waiting|broken|unknown)\(\s*\"(\w+)\"", text)) - {"hidden"}
    named |= {"device_clock_ahead", "device_clock_behind", "input_old"}
    named |= set(
        re.findall(r"\"(?:proven|waiting|broken|unknown)\",\s*\"(\w+)\",\s*(?:{|runs)", rules)
    )
    named |= {"protection_stays", "protection_encrypted"}  # made of what edge.protection says
    named -= {"hidden"}
    told = {key.partition(".")[2] for key in table() if key.startswith("why_reason.")}
    assert named == told
    unremedied = {"device_first", "device_not_asked", "device_slow", "pipeline_empty"}
    waits = {"connector_retries", "edge_takes_over", "connection_refused", "log_refuses"}
    waits |= {"writer_waits", "table_unreadable", "screen_empty"}
    cures = {key.partition(".")[2] for key in table() if key.startswith("why_remedy.")}
    bad = set(re.findall(r"_(?:waiting|broken)\(\s*\"(\w+)\"", text))
    assert bad <= cures | unremedied | waits, "say what to do"


def test_the_route_asks_who_asks_and_knows_its_tags(running_site: RunningSite):
    flow = "utilities/pumping/pump_1/flow"
    answer = httpx.get(f"{running_site.url}/api/v1/why", params={"tag": flow})
    assert (answer.status_code, answer.json()["code"]) == (401, "SEC-1003")
    answer = httpx.get(f"{running_site.url}/api/v1/why/dialog", params={"tag": flow})
    assert answer.status_code == 401
    with contextlib.closing(Identity(running_site.folder)) as identity:
        token = identity.add_token("leo", "test")
    with connect(running_site.url, token) as site:
        said = site.why(flow)
        assert (said["fresh"], said["culprit"]) == (False, "connector"), "there is no edge"
        assert said["path"] == flow and len(said["hops"]) == 7
        with pytest.raises(Misconfigured, match=r"SITE-1801.*pump_1/flow"):
            site.why("utilities/pumping/pump_9/flow")
