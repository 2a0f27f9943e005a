"""Permanent ids: renames, moves, swaps and retirement keep one history a tag."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Misconfigured, Terminal, Transient
from headrace.site.model import (
    Asset,
    AssetType,
    Connection,
    Equipment,
    Formula,
    SiteModel,
    Tag,
)
from headrace.site.registry import Registry

PLC = Connection(name="plc", protocol="bench", endpoint="h:1")


def model(*tags: Tag, **more: object) -> SiteModel:
    fields: dict[str, object] = {"connections": (PLC,), **more}
    return SiteModel(enterprise="acme", name="mill", tags=tags, **fields)  # type: ignore[arg-type]


def tag(path: str, address: str = "", **more: object) -> Tag:
    return Tag(path, "plc", address or path, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database; the registry works the same on each."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres").new_database())
    return f"sqlite:///{tmp_path}/metadata.db"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    opened = Registry(url)
    yield opened
    opened.close()


def only_id(registry: Registry, path: str) -> int:
    (record,) = registry.find(path)
    return record.tag_id


def test_ids_are_permanent_positive_and_63_bits(registry: Registry) -> None:
    first = registry.apply(model(tag("a/x"), tag("a/y")), 1_000)
    assert first.added == ("a/x", "a/y")
    ids = registry.ids()
    assert len(set(ids.values())) == 2
    assert all(0 < tag_id < 2**63 for tag_id in ids.values())
    assert registry.apply(model(tag("a/x"), tag("a/y")), 2_000).is_empty
    assert registry.ids() == ids


def test_a_rename_keeps_the_id_and_both_names_find_it(registry: Registry) -> None:
    registry.apply(model(tag("a/x")), 1_000)
    before = only_id(registry, "a/x")
    renamed = model(tag("b/c/y", "a/x", was=("a/x",)))
    changes = registry.apply(renamed, 2_000)
    assert changes.renamed == (("a/x", "b/c/y"),)
    assert not changes.added and not changes.retired
    assert only_id(registry, "b/c/y") == before
    assert only_id(registry, "a/x") == before, "the earlier path still finds the tag"
    assert [(v.valid_from_us, v.path, v.place) for v in registry.versions(before)] == [
        (1_000, "a/x", "a"),
        (2_000, "b/c/y", "b/c"),
    ]
    assert registry.apply(renamed, 3_000).is_empty, "`was` may stay in the file for ever"


def test_a_new_tag_may_take_the_old_path_after_the_rename(registry: Registry) -> None:
    registry.apply(model(tag("a/x")), 1_000)
    old = only_id(registry, "a/x")
    moved = tag("a/y", "a/x", was=("a/x",))
    registry.apply(model(moved), 2_000)
    registry.apply(model(moved, tag("a/x", "other")), 3_000)
    assert only_id(registry, "a/y") == old
    assert only_id(registry, "a/x") != old


def test_a_tag_that_stays_and_one_that_claims_it_are_refused(registry: Registry) -> None:
    registry.apply(model(tag("a/x")), 1_000)
    with pytest.raises(Misconfigured, match=r"SITE-1104 .*a/y and a/x both claim"):
        registry.apply(model(tag("a/y", "n", was=("a/x",)), tag("a/x")), 2_000)
    assert list(registry.ids()) == ["a/x"], "nothing was changed"


def test_names_can_be_swapped_and_shifted(registry: Registry) -> None:
    registry.apply(model(tag("a/x", "1"), tag("a/y", "2")), 1_000)
    x, y = registry.ids()["a/x"], registry.ids()["a/y"]
    swapped = model(tag("a/y", "1", was=("a/x",)), tag("a/x", "2", was=("a/y",)))
    registry.apply(swapped, 2_000)
    assert registry.ids() == {"a/y": x, "a/x": y}
    assert registry.apply(swapped, 3_000).is_empty
    shifted = model(tag("a/z", "1", was=("a/y",)), tag("a/y", "2", was=("a/x",)))
    registry.apply(shifted, 4_000)
    assert registry.ids() == {"a/z": x, "a/y": y}


def test_a_rename_that_is_taken_back_keeps_the_history(registry: Registry) -> None:
    registry.apply(model(tag("a/x"), tag("a/y")), 1_000)
    before = registry.ids()
    registry.apply(model(tag("a/z", "a/x", was=("a/x",)), tag("a/y")), 2_000)
    changes = registry.apply(model(tag("a/x"), tag("a/y")), 3_000)
    assert registry.ids() == before
    assert changes.renamed == (("a/z", "a/x"),)


def test_a_late_was_takes_the_history_back(registry: Registry) -> None:
    registry.apply(model(tag("a/x")), 1_000)
    old = only_id(registry, "a/x")
    registry.apply(model(tag("a/y", "a/x")), 2_000)  # renamed, and `was` forgotten
    mistaken = only_id(registry, "a/y")
    assert mistaken != old
    changes = registry.apply(model(tag("a/y", "a/x", was=("a/x",))), 3_000)
    assert only_id(registry, "a/y") == old
    assert changes.retired == ("a/y",), "the id of the mistake is retired, not lost"
    record = registry.tag(mistaken)
    assert record is not None and record.retired


def test_a_sensor_swap_is_a_version_of_the_same_tag(registry: Registry) -> None:
    registry.apply(model(tag("a/x", "register:0", unit="m3/h")), 1_000)
    before = only_id(registry, "a/x")
    changes = registry.apply(model(tag("a/x", "register:9", unit="L/min")), 2_000)
    assert changes.changed == ("a/x",)
    assert only_id(registry, "a/x") == before
    assert [(v.address, v.unit) for v in registry.versions(before)] == [
        ("register:0", "m3/h"),
        ("register:9", "L/min"),
    ]


def test_a_vanished_tag_is_retired_and_returns_with_its_id(registry: Registry) -> None:
    registry.apply(model(tag("a/x"), tag("a/y")), 1_000)
    before = only_id(registry, "a/x")
    assert registry.apply(model(tag("a/y")), 2_000).retired == ("a/x",)
    assert registry.find("a/x") == []
    (record,) = registry.find("a/x", include_retired=True)
    assert record.retired and record.tag_id == before
    assert registry.apply(model(tag("a/x"), tag("a/y")), 3_000).returned == ("a/x",)
    assert only_id(registry, "a/x") == before
    assert [v.retired for v in registry.versions(before)] == [False, True, False]


def test_a_given_id_is_kept_in_a_new_installation(registry: Registry) -> None:
    registry.apply(model(tag("a/x", id=77)), 1_000)
    assert only_id(registry, "a/x") == 77
    registry.apply(model(tag("a/z", "a/x", id=77)), 2_000)
    assert registry.ids() == {"a/z": 77}


def test_a_clock_that_went_back_does_not_write_over_history(registry: Registry) -> None:
    registry.apply(model(tag("a/x", "1")), 5_000)
    registry.apply(model(tag("a/x", "2")), 1_000)
    times = [v.valid_from_us for v in registry.versions(only_id(registry, "a/x"))]
    assert times == [5_000, 5_001]


def test_patterns(registry: Registry) -> None:
    paths = ("utilities/pumping/pump_1/flow", "utilities/pumping/pump_2/flow", "utilities/power")
    registry.apply(model(*(tag(path) for path in paths)), 1_000)

    def found(pattern: str) -> list[str]:
        return [record.path for record in registry.find(pattern)]

    assert found("*") == sorted(paths)
    assert found("utilities/**") == sorted(paths)
    assert found("utilities/**/flow") == sorted(paths)[1:]
    assert found("utilities/*") == ["utilities/power"]
    assert found("flow") == sorted(paths)[1:]
    assert found("fl*") == sorted(paths)[1:]
    assert found("utilities/*/pump_[!1]/flow") == [paths[1]]
    assert found("**/pump_?/flow") == sorted(paths)[1:]
    assert found("nothing") == []
    for bad in ("", "a/[b"):
        if bad:
            assert found(bad) == []
        else:
            with pytest.raises(Misconfigured, match="SITE-1105"):
                registry.find(bad)


def test_equipment_tree_and_tags_of(registry: Registry) -> None:
    equipment = (
        Equipment(path="u", level="area", title="Utilities", title_zh="公用工程"),
        Equipment(path="u/p", level="work_center"),
        Equipment(path="u/p/one", level="work_unit", title="Pump 1"),
    )
    kind = AssetType(name="pump", quantities={"flow": "m3/h"})
    pump = Asset(path="u/p/one", type="pump", title="Pump 1")
    registry.apply(
        model(
            tag("u/p/one/flow", unit="m3/h"),
            tag("u/p/one/motor/speed"),
            tag("u/energy"),
            equipment=equipment,
            asset_types=(kind,),
            assets=(pump,),
        ),
        1_000,
    )
    root = registry.equipment()
    assert (root.path, root.name, root.level, root.tags_below) == ("", "mill", "site", 2)
    (area,) = root.children
    assert (area.title_zh, area.tags, area.tags_below) == ("公用工程", 1, 2)
    unit = area.children[0].children[0]
    assert (unit.level, unit.asset_type, unit.title) == ("work_unit", "pump", "Pump 1")
    assert [each.path for each in registry.tags_of("u/p")] == [
        "u/p/one/flow",
        "u/p/one/motor/speed",
    ]
    assert {each.asset for each in registry.tags_of("u/p")} == {"u/p/one"}
    assert len(registry.tags_of("")) == 3
    assert registry.asset_types()[0].quantities == {"flow": "m3/h"}


def test_another_site_is_refused(registry: Registry) -> None:
    registry.apply(model(tag("a/x")), 1_000)
    other = msgspec.structs.replace(model(), name="other")
    with pytest.raises(Misconfigured, match="SITE-1103"):
        registry.apply(other, 2_000)
    assert list(registry.ids()) == ["a/x"]


def test_another_process_sees_what_was_applied(registry: Registry, url: str) -> None:
    reader = Registry(url)
    assert reader.find("*") == []
    registry.apply(model(tag("a/x")), 1_000)
    assert [record.path for record in reader.find("*")] == ["a/x"]
    assert [each.name for each in reader.connections()] == ["plc"]
    assert reader.edges() == ["local"]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(Corrupt, match="SITE-1102"):
        Registry(f"sqlite:///{tmp_path}/metadata.db")
    with pytest.raises(Terminal, match="SITE-1101"):
        Registry(f"sqlite:///{tmp_path}/not/there/metadata.db")


def test_a_locked_database_is_said_and_changes_nothing(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/metadata.db", patience_s=0.05)
    holder = sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="SITE-1106"):
        registry.apply(model(tag("a/x")), 1_000)
    holder.execute("ROLLBACK")
    assert registry.apply(model(tag("a/x")), 1_000).added == ("a/x",)


PATHS = ("a/p", "a/q", "a/r", "a/s", "a/t")
STEP = st.one_of(
    st.tuples(st.just("rename"), st.integers(0, 9), st.sampled_from(PATHS)),
    st.tuples(st.just("remove"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("add"), st.just(0), st.sampled_from(PATHS)),
    st.tuples(st.just("readdress"), st.integers(0, 9), st.just("")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, max_size=12))
def test_any_course_of_edits_keeps_one_history_a_tag(steps: list[tuple[str, int, str]]) -> None:
    """Against a list of what each id must be called, whatever is renamed, removed and added."""
    registry = Registry("sqlite://")
    names: dict[int, str] = {}
    retired: dict[str, int] = {}
    addresses: dict[str, str] = {}
    for now_us, (verb, pick, path) in enumerate(steps, 1):
        was: dict[str, str] = {}
        tag_ids = list(names)
        chosen = tag_ids[pick % len(tag_ids)] if tag_ids else 0
        if verb == "rename" and chosen and path not in names.values():
            was[path] = names[chosen]
            addresses[path] = addresses.pop(names[chosen])
            names[chosen] = path
        elif verb == "remove" and chosen:
            retired[names.pop(chosen)] = chosen
        elif verb == "readdress" and chosen:
            addresses[names[chosen]] = f"new-{now_us}"
        elif verb == "add" and path not in names.values():
            addresses[path] = f"first-{now_us}"
        wanted = set(names.values()) | ({path} if verb == "add" else set())
        tags = [
            tag(each, addresses[each], was=(was[each],) if each in was else ())
            for each in sorted(wanted)
        ]
        registry.apply(model(*tags), now_us)
        ids = registry.ids()
        if verb == "add" and path not in names.values():
            if path in retired:
                assert ids[path] == retired.pop(path)
            names[ids[path]] = path
        assert ids == {name: tag_id for tag_id, name in names.items()}
        for tag_id, name in names.items():
            newest = registry.versions(tag_id)[-1]
            assert (newest.path, newest.address, newest.retired) == (name, addresses[name], False)


@pytest.mark.kill
def test_a_kill_during_apply_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    """One process applies 400 tags named after the round, over and over; it is killed again and again."""
    script = tmp_path / "apply.py"
    script.write_text(
        "import sys\n"
        "from headrace.site.registry import Registry\n"
        "from headrace.site.model import SiteModel, Tag\n"
        "registry = Registry(f'sqlite:///{sys.argv[1]}')\n"
        "n = int(sys.argv[2])\n"
        "while True:\n"
        "    n += 1\n"
        "    tags = tuple(Tag(f'a/t_{i}', 'plc', f'{n}:{i}') for i in range(400))\n"
        "    print('begin', n, flush=True)\n"
        "    registry.apply(SiteModel(enterprise='e', name='s', tags=tags), n)\n"
    )
    database = tmp_path / "metadata.db"
    last, ids = 0, None
    for strike in range(4):
        process = subprocess.Popen(
            [sys.executable, str(script), str(database), str(last)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        for _ in range(2 + strike):
            begun = int(process.stdout.readline().split()[1])
        killer = threading.Timer(0.004 * strike, process.send_signal, (signal.SIGKILL,))
        killer.start()
        process.wait()
        registry = Registry(f"sqlite:///{database}")
        records = registry.find("*")
        rounds = {int(record.address.split(":")[0]) for record in records}
        assert len(records) == 400 and len(rounds) == 1, "half of a change"
        last = rounds.pop()
        assert last >= begun - 1
        ids = ids or registry.ids()
        assert registry.ids() == ids
        registry.close()


def test_formulas_have_tags_and_versions_on_each_database(registry: Registry) -> None:
    def site(text: str) -> SiteModel:
        kind = AssetType(
            name="pump", quantities={"flow": "m3/h"}, formulas=(Formula(name="double", text=text),)
        )
        derived = Tag("u/p/double", "formula", "pump.double", unit="m3/h", scan_interval_ms=0)
        return model(
            tag("u/p/flow"), asset_types=(kind,), assets=(Asset(path="u/p", type="pump"),),
            derived=(derived,),
        )  # fmt: skip

    first = registry.apply(site("double = flow * 2"), 1_000)
    assert first.formulas == ("pump.double",) and "formulas: pump.double" in first.summary()
    before = only_id(registry, "u/p/double")
    assert registry.apply(site("double = flow * 2"), 2_000).is_empty
    assert registry.apply(site("double = 2 * flow"), 3_000).formulas == ("pump.double",)
    assert only_id(registry, "u/p/double") == before
    versions = registry.formula_versions("pump", "double")
    assert [(each.version, each.text, each.start_us) for each in versions] == [
        (1, "double = flow * 2", 0),
        (2, "double = 2 * flow", 3_000),
    ]
    apps = registry.apps()
    assert apps is not None and apps.assets[0].outputs == {"double": before}
    gone = registry.apply(model(tag("u/p/flow")), 4_000)
    assert gone.retired == ("u/p/double",) and gone.formulas == ("pump.double",)
    assert registry.formula_versions("pump")[-1].retired_us == 4_000


def test_a_derived_tag_takes_no_measured_history(registry: Registry) -> None:
    registry.apply(model(tag("u/old/flow"), tag("u/old/double")), 1_000)
    before = registry.ids()
    derived = Tag(
        "u/new/double", "formula", "pump.double", scan_interval_ms=0, was=("u/old/double",)
    )
    moved = (
        tag("u/new/flow", "u/old/flow", was=("u/old/flow",)),
        tag("u/bench/double", "u/old/double", was=("u/old/double",)),
    )
    registry.apply(model(*moved, derived=(derived,)), 2_000)
    after = registry.ids()
    assert after["u/bench/double"] == before["u/old/double"] != after["u/new/double"]
