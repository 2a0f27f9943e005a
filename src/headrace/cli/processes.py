"""What processes that start others have in common: their end with their parent, logs, environment."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path
from typing import IO, Final

LOG_BYTES_MAX: Final = 10 << 20
_PR_SET_PDEATHSIG: Final = 1

# Two cores and a few hundred megabytes are a plant PC: no thread pool a core-count wide in each role.
ROLE_ENVIRONMENT: Final = {
    "POLARS_MAX_THREADS": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "TOKIO_WORKER_THREADS": "2",
    "PYTHONUNBUFFERED": "1",
}


def die_with_parent(kill_signal: int = signal.SIGKILL) -> None:
    """Ask the kernel to end this process when its parent ends; Linux only, elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, kill_signal)


def open_log(path: Path) -> IO[bytes]:
    """A log file to append to; one older copy is kept when it has grown past 10 MB."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")
