"""What an app gives beside samples, and what it is told: plain data that travels as JSON."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Priority = Literal["low", "medium", "high"]


def Unit(text: str) -> msgspec.Meta:
    """The unit of a service's number, for ``typing.Annotated``, named as a type: it reads as one there. It
    stands in the schema as ``unit``.

    Example:
        >>> from typing import Annotated
        >>> msgspec.json.schema(Annotated[float, Unit("m3/h")])
        {'unit': 'm3/h', 'type': 'number'}
    """
    return msgspec.Meta(extra_json_schema={"unit": text})


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """An asset that the app is bound to.

    Attributes:
        path: of it. type: the app's own name of the needed type.
        attributes: in the manifest's units. settings: those of the app, where they differ for this asset
            those of the asset. relations: relation -> path of another asset.
    """

    path: str
    type: str
    title: str = ""
    title_zh: str = ""
    attributes: dict[str, float | str] = {}
    settings: dict[str, float | str | bool] = {}
    relations: dict[str, str] = {}


class WorkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Work that the app proposes to people (ISA-95 part 4: work request).

    Attributes:
        asset: path. title: what to do. reason: why, in words that people read.
        evidence: what shows it: numbers, times, names.
    """

    asset: str
    title: str
    reason: str
    priority: Priority = "medium"
    evidence: dict[str, Any] = {}


class ValueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What was gained against a declared baseline: a line of the value ledger.

    Attributes:
        kind: such as ``avoided_stop`` or ``energy``. hours, money: avoided; money in ``currency``.
        baseline: with what it is compared. evidence: what shows it.
    """

    asset: str
    kind: str
    hours: float = 0.0
    money: float = 0.0
    currency: str = ""
    baseline: str = ""
    evidence: dict[str, Any] = {}


class AlarmChange(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm of a bound asset that came, went or was acknowledged.

    Attributes:
        asset: path. name: of the alarm. event: as in :data:`headrace.model.alarm.EventName`.
        active: its condition holds. at_us: source time. id: of this change, unlike all others.
    """

    asset: str
    name: str
    event: str
    active: bool
    at_us: int
    id: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An operations request (IEC 62264-2) as it came on the bus.

    Attributes:
        id: of the request, unlike all others. at_us: when it was sent.
        body: the fields of :class:`headrace.model.operations_request.OperationsRequest`.
    """

    id: str
    at_us: int
    body: dict[str, Any] = {}


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training gives.

    Attributes:
        onnx: the model. metrics: name -> value, on data that it was not trained with.
        inputs: names of the columns of its rows, in order.
    """

    onnx: bytes
    metrics: dict[str, float] = {}
    inputs: list[str] = []


class Model(Protocol):
    """A model of the registry, ready to be asked."""

    @property
    def version(self) -> str:
        """Which one it is."""
        ...

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of its rows, in order."""
        ...

    def run(self, rows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Results of the rows, shape (n, columns) to (n, outputs)."""
        ...
