"""The connector contract: three calls, and errors that tell the host what to do.

A connector is a folder ``edge/connectors/<protocol>/``. It knows one protocol and nothing else: no
retry, no back-off, no dead-band, no scaling, no batching, no metrics, no log of its own. The host
(:mod:`headrace.edge.host`) owns all that, the same for every connector.

What the host does with an error that ``connect`` or ``read`` raises:

============== ==================================================================================
Transient      closes the connector, waits (``retry_after_s`` or its back-off), opens a new one
Refused        same, with a long wait, and shows "needs a person" with the error's remedy
Misconfigured  same as Refused; a change of the connection's settings tries again at once
Terminal       same as Refused
EndOfInput     closes it for good; the connection is ``disabled`` until its settings change
anything else  a programmer's error: reported as EDGE-1099 and handled as Transient
============== ==================================================================================

One tag that fails is not an error of the connection: the connector gives a sample with a Bad status
and null value for it, and a line in ``Reading.tag_errors``. Collection goes on for all others.

Registered by entry point in the group ``headrace.connectors``; ours use the same door as others'.
The entry point's module may not import its driver at import time: a site file is checked on
machines that have no driver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import polars as pl

from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.time import Clock

Mode = Literal["poll", "subscribe"]
Ability = Literal["read", "write", "browse", "history"]


class EndOfInput(Exception):
    """Raised by ``read`` when there will never be more; the host closes the connection for good."""


@dataclass(frozen=True)
class ScanGroup:
    """Tags of one connection that are read together.

    Attributes:
        scan_interval_ms: their common period. In mode ``subscribe`` the host makes one group of all
            tags; their sampling intervals stand in the tags.
        tags: at least one.
    """

    scan_interval_ms: int
    tags: tuple[TagConfig, ...]


@dataclass
class Reading:
    """What one ``read`` gives.

    Attributes:
        batch: samples with the sample schema (:mod:`headrace.model.sample`), raw values before scale
            and offset. Failed tags have a Bad status and null value.
        expected: samples that were due: tags of the poll, or changes that the device reported.
        tag_errors: tag_id -> error text with a code, for the tags that failed in this reading.
        acknowledge: called by the host once every sample is durable on the bus, in the order of the
            readings; for sources that keep what is not acknowledged (MQTT QoS 1, handshakes).
        waits: the source shows nothing new before it is acknowledged (a hand-shake): the host then
            does not wait for a fuller frame.
        stale: tag_ids whose source died: the host publishes their last value again with status
            UncertainLastUsableValue at once.
        device_time_us: the device's own clock at this reading, when it tells it.
        notices: happenings worth an event, (code, text): a rebirth, a restarted server, a gap.
        missed: samples that the device itself lost or skipped, beside ``expected``, by cause:
            ``device`` (it says that its queue overflowed) or ``gap`` (numbers of its messages are
            missing). One for each such word or message when the true number is unknown.
        resume_us: for a reading of the source's memory: where a session that follows a kill begins
            again once this reading is durable; None means with this reading's own samples.
    """

    batch: pl.DataFrame
    expected: int
    tag_errors: dict[int, str] = field(default_factory=dict)
    acknowledge: Callable[[], Awaitable[None]] | None = None
    waits: bool = False
    stale: tuple[int, ...] = ()
    device_time_us: int | None = None
    notices: tuple[tuple[str, str], ...] = ()
    missed: dict[str, int] = field(default_factory=dict)
    resume_us: int | None = None


class BrowseItem(msgspec.Struct, kw_only=True):
    """One thing found in a device.

    Attributes:
        address: text for ``TagConfig.address``, or for a next ``browse`` when it is a folder.
        name: what the device calls it.
        folder: true when it has children.
        data_type: the device's type, for people (``Double``, ``uint16``...).
        value: current value as text, when it was cheap to get.
        unit: engineering unit when the device says it.
        proposed_path: last path tokens that we propose for the tag, for example ``spindle/load``.
        writable: the device says that it can be written.
        options: tag settings to propose beside the address (``sample_interval_us``...).
    """

    address: str
    name: str
    folder: bool = False
    data_type: str = ""
    value: str = ""
    unit: str = ""
    proposed_path: str = ""
    writable: bool = False
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class ConnectorContext:
    """What the host lends to a connector.

    Attributes:
        clock: the only source of time.
        certificates: folder of own certificates, ``trusted/`` and ``rejected/``.
        secret: resolves a setting such as ``secret:plc_1``, ``env:PLC_PASSWORD`` or ``file:/run/secret``.
        mqtt_endpoint: ``mqtt://127.0.0.1:port`` of the platform's own listener; "" when it has none.
        mqtt_user, mqtt_password: our credentials there.
        mqtt_tls_files: PEM files when that listener speaks TLS: its authority; our certificate and key
            where it asks for them.
        resume_us: newest source timestamp of this connection that is durable on the bus; 0 when there
            is none. Sources with a memory (OPC UA history) give what came after it when they connect.
        first_us: when this connection's first session began, by the edge's clock; 0 in that session.
            Known although nothing is durable yet: the edge may have been killed before.
        identity: stable name of this edge, for client ids: ``<enterprise>-<site>-<edge>``.
    """

    clock: Clock
    certificates: Path
    secret: Callable[[str], str]
    mqtt_endpoint: str = ""
    mqtt_user: str = ""
    mqtt_password: str = ""
    mqtt_tls_files: tuple[str, ...] = ()
    identity: str = "headrace"
    resume_us: int = 0
    first_us: int = 0


class Connector(Protocol):
    """One session with one device. The host makes a new object for each session."""

    async def connect(self) -> None:
        """Open the session; within the connection's own timeout, never for ever."""
        ...

    async def read(self, group: ScanGroup) -> Reading:
        """Mode poll: read the group's tags once, now. Mode subscribe: wait for the next changes.

        Called again only after the last call returned (one call at a time in mode subscribe; in mode
        poll the host never overlaps two calls on one connection). May be cancelled at any await.
        """
        ...

    async def close(self) -> None:
        """Release everything; called once, also after a failed ``connect``; raises nothing."""
        ...


