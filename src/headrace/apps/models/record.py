"""What is known of a model: who made it, of which data and code, how good it is, and what it is used for."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

ModelState = Literal["new", "challenger", "champion", "former", "retired"]
"""``new`` is kept and not used; a ``former`` champion can come back; a ``retired`` one cannot be used."""


class DataWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The data that a model was made of.

    Attributes:
        start_us, end_us: ``[start, end)`` in UTC microseconds. held_out_us: from there on kept apart from the
            training, for the metrics. every: distance of rows, ``1min``.
        assets: paths. tags: ids that were read. rows: of the frame.
        frames_sha256: of the frame's Arrow bytes: the same data have the same hash.
        baseline_sha256: of what its inputs looked like, for the drift of each window; empty: too short.
    """

    start_us: int
    end_us: int
    held_out_us: int
    every: str = "1min"
    assets: tuple[str, ...] = ()
    tags: tuple[int, ...] = ()
    rows: int = 0
    frames_sha256: str = ""
    baseline_sha256: str = ""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from.

    Attributes:
        app_version: of the app whose code trained it. code_sha256: of its package.
        parent: SHA-256 of the champion when it was trained; empty: none.
        platform: version of the platform. by: who asked for it. seed: that the training was given.
        proven: a second training without what was held out gave the same bytes.
        imported: SHA-256 of the key that signed it elsewhere; empty: made here.
    """

    app_version: str = ""
    code_sha256: str = ""
    parent: str = ""
    platform: str = ""
    by: str = ""
    seed: int = 0
    proven: bool = False
    imported: str = ""


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one model of one app.

    Attributes:
        version: counted from 1 by app and name. asset: path of the one that it is for; empty: for all that
            have none of their own. sha256, size: of the ONNX bytes.
        inputs: columns of a row, in order. outputs: columns of a result.
        operators: that the graph uses. metrics: on what was held out.
        created_us: when it was registered. state: what it is used for, now.
        key, signature: SHA-256 of the installation's public key, and Ed25519 of :meth:`digest`, base64.
    """

    app: str
    name: str
    version: int
    asset: str = ""
    sha256: str
    size: int
    inputs: tuple[str, ...]
    outputs: int
    operators: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    window: DataWindow | None = None
    lineage: Lineage = Lineage()
    created_us: int = 0
    state: ModelState = "new"
    key: str = ""
    signature: str = ""

    def digest(self) -> str:
        """SHA-256 of all that does not change any more, as canonical JSON, in hex."""
        fixed = msgspec.structs.replace(self, state="new", key="", signature="")
        body = msgspec.to_builtins(fixed)
        # What later versions of the platform added counts only where it says something, so that what was
        # signed before stays signed.
        for part, name in ((body, "asset"), (body["window"] or {}, "baseline_sha256")):
            if not part.get(name):
                part.pop(name, None)
        return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what a version is used for.

    Attributes:
        number: order of all changes. by, why: who did it, and the reason that they gave.
    """

    number: int
    app: str
    name: str
    version: int
    before: ModelState
    after: ModelState
    at_us: int
    by: str
    why: str
