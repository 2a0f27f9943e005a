"""The picture of zones and conduits: each has its place and its words, in both languages."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from headrace.console.texts import Texts
from headrace.console.widgets.zone_picture import zone_picture
from headrace.model.zones import Conduit, Zone, ZoneMap

ZONES = ZoneMap(
    zones=(
        Zone(name="control", title="Control <1>", title_zh="控制区", security_level=3,
             equipment=tuple(f"hall/line_{n}" for n in range(9)), networks=("10.1.0.0/16",)),
        Zone(name="operations", security_level=2, edges=("north",)),
    ),
    conduits=(
        Conduit(source="control", target="operations", protocols=("opcua",)),
        Conduit(source="operations", target="site", both_ways=True),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("language", "words"), [("en", "Control <1>"), ("zh", "控制区")])
def test_every_zone_and_conduit_is_drawn(language: str, words: str) -> None:
    picture = ET.fromstring(zone_picture(ZONES, Texts(language)))
    text = " ".join(picture.itertext())
    assert words in text and "10.1.0.0/16" in text and "+5" in text and "SL-T 3" in text
    assert "control → operations: opcua" in text and "operations ↔ site" in text
    zones = [each.get("data-zone") for each in picture.iter() if each.get("data-zone")]
    assert zones == ["control", "operations", "site"]
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    for each in picture.iter("text"):
        assert 0 <= float(each.get("x", 0)) <= width and 0 <= float(each.get("y", 0)) <= height
