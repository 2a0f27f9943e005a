"""``app.toml``: what an industrial app is, needs, gives and may do: the contract of all who meet one.

An app is bound to asset types, never to tags. What its manifest does not name, it cannot read, write or
call: the broker holds it to that. An app of formulas, alarms and views alone needs no Python.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.model.knowledge import Placement

Text = dict[str, str]
"""What people read, by language: ``{"en": ..., "zh": ...}``."""
SettingKind = Literal["number", "text", "condition"]


class NeededType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A type of asset that the app serves, by the names that the app uses itself.

    Attributes:
        package: of the catalog's asset types, such as ``pump``. version: which of it, such as ``>=1.0``.
        quantities: name -> unit, without which an asset cannot be served. optional: the same, may be missing.
        attributes: name -> unit (or ``text``) of what each asset has once; without it an asset is not served.
        relations: name -> needed type that it leads to.
    """

    package: str
    version: str = ""
    quantities: dict[str, str] = {}
    optional: dict[str, str] = {}
    attributes: dict[str, str] = {}
    relations: dict[str, str] = {}


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Samples that the app's Python gives on each asset: the tag ``<asset>/<app>_<name>``.

    Attributes:
        type: needed type. unit: ``text`` and ``condition`` too, as for quantities.
        model: whose score gives it; a challenger of that model gives ``<name>_shadow`` beside it, and
            ``<model>_drift`` says on each asset of the type how unlike the training its inputs are.
    """

    type: str
    name: str
    unit: str = ""
    title: Text = {}
    model: str = ""

    @property
    def shadow(self) -> str:
        """What a challenger gives instead; no formula, alarm, app or write can read it.

        Example:
            >>> Output(type="pump", name="load", model="power").shadow
            'load_shadow'
        """
        return f"{self.name}_shadow"


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plant may set, for the whole app or for an asset.

    Attributes:
        minimum, maximum: of a number, in its unit.
    """

    kind: SettingKind = "number"
    unit: str = ""
    default: float | str | bool = 0.0
    minimum: float | None = None
    maximum: float | None = None
    title: Text = {}
    help: Text = {}

    @property
    def measure(self) -> str:
        """Its unit as formulas have it, which name a setting as they name an attribute."""
        return self.unit if self.kind == "number" else self.kind


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question that people and other apps may ask the app's Python; its types are those of the function.

    Attributes:
        name: of the function. timeout_s: after which the caller is told so.
        dangerous: a caller signs for it.
    """

    name: str
    title: Text = {}
    timeout_s: float = 10.0
    dangerous: bool = False


class Budgets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the app's process may take; over it it is slowed down, then stopped.

    Attributes:
        memory_mb: resident. cpu_percent: of one core, over ten seconds.
        messages_per_s: to the broker. rows_per_s: samples that it gives.
    """

    memory_mb: int = 256
    cpu_percent: float = 25.0
    messages_per_s: float = 50.0
    rows_per_s: float = 10_000.0


class Permissions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it may beyond reading its quantities and giving its outputs; people see it before they install.

    Attributes:
        writes: ``type.quantity`` that it may write to the device, through the edge's guard.
        calls: ``app.service`` of other apps. network: ``host:port`` outside; empty: none.
        history: may ask the historian for the past of its quantities.
        orders: is told of operations requests that concern its assets.
    """

    writes: list[str] = []
    calls: list[str] = []
    network: list[str] = []
    history: bool = False
    orders: bool = False


class AppManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of ``app.toml``.

    Attributes:
        id: such as ``pump-efficiency``: a-z 0-9 and -. version: ``major.minor.patch``.
        publisher: whose key signs it.
        headrace: versions of the platform that it runs on, such as ``>=0.1``.
        types: needed asset types by the app's own name for them.
        formulas: needed type -> statements of the formula language, alarms too, as in a site file.
        titles: needed type -> formula -> what its tag is called.
        python: module below the package's root that is its Python, such as ``asset_health``; empty: none.
        views: files below ``views/``, in the order in which they are shown.
        requires: other packages, id -> versions.
        models: names of models that its Python trains and scores.

    Example:
        >>> AppManifest(id="pump-efficiency", version="1.0.0", title={"en": "Pump efficiency"}).word
        'pump_efficiency'
    """

    id: str
    version: str
    title: Text
    description: Text = {}
    publisher: str = ""
    license: str = ""
    headrace: str = ""
    placement: Placement = "platform"
    types: dict[str, NeededType] = {}
    formulas: dict[str, str] = {}
    titles: dict[str, dict[str, Text]] = {}
    outputs: list[Output] = []
    settings: dict[str, Setting] = {}
    services: list[Service] = []
    views: list[str] = []
    models: list[str] = []
    python: str = ""
    requires: dict[str, str] = {}
    budgets: Budgets = Budgets()
    permissions: Permissions = Permissions()

    def readable(self, type: str) -> dict[str, str]:
        """Name -> unit of all that formulas of a needed type may read: its quantities, and what the app's
        Python and models give on it; a quantity goes before an output of that name.

        Example:
            >>> pump = NeededType(package="pump", quantities={"power": "kW"})
            >>> given = [Output(type="pump", name="state", unit="text")]
            >>> types = {"pump": pump}
            >>> AppManifest(id="a", version="1.0.0", title={}, types=types, outputs=given).readable("pump")
            {'state': 'text', 'power': 'kW'}
        """
        kind = self.types[type]
        given = {each.name: each.unit for each in self.outputs if each.type == type}
        drifts = {drift_name(model): "" for model in self.models_of(type)}
        return {**given, **drifts, **kind.quantities, **kind.optional}

    @property
    def word(self) -> str:
        """The id as a word of paths, tags and subjects."""
        return self.id.replace("-", "_")

    def models_of(self, type: str) -> list[str]:
        """The models whose outputs a needed type has, each with a drift of its own on each asset; sorted."""
        return sorted({each.model for each in self.outputs if each.type == type and each.model})


def drift_name(model: str) -> str:
    """The name of the drift of a model, as a quantity of the type.

    Example:
        >>> drift_name("remaining-life")
        'remaining_life_drift'
    """
    return model.replace("-", "_") + "_drift"