class Writer(Protocol):
    """Ability ``write``."""

    async def write(self, tag: TagConfig, value: float | str) -> float | str:
        """Write the raw value (scale and envelope are the host's), read it back, return what was read.

        Raises:
            Refused: the device said no.
            Misconfigured: the tag's address or type cannot take the value; nothing was written.
            Transient: the device did not answer; whether it was written is unknown, and the text says so.
        """
        ...


class Browser(Protocol):
    """Ability ``browse``."""

    async def browse(self, address: str) -> list[BrowseItem]:
        """The children of ``address`` ("" is the root), at most 1,000."""
        ...


class ConnectorType(Protocol):
    """What an entry point names: the connector before there is a session. Needs no driver.

    Attributes:
        protocol: the entry point's name.
        title: for people, in English and Chinese: ``("Modbus TCP", "Modbus TCP")``.
        mode: see :class:`ScanGroup`.
        abilities: what it can do beside read.
        options: frozen ``msgspec.Struct`` of the connection's settings; every field has a default.
            The console's guided form and the docs are made from it.
        endpoint_example, address_example: shown in forms and errors.
    """

    protocol: str
    title: tuple[str, str]
    mode: Mode
    abilities: frozenset[Ability]
    options: type[msgspec.Struct]
    endpoint_example: str
    address_example: str

    def check_connection(self, connection: ConnectionConfig) -> None:
        """Check endpoint and options without any I/O.

        Raises:
            Misconfigured: what is wrong, and the remedy.
        """
        ...

    def check_tag(self, tag: TagConfig) -> None:
        """Check one tag's address and settings without any I/O.

        Raises:
            Misconfigured: what is wrong, and the remedy.
        """
        ...

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> Connector:
        """A new connector object; imports the driver, opens nothing.

        Raises:
            Misconfigured: EDGE-1001 when the driver is not installed, with the pip extra to install.
        """
        ...
