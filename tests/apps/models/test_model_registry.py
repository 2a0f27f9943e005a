"""Models are kept whole, signed and told; hostile files are refused."""

from __future__ import annotations

import hashlib
import re
from functools import cache

import msgspec
import pytest

from headrace.apps.models import operators
from headrace.apps.models.inspection import inspect_onnx
from headrace.apps.models.probe import Bad, look
from headrace.apps.models.record import DataWindow, Lineage, ModelRecord
from headrace.apps.models.registry import open_models
from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.identity import Identity
from models_onnx import hostile, linear

GOOD = linear([1.0, 2.0], 0.5)
REFUSED = hostile()


@pytest.fixture
def folder(tmp_path):
    return DataFolder(tmp_path / "plant")


def add(registry, content=GOOD, **more):
    return registry.add("asset-health", "rul", content, ["a", "b"], by="os:eve", **more)


@pytest.fixture(autouse=True)
def seen_once(monkeypatch):
    """The same bytes are looked at in a child process once."""
    monkeypatch.setattr("headrace.apps.models.registry.inspect_onnx", _inspect_once)


@cache
def _inspect_once(content, what):
    return inspect_onnx(content, what)


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"bomb"}))
def test_a_hostile_file_is_refused(name):
    content, words = REFUSED[name]
    with pytest.raises(Bad) as told:
        look(content)
    assert re.search(words, str(told.value)), told.value


@pytest.mark.parametrize("name", ["bomb", "no_onnx"])
def test_a_hostile_file_harms_only_the_process_that_looks(name):
    with pytest.raises(Refused, match="APPS-2503"):
        inspect_onnx(REFUSED[name][0], "model x/y")


def test_a_file_that_is_too_large_is_not_even_looked_at(monkeypatch):
    monkeypatch.setattr("headrace.apps.models.inspection.SIZE_MAX", 10)
    with pytest.raises(Refused, match="APPS-2502"):
        inspect_onnx(GOOD, "model x/y")


def test_no_operator_that_runs_without_bound_is_allowed():
    allowed = set().union(*operators.ALLOWED.values())
    assert not allowed & {"Loop", "Scan", "If", "RandomNormal", "Tile", "Expand", "Resize"}


def test_a_model_is_kept_with_what_it_is_made_of(folder):
    window = DataWindow(start_us=0, end_us=10, held_out_us=8, assets=("a/p1",), frames_sha256="f")
    lineage = Lineage(app_version="1.0.0", code_sha256="c", by="os:eve", seed=7)
    with open_models(folder) as registry:
        record = add(registry, metrics={"rmse": 1.5}, window=window, lineage=lineage)
        assert (record.version, record.state, record.outputs) == (1, "new", 1)
        assert record.sha256 == hashlib.sha256(GOOD).hexdigest()
        assert record.operators == ("Gemm",)
        assert registry.get("asset-health", "rul") == record
        assert registry.content(record) == GOOD
        assert registry.is_signed(record)
        changed = msgspec.structs.replace(record, metrics={"rmse": 0.1})
        assert not registry.is_signed(changed)
    identity = Identity(folder)
    try:
        told = identity.audit.entries(resource="model/")
        assert identity.audit.verify().flaws == ()
    finally:
        identity.close()
    assert [(each.actor, each.resource) for each in told] == [
        ("os:eve", "model/asset-health/rul/1")
    ]


def test_promote_and_roll_back_are_one_call_each_with_a_reason(folder):
    with open_models(folder) as registry:
        for _ in range(3):
            add(registry)
        promote = {"by": "os:eve", "why": "better on the held-out week"}
        registry.change("asset-health", "rul", 1, "champion", **promote)
        registry.change("asset-health", "rul", 2, "challenger", **promote)
        registry.change("asset-health", "rul", 3, "challenger", **promote)
        assert states(registry) == ["champion", "new", "challenger"]
        registry.change("asset-health", "rul", 3, "champion", **promote)
        assert states(registry) == ["former", "new", "champion"]
        assert registry.get("asset-health", "rul").version == 3
        back = registry.roll_back("asset-health", "rul", by="os:bob", why="alarms at night")
        assert (back.version, states(registry)) == (1, ["champion", "new", "former"])
        last = registry.changes("asset-health", "rul")[-1]
        assert (last.version, last.before, last.after) == (1, "former", "champion")
        assert (last.by, last.why) == ("os:bob", "alarms at night")


def states(registry):
    return [each.state for each in registry.models("asset-health", "rul")]


