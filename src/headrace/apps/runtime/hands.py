"""What a hook does beside its frame: records, writes, questions; held to what the manifest declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
import polars as pl

from headrace.app.durations import duration_us
from headrace.app.hooks import Hook
from headrace.app.records import ValueEntry, WorkRequest
from headrace.apps.runtime.effects import Effects, Record, RecordKind, Write
from headrace.apps.runtime.frames import Shape
from headrace.apps.runtime.store import Store
from headrace.model.app_manifest import AppManifest
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.sample import Int64Array

RECORDS_MAX: Final = 1_000
HISTORY_ROWS_MAX: Final = 5_000_000


class Doors(Protocol):
    """Ways out of the app's process; whoever drives an executor gives them."""

    def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        """Raw samples of ``[start, end)`` and the newest of each tag before it.

        Raises:
            Transient: APPS-2205 when the historian does not answer.
        """
        ...

    def call(self, app: str, service: str, body: bytes) -> bytes:
        """The answer of another app's service, JSON to JSON."""
        ...


class NoDoors:
    """Where there is neither a historian nor another app."""

    def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        raise Transient("APPS-2205", "there is no historian here to ask for the past")

    def call(self, app: str, service: str, body: bytes) -> bytes:
        raise Transient("APPS-2220", f"there is no app {app} here to ask for {service}")


class Doing:
    """One call of a hook: collects its effects.

    Args:
        at_us: source time. what: makes ids unlike those of other calls of the hook.
    """

    def __init__(
        self,
        manifest: AppManifest,
        deployment: AppDeployment,
        doors: Doors,
        hook: Hook,
        at_us: int,
        what: str,
    ) -> None:
        self._manifest = manifest
        self._deployment = deployment
        self._doors = doors
        self._hook = hook
        self._at_us = at_us
        self._what = what
        self.effects = Effects()

    def record(self, made: WorkRequest | ValueEntry) -> None:
        self._bound(made.asset)
        if len(self.effects.records) >= RECORDS_MAX:
            raise Refused(
                "APPS-2221",
                f"{self._hook.name} gives more than {RECORDS_MAX:,} records at once",
                "Propose work and value only where somebody is to read it.",
            )
        kind: RecordKind = "work_request" if isinstance(made, WorkRequest) else "value"
        body = msgspec.to_builtins(made)
        self.effects.records.append(
            Record(
                id=self._id("record", len(self.effects.records)),
                kind=kind,
                app=self._manifest.id,
                version=self._manifest.version,
                hook=self._hook.name,
                at_us=self._at_us,
                body=body,
            )
        )

    def write(self, asset: str, quantity: str, value: float | str | bool) -> None:
        bound = self._bound(asset)
        way = bound.writes.get(quantity)
        if f"{bound.type}.{quantity}" not in self._manifest.permissions.writes or way is None:
            raise Refused(
                "APPS-2206",
                f"{self._manifest.id} may not write {quantity} of {asset}",
                f'Its manifest would have to name it: writes = ["{bound.type}.{quantity}"].',
            )
        self.effects.writes.append(
            Write(
                id=self._id("write", len(self.effects.writes)),
                at_us=self._at_us,
                asset=asset,
                quantity=quantity,
                edge=way[0],
                connection=way[1],
                tag=way[2],
                value=value,
            )
        )

    def call(self, service: str, body: bytes) -> bytes:
        if service not in self._manifest.permissions.calls:
            raise Refused(
                "APPS-2207",
                f"{self._manifest.id} may not call {service}",
                f'Its manifest would have to name it: calls = ["{service}"].',
            )
        app, _, name = service.rpartition(".")
        return self._doors.call(app, name, body)

    def history(
        self, type: str, quantities: Sequence[str], start_us: int, end_us: int, every: str
    ) -> pl.DataFrame:
        if not self._manifest.permissions.history:
            raise Refused(
                "APPS-2204",
                f"{self._manifest.id} may not read the past",
                "Its manifest would have to say: history = true.",
            )
        shape, step_us = self._shape(type, quantities), duration_us(every)
        count = max(0, -(-(end_us - start_us) // step_us))
        if count * len(shape.assets) > HISTORY_ROWS_MAX:
            raise Misconfigured(
                "APPS-2222",
                f"a history of {count * len(shape.assets):,} rows is asked for",
                f"Ask for a shorter time or a longer step: at most {HISTORY_ROWS_MAX:,} rows.",
            )
        wanted = {tag for a in shape.assets for q, tag in a.tags.items() if q in quantities}
        tag_ids = np.array(sorted(wanted), np.int64)
        store = Store(tag_ids)
        if len(tag_ids) and count:
            store.put(self._doors.samples(tag_ids, start_us, end_us))
        return shape.frame(store, start_us, step_us, count, list(quantities))

    def _shape(self, type: str, quantities: Sequence[str]) -> Shape:
        types = self._manifest.types
        name = type or (next(iter(types)) if len(types) == 1 else "")
        known = {*types[name].quantities, *types[name].optional} if name in types else set()
        unknown = sorted(set(quantities) - known)
        if name not in types or unknown:
            raise Refused(
                "APPS-2204",
                f"{self._manifest.id} may not read {unknown or type!r} of {name or 'no type'}",
                "Ask for quantities that its manifest names.",
            )
        bound = [asset for asset in self._deployment.assets if asset.type == name]
        return Shape(self._manifest, name, bound)

    def _bound(self, asset: str) -> BoundAsset:
        found = next((each for each in self._deployment.assets if each.path == asset), None)
        if found is None:
            raise Refused(
                "APPS-2223",
                f"{self._manifest.id} is not bound to {asset!r}",
                "Bind it in the site file, or name an asset of the window.",
            )
        return found

    def _id(self, kind: str, place: int) -> str:
        manifest = self._manifest
        return f"{manifest.word}/{manifest.version}/{self._hook.name}/{self._what}/{kind}/{place}"
