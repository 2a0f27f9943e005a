"""What is known of one tag's way from the device to the screen, role by role: plain data on the bus.

:mod:`headrace.model.why` judges it. All times are UTC microseconds; 0 is never or not known.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.model import status as st
from headrace.model.apps import DerivedFacts
from headrace.model.health import ConnectionState, HistorianState


class WhyTag(msgspec.Struct, frozen=True, kw_only=True):
    """The tag that is asked about, as the applied site file has it.

    Attributes:
        retired: it left the site file. paused: its connection is switched off there.
        derived: a formula gives it; ``edge`` is the apps role then, ``connection`` the asset type.
        machine: the edge on whose own machine that formula is evaluated; empty: the platform.
    """

    tag_id: int
    path: str
    connection: str = ""
    edge: str = ""
    scan_interval_ms: int = 1000
    retired: bool = False
    paused: bool = False
    derived: bool = False
    machine: str = ""


class EdgeFacts(msgspec.Struct, kw_only=True):
    """What an edge says of one tag; all times by its own clock, 0 is never.

    Attributes:
        at_us: when it says so. config_hash: of what it runs.
        has_tag: it runs the tag. connection: state of the tag's connection.
        polled: the host asks each interval; else the device reports when it wants.
        heard_us: when the device last showed that it lives: samples, or a keep-alive.
        keeps_alive: it sends keep-alives, so silence of a tag is no silence of the device.
        source_us, received_us, status: of the newest sample; ``status`` also of a mark of our own.
        passed_us, passed_source_us: receive time and source time of the newest one that was not
            filtered, or the time of a mark of our own that came after it.
        tag_error: why the tag fails, with a code; empty when it does not.
        buffered: samples on their way to the log. waiting_since_us: since when the oldest is.
        acknowledged_us: when the log last took a frame of the connection.
        trouble_code, trouble, trouble_remedy: why the log takes nothing now.
        protection: rule of its protection; empty when it just leaves (docs/protection.md).
    """

    at_us: int
    config_hash: str = ""
    has_tag: bool = False
    connection: ConnectionState | None = None
    polled: bool = True
    heard_us: int = 0
    keeps_alive: bool = False
    source_us: int = 0
    received_us: int = 0
    status: int = st.BAD_WAITING_FOR_INITIAL_DATA
    passed_us: int = 0
    passed_source_us: int = 0
    tag_error: str = ""
    buffered: int = 0
    waiting_since_us: int = 0
    acknowledged_us: int = 0
    trouble_code: str = ""
    trouble: str = ""
    trouble_remedy: str = ""
    protection: str = ""


class BusFacts(msgspec.Struct, kw_only=True):
    """What the broker says.

    Attributes:
        answers: it told about the log just now. code, error, remedy: why not.
        last_sequence: end of the log. subject_us: the broker's time of the newest frame of the tag's
            connection; 0 when the log has none.
    """

    answers: bool = False
    code: str = ""
    error: str = ""
    remedy: str = ""
    last_sequence: int = 0
    subject_us: int = 0


class WriterFacts(msgspec.Struct, kw_only=True):
    """What the historian says.

    Attributes:
        state: its last health message, None when none came. heard_us: when that came.
        oldest_waiting_us: when the log took the oldest frame that is not committed; 0 none.
    """

    state: HistorianState | None = None
    heard_us: int = 0
    oldest_waiting_us: int = 0


class TableFacts(msgspec.Struct, kw_only=True):
    """What a reader of the history finds now, table and tail together.

    Attributes:
        readable: it was read just now. code, error, remedy: why not.
        committed_sequence: of the table; -1 when it is not known which log it follows.
        tail_paused: the tail is full and waits for the writer.
        source_us, received_us: of the tag's newest sample; 0 none.
        unchanged_us: for how long at least the value has been the same.
    """

    readable: bool = False
    code: str = ""
    error: str = ""
    remedy: str = ""
    committed_sequence: int = -1
    tail_paused: bool = False
    source_us: int = 0
    received_us: int = 0
    unchanged_us: int = 0


class ScreenFacts(msgspec.Struct, kw_only=True):
    """What the console says of its live values.

    Attributes:
        at_us: when. connected: it is connected to the broker.
        feed_us: when it last took samples of any tag; 0 never.
        source_us, received_us: of the tag's newest sample there; 0 none.
        browser: whether the asking page has its live connection; None when no page asks.
        browser_source_us: newest sample that the page shows; 0 none.
    """

    at_us: int
    connected: bool = False
    feed_us: int = 0
    source_us: int = 0
    received_us: int = 0
    browser: bool | None = None
    browser_source_us: int = 0


class InputFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How one input of a derived tag does, up to the log.

    Attributes:
        path: of its tag. hop: the first that is not proven; empty when all are. state: of that hop.
    """

    path: str
    hop: str = ""
    state: Literal["proven", "waiting", "broken", "unknown"] = "proven"


class Facts(msgspec.Struct, kw_only=True):
    """All that is known of one tag's way to the screen.

    Attributes:
        at_us: now, by the clock of who asks.
        edge: None when the edge did not answer. edge_seen_us: when it was last heard.
        desired_hash, desired_since_us: what the edge should run, and since when.
        screen: None when no console answered.
        derived: what the apps role says of a derived tag; None when it did not answer, or of others.
        inputs: of a derived tag.
    """

    at_us: int
    tag: WhyTag
    derived: DerivedFacts | None = None
    inputs: list[InputFacts] = []
    edge: EdgeFacts | None = None
    edge_seen_us: int = 0
    desired_hash: str = ""
    desired_since_us: int = 0
    bus: BusFacts = msgspec.field(default_factory=BusFacts)
    writer: WriterFacts = msgspec.field(default_factory=WriterFacts)
    table: TableFacts = msgspec.field(default_factory=TableFacts)
    screen: ScreenFacts | None = None