def test_what_cannot_be_done_changes_nothing(folder):
    with open_models(folder) as registry:
        add(registry)
        with pytest.raises(Misconfigured, match="APPS-2514"):
            registry.change("asset-health", "rul", 1, "champion", by="os:eve", why=" ")
        with pytest.raises(Misconfigured, match="APPS-2511"):
            registry.change("asset-health", "rul", 9, "champion", by="os:eve", why="x")
        with pytest.raises(Refused, match="APPS-2517"):
            registry.roll_back("asset-health", "rul", by="os:eve", why="x")
        registry.change("asset-health", "rul", 1, "retired", by="os:eve", why="x")
        with pytest.raises(Refused, match="APPS-2515"):
            registry.change("asset-health", "rul", 1, "champion", by="os:eve", why="x")
        with pytest.raises(Misconfigured, match="APPS-2513"):
            registry.add("asset-health", "rul", GOOD, ["a"], by="os:eve")
        with pytest.raises(Misconfigured, match="APPS-2513"):
            registry.add("../up", "rul", GOOD, ["a", "b"], by="os:eve")
        assert states(registry) == ["retired"]


def test_a_file_that_was_changed_is_not_used(folder):
    with open_models(folder) as registry:
        record = add(registry)
        path = folder.models / f"{record.sha256}.onnx"
        path.write_bytes(linear([1.0, 2.0], 0.6))
        with pytest.raises(Corrupt, match="APPS-2512"):
            registry.change("asset-health", "rul", 1, "champion", by="os:eve", why="x")
        assert states(registry) == ["new"]


def test_a_model_travels_with_its_signature(folder, tmp_path):
    with open_models(folder) as registry:
        add(registry, metrics={"rmse": 1.5})
        exported = registry.export("asset-health", "rul")
        key = registry.is_signed(registry.get("asset-health", "rul"))
        assert key
    other = DataFolder(tmp_path / "other")
    with open_models(other) as registry:
        with pytest.raises(Refused, match="APPS-2516"):
            registry.import_file(exported, by="os:bob")
        with pytest.raises(Corrupt, match="APPS-2518"):
            registry.import_file(exported[:-30], by="os:bob")
        assert registry.models() == []
    identity, there = Identity(folder), Identity(other)
    try:
        there.audit.keys.trust(identity.audit.keys.public_pem())
    finally:
        identity.close()
        there.close()
    with open_models(other) as registry:
        record = registry.import_file(exported, by="os:bob")
        assert registry.content(record) == GOOD
        assert record.metrics == {"rmse": 1.5}
        assert record.lineage.imported and registry.is_signed(record)
        lied = exported.replace(b'"rmse":1.5', b'"rmse":0.1')
        assert lied != exported
        with pytest.raises(Refused, match="APPS-2516"):
            registry.import_file(lied, by="os:bob")


def test_what_was_signed_before_records_had_an_asset_stays_signed():
    window = DataWindow(start_us=1, end_us=3, held_out_us=2, assets=("a",))
    record = ModelRecord(
        app="x", name="y", version=1, sha256="0", size=1, inputs=("a",), outputs=1, window=window
    )
    old = msgspec.to_builtins(record)
    del old["asset"], old["window"]["baseline_sha256"]
    expected = hashlib.sha256(msgspec.json.encode(old, order="sorted")).hexdigest()
    assert record.digest() == expected
    assert msgspec.structs.replace(record, asset="hall/p1").digest() != expected
    other = msgspec.structs.replace(window, baseline_sha256="00")
    assert msgspec.structs.replace(record, window=other).digest() != expected


def test_each_asset_has_its_own_champion_and_its_own_way_back(folder):
    with open_models(folder) as registry:
        for asset in ("", "", "hall/p1", "hall/p1"):
            add(registry, asset=asset)
        why = {"by": "os:eve", "why": "x"}
        for version in (1, 3, 2, 4):
            registry.change("asset-health", "rul", version, "champion", **why)
        states = [each.state for each in registry.models("asset-health")]
        assert states == ["former", "champion", "former", "champion"]
        back = registry.roll_back("asset-health", "rul", asset="hall/p1", **why)
        assert (back.version, back.asset, back.state) == (3, "hall/p1", "champion")
        assert registry.get("asset-health", "rul").version == 2
        assert registry.get("asset-health", "rul", asset="hall/p1").version == 3
        with pytest.raises(Refused, match="APPS-2517"):
            registry.roll_back("asset-health", "rul", asset="hall/p2", **why)
