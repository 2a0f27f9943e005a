"""Asset types from NodeSet2 files: real companion specifications, one with units, and hostile ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data import data_folder
from headrace.apps.asset_types.catalog import known_types, read_types
from headrace.apps.asset_types.nodeset import (
    DEPTH_MAX,
    read_nodeset,
    type_from_nodes,
    types_toml,
)
from headrace.apps.package.package import check_folder
from headrace.cli.app import build
from headrace.model.errors import HeadraceError

HEAD = '<UANodeSet xmlns="http://opcfoundation.org/UA/2011/03/UANodeSet.xsd">'
PUMP = f"""{HEAD}
<Models><Model ModelUri="urn:acme:pump" Version="2.1"/></Models>
<UAObjectType NodeId="ns=1;i=1" BrowseName="1:PumpType"><DisplayName>PumpType</DisplayName>
 <Description>A pump</Description>
 <References><Reference ReferenceType="HasComponent">ns=1;i=2</Reference>
 <Reference ReferenceType="HasSubtype" IsForward="false">ns=1;i=20</Reference></References></UAObjectType>
<UAObjectType NodeId="ns=1;i=20" BrowseName="1:BaseType"><DisplayName>BaseType</DisplayName>
 <References><Reference ReferenceType="HasSubtype" IsForward="false">i=58</Reference></References>
</UAObjectType>
<UAVariable NodeId="ns=1;i=21" BrowseName="1:Running" ParentNodeId="ns=1;i=20" DataType="Boolean"/>
<UAObject NodeId="ns=1;i=2" BrowseName="1:Measured"><References>
 <Reference ReferenceType="HasComponent" IsForward="false">ns=1;i=1</Reference></References></UAObject>
<UAVariable NodeId="ns=1;i=3" BrowseName="1:VolumeFlow" ParentNodeId="ns=1;i=2" DataType="Double">
 <Description>Flow through it</Description></UAVariable>
<UAVariable NodeId="ns=1;i=4" BrowseName="EngineeringUnits" ParentNodeId="ns=1;i=3" DataType="EUInformation">
 <Value><ExtensionObject xmlns="http://opcfoundation.org/UA/2008/02/Types.xsd"><Body><EUInformation>
 <UnitId>5067858</UnitId><DisplayName><Text>m3/h</Text></DisplayName></EUInformation></Body></ExtensionObject></Value>
</UAVariable>
<UAVariable NodeId="ns=1;i=5" BrowseName="1:Temperature" ParentNodeId="ns=1;i=2" DataType="Float"/>
<UAVariable NodeId="ns=1;i=6" BrowseName="EngineeringUnits" ParentNodeId="ns=1;i=5" DataType="EUInformation">
 <Value><EUInformation><UnitId>4408652</UnitId>
 <DisplayName><Text>°of Celsius</Text></DisplayName></EUInformation></Value>
