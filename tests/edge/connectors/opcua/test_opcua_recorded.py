"""Recorded traffic of other people's stacks, and other people's byte vectors, through our codec."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import (
    extensionobject_from_binary,
    extensionobject_to_binary,
    nodeid_from_binary,
    nodeid_to_binary,
    struct_from_binary,
    struct_to_binary,
)

from data import data_folder
from headrace.edge.connectors.opcua.decode import (
    NO_TIME,
    Undecodable,
    Values,
    decode_publish,
    decode_read,
)
from headrace.model.time import to_us
from pcap import tcp_streams

CAPTURES = (
    "open62541_browse_request_with_results",
    "open62541_client-server-getEndpoints",
    "open62541_client-server_mainloop",
    "open62541_client-server_minimal",
    "open62541_create_monitored_items",
    "python_opcua-client-server_minimal",
)
PUBLISH = ua.ObjectIds.PublishResponse_Encoding_DefaultBinary
READ = ua.ObjectIds.ReadResponse_Encoding_DefaultBinary
SERVICES = {
    number: name.removesuffix("_Encoding_DefaultBinary")
    for number, name in ua.ObjectIdNames.items()
    if name.endswith("_Encoding_DefaultBinary")
}


def messages(stream: bytes) -> list[bytes]:
    """Bodies of a direction's messages, chunks put together (OPC 10000-6, 6.7.2; no security)."""
    bodies: list[bytes] = []
    parts: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(stream):
        kind, chunk, size = struct.unpack_from("<3scI", stream, at)
        if kind in (b"MSG", b"CLO"):
            request = struct.unpack_from("<I", stream, at + 20)[0]
            parts[request] = parts.get(request, b"") + stream[at + 24 : at + size]
            if chunk == b"F":
                bodies.append(parts.pop(request))
        at += size
    assert at == len(stream), "the capture ends inside a message"
    return bodies


def bodies_of(capture: str, *, from_server: bool) -> list[bytes]:
    found: list[bytes] = []
    for (_, source, _, _), data in tcp_streams(
        data_folder("pcaps") / "opcua" / f"{capture}.pcap"
    ).items():
        if (source == 4840) == from_server:
            found += messages(data)
    return found


def service(body: bytes) -> str:
    return SERVICES[nodeid_from_binary(Buffer(body)).Identifier]


def assert_same(values: Values, wanted: list[ua.DataValue]) -> None:
    assert len(values) == len(wanted)
    unusual = dict(values.unusual)
    for i, data_value in enumerate(wanted):
        at = data_value.SourceTimestamp
        assert values.source_us[i] == (to_us(at) if at is not None else NO_TIME)
        code = data_value.StatusCode
        assert values.status[i] == (code.value if code is not None else 0)
        plain = data_value.Value.Value if data_value.Value is not None else None
        if i in unusual:
            got = unusual[i]
            assert (got.Value if isinstance(got, ua.Variant) else got) == plain
        elif plain is None:
            assert values.is_null[i]
        else:
            assert values.value[i] == plain


@pytest.mark.parametrize("capture", CAPTURES)
def test_every_answer_of_a_capture_is_decoded_or_refused(capture: str) -> None:
    bodies = bodies_of(capture, from_server=True)
    assert bodies
    for body in bodies:
        kind = nodeid_from_binary(Buffer(body)).Identifier
        if kind == PUBLISH:
            response = struct_from_binary(ua.PublishResponse, Buffer(body))
            if not response.ResponseHeader.ServiceResult.is_good():
                with pytest.raises(ua.UaStatusCodeError, match="BadNoSubscription"):
                    decode_publish(body)
                continue
            ours = decode_publish(body)
            message = response.Parameters
            assert ours.sequence_number == message.NotificationMessage.SequenceNumber
            changes = [
                n
                for n in message.NotificationMessage.NotificationData or []
                if isinstance(n, ua.DataChangeNotification)
            ]
            assert len(ours.values) == len(changes)
            for values, change in zip(ours.values, changes, strict=True):
                assert values.handle.tolist() == [i.ClientHandle for i in change.MonitoredItems]
                assert_same(values, [item.Value for item in change.MonitoredItems])
        elif kind == READ:
            wanted = struct_from_binary(ua.ReadResponse, Buffer(body)).Results
            assert_same(decode_read(body), wanted)
        else:
            for decode in (decode_publish, decode_read):
                with pytest.raises(Undecodable, match="expected i="):
                    decode(body)


