"""A look a day at the drift of what an app uses: kept as a file, and told when the whole model drifted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.models.handing import used_by
from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import open_models
from headrace.apps.models.watch import Watched, look_for_drift
from headrace.historian.reader import Reader, open_reader
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.model.health import Severity
from headrace.model.time import US_PER_S, Clock
from headrace.security.files import write_whole

DAY_US: Final = 86_400 * US_PER_S
LATE_US: Final = 3_600 * US_PER_S
"""So long after the end of a day it is looked at: late samples are there by then."""
EACH_S: Final = 600.0
SHOWN: Final = 3
Tell = Callable[[Severity, str, str, str], None]
_log = logging.getLogger("headrace.apps.models")


class DailyLook:
    """Looks at the champions of one app once a day of UTC, also across restarts.

    Args:
        tell: (severity, code, text, remedy) of a drift: APPS-2540.
    """

    def __init__(
        self, folder: DataFolder, clock: Clock, deployment: AppDeployment, tell: Tell
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._deployment = deployment
        self._tell = tell
        self._told = ""

    async def run(self) -> None:
        """Until it is cancelled; what cannot be looked at is told once and tried again."""
        while self._deployment.manifest.models:
            try:
                async with open_reader(self._folder) as reader:
                    await asyncio.to_thread(self.look, reader)
                self._told = ""
            except HeadraceError as error:
                if error.code != self._told:
                    _log.warning("%s: %s", self._deployment.manifest.id, error)
                self._told = error.code
            await asyncio.sleep(EACH_S)

    def look(self, reader: Reader) -> list[Watched]:
        """Look at the last whole day, if that was not done; gives what is new.

        Raises:
            HeadraceError: as :func:`headrace.apps.models.watch.look_for_drift`.
        """
        manifest = self._deployment.manifest
        end_us = (self._clock.now_us() - LATE_US) // DAY_US * DAY_US
        with open_models(self._folder) as registry:
            used = used_by(registry, manifest.id, manifest.models)
        new = []
        for record in used.values():
            file = drift_file(self._folder, record)
            if record.window is None or _is_done(file, record.version, end_us):
                continue
            found = look_for_drift(reader, self._deployment, record, end_us, DAY_US)
            write_whole(file, msgspec.json.encode(found), mode=0o640)
            new.append(found)
        if any(each.p <= each.alpha for each in new):
            self._say([each for each in new if each.p <= each.alpha])
        return new

    def _say(self, drifted: list[Watched]) -> None:
        parts = []
        for each in drifted:
            worst = sorted(each.drifted, key=lambda one: (one.p, -one.ks))[:SHOWN]
            names = ", ".join(f"{one.quantity} of {one.asset}" for one in worst)
            count = f"{len(each.drifted)} of {len(each.quantities)}"
            parts.append(f"{each.model} {each.version}: {count} quantities, first {names}")
        self._tell(
            "warning",
            "APPS-2540",
            f"what {self._deployment.manifest.id} asks its models about no longer looks as in training: "
            + "; ".join(parts),
            f"Look at the page Models, or run: headrace model drift {drifted[0].app} {drifted[0].model}",
        )


def drift_file(folder: DataFolder, record: ModelRecord) -> Path:
    """Where the newest look at a model in use lies; of each asset that has its own one, another."""
    of = f"-{record.asset.replace('/', '.')}" if record.asset else ""
    return folder.models / "drift" / f"{record.app}-{record.name}{of}.json"


def _is_done(file: Path, version: int, end_us: int) -> bool:
    if not file.is_file():
        return False
    try:
        known = msgspec.json.decode(file.read_bytes(), type=Watched)
    except UNREADABLE:
        return False  # of another version of the platform: look again
    return (known.version, known.end_us) == (version, end_us)
