"""REST and the Python client against a real broker, historian and console."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from site_fixture import CLOCK, PASSWORD, SUBJECTS, RunningSite

from headrace.bus.client import Bus
from headrace.client import Site, connect
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.health import EdgeLink, HubState
from headrace.model.time import US_PER_S, to_datetime
from headrace.security.identity import Identity
from headrace.security.policy import Role
from waiting import until_sync

FLOW = "utilities/pumping/pump_1/flow"
LOAD = "machining/milling/cnc_1/spindle_load"
POWER = "machining/milling/cnc_2/power"


def token(site: RunningSite, role: Role, user: str = "mia") -> str:
    identity = Identity(site.folder)
    try:
        return identity.add_token(user, "test", role=role)
    finally:
        identity.close()


@pytest.fixture
def client(running_site: RunningSite) -> Site:
    return connect(running_site.url, token(running_site, "viewer"))


def until_last(client: Site, path: str, value: float) -> pl.DataFrame:
    """Newest sample once it is ``value``; the bus needs a moment."""
    found: list[pl.DataFrame] = []

    def there() -> bool:
        found[:] = [client.last(path)]
        return found[0].height == 1 and found[0]["value"][0] == value

    until_sync(there, 10, f"{path} = {value}")
    return found[0]


def test_everything_needs_a_sign_in_but_health(running_site: RunningSite) -> None:
    for route in ("tags", "equipment", "samples?tags=1", "last?tags=1", "events", "metrics"):
        answer = httpx.get(f"{running_site.url}/api/v1/{route}")
        assert (answer.status_code, answer.json()["code"]) == (401, "SEC-1003")
    assert httpx.get(f"{running_site.url}/api/v1/health").json()["status"] == "serving"


def test_a_value_is_there_with_its_time_to_the_microsecond(
    running_site: RunningSite, client: Site
) -> None:
    at_us = CLOCK.now_us() - 7
    running_site.publish({FLOW: 41.25}, at_us=at_us)
    found = until_last(client, FLOW, 41.25)
    assert found["source_timestamp"][0] == to_datetime(at_us)
    assert found["quality"][0] == "Good"
    assert found["tag_id"][0] == running_site.tags[FLOW]


def test_samples_come_in_every_format_and_are_the_same(
    running_site: RunningSite, client: Site
) -> None:
    start_us = CLOCK.now_us() - 5_000 * US_PER_S
    times = start_us + np.arange(500, dtype=np.int64) * US_PER_S
    values = np.arange(500) / 7
    running_site.publish_columns(np.full(500, running_site.tags[POWER]), times, values)
    running_site.publish({POWER: 1.0})
    until_last(client, POWER, 1.0)
    span = {"start": str(start_us), "end": str(int(times[-1]) + 1)}
    frame = client.read(POWER, **span)
    assert frame["value"].to_numpy().tolist() == values.tolist()
    assert frame["source_timestamp"].to_physical().to_numpy().tolist() == times.tolist()
    http = httpx.Client(headers={"Authorization": f"Bearer {token(running_site, 'viewer')}"})
    url = f"{running_site.url}/api/v1/samples"
    answer = http.get(url, params={"tags": POWER, "format": "csv", **span})
    csv = pl.read_csv(io.BytesIO(answer.content))
    assert csv["value"].to_list() == values.tolist()
    assert csv["path"].unique().to_list() == [POWER]
    parquet = pl.read_parquet(
        io.BytesIO(http.get(url, params={"tags": POWER, "format": "parquet", **span}).content)
    )
    assert parquet["value"].to_list() == values.tolist()
    rows = http.get(url, params={"tags": POWER, **span}).json()["samples"]
    assert [row["value"] for row in rows] == values.tolist()
    assert client.read(POWER, limit=3, **span).height == 3


def test_tags_are_searched_and_the_tree_counts_them(
    running_site: RunningSite, client: Site
) -> None:
    assert client.tags("pump_1 flow")["path"].to_list() == [FLOW]
    assert set(client.tags("主轴负载")["path"]) == {LOAD, LOAD.replace("cnc_1", "cnc_2")}
    assert client.tags(below="utilities").height == 6
    assert client.tags("nothing like this").height == 0
    headers = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    tree = httpx.get(f"{running_site.url}/api/v1/equipment", headers=headers).json()
    assert [area["path"] for area in tree["children"]] == ["environment", "machining", "utilities"]


@pytest.mark.parametrize(
    ("route", "query", "code"),
    [
        ("samples", {"tags": "no/such/tag"}, "CONS-1002"),
        ("samples", {"tags": ""}, "CONS-1003"),
        ("samples", {"tags": FLOW, "start": "yesterday"}, "CONS-1004"),
        ("samples", {"tags": FLOW, "start": "2026-01-01T00:00:00"}, "CONS-1004"),
        ("samples", {"tags": FLOW, "start": "now", "end": "-1h"}, "CONS-1004"),
        ("samples", {"tags": FLOW, "format": "xml"}, "CONS-1003"),
        ("aggregate", {"tags": FLOW, "every": "soon"}, "CONS-1004"),
        ("aggregate", {"tags": FLOW, "every": "1ms", "start": "-1d"}, "CONS-1005"),
        ("trend", {"tag_ids": FLOW, "start_ms": 5, "end_ms": 1}, "CONS-1003"),
        ("trend", {"tag_ids": FLOW, "start_ms": 1e30, "end_ms": 2e30}, "CONS-1003"),
        ("tags", {"limit": 0}, "CONS-1003"),
    ],
)
def test_bad_questions_get_a_code_and_a_remedy(
    running_site: RunningSite, route: str, query: dict[str, Any], code: str
) -> None:
    headers = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    answer = httpx.get(f"{running_site.url}/api/v1/{route}", params=query, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"] == code and answer.json()["remedy"]


def test_the_client_raises_the_servers_error(running_site: RunningSite, client: Site) -> None:
    with pytest.raises(Refused, match="CONS-1002"):
        client.read("no/such/tag")
    with pytest.raises(Misconfigured, match="CONS-1004"):
        client.read(FLOW, start="yesterday")
    with pytest.raises(Refused, match="SEC-1003"):
        connect(running_site.url, "hrt_wrong").tags()
    with pytest.raises(Transient, match="CONS-1020"):
        connect("http://127.0.0.1:9", "hrt_x").tags()


async def test_live_values_come_within_a_moment(running_site: RunningSite, client: Site) -> None:
    frames = client.live([FLOW, LOAD])
    loop = asyncio.get_running_loop()
    sent = asyncio.Event()
    sent_s = [0.0]

    async def send() -> None:
        await asyncio.sleep(0)  # let the first frame with older values pass
        sent_s[0] = loop.time()
        await asyncio.to_thread(running_site.publish, {FLOW: 77.5})
        sent.set()

    task = asyncio.create_task(send())
    async with asyncio.timeout(10):
        async for frame in frames:
            if frame.filter((pl.col("path") == FLOW) & (pl.col("value") == 77.5)).height:
                break
    await task
    assert loop.time() - sent_s[0] < 2


def test_writing_asks_the_policy_first(running_site: RunningSite) -> None:
    reader = connect(running_site.url, token(running_site, "viewer"))
    with pytest.raises(Refused, match="SEC-1004"):
        reader.write(FLOW, 5.0)
    writer = connect(running_site.url, token(running_site, "operator"))
    with pytest.raises(Refused, match="CONS-1006"):
        writer.write(FLOW, 5.0)
    as_viewer = connect(running_site.url, token(running_site, "admin", user="leo"))
    with pytest.raises(Refused, match="SEC-1004"):
        as_viewer.write(FLOW, 5.0)


def test_a_change_from_a_foreign_page_is_refused(running_site: RunningSite) -> None:
    body = {"name": "mia", "password": PASSWORD}
    evil = {"Origin": "http://evil.example"}
    answer = httpx.post(f"{running_site.url}/sign-in", data=body, headers=evil)
    assert answer.json()["code"] == "CONS-1001" and "set-cookie" not in answer.headers
    good = httpx.post(f"{running_site.url}/sign-in", data=body)
    assert good.status_code == 303
    cookie = good.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    assert "frame-ancestors 'none'" in good.headers["content-security-policy"]


def test_sign_in_leads_only_to_our_own_pages(running_site: RunningSite) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example"):
        body = {"name": "mia", "password": PASSWORD, "next": target}
        answer = httpx.post(f"{running_site.url}/sign-in", data=body)
        assert answer.headers["location"] == "/"


def test_metrics_count(running_site: RunningSite, client: Site) -> None:
    running_site.publish_health(read=321)
    headers = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    from waiting import until_sync

    def there() -> bool:
        text = httpx.get(f"{running_site.url}/api/v1/metrics", headers=headers).text
        line = 'headrace_connection_read_total{edge="local",connection="plc_1"} 321'
        return line in text and "headrace_historian_up 1" in text

    until_sync(there, 15, "metrics")


def test_openapi_names_every_route(running_site: RunningSite) -> None:
    paths = httpx.get(f"{running_site.url}/api/openapi.json").json()["paths"]
    for route in (
        "tags",
        "samples",
        "aggregate",
        "last",
        "connections",
        "edges",
        "events",
        "write",
    ):
        assert f"/api/v1/{route}" in paths


def test_edges_show_whether_they_run_what_they_should(running_site: RunningSite) -> None:
    bearer = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    link = EdgeLink(edge="north", domain="north-1", joined_us=1, connected_us=2, desired_hash="a")

    async def send(bus: Bus) -> None:
        state = HubState(at_us=1, edges=[link])
        await bus.publish(SUBJECTS.hub_health(), state)
        await bus.client.flush()

    def rows() -> list[dict[str, Any]]:
        running_site.with_bus(send)
        return httpx.get(f"{running_site.url}/api/v1/edges", headers=bearer).json()["edges"]

    from waiting import until_sync

    until_sync(lambda: [row["edge"] for row in rows()] == ["north"], what="the edge is listed")
    assert rows()[0]["runs_desired"] is False
    link.running_hash = "a"
    until_sync(lambda: rows()[0]["runs_desired"] is True, what="it follows")


def test_an_aggregate_is_that_of_the_historian(running_site: RunningSite, client: Site) -> None:
    path = "environment/hall_a/meter_1/power"
    minute_us = 60 * US_PER_S
    start_us = (CLOCK.now_us() // minute_us - 30) * minute_us
    times = start_us + np.arange(120, dtype=np.int64) * US_PER_S
    running_site.publish_columns(np.full(120, running_site.tags[path]), times, np.arange(120.0))
    running_site.publish({path: 3.0})
    until_last(client, path, 3.0)
    span = {"start": str(start_us), "end": str(start_us + 2 * minute_us)}
    found = client.aggregate(path, "1min", "Maximum", **span)
    assert found["value"].to_list() == [59.0, 119.0]
    with pytest.raises(Misconfigured, match="HIST-1061"):
        client.aggregate(path, "1min", "Sum", **span)
    minutes = client.aggregate(path, "minute", "Maximum", **span)
    assert minutes["value"].to_list() == [59.0, 119.0]
    assert minutes["duration_h"].to_list() == [1 / 60, 1 / 60]


def test_the_site_file_is_replaced_whole_or_not_at_all(running_site: RunningSite) -> None:
    file = running_site.folder.site_file
    before = file.read_bytes()
    http = httpx.Client(
        base_url=f"{running_site.url}/api/v1/",
        headers={"Authorization": f"Bearer {token(running_site, 'engineer')}"},
    )
    assert http.get("site").content == before
    wrong = before.replace(b"modbus", b"carrier_pigeon")
    for answer in (http.post("site/check", content=wrong), http.put("site", content=wrong)):
        problem = answer.json()["problems"][0]
        assert problem["line"] and problem["remedy"] and "carrier_pigeon" in problem["what"]
    assert file.read_bytes() == before
    assert http.put("site", content=before + b"# said by REST\n").json()["problems"] == []
    assert file.read_bytes() == before + b"# said by REST\n"
    assert http.put("site", content=before).status_code == 200
    assert http.put("site", content=b"#" * (5 << 20)).status_code == 413
    viewer = {"Authorization": f"Bearer {token(running_site, 'viewer')}"}
    assert http.put("site", content=b"", headers=viewer).json()["code"] == "SEC-1004"


def test_a_long_time_comes_in_few_points_and_keeps_its_spike(
    running_site: RunningSite, client: Site
) -> None:
    path = "utilities/pumping/pump_2/head"
    start_us = CLOCK.now_us() - 7_200 * US_PER_S
    times = start_us + np.arange(5_000, dtype=np.int64) * US_PER_S
    values = np.zeros(5_000)
    values[3_333] = 99.5
    running_site.publish_columns(np.full(5_000, running_site.tags[path]), times, values)
    span = {"start": str(start_us), "end": str(start_us + 5_000 * US_PER_S)}
    until_sync(lambda: client.read(path, **span).height == 5_000, 30, "all samples are there")
    found = client.downsample(path, **span, points=50)
    assert found.height == 50
    assert int(found["count"].sum()) == 5_000
    spike = found.filter(pl.col("maximum") == 99.5)
    assert spike["maximum_timestamp"].to_list() == [to_datetime(int(times[3_333]))]
    assert found["tag_id"].unique().to_list() == [running_site.tags[path]]
    with pytest.raises(Refused, match="CONS-1002"):
        client.downsample("no/such/tag")
