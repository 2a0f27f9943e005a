"""The bytes of a package: a zip whose entries are stored as they are, in the order of their names.

Nothing is compressed and no time is kept, so that the same files are the same bytes on every machine; and an
entry can never be larger than the file that it came in, so that there are no zip bombs. A reader trusts
nothing: names, counts and sizes are checked before a byte is used.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Mapping
from typing import Final

from headrace.model.errors import Corrupt, Refused

PACKAGE_BYTES_MAX: Final = 64 * 1024 * 1024
FILES_MAX: Final = 2_000
NAME_MAX: Final = 200
DEPTH_MAX: Final = 8
_TOKEN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FIRST: Final = (1980, 1, 1, 0, 0, 0)


def is_safe(name: str) -> bool:
    """Whether a name leads to a file below a folder, on every system.

    Example:
        >>> [is_safe(each) for each in ("views/pump.toml", "../pump.toml", "/etc/passwd", "a//b")]
        [True, False, False, False]
    """
    tokens = name.split("/")
    return (
        len(name) <= NAME_MAX
        and len(tokens) <= DEPTH_MAX
        and all(_TOKEN.fullmatch(each) and each[-1] != "." for each in tokens)
        and not any(_RESERVED.fullmatch(each) for each in tokens)
    )


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """Name -> content as one zip; equal files give equal bytes.

    Raises:
        Refused: APPS-2021 when they are too many or too large, APPS-2022 for a name that some system
            could not keep.
    """
    _check_names(list(files))
    _check_size(sum(len(content) for content in files.values()))
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _FIRST)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    content = body.getvalue()
    _check_size(len(content))
    return content


def read_archive(content: bytes) -> dict[str, bytes]:
    """Name -> content of a package's files.

    Raises:
        Corrupt: APPS-2020 when it is no package or is damaged.
        Refused: APPS-2021 when it is too large or has too many files, APPS-2022 for a name that leads
            elsewhere, APPS-2023 for an entry that is no plain stored file, APPS-2024 for a name that is
            there twice.
    """
    _check_size(len(content))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check_names([entry.filename for entry in entries])
            for entry in entries:
                _check_entry(entry)
            if sum(entry.file_size for entry in entries) > len(content):
                raise Refused(
                    "APPS-2021",
                    "the entries of the package are larger than the package",
                    "It was made to harm; do not use it.",
                )
            return {entry.filename: archive.read(entry) for entry in entries}
    except (
        zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, OverflowError
    ) as error:  # fmt: skip
        raise Corrupt(
            "APPS-2020", f"this is no package, or it is damaged: {error}", "Fetch it again."
        ) from error


def _check_size(size: int) -> None:
    if size > PACKAGE_BYTES_MAX:
        raise Refused(
            "APPS-2021",
            f"the package has {size:,} bytes",
            f"A package has at most {PACKAGE_BYTES_MAX:,}; keep large data elsewhere.",
        )


def _check_names(names: list[str]) -> None:
    if len(names) > FILES_MAX:
        raise Refused(
            "APPS-2021", f"the package has {len(names):,} files", f"At most {FILES_MAX:,}."
        )
    seen: dict[str, str] = {}
    for name in names:
        if not is_safe(name):
            raise Refused(
                "APPS-2022",
                f"the package has a file with the name {name[:80]!r}",
                "Names are of A-Z a-z 0-9 _ . + and -, below the package's own folder.",
            )
        if name.lower() in seen:
            raise Refused(
                "APPS-2024",
                f"the package has {name!r} twice (as {seen[name.lower()]!r})",
                "Names differ by more than capitals.",
            )
        seen[name.lower()] = name
    for name in names:
        parts = name.lower().split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise Refused(
                    "APPS-2024",
                    f"the package has a file and a folder of the name {'/'.join(parts[:depth])!r}",
                    "Rename one of the two.",
                )


def _check_entry(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    is_plain = kind in (0, stat.S_IFREG) and entry.compress_type == zipfile.ZIP_STORED
    if not is_plain or entry.flag_bits & 0x1 or entry.file_size != entry.compress_size:
        raise Refused(
            "APPS-2023",
            f"{entry.filename!r} in the package is no plain stored file",
            "Packages hold neither links nor compressed or encrypted files: headrace app pack",
        )
