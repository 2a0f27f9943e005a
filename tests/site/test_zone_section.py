"""Zones and conduits: in exactly one zone, and nothing crosses without a conduit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.zones import DEFAULT_ZONE, Conduit, Zone, ZoneMap
from headrace.site.desired import edge_configs
from headrace.site.file import SiteFiles, check_site, load_site

SITE = """\
[site]
enterprise = "acme"
name = "mill"
[connection.plc]
protocol = "bench"
endpoint = "10.1.2.3:1502"
edge = "north"
[[tag]]
path = "hall/line/mixer/load"
connection = "plc"
address = "register:0"
[zone.control]
title = { en = "Control", zh = "控制区" }
security_level = 3
equipment = ["hall/line"]
networks = ["10.1.0.0/16"]
[zone.operations]
edges = ["north"]
"""
CONDUIT = '[[conduit]]\nfrom = "control"\nto = "operations"\nprotocols = ["bench"]\n'


def checked(tmp_path: Path, text: str) -> list[tuple[str, int]]:
    (tmp_path / "site.toml").write_text(text)
    _, problems = check_site(SiteFiles(tmp_path / "site.toml"))
    return [(problem.code, problem.line) for problem in problems]


def test_a_connection_crosses_by_a_conduit_only(tmp_path: Path) -> None:
    assert checked(tmp_path, SITE) == [("SEC-1554", 4)]
    assert checked(tmp_path, SITE + CONDUIT) == []
    model = load_site(tmp_path / "site.toml")
    config = edge_configs(model, {"hall/line/mixer/load": 1})["north"]
    assert config.zones.zone_of("hall/line/mixer/load") == "control"
    assert config.zones.zones[0].title_zh == "控制区"


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ('["bench"]', '["opcua"]', "SEC-1554", 4),
        ('"control"\nto = "operations"', '"operations"\nto = "control"', "SEC-1554", 4),
        ('to = "operations"', 'to = "operation"', "SEC-1552", 21),
        ('["hall/line"]', '["hall/lines"]', "SEC-1550", 15),
        ('address = "register:0"', 'address = "register:0"\nwritable = true', "SEC-1555", 4),
        ("level = 3", "level = 5", "SITE-1005", 14),
        ('["10.1.0.0/16"]', '["10.1.2.0/8"]', "SITE-1005", 16),
        ('edges = ["north"]', 'edges = ["north"]\nequipment = ["hall/line"]', "SEC-1551", 19),
        ('edges = ["north"]', 'edges = ["north"]\nconnections = ["plc"]', "SEC-1553", 6),
    ],
)
def test_what_is_wrong(tmp_path: Path, old: str, new: str, code: str, line: int) -> None:
    text = SITE + CONDUIT
    assert text.count(old) == 1
    assert (code, line) in checked(tmp_path, text.replace(old, new))


def test_a_conduit_for_other_groups_or_both_ways(tmp_path: Path) -> None:
    groups = "[group.slow]\nretention_days = 1\n"
    assert checked(tmp_path, SITE + CONDUIT + 'groups = ["slow"]\n' + groups) == [("SEC-1554", 4)]
    assert checked(tmp_path, SITE + CONDUIT + 'groups = ["default", "slow"]\n' + groups) == []
    writable = SITE.replace('"register:0"', '"register:0"\nwritable = true')
    assert checked(tmp_path, writable + CONDUIT + 'direction = "both"\n') == []


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(places=st.lists(PATHS, unique=True, max_size=6), path=PATHS)
def test_everything_is_in_exactly_the_zone_of_its_longest_path(
    places: list[str], path: str
) -> None:
    zones = ZoneMap(zones=tuple(Zone(name=f"z{i}", equipment=(p,)) for i, p in enumerate(places)))
    around = [p for p in places if f"{path}/".startswith(f"{p}/")]
    wanted = f"z{places.index(max(around, key=len))}" if around else DEFAULT_ZONE
    assert zones.zone_of(path) == wanted


def test_the_zone_of_an_address_is_that_of_the_narrowest_network() -> None:
    zones = ZoneMap(
        zones=(
            Zone(name="wide", networks=("10.0.0.0/8", "fd00::/8")),
            Zone(name="narrow", networks=("10.1.2.0/24",), connections=("named",)),
        )
    )
    assert zones.zone_of_address("opc.tcp://10.1.2.3:4840/x") == "narrow"
    assert zones.zone_of_address("10.9.9.9:502") == "wide"
    assert zones.zone_of_address("mqtt://[fd00::1]:1883") == "wide"
    assert zones.zone_of_address("plc.example:502") == ""
    assert zones.zone_of_connection("named", "plc.example:502") == "narrow"
    assert zones.zone_of_connection("named", "10.9.9.9:502") == "wide"


def test_a_conduit_has_a_way() -> None:
    zones = ZoneMap(conduits=(Conduit(source="a", target="b", groups=("g",)),))
    assert zones.may_cross("a", "b", "opcua", ["g"]) and zones.may_cross("a", "a", "opcua", ["h"])
    assert not zones.may_cross("a", "b", "opcua", ["g", "h"])
    assert not zones.may_cross("b", "a", "opcua", ["g"])
