"""A process for code of an app, with bounded time, whose log comes line by line."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headrace.model.errors import Refused, Terminal

POLL_S: Final = 0.2
END_S: Final = 5.0
LINES_KEPT: Final = 20
Lines = Callable[[str], None]


def run_process(
    module: str,
    place: Path,
    result: str,
    what: str,
    *,
    seconds: float,
    cancelled: threading.Event,
    line: Lines,
) -> None:
    """Run ``python -m module place`` until it has written ``result`` there.

    Args:
        what: how messages name it. seconds: that it may take. line: told each line of its log.

    Raises:
        Refused: APPS-2523 when it took longer, APPS-2524 when it was cancelled.
        Terminal: APPS-2525 when it ended without a result.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(place)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    lines: list[str] = []
    reading = threading.Thread(target=_listen, args=(process, lines, line))
    reading.start()
    left = seconds
    try:
        while not _is_over(process) and not cancelled.is_set() and left > 0:
            left -= POLL_S
    finally:
        process.kill()
        process.wait()
        reading.join(END_S)
    if (place / result).exists():
        return
    if cancelled.is_set():
        raise Refused("APPS-2524", f"{what} was cancelled", "Start it again; it goes on.")
    if left <= 0:
        raise Refused(
            "APPS-2523",
            f"{what} took more than {seconds:.1f} s",
            "Give it more time, or fewer rows.",
        )
    raise Terminal(
        "APPS-2525",
        f"{what} ended with {process.returncode} and no result: {(lines or ['-'])[-1][:300]}",
        "See what it wrote; it may have needed more memory than --memory-mb.",
    )


def _listen(process: subprocess.Popen[str], kept: list[str], line: Lines) -> None:
    assert process.stderr is not None
    for each in process.stderr:
        kept[:] = [*kept[1 - LINES_KEPT :], each.strip()]
        line(each.strip())


def _is_over(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True
