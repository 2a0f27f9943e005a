"""Captured traffic of foreign devices: every PDU is decoded, or refused with a reason.

The reference decode of ``modbus_example.pcap`` are Zeek logs of the ICSNPP Modbus parser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from modbus_captures import directions

from data import data_folder
from headrace.edge.connectors.modbus.pdu import Pdu, PduError, decode_pdu, encode_pdu
from headrace.edge.connectors.modbus.protocol import Frame, FrameError, TcpFramer

PORT = 502
CAPTURES = {
    # name: PDUs decoded, PDUs refused, streams that are no Modbus
    "fuzz-72.pcap": (2, 11, 3),
    "modbusSmall.pcap": (32, 0, 0),
    "modbus_example.pcap": (48, 0, 0),
    "modbus_test.pcap": (2258, 0, 0),
    "modbus_test_data_part1.pcap": (34, 0, 2),
    "modbus_test_data_part2.pcap": (154, 127, 0),
}


def frames_of(file: Path) -> tuple[list[tuple[bool, Frame]], list[str]]:
    """(from the server, frame) of a capture, and why streams were given up."""
    frames: list[tuple[bool, Frame]] = []
    reasons: list[str] = []
    for (_, source, _, _), direction in directions(file, PORT).items():
        for chunk in direction.chunks:
            try:
                frames += [(source == PORT, frame) for frame in TcpFramer().feed(chunk)]
            except FrameError as error:
                reasons.append(str(error))
    return frames, reasons


def decoded_of(frames: list[tuple[bool, Frame]]) -> tuple[list[tuple[bool, Frame, Pdu]], list[str]]:
    """The decoded PDUs, each checked to encode to the same bytes, and the refusals."""
    decoded: list[tuple[bool, Frame, Pdu]] = []
    refused: list[str] = []
    for answer, frame in frames:
        try:
            pdu = decode_pdu(frame.pdu, answer=answer)
        except PduError as error:
            refused.append(str(error))
            continue
        assert encode_pdu(pdu, answer=answer) == frame.pdu
        decoded.append((answer, frame, pdu))
    return decoded, refused


@pytest.mark.parametrize("name", CAPTURES)
def test_every_pdu_is_decoded_or_refused_with_a_reason(name: str) -> None:
    frames, reasons = frames_of(data_folder("pcaps") / "modbus" / name)
    decoded, refused = decoded_of(frames)
    assert (len(decoded), len(refused), len(reasons)) == CAPTURES[name]
    assert all(refused) and all(reasons)


def test_a_manual_test_of_plc4x_is_decoded_whole() -> None:
    file = data_folder("plc4x_testsuites") / "modbus" / "tcp" / "manual-test-capture.pcapng"
    frames, reasons = frames_of(file)
    decoded, refused = decoded_of(frames)
    assert (len(decoded), refused, reasons) == (3030, [], [])


FUNCTIONS = {
    "READ_COILS": 1,
    "READ_DISCRETE_INPUTS": 2,
    "READ_HOLDING_REGISTERS": 3,
    "READ_INPUT_REGISTERS": 4,
    "WRITE_SINGLE_COIL": 5,
    "WRITE_SINGLE_REGISTER": 6,
    "READ_EXCEPTION_STATUS": 7,
    "DIAGNOSTICS": 8,
    "WRITE_MULTIPLE_COILS": 15,
    "WRITE_MULTIPLE_REGISTERS": 16,
    "REPORT_SLAVE_ID": 17,
    "READ_FILE_RECORD": 20,
    "WRITE_FILE_RECORD": 21,
    "MASK_WRITE_REGISTER": 22,
    "READ_WRITE_MULTIPLE_REGISTERS": 23,
    "READ_FIFO_QUEUE": 24,
    "ENCAP_INTERFACE_TRANSPORT": 43,
}


def zeek_rows(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of a Zeek log by field name."""
    lines = (folder / name).read_text().splitlines()
    names = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    return [
        dict(zip(names, line.split("\t"), strict=True))
        for line in lines
        if not line.startswith("#")
    ]


def numbers(text: str) -> list[int]:
    """A Zeek vector; T and F count as bits."""
    return [] if text == "-" else [int(each) for each in text.split(",")]


def values_of(pdu: Pdu, quantity: int) -> list[int]:
    """What a PDU's values mean: bits or registers."""
    if pdu.function in (5, 6):
        value = pdu.fields["value"]
        return [int(value == 0xFF00) if pdu.function == 5 else value]
    raw: bytes = pdu.fields.get("values", b"")
    if pdu.function in (1, 2, 15):
        return [raw[at // 8] >> at % 8 & 1 for at in range(min(quantity, 8 * len(raw)))]
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


def example() -> tuple[Path, dict[tuple[int, int, bool], Pdu]]:
    """The reference logs, and our decode by (transaction, unit, answer)."""
    pcaps = data_folder("pcaps")
    decoded, _ = decoded_of(frames_of(pcaps / "modbus" / "modbus_example.pcap")[0])
    found = {(frame.transaction, frame.unit, answer): pdu for answer, frame, pdu in decoded}
    assert len(found) == len(decoded)
    return pcaps / "expected" / "modbus_example", found


def test_our_decode_equals_the_zeek_log() -> None:
    folder, found = example()
    compared = 0
    for row in zeek_rows(folder, "modbus_detailed.log"):
        key = int(row["tid"]), int(row["unit"])
        ask, answer = found[(*key, False)], found[(*key, True)]
        assert ask.function == answer.function == FUNCTIONS[row["func"]]
        if answer.exception is not None:
            assert (answer.exception, row["exception_code"]) == (2, "ILLEGAL_DATA_ADDRESS")
        address = ask.fields.get("start", ask.fields.get("address"))
        if row["address"] != "-":
            assert address == int(row["address"])
        if row["func"] == "DIAGNOSTICS":
            assert ask.fields == answer.fields == {"subfunction": 2, "payload": b"\0\0"}
        if 1 <= ask.function <= 6 or ask.function in (15, 16):
            quantity = ask.fields.get("quantity", 1)
            assert quantity == int(row["quantity"])
            written, read = numbers(row["request_values"]), numbers(row["response_values"])
            if ask.function <= 4:  # Zeek keeps what was read in request_values of such rows
                assert values_of(answer, quantity) == written + read
            else:
                assert values_of(ask, quantity) == written
                if read:
                    assert values_of(answer, quantity) == read
        compared += 1
    assert compared == 26


def test_masks_and_combined_functions_equal_the_zeek_logs() -> None:
    folder, found = example()
    for row in zeek_rows(folder, "modbus_mask_write_register.log"):
        pdu = found[(int(row["tid"]), int(row["unit"]), row["request_response"] == "RESPONSE")]
        wanted = {name: int(row[name]) for name in ("address", "and_mask", "or_mask")}
        assert pdu.fields == wanted
    rows = zeek_rows(folder, "modbus_read_write_multiple_registers.log")
    assert len(rows) == 4
    for row in rows:
        answer = row["request_response"] == "RESPONSE"
        fields: dict[str, Any] = found[(int(row["tid"]), int(row["unit"]), answer)].fields
        raw = numbers(row["read_registers"] if answer else row["write_registers"])
        assert fields["values"] == b"".join(each.to_bytes(2, "big") for each in raw)
        if not answer:
            assert fields["write_start"] == int(row["write_start_address"])
            assert fields["read_start"] == int(row["read_start_address"])
            assert fields["read_quantity"] == int(row["read_quantity"])
