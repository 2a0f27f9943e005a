"""Where the table's bytes lie: a folder of this machine, or an object storage with the S3 interface.

What a caller may rely on in both: a file is there whole or not at all; when :meth:`write` ends it is
durable; two commits of one version never both succeed (a hard link of the local file system, a conditional
put ``If-None-Match: *`` of the object storage); a file that is gone raises FileNotFoundError.

How a frame becomes the bytes of a file is the business of :mod:`headrace.historian.layout`.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import polars as pl

from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.security.settings import load_settings

LOG_FOLDER: Final = "_delta_log"
RETRY_S: Final = 20
_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
_SECRET: Final = ("key", "token")


class Storage(Protocol):
    """One table's place.

    Attributes:
        uri: for delta-rs; options: its storage options, None on a local path.
        watch_s: how seldom to look for a new version, at least; a look costs a request elsewhere.
    """

    uri: str
    options: dict[str, str] | None
    watch_s: float

    def place(self, name: str) -> str:
        """What Polars reads a data file from."""
        ...

    def write(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A context manager with a binary file; at the end of its block the file is there, durably.

        Raises:
            OSError: the disk refused. Transient: HIST-1201 when the object storage did.
        """
        ...

    def read(self, name: str) -> bytes:
        """A small file's content.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file; a folder counts where there are folders."""
        ...

    def sync_files(self) -> None:
        """Make the names of written files durable."""
        ...

    def sync_log(self, first: int, last: int) -> None:
        """Make commits of delta-rs durable, which itself calls no fsync."""
        ...

    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody can tell."""
        ...


Place = Path | Storage
"""A folder, or any storage."""


class LocalStorage:
    """A folder; every write is followed by fsync."""

    options: dict[str, str] | None = None
    watch_s = 0.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = str(path)

    def place(self, name: str) -> str:
        return str(self.path / name)

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        with (self.path / name).open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def sync_files(self) -> None:
        sync_path(self.path)

    def sync_log(self, first: int, last: int) -> None:
        folder = self.path / LOG_FOLDER
        for version in range(first, last + 1):
            entry = folder / f"{version:020d}.json"
            if version == last or entry.exists():  # old ones may be cleaned up
                sync_path(entry)
            for path in folder.glob(f"{version:020d}.checkpoint*.parquet"):
                sync_path(path)
        sync_path(folder)

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self.path).free


class ObjectStorage:
    """A prefix of a bucket with the S3 interface.

    Args:
        uri: ``s3://bucket/prefix``.
        options: names as of delta-rs (``aws_endpoint_url``); the usual variables of the environment
            (``AWS_ACCESS_KEY_ID`` and so on) go before them. A storage must keep
            ``If-None-Match: *`` of a put, as S3 does.

    Raises:
        Misconfigured: HIST-1202 when the URI or an option cannot be used.
    """

    watch_s = 1.0

    def __init__(self, uri: str, options: dict[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/")
        environment = {name.lower(): os.environ[name] for name in _VARIABLES if name in os.environ}
        merged = {**(options or {}), **environment, "aws_conditional_put": "etag"}
        if merged.get("aws_endpoint_url", "").startswith("http://"):
            merged["aws_allow_http"] = "true"
        self.options: dict[str, str] | None = merged
        self._store = _open_store(self.uri, merged)

    def place(self, name: str) -> str:
        return f"{self.uri}/{name}"

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        body = io.BytesIO()
        yield body
        body.seek(0)
        try:
            self._store.put(name, body)
        except Exception as error:
            raise _not_now(self.place(name), error) from error

    def read(self, name: str) -> bytes:
        try:
            return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _not_now(self.place(name), error) from error

    def exists(self, name: str) -> bool:
        try:
            self._store.head(name)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise _not_now(self.place(name), error) from error
        return True

    def sync_files(self) -> None:
        """A put is durable when it is answered."""

    def sync_log(self, first: int, last: int) -> None:
        """The same."""

    def free_bytes(self) -> int | None:
        return None


def _open_store(uri: str, options: dict[str, str]) -> Any:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise Misconfigured(
            "HIST-1203",
            f"the table {uri} lies on an object storage, whose client is not installed",
            "Run: pip install 'headrace[s3]'",
        ) from error
    settings: Any = {name: value for name, value in options.items() if name != "aws_allow_http"}
    try:
        return S3Store.from_url(
            uri,
            config=settings,
            client_options={"allow_http": "aws_allow_http" in options},
            retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=RETRY_S)},
        )
    except Exception as error:
        shown = {k: v for k, v in options.items() if not any(secret in k for secret in _SECRET)}
        raise Misconfigured(
            "HIST-1202",
            f"the table {uri} with {shown} cannot be opened: {_first_line(error)}",
            "Write s3://bucket/prefix; docs/scale.md shows the options.",
        ) from error


@contextmanager
def answering(storage: Storage) -> Iterator[None]:
    """What an object storage refuses inside delta-rs or Polars becomes an error of ours; what a disk
    refuses stays an OSError, and a file that is gone stays a FileNotFoundError.

    Raises:
        Transient: HIST-1201 when the object storage does not answer.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pl.exceptions.PolarsError) as error:
        if storage.options is None:
            raise
        raise _not_now(storage.uri, error) from error


def _not_now(place: str | Path, error: Exception) -> Transient:
    return Transient(
        "HIST-1201",
        f"the object storage does not take or give {place}: {_first_line(error)}",
        "See its endpoint and credentials; it is tried again.",
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def storage_of(place: Place) -> Storage:
    """A storage as it is, a folder as a local one.

    Example:
        >>> storage_of(Path("/srv/table")).uri
        '/srv/table'
    """
    return LocalStorage(place) if isinstance(place, Path) else place


def open_storage(folder: DataFolder) -> Storage:
    """Where the table of an installation lies, as its settings say.

    Raises:
        Misconfigured: HIST-1202 or HIST-1203 for an object storage, SEC-1201 for the settings.
    """
    settings = load_settings(folder).historian
    if not settings.table:
        return LocalStorage(folder.table)
    if "://" not in settings.table:
        return LocalStorage((folder.root / settings.table).absolute())
    return ObjectStorage(settings.table, settings.storage)


def sync_path(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
