"""What an app's process may do, held by the kernel before any line of the app runs.

::

    files      Landlock: reads the interpreter, its libraries and the app's own folder; writes its scratch
    sockets    seccomp: none is made and none connected; connections to what the manifest names are handed in
               (:mod:`headrace.apps.runtime.outside`)
    programs   seccomp: no other program, no other process, no signal to others, no raw kernel door
    rights     no_new_privs, no capabilities
    memory     RLIMIT_DATA at twice the budget and a half gigabyte: a stop for what outruns the runtime's
               watch, which holds the budget itself

Each of these is for Linux. :func:`enclose` tells which stand; where one is missing, the state of the app
says so.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Final

from headrace.apps.runtime.seccomp import filter_calls

FILES_OPEN_MAX: Final = 256
FILE_BYTES_MAX: Final = 256 << 20
SPARE_BYTES: Final = 512 << 20
_NO_NEW_PRIVS, _DROP_BOUND, _DUMPABLE = 38, 24, 4
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_READ: Final = _READ_FILE | _READ_DIR
_FILE_ONLY: Final = _EXECUTE | 1 << 1 | _READ_FILE | 1 << 14 | 1 << 15
_CONNECT: Final = 1 << 1
_SYSTEM: Final = (
    "/usr", "/lib", "/lib64", "/etc/localtime", "/etc/ssl", "/etc/ld.so.cache", "/dev/null",
    "/dev/urandom", "/dev/zero", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/version",
    "/proc/self/maps", "/proc/self/status", "/proc/self/statm", "/sys/devices/system/cpu",
)  # fmt: skip


def enclose(folder: Path, scratch: Path, *, memory_mb: int) -> list[str]:
    """Give up all that an app does not need, for ever; call it before the process has a second thread.

    Args:
        folder: of the app, to read. scratch: to write. memory_mb: its budget.

    Returns:
        Names of what stands: ``landlock``, ``seccomp``, ``capabilities``, ``limits``.
    """
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    stands = _limits(memory_mb)
    stands += _files(libc, folder, scratch)
    stands += ["capabilities"] if _no_capabilities(libc) else []
    return stands + (["seccomp"] if filter_calls() else [])


def _limits(memory_mb: int) -> list[str]:
    data = 2 * (memory_mb << 20) + SPARE_BYTES
    for kind, most in (
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_NOFILE, FILES_OPEN_MAX),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))
    return ["limits"]


def _files(libc: ctypes.CDLL, folder: Path, scratch: Path) -> list[str]:
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return []
    # Rights that this kernel knows: 13 at first, then refer, truncate, ioctl.
    every = (1 << (13 + sum(version >= needed for needed in (2, 3, 5)))) - 1
    net = _CONNECT | 1 if version >= 4 else 0
    # From version 6 on: no abstract socket and no signal to what is outside.
    ruleset = struct.pack("<QQQ", every, net, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    kept = libc.syscall(_CREATE_RULESET, ruleset, size, 0)
    if kept < 0:
        return []
    for path in (*_SYSTEM, *_interpreter(), str(folder)):
        _allow(libc, kept, path, _READ | _EXECUTE)
    _allow(libc, kept, str(scratch), every & ~_EXECUTE)
    stands = libc.syscall(_RESTRICT_SELF, kept, 0) == 0
    os.close(kept)
    return ["landlock"] if stands else []


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Allow what is below a path, when there is such a one."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not Path(path).is_dir():
        rights &= _FILE_ONLY
    rule = struct.pack("<Qi", rights, descriptor)
    libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    os.close(descriptor)


def _interpreter() -> set[str]:
    """Where Python and its libraries lie, and we ourselves."""
    own = Path(__file__).resolve().parents[2]
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return {*paths, str(own), f"{sys.base_prefix}/lib"}


def _no_capabilities(libc: ctypes.CDLL) -> bool:
    """Root without any of its powers; who is not root has none anyway."""
    for capability in range(64):
        libc.prctl(_DROP_BOUND, capability, 0, 0, 0)
    header = struct.pack("<Ii", 0x20080522, 0)
    return bool(libc.capset(header, bytes(24)) == 0)
