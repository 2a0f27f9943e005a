"""The models of an installation: ONNX files by their hash, and beside the audit chain what is known of them.

A file is there, whole and checked, before its record is; a record, what it is used for and the audit entry
that tells it change in one transaction. So a kill leaves at most a file that nobody names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError

from headrace.apps.models.inspection import inspect_onnx
from headrace.apps.models.record import DataWindow, Lineage, ModelChange, ModelRecord, ModelState
from headrace.apps.models.schema import CHANGES, MODELS
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured, Refused, Terminal
from headrace.model.folder import DataFolder
from headrace.model.time import Clock, SystemClock
from headrace.security.audit import AuditChain
from headrace.security.database import TABLES, metadata_url, open_engine, shown
from headrace.security.files import write_whole

PATIENCE_S: Final = 10.0
NAME: Final = re.compile(r"^[a-z][a-z0-9_-]{0,63}$")
_ALLOWED: Final[dict[ModelState, tuple[ModelState, ...]]] = {
    "champion": ("new", "challenger", "former"),
    "challenger": ("new", "former"),
    "new": ("challenger",),
    "retired": ("new", "challenger", "former"),
}
"""What may become what: new state -> states before."""


class Exported(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model as it leaves an installation: the signed record and the ONNX bytes, as JSON."""

    headrace_model: int
    record: ModelRecord
    onnx: bytes


