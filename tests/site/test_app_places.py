"""Where an app with Python serves its assets, and what is told to whom when it moves."""

from __future__ import annotations

import msgspec
import pytest

from headrace.model.app_manifest import AppManifest, NeededType
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.desired import EdgeConfig
from headrace.model.errors import Refused
from headrace.site.app_places import AHEAD_US, AppPlace, next_places, parts_of, with_places
from headrace.site.model import AppAsset, SiteApp, SiteModel, Tag

MANIFEST = AppManifest(
    id="load-watch",
    version="1.0.0",
    title={"en": "Load"},
    python="load_watch",
    types={"pump": NeededType(package="pump", quantities={"power": "kW"})},
)
EDGES = {"plc_1": "local", "plc_2": "north", "plc_3": "south"}
TAGS = {
    f"hall/p{n}/power": Tag(path=f"hall/p{n}/power", connection=f"plc_{n}", address="a")
    for n in (1, 2, 3)
}


def app(placement: str, manifest: AppManifest = MANIFEST) -> SiteApp:
    assets = tuple(
        AppAsset(path=f"hall/p{n}", type="pump", tags={"power": f"hall/p{n}/power"})
        for n in (1, 2, 3)
    )
    return SiteApp(manifest=manifest, sha256="0" * 64, placement=placement, assets=assets)


def model(*apps: SiteApp) -> SiteModel:
    return SiteModel(enterprise="acme", name="mill", apps=apps)


def deployed(placement: str, place: AppPlace | None = None) -> AppDeployment:
    bare = AppDeployment(
        enterprise="acme",
        site="mill",
        manifest=MANIFEST,
        package_sha256="0" * 64,
        assets=tuple(BoundAsset(path=f"hall/p{n}", type="pump") for n in (1, 2, 3)),
    )
    return with_places(app(placement), bare, place, TAGS, EDGES)


def paths(part: AppDeployment | None) -> list[str]:
    return [asset.path for asset in part.assets] if part is not None else []


def test_each_edge_serves_what_it_reads_and_the_platform_its_own_machines():
    whole = deployed("edge")
    assert [asset.edge for asset in whole.assets] == ["", "north", "south"]
    assert whole.edges == ("", "north", "south")
    assert paths(whole.part("")) == ["hall/p1"] and paths(whole.part("north")) == ["hall/p2"]
    assert whole.part("east") is None and deployed("platform").edges == ("",)
    (part,) = parts_of([whole], "south")
    assert (part.edge, paths(part)) == ("south", ["hall/p3"])
    assert not parts_of([msgspec.structs.replace(whole, enabled=False)], "south")
    bare = EdgeConfig(enterprise="acme", site="mill", edge="south")
    assert bare.content_hash() != msgspec.structs.replace(bare, deployments=(part,)).content_hash()


def test_a_question_goes_where_it_runs():
    whole = deployed("edge")
    assert (whole.place(), whole.place("north"), deployed("platform").place()) == ("", "north", "")
    with pytest.raises(Refused, match="APPS-2273"):
        whole.place("east")
    far = msgspec.structs.replace(whole, assets=whole.assets[1:])
    with pytest.raises(Refused, match="APPS-2273"):
        far.place()
    assert msgspec.structs.replace(whole, assets=whole.assets[1:2]).place() == "north"


def test_a_move_is_said_once_a_little_ahead():
    first = next_places(model(app("platform")), {}, 1_000)
    assert first == {"load_watch": AppPlace(placement="platform")}
    moved = next_places(model(app("edge")), first, 2_000)
    wanted = AppPlace(placement="edge", before="platform", moved_us=2_000 + AHEAD_US)
    assert moved == {"load_watch": wanted}
    assert next_places(model(app("edge")), moved, 3_000) == moved
    assert next_places(model(), moved, 4_000) == {}


def test_until_a_move_the_old_place_runs_all_it_had_and_then_what_is_left():
    place = AppPlace(placement="edge", before="platform", moved_us=500)
    whole = deployed("edge", place)
    here = whole.part("")
    assert here is not None and len(here.assets) == 3
    before, after = here.stage(499), here.stage(500)
    assert before is not None and after is not None
    assert (len(before.assets), before.until_us) == (3, 500)
    assert (paths(after), after.until_us) == (["hall/p1"], 0)
    north = whole.part("north")
    assert north is not None
    stage = north.stage(0)
    assert stage is not None and (paths(stage), stage.until_us) == (["hall/p2"], 0)
    back = deployed("platform", AppPlace(placement="platform", before="edge", moved_us=900))
    ended = back.part("north")
    assert ended is not None and ended.stage(900) is None
    last = ended.stage(700)
    assert last is not None and last.until_us == 900
    every = back.part("")
    assert every is not None
    assert paths(every.stage(700)) == ["hall/p1"] and len(paths(every.stage(900))) == 3
