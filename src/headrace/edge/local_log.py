"""The log of what stays on this edge: bounded files of batches, oldest removed first.

``<data>/local/<connection>/<number>.log`` holds records ``length, CRC-32, batch`` (the envelope of the bus).
A record is in the file when :meth:`LocalLog.keep` returns, so it outlives a kill of the edge; the system
writes it to disk within seconds, so the last of them may be lost in a power cut. A torn record at the end
is not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from headrace.bus import envelope
from headrace.model.errors import Corrupt, Transient
from headrace.model.ids import check_name
from headrace.security.files import make_folder

SEGMENT_BYTES: Final = 8 << 20
KEEP_BYTES_MAX: Final = 256 << 20
_HEAD: Final = struct.Struct("<II")


class LocalLog:
    """The log of one connection's samples that stay.

    Args:
        folder: ``<data>/local/<connection>``.
        bytes_max: how much is kept at the most.
    """

    def __init__(self, folder: Path, bytes_max: int = KEEP_BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        make_folder(folder, 0o700)
        known = _segments(folder)
        self._number = (int(known[-1].stem) + 1) if known else 1

    def keep(self, batch: pl.DataFrame) -> None:
        """Append samples.

        Raises:
            Transient: EDGE-1506 when the disk does not take them.
        """
        body = envelope.encode(batch)
        path = self._folder / f"{self._number:012d}.log"
        try:
            with path.open("ab") as file:
                file.write(_HEAD.pack(len(body), zlib.crc32(body)) + body)
                size = file.tell()
            if size >= SEGMENT_BYTES:
                self._number += 1
                self._trim()
        except OSError as error:
            raise Transient(
                "EDGE-1506",
                f"samples that stay on this edge cannot be kept in {self._folder}: {error.strerror}",
                "See the disk of the edge's machine.",
            ) from error

    def _trim(self) -> None:
        segments = _segments(self._folder)
        sizes = [path.stat().st_size for path in segments]
        while len(sizes) > 1 and sum(sizes) > self._bytes_max - SEGMENT_BYTES:
            segments.pop(0).unlink()
            sizes.pop(0)


def read_local(folder: Path) -> Iterator[pl.DataFrame]:
    """The batches of a connection's log, oldest first; a torn end is left out.

    Raises:
        Corrupt: EDGE-1507 when a record inside is damaged.
    """
    segments = _segments(folder)
    for path in segments:
        body = path.read_bytes()
        at = 0
        while at + _HEAD.size <= len(body):
            length, crc = _HEAD.unpack_from(body, at)
            record = body[at + _HEAD.size : at + _HEAD.size + length]
            at += _HEAD.size + length
            if len(record) < length:
                break  # being written, or a power cut
            if zlib.crc32(record) != crc:
                raise Corrupt("EDGE-1507", f"{path} is damaged", "Remove it; the others are read.")
            yield envelope.decode(record)


def local_folder(root: Path, connection: str) -> Path:
    """Where the samples of a connection stay, below the data folder ``root``."""
    return root / "local" / check_name(connection, "connection")


def _segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.log") if path.stem.isdigit())
