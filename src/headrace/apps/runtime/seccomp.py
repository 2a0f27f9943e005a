"""A filter of system calls for this process and what it starts (Linux seccomp, mode 2), for two machines.

What it refuses answers EPERM. See ``Documentation/userspace-api/seccomp_filter.rst`` of Linux.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final, NamedTuple

_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1
_LOAD, _EQUAL, _SET, _RETURN, _AT_LEAST = 0x20, 0x15, 0x45, 0x06, 0x35
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD: Final = 0x10000
_X32: Final = 0x40000000


class _Machine(NamedTuple):
    arch: int
    seccomp: int
    calls: dict[str, int]


# Names as in the kernel; a machine that lacks one (fork on arm64) has no such number.
_X86 = {
    "socket": 41, "connect": 42, "bind": 49, "listen": 50, "accept": 43, "accept4": 288,
    "sendmmsg": 307, "io_uring_setup": 425, "execve": 59, "execveat": 322, "fork": 57, "vfork": 58,
    "clone": 56, "clone3": 435, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "pidfd_open": 434,
    "pidfd_send_signal": 424, "pidfd_getfd": 438, "mount": 165, "umount2": 166, "pivot_root": 155,
    "chroot": 161, "unshare": 272, "setns": 308, "bpf": 321, "perf_event_open": 298, "keyctl": 250,
    "add_key": 248, "request_key": 249, "userfaultfd": 323, "kexec_load": 246, "init_module": 175,
    "finit_module": 313, "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93,
    "lchown": 94, "fchownat": 260, "utimensat": 280, "setxattr": 188, "lsetxattr": 189,
    "fsetxattr": 190, "mknod": 133, "mknodat": 259, "setpriority": 141, "reboot": 169,
    "swapon": 167, "settimeofday": 164, "clock_settime": 227, "shmget": 29, "shmat": 30,
    "msgget": 68, "semget": 64, "mq_open": 240,
}  # fmt: skip
_ARM = {
    "socket": 198, "connect": 203, "bind": 200, "listen": 201, "accept": 202, "accept4": 242,
    "sendmmsg": 269, "io_uring_setup": 425, "execve": 221, "execveat": 281, "clone": 220,
    "clone3": 435, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kill": 129,
    "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "pidfd_open": 434,
    "pidfd_send_signal": 424, "pidfd_getfd": 438, "mount": 40, "umount2": 39, "pivot_root": 41,
    "chroot": 51, "unshare": 97, "setns": 268, "bpf": 280, "perf_event_open": 241, "keyctl": 219,
    "add_key": 217, "request_key": 218, "userfaultfd": 282, "kexec_load": 104, "init_module": 105,
    "finit_module": 273, "fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54,
    "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "mknodat": 33,
    "setpriority": 140, "reboot": 142, "swapon": 224, "settimeofday": 170, "clock_settime": 112,
    "shmget": 194, "shmat": 196, "msgget": 186, "semget": 190, "mq_open": 180,
}  # fmt: skip
_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 317, _X86),
    "aarch64": _Machine(0xC00000B7, 277, _ARM),
}
_OWN_ONLY: Final = ("kill", "tgkill")  # their first argument is the process


def filter_calls() -> bool:
    """Refuse all threads of this process, for ever, what an app has no business with.

    Other programs and processes, signals to others, raw kernel doors, sockets.

    Returns:
        Whether the filter stands; False on another machine than x86-64 and arm64 Linux.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = b"".join(struct.pack("<HBBI", *line) for line in _program(machine))
    libc = ctypes.CDLL(None, use_errno=True)
    lines = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("lines", ctypes.c_void_p))

    told = Program(len(program) // 8, ctypes.cast(lines, ctypes.c_void_p))
    given = libc.syscall(machine.seccomp, _SET_MODE_FILTER, _TSYNC, ctypes.byref(told))
    return bool(given == 0)


def _program(machine: _Machine) -> list[tuple[int, int, int, int]]:
    """The lines of the filter: (code, where true, where false, value)."""
    no = (_RETURN, 0, 0, _ERRNO | _EPERM)
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        no,
    ]
    for name, number in machine.calls.items():
        if name == "clone":  # threads only
            lines += _with_argument(number, (_SET, 1, 0, _CLONE_THREAD), no)
        elif name == "clone3":  # the C library then asks clone, whose flags can be seen
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
        elif name in _OWN_ONLY:
            lines += _with_argument(number, (_EQUAL, 1, 0, os.getpid()), no)
        else:
            lines += [(_EQUAL, 0, 1, number), no]
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _with_argument(
    number: int, test: tuple[int, int, int, int], otherwise: tuple[int, int, int, int]
) -> list[tuple[int, int, int, int]]:
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        test,
        otherwise,
        (_LOAD, 0, 0, _NUMBER),
    ]
