"""What stands below a node, ready to become tags (OPC 10000-4, 5.9.2)."""

from __future__ import annotations

import re
from typing import Any, Final

from asyncua import ua

from headrace.edge.connectors.opcua.address import parse_address
from headrace.edge.connectors.opcua.samples import Shape, scalar
from headrace.edge.connectors.opcua.session import DRIVER_ERRORS, Session
from headrace.edge.contract import BrowseItem
from headrace.model.errors import HeadraceError, Misconfigured

ITEMS_MAX: Final = 1000
VALUE_TEXT_MAX: Final = 80
_BATCH: Final = 200
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_ATTRIBUTES: Final = (
    ua.AttributeIds.DataType,
    ua.AttributeIds.ValueRank,
    ua.AttributeIds.UserAccessLevel,
    ua.AttributeIds.Value,
)


async def browse(session: Session, address: str) -> list[BrowseItem]:
    """The children of a node, at most 1,000; "" is the Objects folder.

    Raises:
        Misconfigured: EDGE-2009 no address, EDGE-2020 the server does not know the node.
        Transient: the server does not answer.
    """
    parent = await _parent(session, address)
    try:
        references = await _references(session, parent)
        variables = [r for r in references if r.NodeClass == ua.NodeClass.Variable]
        details: dict[int, BrowseItem] = {}
        for start in range(0, len(variables), _BATCH):
            part = variables[start : start + _BATCH]
            for reference, item in zip(part, await _variables(session, part), strict=True):
                details[id(reference)] = item
    except ua.UaStatusCodeError as error:
        raise _unknown(address, error.code) from error
    except DRIVER_ERRORS as error:
        raise session.explain(error, "cannot browse") from error
    return [details.get(id(r)) or _folder(r) for r in references]


async def _parent(session: Session, address: str) -> ua.NodeId:
    if not address:
        return ua.NodeId(ua.ObjectIds.ObjectsFolder)
    parsed = parse_address(address)
    node_id = await session.node_id(parsed.whole() if parsed.is_ambiguous else parsed)
    if node_id is None:
        raise _unknown(address, ua.StatusCodes.BadNodeIdUnknown)
    return node_id


def _unknown(address: str, code: int) -> HeadraceError:
    name = ua.status_codes.get_name_and_doc(code)[0]
    return Misconfigured(
        "EDGE-2020",
        f"the server cannot show what is below {address or 'Objects'} ({name})",
        "Start from the root again.",
    )


async def _references(session: Session, parent: ua.NodeId) -> list[ua.ReferenceDescription]:
    request = ua.BrowseRequest()
    request.Parameters.RequestedMaxReferencesPerNode = ITEMS_MAX
    request.Parameters.NodesToBrowse = [
        ua.BrowseDescription(
            NodeId=parent,
            BrowseDirection=ua.BrowseDirection.Forward,
            ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
            IncludeSubtypes=True,
            NodeClassMask=ua.NodeClass.Object | ua.NodeClass.Variable,
            ResultMask=ua.BrowseResultMask.All,
        )
    ]
    result = (await session.call(request, ua.BrowseResponse)).Results[0]
    result.StatusCode.check()
    found = list(result.References or [])
    while result.ContinuationPoint and len(found) < ITEMS_MAX:
        following = ua.BrowseNextRequest()
        following.Parameters.ContinuationPoints = [result.ContinuationPoint]
        result = (await session.call(following, ua.BrowseNextResponse)).Parameters.Results[0]
        result.StatusCode.check()
        found += result.References or []
    if result.ContinuationPoint:
        release = ua.BrowseNextRequest()
        release.Parameters.ReleaseContinuationPoints = True
        release.Parameters.ContinuationPoints = [result.ContinuationPoint]
        await session.call(release, ua.BrowseNextResponse)
    return found[:ITEMS_MAX]