def test_counts_equal_the_reference_decode() -> None:
    """open62541_client-server_mainloop against Zeek's log of the same capture."""
    capture = "open62541_client-server_mainloop"
    log = data_folder("pcaps") / "expected" / capture / "opcua_binary.log"
    wanted: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        if not line.startswith("#"):
            wanted.update(
                word
                for word in line.split("\t")
                if word.endswith(("Request", "Response")) and not word.startswith("OpenSecure")
            )
    ours = Counter(
        service(body)
        for from_server in (True, False)
        for body in bodies_of(capture, from_server=from_server)
    )
    assert ours == wanted
    assert ours["PublishResponse"] == 11


def vectors() -> list[tuple[str, bytes, str, int]]:
    """(name, bytes, root type, extension id) of the PLC4X suite."""
    [path] = data_folder("plc4x_testsuites").joinpath("opcua").glob("*.xml")
    cases = ElementTree.parse(path).getroot().findall("testcase")
    return [
        (
            case.findtext("name", ""),
            bytes.fromhex("".join(case.findtext("raw", "").split())),
            case.findtext("root-type", ""),
            int(case.findtext("parser-arguments/extensionId", "0")),
        )
        for case in cases
    ]


def test_plc4x_vectors_decode_and_encode_to_the_same_bytes() -> None:
    seen: list[str] = []
    for name, raw, root, extension in vectors():
        buffer = Buffer(raw)
        if root == "ExpandedNodeId":
            assert bytes(nodeid_to_binary(nodeid_from_binary(buffer))) == raw, name
        elif root == "ExtensionObject":
            decoded = extensionobject_from_binary(buffer)
            assert isinstance(decoded, ua.DataChangeNotification)
            # asyncua makes an absent status Good, and would write it out; absent is Good anyway.
            for item in decoded.MonitoredItems:
                item.Value = replace(item.Value, StatusCode=None)
            assert bytes(extensionobject_to_binary(decoded)) == raw, name
            _check_data_change(raw, decoded)
        else:
            class_name = ua.ObjectIdNames[extension]
            kind = getattr(ua, class_name.removesuffix("_Encoding_DefaultBinary"))
            # A vector is the body behind the type id, which our structures hold themselves.
            type_id = ua.NodeId(
                ua.ObjectIds.__dict__.get(f"{kind.__name__}_Encoding_DefaultBinary")
            )
            full = bytes(nodeid_to_binary(ua.FourByteNodeId(type_id.Identifier))) + raw
            has_type = "TypeId" in kind.__dataclass_fields__
            decoded = struct_from_binary(kind, Buffer(full) if has_type else buffer)
            encoded = bytes(struct_to_binary(decoded))
            assert encoded == (full if has_type else raw), name
        seen.append(name)
    assert len(seen) == 6


def _check_data_change(raw: bytes, decoded: ua.DataChangeNotification) -> None:
    """Our own decoder on the same notification, wrapped into a PublishResponse."""
    response = ua.PublishResponse()
    response.Parameters.NotificationMessage.NotificationData = [decoded]
    body = bytes(struct_to_binary(response))
    assert raw in body
    [values] = decode_publish(body).values
    assert values.handle.tolist() == [item.ClientHandle for item in decoded.MonitoredItems]
    assert_same(values, [item.Value for item in decoded.MonitoredItems])


def test_the_captures_are_there() -> None:
    folder = data_folder("pcaps") / "opcua"
    assert {path.stem for path in Path(folder).glob("*.pcap")} == set(CAPTURES)
