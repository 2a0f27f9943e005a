"""The site's counters in the Prometheus text exposition format, version 0.0.4."""

from __future__ import annotations

from typing import Final

from headrace.console.sources import Sources

_COUNTS: Final = (
    ("expected", "Samples that were due since the edge started"),
    ("read", "Samples read since the edge started"),
    ("bad", "Samples read with a Bad status"),
    ("filtered", "Samples left out by their deadband"),
    ("published", "Samples acknowledged by the log"),
    ("dropped", "Samples dropped"),
    ("reconnects", "Sessions opened after the first"),
)
_GAUGES: Final = (
    ("buffered", "Samples that wait for the log"),
    ("tags", "Tags of the connection"),
    ("tags_bad", "Tags that last failed"),
)


def metrics_text(sources: Sources) -> str:
    """All metrics of the site as text.

    Args:
        sources: what the console knows.
    """
    out: list[str] = []
    lines = sources.health.connections()
    for kind, fields in (("counter", _COUNTS), ("gauge", _GAUGES)):
        for field, explained in fields:
            suffix = "_total" if kind == "counter" else ""
            name = f"headrace_connection_{field}{suffix}"
            _head(out, name, kind, explained)
            for line in lines:
                labels = f'edge="{line.state.edge}",connection="{line.state.connection}"'
                out.append(f"{name}{{{labels}}} {getattr(line.state, field)}")
    _head(out, "headrace_connection_up", "gauge", "1 when the connection is connected")
    for line in lines:
        labels = f'edge="{line.state.edge}",connection="{line.state.connection}"'
        up = int(line.state.state == "connected" and not line.silent)
        out.append(f"headrace_connection_up{{{labels}}} {up}")
    _historian(out, sources)
    live = sources.live
    _one(out, "headrace_samples_seen_total", "counter", "Samples on the bus", live.samples_total)
    _one(out, "headrace_tags", "gauge", "Tags in use", len(sources.site.tags))
    _one(out, "headrace_live_clients", "gauge", "Live connections", live.watchers)
    corrupt = sources.corrupt_total
    _one(out, "headrace_corrupt_messages_total", "counter", "Refused messages", corrupt)
    return "\n".join(out) + "\n"


def _historian(out: list[str], sources: Sources) -> None:
    state = sources.health.historian
    up = int(state is not None and state.state == "running")
    _one(out, "headrace_historian_up", "gauge", "1 when the historian runs", up)
    if state is None:
        return
    behind = max(0, state.last_sequence - state.committed_sequence)
    for name, kind, explained, value in (
        ("samples", "gauge", "Samples in the table", state.samples_total),
        ("duplicates_total", "counter", "Copies not stored again", state.duplicates_total),
        ("behind_batches", "gauge", "Batches that wait for a commit", behind),
        ("files", "gauge", "Files of the table", state.files),
        ("table_bytes", "gauge", "Bytes of the table", state.bytes),
        ("disk_free_bytes", "gauge", "Free bytes of its disk", state.disk_free_bytes),
    ):
        _one(out, f"headrace_historian_{name}", kind, explained, value)


def _one(out: list[str], name: str, kind: str, explained: str, value: float) -> None:
    _head(out, name, kind, explained)
    out.append(f"{name} {value}")


def _head(out: list[str], name: str, kind: str, explained: str) -> None:
    out.append(f"# HELP {name} {explained}.")
    out.append(f"# TYPE {name} {kind}")
