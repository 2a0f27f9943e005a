"""What a role says of itself: connection states and events, as plain data on the bus."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["info", "warning", "error"]
ConnectionStateName = Literal[
    "disabled", "connecting", "connected", "degraded", "waiting", "refused"
]
"""``degraded``: connected, but some tags fail or polls miss their interval. ``waiting``: retry after a
transient error.
``refused``: a person is needed (bad password, untrusted certificate, wrong setting)."""


class ConnectionState(msgspec.Struct, kw_only=True):
    """State of one connection, published each second and at each change.

    Attributes:
        state: see :data:`ConnectionStateName`.
        since_us: when this state began.
        last_success_us: when a read last gave samples; 0 means never.
        last_error_code, last_error, last_error_remedy, last_error_us: the newest error, kept after recovery.
        next_try_us: when the host tries again; 0 when it is connected.
        expected, read, missed, bad, marked, filtered, protected, published, buffered, dropped: counts of
            samples since the edge started. The books close at all times: ``expected = read + missed``, and
            ``read + marked = filtered + protected + published + buffered + dropped``. ``missed``: polls that
            were due and not made or not answered; ``marked``: samples of the edge itself that say that a
            device is lost or a value is old; ``buffered``: not yet in the log.
        reconnects: sessions opened after the first.
        tags, tags_bad: how many tags, and how many of them last failed.
        device_clock_offset_us: device time minus our time at the last read; None when unknown.
        tag_errors: first lines of per-tag problems (path -> code and text), at most 20.
    """

    connection: str
    protocol: str
    endpoint: str
    edge: str
    state: ConnectionStateName
    since_us: int
    last_success_us: int = 0
    last_error_code: str = ""
    last_error: str = ""
    last_error_remedy: str = ""
    last_error_us: int = 0
    next_try_us: int = 0
    expected: int = 0
    read: int = 0
    missed: int = 0
    bad: int = 0
    marked: int = 0
    filtered: int = 0
    protected: int = 0
    published: int = 0
    dropped: int = 0
    buffered: int = 0
    reconnects: int = 0
    tags: int = 0
    tags_bad: int = 0
    device_clock_offset_us: int | None = None
    tag_errors: dict[str, str] = {}


class EdgeLog(msgspec.Struct, kw_only=True):
    """The log of an edge on its own machine, as far as its hub has it.

    Attributes:
        first_sequence, last_sequence, bytes, bytes_max: what it holds.
        stored_sequence: up to which the hub's log has it, by the hub's last word; 0 nothing or unknown.
        unsent_frames: what the hub does not have. unsent_bytes: of those, by their share of the log.
        oldest_unsent_us: when the first of those was written; 0 when there is none.
        dropped_frames, dropped_samples: removed at the bound before the hub had them, of this log in all.
        disk_free_bytes: of its disk.
    """

    first_sequence: int = 0
    last_sequence: int = 0
    bytes: int = 0
    bytes_max: int = 0
    stored_sequence: int = 0
    unsent_frames: int = 0
    unsent_bytes: int = 0
    oldest_unsent_us: int = 0
    dropped_frames: int = 0
    dropped_samples: int = 0
    disk_free_bytes: int = 0


class EdgeState(msgspec.Struct, kw_only=True):
    """State of one edge, each second: the hash of what it runs, its connections, and, of an edge on its
    own machine, its log and its version."""

    edge: str
    config_hash: str
    at_us: int
    started_us: int
    connections: list[ConnectionState]
    log: EdgeLog | None = None
    version: str = ""


class EdgeLink(msgspec.Struct, kw_only=True):
    """How the hub sees an edge that joined it.

    Attributes:
        connected_us: since when its broker is connected; 0 when it is not.
        address, rtt: of the connection.
        lag_frames: what its log has and the hub's has not, by the broker's word; -1 unknown.
        desired_hash, running_hash: of its configuration; "" when never set, never heard.
        heard_us: when the edge last said something.
    """

    edge: str
    domain: str
    joined_us: int
    connected_us: int = 0
    address: str = ""
    rtt: str = ""
    lag_frames: int = -1
    desired_hash: str = ""
    running_hash: str = ""
    heard_us: int = 0


class HubState(msgspec.Struct, kw_only=True):
    """State of a hub, each second: the edges that joined it."""

    at_us: int
    edges: list[EdgeLink] = []


class Event(msgspec.Struct, kw_only=True):
    """Something that happened, for people: kept in the bounded EVENTS stream.

    Attributes:
        severity: ``info`` (good to know), ``warning`` (odd, nothing lost), ``error`` (something is
            lost or a person is needed).
        code: stable code, same as of errors; recoveries and notices have codes too.
        source: what it is about, for example ``edge/local/plc_1``.
    """

    at_us: int
    severity: Severity
    code: str
    source: str
    text: str
    remedy: str = ""


class HistorianState(msgspec.Struct, kw_only=True):
    """State of the historian, each second.

    Attributes:
        state: ``running``, ``waiting`` (broker or disk away, retrying), ``disk_full`` (stopped before
            it does harm; the log keeps what arrives).
        committed_sequence: stream sequence up to which the table has everything, synced.
        last_sequence: newest sequence of the stream.
        samples_total: samples in the table; duplicates_total: copies that were not stored again.
        table_version, files, bytes: of the Delta table. disk_free_bytes: of its disk, 0 where
            nobody can tell.
        partition: which part of several this historian stores, as ``0/2``; empty when it has all.
    """

    state: Literal["running", "waiting", "disk_full"]
    at_us: int
    started_us: int
    committed_sequence: int = 0
    last_sequence: int = 0
    last_commit_us: int = 0
    samples_total: int = 0
    duplicates_total: int = 0
    table_version: int = 0
    files: int = 0
    bytes: int = 0
    disk_free_bytes: int = 0
    last_error_code: str = ""
    last_error: str = ""
    partition: str = ""
