"""Formulas saved by REST: they stand in the site file, have a tag and versions, and can go again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from formula_site import PUMP, FormulaClient, with_pumps
from site_fixture import CLOCK, RunningSite

from headrace.model.time import US_PER_S
from headrace.site.registry import Registry
from waiting import until_sync

LOAD = {"text": "load = power / rated_power -> %"}


@pytest.fixture
def client(running_site: RunningSite) -> Iterator[FormulaClient]:
    with with_pumps(running_site) as found:
        yield found


def test_a_formula_is_saved_versioned_and_removed(
    running_site: RunningSite, client: FormulaClient
) -> None:
    checked = client("PUT", "/formula/pump/load?check=true", json=LOAD)
    assert checked.status_code == 200 and "+load = power" in checked.json()["diff"]
    assert "pump.load" not in client.formulas()
    assert client("PUT", "/formula/pump/load", json=LOAD).status_code == 200
    until_sync(lambda: "pump.load" in client.formulas(), 30, "the formula is known")
    load = client.formulas()["pump.load"]
    assert (load["unit"], load["assets"], load["state"]) == ("%", 1, "live")
    registry = Registry.of(running_site.folder)
    try:
        (tag,) = registry.find(f"{PUMP}/load")
    finally:
        registry.close()
    assert tag.derived and tag.address == "pump.load"

    other = {"text": "load = power / rated_power", "state": "shadow"}
    assert client("PUT", "/formula/pump/load", json=other).status_code == 200
    until_sync(lambda: client.formulas()["pump.load"]["version"] == 2, 30, "the second version")
    versions = client("GET", "/formula/pump/load/versions").json()["versions"]
    assert [each["text"] for each in versions] == [LOAD["text"], other["text"]]
    assert client.formulas()["pump.load"]["state"] == "shadow"
    assert client("DELETE", "/formula/pump/load").status_code == 200
    until_sync(lambda: "pump.load" not in client.formulas(), 30, "the formula is gone")


def test_what_is_wrong_is_said_and_nothing_is_changed(
    running_site: RunningSite, client: FormulaClient
) -> None:
    before = running_site.folder.site_file.read_bytes()
    wrong = client("PUT", "/formula/pump/load", json={"text": "load = power + flow"})
    (problem,) = wrong.json()["problems"]
    assert (wrong.status_code, problem["code"], problem["column"]) == (422, "FORM-1012", 16)
    assert problem["caret"].endswith("^^^^") and problem["what_zh"] != problem["what"]
    for path, body, code in (
        ("/formula/pump/load", {"text": "laod = power"}, "SITE-1118"),
        ("/formula/pmup/load", LOAD, "SITE-1419"),
        ("/formula/pump/load", {"words": 1}, "CONS-1003"),
    ):
        answer = client("PUT", path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert client("DELETE", "/formula/pump/never").json()["code"] == "SITE-1420"
    operator = FormulaClient(running_site, "operator")
    assert operator("PUT", "/formula/pump/load", json=LOAD).status_code == 403
    assert operator("DELETE", "/formula/pump/load").status_code == 403
    assert running_site.folder.site_file.read_bytes() == before


def test_a_type_is_previewed_with_attributes_and_the_plants_shifts(
    running_site: RunningSite, client: FormulaClient
) -> None:
    at_us = CLOCK.now_us() - 60 * US_PER_S
    running_site.publish({f"{PUMP}/power": 25.0}, at_us=at_us)
    body = {
        "formula": LOAD["text"].partition("= ")[2],
        "asset_type": "pump",
        "start": str(at_us - 1),
        "end": str(at_us + 1),  # others publish on this pump too
    }

    def seen() -> bool:
        answer = client("POST", "/formula/preview", json=body).json()
        return bool(answer.get("columns", {}).get("value") == [50.0])

    until_sync(seen, 30, "half of the rated power")
    shift = {"formula": "integral(power) per shift -> kWh", "asset_type": "pump", "start": "-2d"}
    answer = client("POST", "/formula/preview", json=shift)
    assert answer.status_code == 200 and answer.json()["unit"] == "kWh"
    unknown = client("POST", "/formula/preview", json={**shift, "asset_type": "pmup"})
    assert unknown.json()["code"] == "SITE-2004"