class ModelRegistry:
    """Models of the apps of one installation.

    Args:
        folder: data folder. clock: for times of records and of the audit chain.

    Raises:
        Terminal: APPS-2510 when the metadata database cannot be opened.
    """

    def __init__(self, folder: DataFolder, clock: Clock | None = None) -> None:
        self._files = folder.models
        self._clock = clock or SystemClock()
        url = metadata_url(folder)
        try:
            folder.root.mkdir(parents=True, exist_ok=True)
            self._engine = open_engine(url, TABLES, PATIENCE_S)
        except (DatabaseError, OSError) as error:
            raise Terminal(
                "APPS-2510",
                f"the models in {shown(url)} cannot be opened: {str(error).splitlines()[0]}",
                "Check that the folder exists and may be written, or that the database runs.",
            ) from error
        if self._engine.dialect.name == "sqlite":
            folder.metadata_file.chmod(0o600)
        self._audit = AuditChain(self._engine, folder.audit, self._clock)

    def close(self) -> None:
        self._engine.dispose()

    def models(self, app: str = "", name: str = "") -> list[ModelRecord]:
        """All versions, of one app or of one model when they are named; by app, name and version."""
        query = select(MODELS.c.body, MODELS.c.state)
        if app:
            query = query.where(MODELS.c.app == app)
        if name:
            query = query.where(MODELS.c.name == name)
        query = query.order_by(MODELS.c.app, MODELS.c.name, MODELS.c.version)
        with self._engine.connect() as connection:
            return [_record(body, state) for body, state in connection.execute(query)]

    def get(self, app: str, name: str, version: int = 0, asset: str = "") -> ModelRecord:
        """A version; 0 is the champion, or the newest where there is none, of all assets or of one.

        Raises:
            Misconfigured: APPS-2511 when there is none.
        """
        found = self.models(app, name)
        wanted = [each for each in found if each.version == version]
        if not version:
            usable = [each for each in found if each.state != "retired" and each.asset == asset]
            wanted = [each for each in usable if each.state == "champion"] or usable[-1:]
        if not wanted:
            what = f"model {app}/{name}" + (f" version {version}" if version else "")
            raise Misconfigured("APPS-2511", f"there is no {what}", "See: headrace model list")
        return wanted[0]

    def in_use(self, app: str, name: str, state: ModelState, asset: str = "") -> ModelRecord | None:
        """The champion or the challenger of a model, that for all assets or that of one; None where there
        is none."""
        found = (each for each in self.models(app, name) if each.asset == asset)
        return next((each for each in found if each.state == state), None)

    def baseline(self, record: ModelRecord) -> bytes:
        """What the inputs looked like in the training; nothing where it was too short, or came from elsewhere.

        Raises:
            Corrupt: APPS-2512 when the file is another one.
        """
        sha256 = record.window.baseline_sha256 if record.window is not None else ""
        path = self._files / f"{sha256}.baseline"
        if not sha256 or not path.is_file():
            return b""
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Corrupt(
                "APPS-2512",
                f"model {record.app}/{record.name} version {record.version}: {path} is not what it was",
                "Restore it from a backup, or use another version.",
            )
        return content

    def content(self, record: ModelRecord) -> bytes:
        """The ONNX bytes of a version, checked against their hash.

        Raises:
            Corrupt: APPS-2512 when the file is not there or is another one.
        """
        path = self._files / f"{record.sha256}.onnx"
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise Corrupt(
                "APPS-2512",
                f"model {record.app}/{record.name} version {record.version}: {path} is not what it was",
                "Restore it from a backup, or use another version.",
            )
        return content

    def add(
        self,
        app: str,
        name: str,
        content: bytes,
        inputs: list[str],
        *,
        by: str,
        metrics: dict[str, float] | None = None,
        window: DataWindow | None = None,
        lineage: Lineage | None = None,
        asset: str = "",
        baseline: bytes = b"",
    ) -> ModelRecord:
        """Keep a new version after a look at it; it is not used before somebody promotes it.

        Args:
            content: ONNX bytes. inputs: names of its columns, in order. by: who adds it.
            asset: path of the one that it is for; empty: all. baseline: see :mod:`.baseline`; the window
                has its hash.

        Raises:
            Misconfigured: APPS-2501, APPS-2513 when the names do not fit.
            Refused: APPS-2502, APPS-2503 when the file may not be kept.
        """
        _check_name(app, name)
        found = inspect_onnx(content, f"model {app}/{name}")
        if len(set(inputs)) != len(inputs) or len(inputs) != found.columns:
            raise Misconfigured(
                "APPS-2513",
                f"model {app}/{name} has {found.columns} input columns, and {len(inputs)} names are "
                f"given, {len(set(inputs))} of them different",
                "Name each column once, in order.",
            )
        sha256 = hashlib.sha256(content).hexdigest()
        write_whole(self._files / f"{sha256}.onnx", content, mode=0o640)
        if baseline and window is not None:
            known = hashlib.sha256(baseline).hexdigest()
            window = msgspec.structs.replace(window, baseline_sha256=known)
            write_whole(self._files / f"{known}.baseline", baseline, mode=0o640)
        with self._audit.writing() as connection:
            newest = select(func.max(MODELS.c.version))
            newest = newest.where(MODELS.c.app == app, MODELS.c.name == name)
            record = ModelRecord(
                app=app,
                name=name,
                version=1 + (connection.execute(newest).scalar() or 0),
                asset=asset,
                sha256=sha256,
                size=len(content),
                inputs=tuple(inputs),
                outputs=found.outputs,
                operators=found.operators,
                metrics=metrics or {},
                window=window,
                lineage=lineage or Lineage(by=by),
                created_us=self._clock.now_us(),
                key=self._audit.keys.name,
            )
            signature = self._audit.keys.sign(record.digest())
            record = msgspec.structs.replace(record, signature=signature)
            values = {"app": app, "name": name, "version": record.version, "sha256": sha256}
            body = msgspec.json.encode(record)
            connection.execute(insert(MODELS).values(**values, state="new", body=body))
            self._audit.append(connection, by, "edit", _resource(record), "done", sha256=sha256)
        return record

    def is_signed(self, record: ModelRecord) -> bool:
        """Whether a key that this installation trusts signed just this record."""
        key = self._audit.keys.trusted().get(record.key)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(record.signature), bytes.fromhex(record.digest()))
        except (InvalidSignature, binascii.Error):
            return False
        return True

    def change(
        self, app: str, name: str, version: int, state: ModelState, *, by: str, why: str
    ) -> ModelRecord:
        """Use a version for something else; who was champion or challenger before makes room.

        Args:
            why: the reason, for people who ask later; needed.

        Raises:
            Misconfigured: APPS-2511 no such version, APPS-2514 no reason.
            Refused: APPS-2515 when the state cannot follow, APPS-2516 when its signature does not hold.
            Corrupt: APPS-2512 when its file is not what it was.
        """
        if not why.strip():
            raise Misconfigured(
                "APPS-2514", "no reason is given", "Say why, for those who ask later."
            )
        with self._audit.writing() as connection:
            before = self._locked(connection, app, name, version)
            if before.state not in _ALLOWED.get(state, ()):
                raise Refused(
                    "APPS-2515",
                    f"model {app}/{name} version {version} is {before.state}; it cannot become {state}",
                    "See: headrace model show " + f"{app} {name}",
                )
            if state in ("champion", "challenger"):
                self.content(before)
                self._check_signature(before)
                self._make_room(connection, before, state, by, why)
            self._set(connection, before, state, by, why)
        return msgspec.structs.replace(before, state=state)

    def roll_back(self, app: str, name: str, *, by: str, why: str, asset: str = "") -> ModelRecord:
        """Make the champion before this one champion again, of all assets or of one.

        Raises:
            Refused: APPS-2517 when there was none.
        """
        found = [each for each in self.models(app, name) if each.asset == asset]
        states = {each.version: each.state for each in found}
        for each in reversed(self.changes(app, name)):
            if each.after == "former" and states.get(each.version) == "former":
                return self.change(app, name, each.version, "champion", by=by, why=why)
        raise Refused(
            "APPS-2517",
            f"model {app}/{name} has no former champion",
            "Promote a version: headrace model promote",
        )

    def changes(self, app: str, name: str) -> list[ModelChange]:
        """What its versions were used for, oldest first."""
        query = select(CHANGES.c.number, CHANGES.c.body).order_by(CHANGES.c.number)
        query = query.where(CHANGES.c.app == app, CHANGES.c.name == name)
        with self._engine.connect() as connection:
            rows = list(connection.execute(query))
        decode = msgspec.json.Decoder(ModelChange).decode
        return [msgspec.structs.replace(decode(body), number=number) for number, body in rows]

    def export(self, app: str, name: str, version: int = 0) -> bytes:
        """A version as one file, with the signature of this installation."""
        record = self.get(app, name, version)
        exported = Exported(headrace_model=1, record=record, onnx=self.content(record))
        return msgspec.json.encode(exported, order="sorted")

    def import_file(self, content: bytes, *, by: str, allow_unknown: bool = False) -> ModelRecord:
        """Keep a version that another installation exported; it is looked at as any other.

        Args:
            allow_unknown: take it too when no trusted key signed it.

        Raises:
            Corrupt: APPS-2518 when the file is not whole.
            Refused: APPS-2516 when no trusted key signed it, and what :meth:`add` refuses.
        """
        try:
            given = msgspec.json.decode(content, type=Exported)
        except UNREADABLE as error:
            raise Corrupt(
                "APPS-2518", f"the file is no exported model: {error}", "Export it again."
            ) from error
        record = given.record
        if hashlib.sha256(given.onnx).hexdigest() != record.sha256:
            raise Corrupt(
                "APPS-2518",
                f"the file's ONNX bytes are not those of {record.app}/{record.name}",
                "Export it again.",
            )
        if not allow_unknown:
            self._check_signature(record)
        return self.add(
            record.app,
            record.name,
            given.onnx,
            list(record.inputs),
            by=by,
            metrics=record.metrics,
            window=record.window,
            lineage=msgspec.structs.replace(record.lineage, imported=record.key or "unsigned"),
            asset=record.asset,
        )

    def _check_signature(self, record: ModelRecord) -> None:
        if not self.is_signed(record):
            raise Refused(
                "APPS-2516",
                f"model {record.app}/{record.name} version {record.version} is not signed by a key that "
                "this installation trusts, or was changed since",
                "Trust the key of the other installation: headrace audit trust FILE",
            )

    def _locked(self, connection: Connection, app: str, name: str, version: int) -> ModelRecord:
        query = select(MODELS.c.body, MODELS.c.state)
        query = query.where(MODELS.c.app == app, MODELS.c.name == name)
        row = connection.execute(query.where(MODELS.c.version == version)).first()
        if row is None:
            raise Misconfigured(
                "APPS-2511",
                f"there is no model {app}/{name} version {version}",
                "See: headrace model list",
            )
        return _record(row.body, row.state)

    def _make_room(
        self, connection: Connection, record: ModelRecord, state: ModelState, by: str, why: str
    ) -> None:
        query = select(MODELS.c.body, MODELS.c.state).where(MODELS.c.state == state)
        query = query.where(MODELS.c.app == record.app, MODELS.c.name == record.name)
        for body, now in connection.execute(query).all():
            other = _record(body, now)
            if other.asset == record.asset:
                self._set(connection, other, "former" if state == "champion" else "new", by, why)

    def _set(
        self, connection: Connection, record: ModelRecord, state: ModelState, by: str, why: str
    ) -> None:
        mine = (MODELS.c.app == record.app, MODELS.c.name == record.name)
        changed = update(MODELS).where(*mine, MODELS.c.version == record.version)
        connection.execute(changed.values(state=state))
        told = ModelChange(
            number=0,
            app=record.app,
            name=record.name,
            version=record.version,
            before=record.state,
            after=state,
            at_us=self._clock.now_us(),
            by=by,
            why=why.strip()[:1000],
        )
        body = msgspec.json.encode(told)
        connection.execute(insert(CHANGES).values(app=record.app, name=record.name, body=body))
        facts: dict[str, Any] = {"before": record.state, "after": state, "why": told.why}
        self._audit.append(connection, by, "edit", _resource(record), "done", **facts)


@contextmanager
def open_models(folder: DataFolder) -> Iterator[ModelRegistry]:
    """The registry of a data folder, closed at the end."""
    registry = ModelRegistry(folder)
    try:
        yield registry
    finally:
        registry.close()


def _check_name(app: str, name: str) -> None:
    for what, given in (("app", app), ("model", name)):
        if not NAME.match(given):
            raise Misconfigured(
                "APPS-2513",
                f"{given[:80]!r} is no name of a{'n' if what == 'app' else ''} {what}",
                "Use a-z, 0-9, - and _, a letter first, at most 64.",
            )


def _resource(record: ModelRecord) -> str:
    return f"model/{record.app}/{record.name}/{record.version}"


def _record(body: bytes, state: ModelState) -> ModelRecord:
    try:
        record = msgspec.json.decode(body, type=ModelRecord)
    except UNREADABLE as error:
        raise Corrupt(
            "APPS-2512", "a record of a model cannot be read", "Restore the metadata from a backup."
        ) from error
    return msgspec.structs.replace(record, state=state)
