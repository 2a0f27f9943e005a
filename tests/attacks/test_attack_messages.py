"""Attacks by what comes in: batches, headers, spreadsheets, site files, payloads of devices. No site needed."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from attack_log import attack

from headrace.alarms.notify.robots import Request
from headrace.alarms.notify.sending import post, resolve_secret
from headrace.bus import envelope
from headrace.edge.connectors.mqtt.columns import Columns
from headrace.edge.connectors.mqtt.config import MqttOptions
from headrace.edge.connectors.mqtt.payload import JsonDecoder
from headrace.edge.connectors.sparkplug.schema import Payload
from headrace.edge.connectors.sparkplug.wire import decode_runs
from headrace.model.desired import TagConfig
from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.ledger import decode_runs as decode_cells
from headrace.model.notify import ChannelConfig
from headrace.model.sample import make_batch
from headrace.site.file import SiteFiles, check_site
from headrace.site.tag_table import read_tag_table

TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def workbook(sheet: str, *, prolog: str = "", parts: int = 0) -> bytes:
    """An XLSX archive with one sheet of these rows, written by hand: what no program would write."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{TYPES}"><Default Extension="xml" ContentType="application/xml"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>'
            '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{OFFICE}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>',
        )
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as part:
            part.write(f'{prolog}<worksheet xmlns="{MAIN}"><sheetData>{sheet}'.encode())
            for _ in range(parts):
                part.write(b" " * (1 << 20))
            part.write(b"</sheetData></worksheet>")
    return body.getvalue()


def row(number: int, *cells: tuple[str, str]) -> str:
    inner = "".join(f'<c r="{at}" t="inlineStr"><is><t>{text}</t></is></c>' for at, text in cells)
    return f'<row r="{number}">{inner}</row>'


HEADER = row(1, ("A1", "path"), ("B1", "unit"))


def test_an_honest_workbook_is_read() -> None:
    """What the attacks below are variants of does work."""
    found = read_tag_table("t.xlsx", workbook(HEADER + row(2, ("A2", "a/b"), ("B2", "m"))))
    assert found.columns == {"path": ["a/b"], "unit": ["m"]}


def is_refused(content: bytes, name: str = "t.xlsx") -> None:
    with pytest.raises(Misconfigured, match="SITE-1017"):
        read_tag_table(name, content)


@attack(
    "files/spreadsheet with a cell in the last corner",
    tries="uploads 1.4 kB of XLSX with one cell in row 1,048,576 and column XFD",
    stops="what a sheet spans is counted before the reader lays it out; at most five million cells",
    stride="D",
    requirement="SR 7.2",
)
def test_a_sheet_that_spans_everything() -> None:
    is_refused(workbook(HEADER + row(1_048_576, ("XFD1048576", "x"))))
    is_refused(workbook(HEADER + row(9, ("ZZZZZZ9", "x"))))
    is_refused(workbook(HEADER + '<row r="4000000000"><c><v>1</v></c></row>'))


@attack(
    "files/ZIP bomb",
    tries="uploads a spreadsheet of 300 kB that unpacks to 300 MB",
    stops="the archive is unpacked piece by piece up to 192 MB before the reader gets it",
    stride="D",
    requirement="SR 7.2",
)
def test_a_zip_bomb() -> None:
    content = workbook(HEADER, parts=200)
    assert len(content) < 400_000
    is_refused(content)


@attack(
    "files/XML entities",
    tries="has a sheet read /etc/passwd, or grow a billionfold, by entities of its XML",
    stops="a part that declares entities is refused",
    stride="I",
    requirement="SR 3.5",
)
def test_xml_entities() -> None:
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    is_refused(workbook(row(1, ("A1", "path&a;")), prolog=outside))
    laughs = "".join(
        f'<!ENTITY a{n} "{("&a" + str(n - 1) + ";") * 10}">' if n else '<!ENTITY a0 "ha">'
        for n in range(10)
    )
    is_refused(workbook(row(1, ("A1", "&a9;")), prolog=f"<!DOCTYPE x [{laughs}]>"))


