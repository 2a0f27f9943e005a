"""A device as it was recorded: what it has, what it showed when, how fast it answered, and what failed.

One ``.hrec`` file is a zip of ``device.json``, ``samples.parquet`` and ``exchanges.parquet``. It holds no
password: settings that are secret are left out.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from headrace.model.errors import Corrupt, Misconfigured
from headrace.security.files import write_whole

SAMPLES: Final = {
    "exchange": pl.Int64(),
    "point": pl.Int64(),
    "at_us": pl.Int64(),
    "received_us": pl.Int64(),
    "value": pl.Float64(),
    "text": pl.String(),
    "status": pl.UInt32(),
}
EXCHANGES: Final = {
    "at_us": pl.Int64(),
    "latency_us": pl.Int64(),
    "samples": pl.Int64(),
    "error": pl.String(),
}
PART_BYTES_MAX: Final = 1 << 30
_PARTS: Final = ("device.json", "samples.parquet", "exchanges.parquet")
_SECRET: Final = ("password", "secret", "token", "private", "key")


class RecordedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the device shows.

    Attributes:
        address: in the connector's grammar. data_type: the device's word for it; may be empty.
    """

    address: str
    name: str = ""
    data_type: str = ""
    unit: str = ""
    writable: bool = False


class RecordedDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded.

    Attributes:
        options: of the connection, without what is secret. started_us, seconds: by the recorder's clock.
        points: samples count in them.
    """

    protocol: str
    endpoint: str
    points: list[RecordedPoint]
    options: dict[str, Any] = {}
    started_us: int = 0
    seconds: float = 0.0
    format: int = 1


@dataclass(frozen=True)
class DeviceRecording:
    """A recording in memory.

    Attributes:
        samples: exchange (row of ``exchanges``), point, source time, arrival, value, text and status, in the
            order of arrival.
        exchanges: each read: when it was asked, how long the answer took, samples, and the error's text.
    """

    device: RecordedDevice
    samples: pl.DataFrame
    exchanges: pl.DataFrame

    @property
    def errors(self) -> int:
        """Reads that failed."""
        return int(self.exchanges["error"].is_not_null().sum())

    def save(self, path: Path) -> None:
        """Write the file whole, or not at all."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_PARTS[0], msgspec.json.encode(self.device, order="sorted"))
            for name, frame in zip(_PARTS[1:], (self.samples, self.exchanges), strict=True):
                part = io.BytesIO()
                frame.write_parquet(part)
                archive.writestr(name, part.getvalue())
        write_whole(path, out.getvalue(), mode=0o644)


def load_recording(path: Path) -> DeviceRecording:
    """Read a recorded device.

    Raises:
        Misconfigured: APPS-2430 when there is no such file.
        Corrupt: APPS-2431 when it is none, or damaged, or a part of it has more than 1 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [_part(archive, name) for name in _PARTS]
        device = msgspec.json.decode(parts[0], type=RecordedDevice)
        samples, exchanges = (pl.read_parquet(io.BytesIO(part)) for part in parts[1:])
    except FileNotFoundError as error:
        raise Misconfigured(
            "APPS-2430", f"there is no recorded device {path}", "Record one: headrace bench record"
        ) from error
    except (
        OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError,
        pl.exceptions.PolarsError,
    ) as error:  # fmt: skip
        raise Corrupt(
            "APPS-2431", f"{path} is no recorded device: {error}", "Record it again."
        ) from error
    if dict(samples.schema) != SAMPLES or dict(exchanges.schema) != EXCHANGES:
        raise Corrupt("APPS-2431", f"{path} has other columns", "Record it again.")
    if samples.height and not samples["point"].is_between(0, len(device.points) - 1).all():
        raise Corrupt("APPS-2431", f"{path} has samples of no point", "Record it again.")
    return DeviceRecording(device, samples, exchanges)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > PART_BYTES_MAX:
        raise ValueError(f"{name} has over 1 GiB")
    with archive.open(name) as entry:
        content = entry.read(PART_BYTES_MAX + 1)
    if len(content) > PART_BYTES_MAX:
        raise ValueError(f"{name} has over 1 GiB")
    return content


def without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    """The settings that a recording may hold.

    Example:
        >>> without_secrets({"unit_id": 3, "password": "x"})
        {'unit_id': 3}
    """
    return {
        name: value
        for name, value in options.items()
        if not any(word in name.lower() for word in _SECRET)
    }
