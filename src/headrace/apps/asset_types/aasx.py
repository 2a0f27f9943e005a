"""Assets and asset types as one AASX file (IDTA 01005-3-0: shells and submodels in an OPC package), and back.

What is written holds the environment as JSON. What is read may hold it as JSON or XML, in several parts; files
beside it (manuals, pictures) have no place in a site file and are told by name. A reader trusts nothing: counts
and sizes are checked before anything is unpacked, and no XML with a document type is parsed.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any, Final

from basyx.aas import model as aas
from basyx.aas.adapter import aasx
from basyx.aas.adapter.xml import read_aas_xml_file

from headrace.apps.asset_types.aas import (
    FILE_BYTES_MAX,
    AasContent,
    content_of,
    environment,
    parse_json,
)
from headrace.model.errors import Misconfigured, Refused
from headrace.site.model import SiteModel

SUFFIX: Final = ".aasx"
PARTS_MAX: Final = 2_000
_DATA: Final = "/aasx/data.json"
_NAMESPACE: Final = (b"https://admin-shell.io/aas/3/0", b"https://admin-shell.io/aas/3/1")
"""Version 3.1 only adds to 3.0 (IDTA 01001-3-1, change log), and the parser knows the newer name alone."""
_WRONG: Final = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError, OSError, EOFError,
    NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, aas.AASConstraintViolation,
)  # fmt: skip
"""What zip, OPC and AAS parsers raise for a file that is none; lxml's errors are SyntaxErrors."""


def is_aasx(content: bytes) -> bool:
    """Whether some bytes are a zip, as an AASX file is and JSON never.

    Example:
        >>> is_aasx(b"PK\\x03\\x04"), is_aasx(b"{}")
        (True, False)
    """
    return content.startswith(b"PK")


def aasx_bytes(model: SiteModel) -> bytes:
    """All assets and asset types of a site as an AASX file."""
    out = io.BytesIO()
    with aasx.AASXWriter(out, failsafe=False) as writer:
        files = aasx.DictSupplementaryFileContainer()  # type: ignore[no-untyped-call] # of basyx
        writer.write_all_aas_objects(_DATA, environment(model), files, write_json=True)
    return out.getvalue()


def read_aasx(content: bytes) -> AasContent:
    """What an AASX file has for a site.

    Raises:
        Refused: APPS-2131 when it is too large, packed too tightly or nested too deeply; APPS-2160 when it
            has XML with a document type.
        Misconfigured: APPS-2132 when it is no AASX file.
    """
    if len(content) > FILE_BYTES_MAX:
        raise Refused("APPS-2131", "the file has over 32 MB", "Export fewer assets at once.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_entries(archive)
        with aasx.AASXReader(io.BytesIO(content), failsafe=False) as package:
            found, parts = _read(package)
            beside = sorted(_files(package) - parts)
    except _WRONG as error:
        what = f"this is no AASX file: {error}"
        raise Misconfigured("APPS-2132", what, "Export it as AASX of version 3.") from error
    return content_of(found, [f"File {name}: it has no place in a site file" for name in beside])


def _check_entries(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    if len(entries) > PARTS_MAX or sum(entry.file_size for entry in entries) > FILE_BYTES_MAX:
        raise Refused(
            "APPS-2131",
            f"the file has over {PARTS_MAX:,} parts or unpacks to over 32 MB",
            "Export fewer assets at once, without their documents.",
        )
    for entry in entries:
        if entry.filename.endswith((".rels", "[Content_Types].xml")):
            _check_xml(entry.filename, archive.read(entry))


def _check_xml(name: str, content: bytes) -> None:
    """A document type can name other files and grow without end; AAS and OPC have none (IDTA, ISO 29500-2)."""
    plain = content.replace(b"\0", b"").upper()  # also in UTF-16
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise Refused(
            "APPS-2160", f"{name[:80]} has a document type", "It was made to harm; do not use it."
        )


def _read(package: aasx.AASXReader) -> tuple[list[Any], set[str]]:
    """Shells and submodels, each id once, and the names of the parts that hold them."""
    found: dict[str, Any] = {}
    (origin,) = package.reader.get_related_parts_by_type()[aasx.RELATIONSHIP_TYPE_AASX_ORIGIN]
    parts: list[str] = []
    for part in package.reader.get_related_parts_by_type(origin)[aasx.RELATIONSHIP_TYPE_AAS_SPEC]:
        split = package.reader.get_related_parts_by_type(part)
        parts += [part, *split[aasx.RELATIONSHIP_TYPE_AAS_SPEC_SPLIT]]
    if not parts:
        raise ValueError("it has no shells and submodels")
    for part in dict.fromkeys(parts):
        with package.reader.open_part(part) as stream:
            content = stream.read()
        kind = package.reader.get_content_type(part)
        for each in _parsed(part, kind, content):
            found.setdefault(each.id, each)
    return list(found.values()), {origin, *parts}


def _parsed(part: str, kind: str, content: bytes) -> list[Any]:
    if "json" in kind or (not kind and part.endswith(".json")):
        return list(parse_json(content))
    _check_xml(part, content)
    content = content.replace(*_NAMESPACE)
    return list(read_aas_xml_file(io.BytesIO(content), failsafe=False))


def _files(package: aasx.AASXReader) -> set[str]:
    """Parts that are neither of the package's own making nor facts about the file."""
    return {
        name
        for name in package.reader.list_items()
        if not name.startswith(("/[", "/docProps/")) and not name.endswith(".rels")
    }