async def _variables(
    session: Session, references: list[ua.ReferenceDescription]
) -> list[BrowseItem]:
    nodes = [_local(r.NodeId) for r in references]
    asked = [(node, attribute) for node in nodes for attribute in _ATTRIBUTES]
    answers = await session.read_attributes(asked)
    units = await _units(session, nodes)
    width = len(_ATTRIBUTES)
    items: list[BrowseItem] = []
    for i, (reference, node) in enumerate(zip(references, nodes, strict=True)):
        data_type, rank, access, value = answers[i * width : (i + 1) * width]
        is_array = isinstance(_plain(rank), int) and _plain(rank) >= 0
        items.append(
            BrowseItem(
                address=node.to_string(),
                name=_name(reference),
                data_type=_type_name(_plain(data_type), value) + ("[]" if is_array else ""),
                value=_value_text(value),
                unit=units.get(i, ""),
                proposed_path=_proposed_path(node, _name(reference)),
                writable=bool(int(_plain(access) or 0) & (1 << ua.AccessLevel.CurrentWrite)),
            )
        )
    return items


async def _units(session: Session, nodes: list[ua.NodeId]) -> dict[int, str]:
    """Texts of the EngineeringUnits properties (OPC 10000-8, 5.6.4), by position."""
    step = ua.RelativePathElement(
        ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasProperty),
        IsInverse=False,
        IncludeSubtypes=True,
        TargetName=ua.QualifiedName("EngineeringUnits", 0),
    )
    request = ua.TranslateBrowsePathsToNodeIdsRequest()
    request.Parameters.BrowsePaths = [
        ua.BrowsePath(StartingNode=node, RelativePath=ua.RelativePath(Elements=[step]))
        for node in nodes
    ]
    results = (await session.call(request, ua.TranslateBrowsePathsToNodeIdsResponse)).Results or []
    found = [(i, _local(r.Targets[0].TargetId)) for i, r in enumerate(results) if r.Targets]
    if not found:
        return {}
    answers = await session.read_attributes([(node, ua.AttributeIds.Value) for _, node in found])
    units: dict[int, str] = {}
    for (i, _), answer in zip(found, answers, strict=True):
        information = _plain(answer)
        if isinstance(information, ua.EUInformation):
            units[i] = information.DisplayName.Text or ""
    return units


def _folder(reference: ua.ReferenceDescription) -> BrowseItem:
    node = _local(reference.NodeId)
    return BrowseItem(
        address=node.to_string(),
        name=_name(reference),
        folder=True,
        proposed_path=_proposed_path(node, _name(reference)),
    )


def _local(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex)


def _plain(value: ua.DataValue) -> Any:
    return value.Value.Value if value.Value is not None else None


def _name(reference: ua.ReferenceDescription) -> str:
    return reference.DisplayName.Text or reference.BrowseName.Name or ""


def _type_name(data_type: object, value: ua.DataValue) -> str:
    if isinstance(data_type, ua.NodeId) and not data_type.NamespaceIndex:
        name = ua.ObjectIdNames.get(data_type.Identifier)
        if name:
            return str(name)
    kind = value.Value.VariantType.name if value.Value is not None else ""
    return "" if kind == "Null" else kind


def _value_text(value: ua.DataValue) -> str:
    plain = _plain(value)
    if isinstance(plain, list | tuple):
        return f"{len(plain)} values"
    try:
        number, text = scalar(plain)
    except Shape:
        return ""
    shown = text if text is not None else "" if number is None else f"{number:g}"
    return shown if len(shown) <= VALUE_TEXT_MAX else shown[: VALUE_TEXT_MAX - 1] + "…"


def _proposed_path(node: ua.NodeId, name: str) -> str:
    """The last two names that say where the node stands, as path tokens."""
    text = name
    if isinstance(node.Identifier, str) and name in node.Identifier:
        text = node.Identifier
    words = [_NOT_A_NAME.sub("_", word).strip("_")[:64] for word in re.split(r"[./|]", text)]
    return "/".join([word for word in words if word][-2:])
