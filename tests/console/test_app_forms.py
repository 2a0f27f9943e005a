"""Forms of apps: a service's types as fields, answers checked one by one; a binding proposed and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.apps.asset_types.catalog import known_types
from headrace.apps.asset_types.proposal import Proposal as Fitted
from headrace.apps.asset_types.proposal import propose
from headrace.console.app_binding import Proposal, bind_table, form_of
from headrace.console.schema_form import SchemaField, answer_of, fields_of, request_of
from headrace.model.app_manifest import AppManifest, NeededType
from headrace.model.knowledge import AssetTypeConfig
from headrace.site.file import SiteFiles, check_site

SCHEMA: dict[str, Any] = {
    "$ref": "#/$defs/Ask",
    "$defs": {
        "Ask": {
            "type": "object",
            "required": ["flow", "count"],
            "properties": {
                "flow": {"type": "number", "unit": "m3/h", "minimum": 0, "exclusiveMaximum": 100},
                "count": {"type": "integer", "minimum": 1},
                "mode": {"$ref": "#/$defs/Mode", "default": "eco"},
                "limit": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
                "points": {"type": "array", "items": {"type": "number"}, "default": []},
                "note": {"type": "string", "maxLength": 5, "default": ""},
                "dry": {"type": "boolean", "default": False},
            },
        },
        "Mode": {"enum": ["eco", "full"]},
    },
}


def test_fields_follow_the_schema() -> None:
    found = fields_of(SCHEMA)
    kinds = [(one.name, one.kind, one.required) for one in found]
    assert kinds == [
        ("flow", "number", True),
        ("count", "integer", True),
        ("mode", "choice", False),
        ("limit", "number", False),
        ("points", "json", False),
        ("note", "text", False),
        ("dry", "boolean", False),
    ]
    assert found[0].unit == "m3/h" and found[0].is_below and found[2].choices == ("eco", "full")
    assert fields_of({}) == [] and fields_of({"properties": 3}) == []


@pytest.mark.parametrize(
    ("name", "typed", "key"),
    [
        ("flow", "x", "number"),
        ("flow", "nan", "number"),
        ("flow", "-1", "least"),
        ("flow", "100", "below"),
        ("flow", "", "required"),
        ("count", "1.5", "whole"),
        ("count", "0", "least"),
        ("mode", "fast", "choice"),
        ("points", "[1,", "json"),
        ("note", "123456", "long"),
    ],
)
def test_each_wrong_answer_is_told_at_its_field(name: str, typed: str, key: str) -> None:
    right = {"flow": "2", "count": "3"}
    request, problems = request_of(fields_of(SCHEMA), {**right, name: typed})
    assert [(one.field, one.key) for one in problems] == [(name, f"app_form.{key}")]
    assert name not in request


def test_a_right_request_has_only_what_was_said() -> None:
    answers = {"flow": " 2.5 ", "count": "3", "mode": "full", "points": "[1, 2]", "dry": True}
    request, problems = request_of(fields_of(SCHEMA), answers)
    assert not problems
    assert request == {"flow": 2.5, "count": 3, "mode": "full", "points": [1, 2], "dry": True}


def test_an_answer_is_laid_out_by_its_shape() -> None:
    schema = {"properties": {"power": {"type": "number", "unit": "kW", "title": "Power"}}}
    made = answer_of(
        schema, {"power": 2.0, "curve": [{"q": 1, "h": 9, "t": "a"}, {"q": 2, "h": 8}]}
    )
    assert made.facts == (("Power", "2", "kW"),)
    assert made.columns == ("q", "h", "t") and made.rows[1] == (2, 8, None)
    assert made.numbers == ("q", "h")
    lists = answer_of({}, {"x": [1, 2], "y": [3, 4], "odd": [1]})
    assert lists.columns == ("x", "y") and lists.rows == ((1, 3), (2, 4))
    assert [fact[0] for fact in lists.facts] == ["Odd"]
    assert answer_of({}, 5).facts == (("Answer", "5", ""),)


def test_a_number_field_without_bounds_takes_any_finite_number() -> None:
    field = SchemaField(name="x", kind="number", title="X")
    assert request_of([field], {"x": "-1e300"})[0] == {"x": -1e300}
    assert request_of([field], {"x": "1e999"})[1][0].key == "app_form.number"


PUMP = NeededType(
    package="pump",
    quantities={"flow": "m3/h", "pressure": "kPa"},
    optional={"speed": "1/min"},
    attributes={"rated_power": "kW", "maker": "text"},
)
SITE = """
[site]
enterprise = "acme"
name = "mill"

[asset_type.fan]
quantities = { flow = "m3/h" }

[asset_type.pumpe]
quantities = { durchfluss = "L/s", druck = "bar", pressure_2 = "bar", temperatur = "Cel" }
attributes = { rated_power = "W" }

[asset."hall/line/p1"]
type = "pumpe"
[asset."hall/line/f1"]
type = "fan"
"""
FAN = AssetTypeConfig(name="fan", quantities={"flow": "m3/h"})
PUMPE = AssetTypeConfig(
    name="pumpe",
    quantities={"durchfluss": "L/s", "druck": "bar", "pressure_2": "bar", "temperatur": "Cel"},
    attributes={"rated_power": "W"},
)
KINDS = [FAN, PUMPE]


def fitted(site: str = SITE, **given: str) -> Fitted:
    model, problems = check_site(SiteFiles(Path("site.toml"), {"site.toml": site.encode()}))
    assert model is not None, problems
    manifest = AppManifest(id="x", version="1.0.0", title={}, types={"pump": PUMP})
    return propose(model, manifest, known_types(Path("none")), given)


def test_what_is_clear_is_proposed_with_its_reason_and_the_rest_is_asked() -> None:
    assert form_of("pump", PUMP, KINDS, {}, fitted()).type == "pumpe", "a word for a pump"
    nameless = fitted(SITE.replace("pumpe", "ding"))
    assert form_of("pump", PUMP, KINDS, {}, nameless).type == "", "somebody is to say it"
    chosen = form_of("pump", PUMP, KINDS, {}, fitted(pump="pumpe"))
    assert chosen.type == "pumpe"
    assert chosen.quantities == {"flow": "durchfluss"}, "which of two pressures it is is asked"
    assert "word for" in chosen.reasons["flow"]
    assert chosen.attributes == {"rated_power": "rated_power"}


def test_several_types_that_serve_are_kept_as_they_are() -> None:
    both = [{"type": "pumpe"}, {"type": "fan"}]
    found = form_of("pump", PUMP, KINDS, {"bind": {"pump": both}}, fitted())
    assert bind_table({"pump": found}, {"pump": PUMP}) == {"pump": both}


def test_what_is_written_comes_back_and_is_written_the_same() -> None:
    bind = {
        "type": "pumpe",
        "quantities": {"flow": "durchfluss", "pressure": "druck"},
        "attributes": {"maker": {"value": "KSB"}},
        "assets": ["utilities/**"],
    }
    found = form_of("pump", PUMP, KINDS, {"bind": {"pump": bind}}, fitted())
    assert found.attributes == {"rated_power": "rated_power"} and found.values == {"maker": "KSB"}
    assert bind_table({"pump": found}, {"pump": PUMP}) == {"pump": bind}
    assert bind_table({"pump": Proposal()}, {"pump": PUMP}) == {}