@attack(
    "files/archive that is none",
    tries="uploads a cut archive, one with a wrong checksum, two parts of one name, another format as .xlsx",
    stops="the archive is read through before it is used; each flaw is told",
    stride="T",
    requirement="SR 3.5",
)
def test_damaged_archives() -> None:
    good = workbook(HEADER)
    for content in (
        b"",
        b"PK\x03\x04",
        good[:-30],
        good[: len(good) // 2],
        b"\xd0\xcf\x11\xe0" * 200,
    ):
        is_refused(content)
    at = good.index(b"sheet1.xml") + 40
    is_refused(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
    for name in ("t.xls", "t.ods", "t.xlsm"):
        is_refused(b"\xd0\xcf\x11\xe0" * 200, name)


@attack(
    "files/CSV that never ends a cell",
    tries="uploads lists with open quotes, NUL bytes, a million separators, a cell of 200 kB",
    stops="lists are read strictly; a cell has a most",
    stride="D",
    requirement="SR 3.5",
)
def test_hostile_csv() -> None:
    for content in (b'path,unit\n"a', b"path\0,unit\n", b"path,unit\n" + b"," * 100_000 + b"x"):
        is_refused(content, "t.csv")
    is_refused(b"path,unit\n" + b'"' + b"a" * 200_000 + b'",m\n', "t.csv")


@attack(
    "files/path out of the site's folder",
    tries="names /etc/passwd, ../../ and Windows paths as tag lists of the site file",
    stops="a tag list lies in the site file's folder; other paths are refused before they are opened",
    stride="I",
    requirement="SR 2.1",
)
def test_tag_lists_lie_in_the_folder(tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "a/../../../etc/passwd", "C:/x", "..\\\\x"):
        text = f'[site]\nenterprise = "a"\nname = "b"\ntag_files = ["{name}"]\n'
        model, problems = check_site(
            SiteFiles(tmp_path / "site.toml", {"site.toml": text.encode()})
        )
        assert model is None and problems[0].code in ("SITE-1005", "SITE-1002"), name


@attack(
    "files/the platform's own keys as a secret",
    tries="names run/broker.json or a path out of the folder as the password of a mail server of his own",
    stops="secrets come from the data folder, and never from the platform's own places in it",
    stride="I",
    requirement="SR 1.5",
)
def test_secrets_are_none_of_our_own_files(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "broker.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "run" / "broker.json")
    for name in ("run/broker.json", "secrets/../run/broker.json", "link", "../x", "/etc/passwd"):
        with pytest.raises(Misconfigured, match="ALARM-2004"):
            resolve_secret(f"file:{name}", tmp_path)


@attack(
    "files/webhook to the machine's own credentials",
    tries="gives 169.254.169.254, where clouds tell a machine its keys, as the address of a webhook",
    stops="link-local, multicast and empty addresses get no request; redirects are never followed",
    stride="I",
    requirement="SR 5.2",
)
async def test_a_webhook_does_not_reach_beside_the_network() -> None:
    channel = ChannelConfig(name="c", kind="webhook", timeout_s=1)
    for host in (
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "0.0.0.0",
        "224.0.0.1",
    ):
        outcome = await post(channel, Request(f"http://{host}/latest", {}, b"{}"), "", None)
        assert (outcome.result, outcome.code) == ("refused", "url"), host


def batch_body(rows: int = 400) -> bytes:
    numbers = np.arange(rows)
    return envelope.encode(make_batch(numbers, numbers, numbers / 7.0, received_timestamp_us=5))


@attack(
    "messages/batch that makes the decoder panic",
    tries="puts a damaged Arrow stream into the log, at which Polars panics past every except",
    stops="a panic is caught where bytes become a batch; the message is told as corrupt and passed over",
    stride="D",
    requirement="SR 3.5",
)
def test_damaged_batches_are_corrupt_and_nothing_else() -> None:
    good, dice = batch_body(), np.random.default_rng(7)
    outcomes = set()
    for _ in range(1_200):
        body = bytearray(good)
        for _ in range(int(dice.integers(1, 6))):
            body[int(dice.integers(0, 1_500))] = int(dice.integers(0, 256))
        try:
            envelope.decode(bytes(body))
            outcomes.add("read")
        except Corrupt as error:
            outcomes.add(error.code)
    assert "BUS-1001" in outcomes and outcomes <= {"BUS-1001", "MODEL-1001", "read"}


@attack(
    "messages/batch with lying lengths",
    tries="states lengths of a terabyte, of -1 and of 2^63 for the buffers of a batch",
    stops="the decoder believes the bytes and not the stated length; memory stays bounded",
    stride="D",
    requirement="SR 7.2",
)
def test_lying_lengths() -> None:
    good = batch_body()
    at = good.index(b"\x04\x22\x4d\x18") - 8
    for length in (1 << 40, -1, -2, (1 << 63) - 1, 1 << 33):
        body = good[:at] + struct.pack("<q", length) + good[at + 8 :]
        try:
            assert envelope.decode(body).height == 400
        except Corrupt as error:
            assert error.code == "BUS-1001"


@attack(
    "messages/compression bomb",
    tries="sends 200 kB that unpack to 200 MB",
    stops="unpacking ends at 64 MB, and half a stream is no batch",
    stride="D",
    requirement="SR 7.2",
)
def test_a_compression_bomb() -> None:
    bomb = envelope.PACKED_MARK + zlib.compress(bytes(200 << 20), 9)
    assert len(bomb) < 300_000
    with pytest.raises(Corrupt, match="BUS-1001"):
        envelope.decode(bomb)


@attack(
    "messages/numbers in headers",
    tries="writes 5,000 digits, other scripts' digits and minutes beyond 64 bits into a frame's headers",
    stops="numbers in headers are ASCII digits, at most eighteen of them",
    stride="D",
    requirement="SR 3.5",
)
def test_numbers_in_headers() -> None:
    for text in ("9" * 5_000, "²", "१२", "-1", "1e9", " 1"):
        assert envelope.number_of(text) == 0
        with pytest.raises(Corrupt, match="BUS-1003"):
            envelope.parse_sequence({envelope.HEADER_SEQUENCE: f"{text}/1"})
        with pytest.raises(Corrupt, match="MODEL-1701"):
            decode_cells(f"5.{text}.g.0.1")
    with pytest.raises(Corrupt, match="MODEL-1701"):
        decode_cells("5.99999999999999999.g.0.1")


@attack(
    "messages/JSON bombs over MQTT",
    tries="publishes JSON 100,000 levels deep, numbers of 5,000 digits, NaN, half a character",
    stops="what is no JSON is a notice, never an exception; a value that is none is a Bad sample",
    stride="D",
    requirement="SR 3.5",
)
def test_json_bombs_over_mqtt() -> None:
    tag = TagConfig(tag_id=1, path="a/b", address="t#/a")
    decoder = JsonDecoder("c", [tag], MqttOptions())
    for body in (
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"a":1e999}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"' + b"x" * 1_000_000 + b'"}',
        b"\0" * 1_000,
    ):
        columns = Columns()
        decoder.decode("t", body, False, 5, columns)
        assert columns.take().height <= 1


@attack(
    "messages/Sparkplug bombs",
    tries="publishes payloads with lengths that lie, metrics within metrics, varints without end",
    stops="the fast decoder gives up and the protobuf runtime refuses; nothing is half taken",
    stride="D",
    requirement="SR 3.5",
)
def test_sparkplug_bombs() -> None:
    from google.protobuf.message import DecodeError

    nested = b""
    for _ in range(2_000):
        length = len(nested)
        varint = bytearray()
        while length > 127:
            varint.append(length & 127 | 128)
            length >>= 7
        nested = b"\x12" + bytes([*varint, length]) + nested
    for body in (
        b"\x12\xff\xff\xff\xff\x07" * 400,
        b"\xff" * 2_000,
        b"\x08" + b"\xff" * 1_000,
        nested,
        b"\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01" * 200,
    ):
        assert decode_runs(body) is None
        try:
            Payload.FromString(body)
        except DecodeError:
            pass


@attack(
    "files/site file as a bomb",
    tries="puts a site file in force that is 40,000 levels deep, has 100,000 tables, or dates out of range",
    stops="a file that is no TOML, or not ours, is told with its line; nothing is changed",
    stride="D",
    requirement="SR 3.5",
)
def test_site_file_bombs(tmp_path: Path) -> None:
    for text in (
        "a = " + "[" * 5_000,
        "a = " + "{b=" * 5_000,
        "[" + ".".join(["a"] * 5_000) + "]",
        "\n".join(f"[x{n}]" for n in range(2_000)),
        "a = 99999-99-99",
        "a = " + "9" * 5_000,
        "a = 0x" + "f" * 10_000,
        '[site]\nenterprise = "a"\nname = "b"\ntime_zone = "../../etc/passwd"\n',
    ):
        files = SiteFiles(tmp_path / "site.toml", {"site.toml": text.encode()})
        model, problems = check_site(files)
        assert model is None and problems[0].code, text[:30]
    assert json.dumps(list(tmp_path.iterdir())) == "[]"
