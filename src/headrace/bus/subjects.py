"""Every subject on the bus is built and parsed here.

::

    v1.<enterprise>.<site>.batch.<edge>.<connection>     samples (stream SAMPLES)
    v1.<enterprise>.<site>.sealed.<edge>.<connection>    encrypted frames (stream SEALED)
    v1.<enterprise>.<site>.event.<role>.<name>           events (stream EVENTS)
    v1.<enterprise>.<site>.ledger.edge.<edge>            LedgerPage of closed minutes (stream LEDGER)
    v1.<enterprise>.<site>.ledger.historian              WriterPage after each commit (stream LEDGER)
    v1.<enterprise>.<site>.order.<id>                    OperationsRequest (stream ORDERS), one an id
    v1.<enterprise>.<site>.health.edge.<edge>            EdgeState, each second (not stored)
    v1.<enterprise>.<site>.health.hub                    HubState, each second (not stored)
    v1.<enterprise>.<site>.health.historian              HistorianState, each second (not stored)
    v1.<enterprise>.<site>.health.apps                   AppsState, each second (not stored)
    v1.<enterprise>.<site>.health.apps.<edge>            the same of the one beside an edge
    v1.<enterprise>.<site>.call.edge.<edge>.<verb>       requests to an edge (browse, write, why)
    v1.<enterprise>.<site>.call.historian.<verb>         requests to the historian
    v1.<enterprise>.<site>.call.console.<verb>           requests to the consoles
    v1.<enterprise>.<site>.call.apps.<verb>              requests to the apps role
    v1.<enterprise>.<site>.call.sim.<verb>               requests to the simulated site
    v1.<enterprise>.<site>.call.app.<word>.<service>     services of an industrial app, JSON to JSON
    v1.<enterprise>.<site>.call.app.<word>.<service>.<edge>   the same of the one on an edge's machine
    v1.<enterprise>.<site>.call.runtime.<word>.<verb>    the runtime about an app: logs, restart
    v1.<enterprise>.<site>.call.runtime.<word>.<verb>.<edge>  the same of the one on an edge's machine
    v1.<enterprise>.<site>.event.app.<word>              AppEvent: work requests, value (stream EVENTS)
    v1.<enterprise>.<site>.health.app.<word>             AppState, each second (not stored)
    v1.<enterprise>.<site>.health.app.<word>.<edge>      the same of the one on an edge's machine
    v1.<enterprise>.<site>.app.<word>.ask.<verb>         an app's process asks the runtime
    source.<domain>.>                                    what the hub takes from an edge's own log
    live.v1.<enterprise>.<site>.batch.>                  what SAMPLES has stored, on a hub (not stored)

Desired state lives in the key-value bucket ``desired`` under ``edge.<edge>``, ``historian`` and ``apps``; the
bucket ``ledger`` has each edge's newest LedgerPage, of the minutes that are not closed.
"""

from __future__ import annotations

from typing import Final

from headrace.model.errors import Corrupt
from headrace.model.ids import check_name

SAMPLES_STREAM: Final = "SAMPLES"
SEALED_STREAM: Final = "SEALED"
EVENTS_STREAM: Final = "EVENTS"
LEDGER_STREAM: Final = "LEDGER"
ORDERS_STREAM: Final = "ORDERS"
DESIRED_BUCKET: Final = "desired"
SITE_STATE_KEY: Final = "site_state"
EDGE_BUCKET: Final = "edge"
LIVE_PREFIX: Final = "live."
LEDGER_BUCKET: Final = "ledger"
APPS_BUCKET: Final = "apps"
APPS_EDGE: Final = "apps"
"""Derived samples are published in this edge's name, the asset type as connection; those that are worked
out on an edge's own machine in the name that :func:`apps_edge` gives."""
FORMULA_CALL: Final = "formula"
"""The call of an edge that the apps role beside it answers."""
RUNTIME_EDGE: Final = "runtime"
"""Outputs of industrial apps are published in this edge's name, the app's word as connection; those that
are worked out on an edge's own machine in the name that :func:`runtime_edge` gives."""
PACKAGE_CALL: Final = "package"
"""The call of an edge by which its runtime gets the files of apps."""
RUNTIME_BUCKET: Final = "runtime"
"""State of each industrial app, by its word."""
ALL_BATCHES: Final = "v1.*.*.batch.>"
LIVE_BATCHES: Final = "live.v1.{{wildcard(1)}}.{{wildcard(2)}}.batch.>"
ALL_SEALED: Final = "v1.*.*.sealed.>"
ALL_EVENTS: Final = "v1.*.*.event.>"
ALL_LEDGER: Final = "v1.*.*.ledger.>"
ALL_ORDERS: Final = "v1.*.*.order.*"
ALL_HEALTH: Final = "v1.*.*.health.>"


def apps_edge(edge: str = "") -> str:
    """In whose name results of formulas are published.

    Args:
        edge: on whose machine they are worked out; empty: on the platform.

    Example:
        >>> apps_edge(), apps_edge("north")
        ('apps', 'apps-north')
    """
    return f"{APPS_EDGE}-{edge}" if edge else APPS_EDGE