</UAVariable>
<UAVariable NodeId="ns=1;i=7" BrowseName="1:Curve" ParentNodeId="ns=1;i=2" DataType="Double" ValueRank="1"/>
<UAVariable NodeId="ns=1;i=8" BrowseName="1:Nameplate" ParentNodeId="ns=1;i=2" DataType="ns=1;i=99"/>
</UANodeSet>"""


def made_of(tmp_path: Path, text: str, name: str = "nodes.xml") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["nodes.xml", "nodes.xml.gz"])
def test_variables_units_and_what_is_inherited(tmp_path: Path, name: str) -> None:
    nodeset, nodes = read_nodeset(made_of(tmp_path, PUMP, name))
    assert nodeset.object_types == {"BaseType": "", "PumpType": "A pump"}
    made = type_from_nodes(nodeset, nodes, "PumpType")
    assert {n: (q.unit, q.node) for n, q in made.package.quantities.items()} == {
        "volume_flow": ("m3/h", "Measured/VolumeFlow"),
        "temperature": ("degC", "Measured/Temperature"),
        "running": ("condition", "Running"),
    }
    assert made.package.quantities["volume_flow"].title == {"en": "Flow through it"}
    assert (made.package.id, made.package.companion.uri) == ("pump", "urn:acme:pump")  # type: ignore[union-attr] # it has one
    assert made.left_out == (
        "Measured/Curve: its type is Double",
        "Measured/Nameplate: its type is ns=1;i=99",
        "i=58: it is declared in another file",
    )
    assert read_types(types_toml(made.package).encode()) == made.package


@pytest.mark.parametrize("name", ["MachineTool", "Machinery", "Robotics", "IA", "PackML", "IOLink"])
def test_each_object_type_of_real_specifications_is_proposed_or_refused(name: str) -> None:
    path = data_folder("opcua_nodesets") / f"Opc.Ua.{name}.NodeSet2.xml.gz"
    nodeset, nodes = read_nodeset(path)
    done = 0
    for object_type in nodeset.object_types:
        try:
            made = type_from_nodes(nodeset, nodes, object_type)
        except HeadraceError as error:
            assert error.code == "APPS-2122"
            continue
        done += 1
        assert read_types(types_toml(made.package).encode()).quantities == made.package.quantities
    assert done > len(nodeset.object_types) / 3


def test_what_shipped_types_cite_stands_in_the_specification() -> None:
    companion = known_types()["machining-centre"].companion
    assert companion is not None
    path = data_folder("opcua_nodesets") / "Opc.Ua.MachineTool.NodeSet2.xml.gz"
    nodeset, nodes = read_nodeset(path)
    assert (companion.uri, companion.version) == (nodeset.uri, nodeset.version)
    assert companion.type in nodeset.object_types
    names = {node.name for node in nodes.by_id.values() if node.kind == "UAVariable"}
    cited = [
        each.node for each in known_types()["machining-centre"].quantities.values() if each.node
    ]
    assert cited and set(cited) <= names


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + PUMP, "APPS-2121"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd">' + PUMP, "APPS-2121"),
        (HEAD + "<a>" * (DEPTH_MAX + 1), "APPS-2121"),
        (PUMP[:300], "APPS-2120"),
        ("", "APPS-2120"),
        ("<html/>", "APPS-2120"),
        ('<?xml version="1.0" encoding="no-such"?>' + PUMP, "APPS-2120"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        read_nodeset(made_of(tmp_path, text))
    assert caught.value.code == code


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xml.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(HEAD.encode())
        for _ in range(66):
            file.write(b" " * (1 << 20))
    with pytest.raises(HeadraceError) as caught:
        read_nodeset(path)
    assert caught.value.code == "APPS-2121" and "64 MB" in caught.value.what


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner()
    app = build(("asset_type",))
    listed = run.invoke(app, ["asset-type", "list", "--data", str(tmp_path)])
    assert listed.exit_code == 0 and "machining-centre" in listed.output
    shown = run.invoke(app, ["asset-type", "show", "pump", "--data", str(tmp_path)])
    assert shown.exit_code == 0 and "suction_pressure" in shown.output
    missing = run.invoke(app, ["asset-type", "show", "pomp", "--data", str(tmp_path)])
    assert getattr(missing.exception, "code", "") == "APPS-2102"
    file = str(made_of(tmp_path, PUMP))
    types = run.invoke(app, ["asset-type", "from-nodeset", file])
    assert "PumpType  A pump" in types.output
    printed = run.invoke(app, ["asset-type", "from-nodeset", file, "--type", "PumpType"])
    assert 'unit = "degC"' in printed.output and "left out: Measured/Curve" in printed.output
    common = ["asset-type", "from-nodeset", file, "--type", "PumpType", "--write"]
    assert run.invoke(app, [*common, str(tmp_path / "mine")]).exit_code == 0
    assert check_folder(tmp_path / "mine") == []
    again = run.invoke(app, [*common, str(tmp_path / "mine")])
    assert getattr(again.exception, "code", "") == "APPS-2103"
