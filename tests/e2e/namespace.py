"""A second machine, as a network namespace with one cable to this one; needs root and iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


class FarMachine:
    """A network namespace of its own: its own loopback, one cable here.

    Attributes:
        near: this machine's address on the cable. far: the other's.
    """

    def __init__(self) -> None:
        number = os.getpid() % 16_000
        self.name = f"headrace-{number}"
        self._cable = (f"hr{number}a", f"hr{number}b")
        net = f"10.{231 + number // 8_000}.{number // 64 % 125 * 2}.{number % 64 * 4}"
        head, _, last = net.rpartition(".")
        self.near, self.far = f"{head}.{int(last) + 1}", f"{head}.{int(last) + 2}"
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("network namespaces need root and the program ip")
        try:
            _ip("netns", "add", self.name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        near_end, far_end = self._cable
        _ip("link", "add", near_end, "type", "veth", "peer", "name", far_end, "netns", self.name)
        _ip("addr", "add", f"{self.near}/30", "dev", near_end)
        _ip("link", "set", near_end, "up")
        self._inside("addr", "add", f"{self.far}/30", "dev", far_end)
        self._inside("link", "set", far_end, "up")
        self._inside("link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", self.name)

    def unplug(self) -> None:
        """Packets vanish from now on; nobody is told."""
        self._inside("link", "set", self._cable[1], "down")

    def plug_in(self) -> None:
        self._inside("link", "set", self._cable[1], "up")

    def remove(self) -> None:
        _ip("netns", "del", self.name)

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self.name, *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