def runtime_edge(edge: str = "") -> str:
    """In whose name outputs of industrial apps are published.

    Args:
        edge: on whose machine they are worked out; empty: on the platform.

    Example:
        >>> runtime_edge(), runtime_edge("north")
        ('runtime', 'runtime-north')
    """
    return f"{RUNTIME_EDGE}-{edge}" if edge else RUNTIME_EDGE


class Subjects:
    """The subjects of one site.

    Example:
        >>> Subjects("acme", "mill").batch("local", "plc_1")
        'v1.acme.mill.batch.local.plc_1'
    """

    def __init__(self, enterprise: str, site: str) -> None:
        self._prefix = f"v1.{check_name(enterprise, 'enterprise')}.{check_name(site, 'site')}"

    @property
    def prefix(self) -> str:
        """What the subjects of the site begin with."""
        return self._prefix

    def batch(self, edge: str, connection: str) -> str:
        return f"{self._prefix}.batch.{check_name(edge, 'edge')}.{check_name(connection, 'connection')}"

    def every_batch(self, edge: str) -> str:
        """Of all connections of an edge."""
        return f"{self._prefix}.batch.{check_name(edge, 'edge')}.>"

    def sealed(self, edge: str, connection: str) -> str:
        """Of encrypted frames of a connection."""
        return f"{self._prefix}.sealed.{check_name(edge, 'edge')}.{check_name(connection, 'connection')}"

    def every_sealed(self, edge: str) -> str:
        """Of encrypted frames of all connections of an edge."""
        return f"{self._prefix}.sealed.{check_name(edge, 'edge')}.>"

    def event(self, role: str, name: str = "main") -> str:
        return f"{self._prefix}.event.{check_name(role, 'role')}.{check_name(name, 'source')}"

    def order(self, order_id: str) -> str:
        """Of an operations request."""
        return f"{self._prefix}.order.{check_name(order_id, 'operations request')}"

    def edge_ledger(self, edge: str) -> str:
        return f"{self._prefix}.ledger.edge.{check_name(edge, 'edge')}"

    def historian_ledger(self) -> str:
        return f"{self._prefix}.ledger.historian"

    def edge_health(self, edge: str) -> str:
        return f"{self._prefix}.health.edge.{check_name(edge, 'edge')}"

    def every_edge_health(self) -> str:
        return f"{self._prefix}.health.edge.*"

    def hub_health(self) -> str:
        return f"{self._prefix}.health.hub"

    def historian_health(self) -> str:
        return f"{self._prefix}.health.historian"

    def apps_health(self, edge: str = "") -> str:
        """Of the platform's apps role, or of the one beside an edge."""
        whole = f"{self._prefix}.health.apps"
        return f"{whole}.{check_name(edge, 'edge')}" if edge else whole

    def every_edge_call(self, edge: str) -> str:
        return f"{self._prefix}.call.edge.{check_name(edge, 'edge')}.*"

    def edge_call(self, edge: str, verb: str) -> str:
        return f"{self._prefix}.call.edge.{check_name(edge, 'edge')}.{check_name(verb, 'verb')}"

    def historian_call(self, verb: str) -> str:
        return f"{self._prefix}.call.historian.{check_name(verb, 'verb')}"

    def console_call(self, verb: str) -> str:
        return f"{self._prefix}.call.console.{check_name(verb, 'verb')}"

    def apps_call(self, verb: str) -> str:
        return f"{self._prefix}.call.apps.{check_name(verb, 'verb')}"

    def app_call(self, word: str, service: str, edge: str = "") -> str:
        """Of a service of an industrial app, on the platform or on an edge's machine."""
        whole = (
            f"{self._prefix}.call.app.{check_name(word, 'app')}.{check_name(service, 'service')}"
        )
        return f"{whole}.{check_name(edge, 'edge')}" if edge else whole

    def runtime_call(self, word: str, verb: str, edge: str = "") -> str:
        """Of the runtime itself about an app, on the platform or on an edge's machine: no service of the app
        can have this name."""
        whole = f"{self._prefix}.call.runtime.{check_name(word, 'app')}.{check_name(verb, 'verb')}"
        return f"{whole}.{check_name(edge, 'edge')}" if edge else whole

    def app_own(self, word: str) -> str:
        """What begins the subjects that an industrial app's own process may use."""
        return f"{self._prefix}.app.{check_name(word, 'app')}"

    def app_health(self, word: str, edge: str = "") -> str:
        whole = f"{self._prefix}.health.app.{check_name(word, 'app')}"
        return f"{whole}.{check_name(edge, 'edge')}" if edge else whole

    def sim_call(self, verb: str) -> str:
        return f"{self._prefix}.call.sim.{check_name(verb, 'verb')}"


def parse_batch(subject: str) -> tuple[str, str, str, str]:
    """(enterprise, site, edge, connection) of a batch subject.

    Raises:
        Corrupt: BUS-1002 for anything else.

    Example:
        >>> parse_batch("v1.acme.mill.batch.local.plc_1")
        ('acme', 'mill', 'local', 'plc_1')
    """
    parts = subject.split(".")
    if len(parts) != 6 or parts[0] != "v1" or parts[3] != "batch":
        raise Corrupt("BUS-1002", f"{subject!r} is not a batch subject")
    return parts[1], parts[2], parts[4], parts[5]
