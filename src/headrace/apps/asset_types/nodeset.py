"""Proposes an asset type from an OPC UA NodeSet2 file (OPC 10000-6, Annex F): the variables of an ObjectType.

The file is a stranger's: entities and document types are refused, and bytes, depth and nodes have bounds.
Other files that it builds on are not looked up; what a type inherits from them is left out, and said.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

import msgspec

from headrace.apps.asset_types.catalog import Companion, NamedUnit, TypePackage
from headrace.model.errors import Misconfigured, Refused
from headrace.model.units import parse_unit

FILE_BYTES_MAX: Final = 1 << 26
DEPTH_MAX: Final = 64
NODES_MAX: Final = 300_000
REACH_MAX: Final = 6
VARIABLES_MAX: Final = 500
_NODES: Final = ("UAObjectType", "UAVariable", "UAObject")
_PARTS: Final = ("HasComponent", "HasProperty", "HasOrderedComponent", "i=47", "i=46", "i=49")
_SUBTYPE: Final = ("HasSubtype", "i=45")
_NUMBERS: Final = frozenset({
    "Double", "Float", "Number", "Integer", "UInteger", "SByte", "Byte", "Int16", "UInt16", "Int32",
    "UInt32", "Int64", "UInt64", "Decimal", "Duration", "i=11", "i=10", "i=26", "i=2", "i=3", "i=4",
    "i=5", "i=6", "i=7", "i=8", "i=9", "i=27", "i=28", "i=50", "i=290",
})  # fmt: skip
_TEXTS: Final = frozenset({"String", "LocalizedText", "i=12", "i=21"})
_CONDITIONS: Final = frozenset(("Boolean", "i=1"))
_MILLISECONDS: Final = ("Duration", "i=290")
# UNECE Recommendation 20 codes, as UnitId holds them (OPC 10000-8, 5.6.3), of what plants measure most.
_CODES: Final = {
    "CEL": "degC", "KEL": "K", "BAR": "bar", "KPA": "kPa", "PAL": "Pa", "MPA": "MPa", "MQH": "m3/h",
    "MTR": "m", "MMT": "mm", "4H": "um", "C16": "mm/s", "MTS": "m/s", "RPM": "1/min", "HTZ": "Hz",
    "KWT": "kW", "WTT": "W", "MAW": "MW", "KWH": "kWh", "AMP": "A", "VLT": "V", "NEW": "N", "NU": "N.m",
    "P1": "%", "KGM": "kg", "SEC": "s", "MIN": "min", "HUR": "h", "LTR": "L", "MTQ": "m3", "2N": "dB",
}  # fmt: skip


@dataclass(slots=True)
class _Node:
    id: str
    kind: str
    name: str
    parent: str = ""
    data_type: str = ""
    title: str = ""
    description: str = ""
    unit: str = ""
    is_list: bool = False
    parts: list[str] = field(default_factory=list)
    supertype: str = ""


class NodeSet(msgspec.Struct, frozen=True):
    """What a file declares. ``object_types``: BrowseName without its namespace -> description."""

    uri: str
    version: str
    object_types: dict[str, str]


class TypeFromNodes(msgspec.Struct, frozen=True):
    """A proposed asset type. ``left_out``: variables that it does not have, each with the reason."""

    package: TypePackage
    left_out: tuple[str, ...] = ()


def read_nodeset(path: Path) -> tuple[NodeSet, _Nodes]:
    """A NodeSet2 file, plain or ``.gz``.

    Raises:
        Misconfigured: APPS-2120 when it cannot be read or is none.
        Refused: APPS-2121 when it has entities, or more than the bounds.
    """
    nodes = _Nodes()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            nodes.parse(iter(lambda: file.read(1 << 20), b""))
    except (OSError, EOFError, LookupError, zlib.error, expat.ExpatError, ValueError) as error:
        what = f"{path.name} is no NodeSet2 file: {error}"
        raise Misconfigured(
            "APPS-2120", what, "Give the XML of a companion specification."
        ) from error
    if not nodes.is_nodeset:
        what = f"{path.name} is no NodeSet2 file: it has no UANodeSet"
        raise Misconfigured("APPS-2120", what, "Give the XML of a companion specification.")
    types = {n.name: n.description for n in nodes.by_id.values() if n.kind == "UAObjectType"}
    return NodeSet(nodes.uri, nodes.version, dict(sorted(types.items()))), nodes


def type_from_nodes(nodeset: NodeSet, nodes: _Nodes, object_type: str) -> TypeFromNodes:
    """The asset type that an ObjectType could be.

    Args:
        object_type: its BrowseName, without the namespace.

    Raises:
        Misconfigured: APPS-2122 when there is none of this name, or it has no variable that can be measured.
    """
    if object_type not in nodeset.object_types:
        shown = ", ".join(list(nodeset.object_types)[:8])
        what = f"there is no ObjectType {object_type!r}"
        raise Misconfigured("APPS-2122", what, f"There are: {shown} ...")
    found: dict[str, NamedUnit] = {}
    left_out: list[str] = []
    for way, node in nodes.variables_of(object_type):
        name, unit = _free_name(way, found), _unit_of(node)
        if unit is None or not name or len(found) >= VARIABLES_MAX:
            why = f"its type is {node.data_type}" if unit is None else "there are too many like it"
            left_out.append(f"{'/'.join(way)}: {why}")
            continue
        title = {"en": node.description or node.title or name}
        found[name] = NamedUnit(unit=unit, title=title, node="/".join(way))
    if not found:
        what = f"{object_type} has no variable that could be measured"
        raise Misconfigured("APPS-2122", what, "Choose another ObjectType.")
    left_out += [f"{each}: it is declared in another file" for each in nodes.foreign(object_type)]
    package = TypePackage(
        id=snake(object_type.removesuffix("Type")).replace("_", "-"),
        version="1.0.0",
        title={"en": nodeset.object_types[object_type] or object_type.removesuffix("Type")},
        companion=Companion(uri=nodeset.uri, version=nodeset.version, type=object_type),
        quantities=found,
    )
    return TypeFromNodes(package, tuple(left_out))


def _free_name(way: tuple[str, ...], taken: Mapping[str, object]) -> str:
    """The shortest end of the way that no other has; "" when all have."""
    names = ("_".join(snake(each) for each in way[at:])[-64:] for at in range(len(way) - 1, -1, -1))
    return next((name for name in names if name not in taken), "")


def types_toml(package: TypePackage) -> str:
    """A package as ``types.toml``; what is empty is left out."""
    lines = [f"id = {_quoted(package.id)}", f"version = {_quoted(package.version)}"]
    lines += [f"publisher = {_quoted(package.publisher)}"] if package.publisher else []
    lines += [f"title = {_texts(package.title)}", *_names(package.names)]
    if package.companion is not None:
        said = msgspec.to_builtins(package.companion)
        lines += [
            "",
            "[companion]",
            *(f"{key} = {_quoted(said[key])}" for key in said if said[key]),
        ]
    for word, table in (("quantities", package.quantities), ("attributes", package.attributes)):
        for name, each in table.items():
            lines += ["", f"[{word}.{name}]", f"unit = {_quoted(each.unit)}"]
            lines += [f"title = {_texts(each.title)}"] if each.title else []
            lines += _names(each.names)
            lines += [f"node = {_quoted(each.node)}"] if each.node else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(title: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {_quoted(text)}" for key, text in title.items()) + " }"


def _names(names: tuple[str, ...]) -> list[str]:
    return ["names = [" + ", ".join(map(_quoted, names)) + "]"] if names else []


def snake(name: str) -> str:
    """A BrowseName as a name of ours.

    Example:
        >>> snake("PowerOnDuration"), snake("IsRotating"), snake("<Channel>")
        ('power_on_duration', 'is_rotating', 'channel')
    """
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")[:64] or "x"


def _unit_of(node: _Node) -> str | None:
    """None for what cannot be a quantity."""
    if node.is_list:
        return None
    if node.data_type in _CONDITIONS:
        return "condition"
    if node.data_type in _TEXTS:
        return "text"
    if node.data_type not in _NUMBERS:
        return None
    return node.unit or ("ms" if node.data_type in _MILLISECONDS else "")


class _Nodes:
    """The nodes of a file, while it is read and after."""

    def __init__(self) -> None:
        self.by_id: dict[str, _Node] = {}
        self.uri = self.version = ""
        self.is_nodeset = False
        self._stack: list[str] = []
        self._node: _Node | None = None
        self._reference: tuple[str, bool] = ("", True)
        self._text: list[str] = []
        self._bytes = 0
        self._units: dict[str, dict[str, str]] = {}

    def parse(self, chunks: Iterable[bytes]) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._take
        for chunk in chunks:
            self._bytes += len(chunk)
            if self._bytes > FILE_BYTES_MAX:
                raise _too_much(f"over {FILE_BYTES_MAX >> 20} MB")
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
        for node_id, said in self._units.items():
            of = self.by_id.get(node_id)
            parent = self.by_id.get(of.parent) if of is not None else None
            if parent is not None:
                parent.unit = _unit_said(said)

    def _refuse(self, *_: object) -> None:
        raise Refused(
            "APPS-2121",
            "the file declares a document type or entities, which a NodeSet2 file has no use for",
            "Get it from the publisher of the specification.",
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        self._stack.append(name)
        self._text.clear()
        if len(self._stack) > DEPTH_MAX:
            raise _too_much(f"elements nested over {DEPTH_MAX} deep")
        if name == "UANodeSet":
            self.is_nodeset = True
        elif name == "Model" and not self.uri:
            self.uri, self.version = attributes.get("ModelUri", ""), attributes.get("Version", "")
        elif len(self._stack) == 2 and name in _NODES:
            self._node = _node_of(name, attributes)
            self.by_id[self._node.id] = self._node
            if len(self.by_id) > NODES_MAX:
                raise _too_much(f"over {NODES_MAX:,} nodes")
        elif name == "Reference":
            kind = attributes.get("ReferenceType", "")
            self._reference = kind, attributes.get("IsForward", "true") != "false"

    def _take(self, text: str) -> None:
        self._text.append(text)

    def _end(self, tag: str) -> None:
        name, text = self._stack.pop(), "".join(self._text).strip()
        self._text.clear()
        node = self._node
        if node is None or not self._stack:
            return
        within = self._stack[-1]
        if len(self._stack) == 1 and name in _NODES:
            self._node = None
        elif len(self._stack) == 2 and name == "DisplayName":
            node.title = node.title or text
        elif len(self._stack) == 2 and name == "Description":
            node.description = node.description or text[:200]
        elif name == "Reference":
            self._refer(node, text)
        elif text and node.name == "EngineeringUnits" and "EUInformation" in self._stack:
            key = within if name == "Text" else name
            self._units.setdefault(node.id, {})[key] = text

    def _refer(self, node: _Node, other: str) -> None:
        kind, forward = self._reference
        if kind in _PARTS and forward:
            node.parts.append(other)
        elif kind in _PARTS and not node.parent:
            node.parent = other
        elif kind in _SUBTYPE and not forward:
            node.supertype = other

    def variables_of(self, object_type: str) -> Iterator[tuple[tuple[str, ...], _Node]]:
        """(BrowseNames from the type, variable) of all below an ObjectType and its supertypes."""
        below: dict[str, list[str]] = {}
        for node in self.by_id.values():
            if node.parent:
                below.setdefault(node.parent, []).append(node.id)
        start = self._type(object_type)
        seen: set[str] = set()
        while start is not None and start.id not in seen:
            seen.add(start.id)
            yield from self._walk(start, (), below, seen)
            start = self.by_id.get(start.supertype)

    def _walk(
        self,
        node: _Node,
        way: tuple[str, ...],
        below: Mapping[str, list[str]],
        seen: set[str],
    ) -> Iterator[tuple[tuple[str, ...], _Node]]:
        for part_id in dict.fromkeys((*node.parts, *below.get(node.id, ()))):
            part = self.by_id.get(part_id)
            if part is None or part_id in seen or len(way) >= REACH_MAX:
                continue
            seen.add(part_id)
            if part.kind == "UAVariable":
                yield (*way, part.name), part
            elif part.kind == "UAObject":
                yield from self._walk(part, (*way, part.name), below, seen)

    def foreign(self, object_type: str) -> list[str]:
        """Supertypes of it that are in other files, by NodeId."""
        node, seen = self._type(object_type), set[str]()
        while node is not None and node.id not in seen:
            seen.add(node.id)
            if node.supertype and node.supertype not in self.by_id:
                return [node.supertype]
            node = self.by_id.get(node.supertype)
        return []

    def _type(self, name: str) -> _Node | None:
        types = (n for n in self.by_id.values() if n.kind == "UAObjectType" and n.name == name)
        return next(types, None)


def _node_of(kind: str, attributes: Mapping[str, str]) -> _Node:
    return _Node(
        id=attributes.get("NodeId", ""),
        kind=kind,
        name=attributes.get("BrowseName", "").rpartition(":")[2],
        parent=attributes.get("ParentNodeId", ""),
        data_type=attributes.get("DataType", ""),
        is_list=attributes.get("ValueRank", "-1") not in ("-1", ""),
    )


def _unit_said(said: Mapping[str, str]) -> str:
    """The unit of an EUInformation: by its text, else by its code; "" when neither is known."""
    text = said.get("DisplayName", "")
    if text and parse_unit(text) is not None:
        return text
    number = said.get("UnitId", "")
    if not re.fullmatch(r"\d{1,10}", number):
        return ""
    code = int(number).to_bytes(8, "big").lstrip(b"\0").decode("ascii", "replace")
    return _CODES.get(code, "")


def _too_much(what: str) -> Refused:
    return Refused("APPS-2121", f"the file has {what}", "Give the file of one specification.")
