"""A local object storage with the S3 interface, foreign to us: moto's server, in its own process."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from headrace.bus.broker import free_port
from headrace.historian.storage import ObjectStorage
from waiting import until_sync


@dataclass(frozen=True)
class ObjectStore:
    """Where it answers; ``process`` may be killed and its store is gone with it."""

    endpoint: str
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> dict[str, str]:
        return {
            "aws_endpoint_url": self.endpoint,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_region": "us-east-1",
        }

    def storage(self, name: str = "plant/history") -> ObjectStorage:
        return ObjectStorage(f"s3://headrace/{name}", self.options)


def _put(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """Such a server with the bucket ``headrace``."""
    pytest.importorskip("moto.server", reason="moto[s3] and flask are not installed")
    pytest.importorskip("obstore", reason="headrace[s3] is not installed")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        store = ObjectStore(f"http://127.0.0.1:{port}", process)
        until_sync(lambda: _put(f"{store.endpoint}/headrace"))
        yield store
    finally:
        process.kill()
        process.wait()
