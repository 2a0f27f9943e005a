"""The Sparkplug B 3.0 host application as a state machine without I/O, clock or event loop.

Topics and bytes go in (:meth:`HostSession.receive`), time goes in (:meth:`HostSession.tick`); samples
and happenings gather in :class:`~headrace.edge.connectors.mqtt.columns.Gathered`, and messages to
publish in :attr:`HostSession.outbox`. One edge node's life::

                     NBIRTH                          gap > reorder timeout,
    UNKNOWN ───────────────────────► ONLINE ◄──────┐ unknown alias, data of an unborn device
       │  data: ask for rebirth       │  │ NBIRTH  │        │
       ▼                              │  └─────────┤        ▼
    UNKNOWN                           │            └── ONLINE, rebirth due (asked, at a limited rate;
                     NDEATH, same bdSeq                 what comes meanwhile is kept, bounded)
    OFFLINE ◄─────────────────────────┘
       all tags stale at once

A value is never given to a tag unless the births in force say which tag it is: an alias that they do
not know, or know for another device, gives no sample but a rebirth request. Messages that came after
a gap are used later only when the new births give their aliases the same meaning as the old ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from headrace.edge.connectors.mqtt.columns import Gathered
from headrace.edge.connectors.sparkplug.config import (
    BD_SEQ,
    NAMESPACE,
    REBIRTH,
    MetricAddress,
    state_topic,
    topic,
)
from headrace.edge.connectors.sparkplug.node import (
    AliasTable,
    EdgeNode,
    Held,
    KnownMetric,
    Wanted,
    quick_attribute,
)
from headrace.edge.connectors.sparkplug.payload import (
    ARRAY_DTYPES,
    Value,
    decode_array,
    decode_value,
    rebirth_request,
    set_value,
    unit_of,
)
from headrace.edge.connectors.sparkplug.schema import Payload
from headrace.edge.connectors.sparkplug.template import Match, Template
from headrace.edge.connectors.sparkplug.wire import decode_runs
from headrace.model import status as codes
from headrace.model.errors import Refused

SEQ_COUNT: Final = 256
ORPHANS_MAX: Final = 2_000
NODES_MAX: Final = 10_000
_BACKOFF_DOUBLINGS_MAX: Final = 5


class Outgoing(NamedTuple):
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


Watcher = Callable[[MetricAddress, Value], None]


class HostSession:
    """One host application's view of all edge nodes.

    Args:
        host_id: our Sparkplug Host ID.
        gathered: where samples and happenings go.
        reorder_timeout_s, rebirth_interval_s: see the connection's options.

    Example:
        >>> session = HostSession("scada", Gathered())
        >>> session.receive("spBv1.0/hall/NDATA/node_1", b"", 0, 0.0)
        >>> [message.topic for message in session.outbox]
        ['spBv1.0/hall/NCMD/node_1']
    """

    def __init__(
        self,
        host_id: str,
        gathered: Gathered,
        *,
        reorder_timeout_s: float = 2.0,
        rebirth_interval_s: float = 10.0,
    ) -> None:
        self.host_id = host_id
        self.outbox: list[Outgoing] = []
        self.nodes: dict[tuple[str, str], EdgeNode] = {}
        self.on_watched: Watcher = lambda _address, _value: None
        self._out = gathered
        self._reorder_timeout_s = reorder_timeout_s
        self._rebirth_interval_s = rebirth_interval_s
        self._state_timestamp_ms = 0
        self._state_online = False
        self._wall_us = 0
        self.refused_nodes = 0

    # -- our own state ------------------------------------------------------------------------

    def will(self, timestamp_ms: int) -> Outgoing:
        """The death certificate to register with the CONNECT packet; the birth has its time (5.14)."""
        self._state_timestamp_ms = timestamp_ms
        return self._state(False, timestamp_ms)

    def subscribed(self) -> None:
        """Our subscriptions stand: say that we are online, and not before (4.8)."""
        self._state_online = True
        self.outbox.append(self._state(True, self._state_timestamp_ms))

    def goodbye(self, timestamp_ms: int) -> Outgoing:
        """The death certificate to publish before a clean disconnect."""
        self._state_online = False
        return self._state(False, timestamp_ms)

    def _state(self, online: bool, timestamp_ms: int) -> Outgoing:
        body = json.dumps({"online": online, "timestamp": timestamp_ms}).encode()
        return Outgoing(state_topic(self.host_id), body, 1, True)

    def _take_state(self, host_id: str, payload: bytes) -> None:
        if host_id != self.host_id or not self._state_online:
            return
        try:
            said = json.loads(payload)
        except ValueError:
            return
        if isinstance(said, dict) and said.get("online") is False:
            # A will of our own last session, delivered late: we are here (5.14).
            self.outbox.append(self._state(True, self._state_timestamp_ms))

    # -- declared tags ------------------------------------------------------------------------

    def declare(
        self, tags: Iterable[tuple[MetricAddress, int, int]], now_s: float, grace_s: float
    ) -> None:
        """Say which metrics are tags; replaces what was declared before.

        Args:
            tags: (address, tag_id, sample_interval_us).
            now_s: monotonic seconds.
            grace_s: how long nodes that we do not know may stay silent before we ask for births.
        """
        before = {key: node.wanted for key, node in self.nodes.items()}
        for node in self.nodes.values():
            node.drop_tables()
            node.wanted = {}
        for address, tag_id, interval_us in tags:
            node = self._node(address.group_id, address.edge_node_id)
            device = node.wanted.setdefault(address.device_id, {})
            known = device.get(address.metric)
            tag_ids = (*known.tag_ids, tag_id) if known else (tag_id,)
            device[address.metric] = Wanted(tag_ids, interval_us)
        for key, node in self.nodes.items():
            for metrics in node.metrics.values():
                for metric in metrics.values():
                    _bind(metric, node)
            if node.wanted and node.wanted != before.get(key):
                self._ask_rebirth(node, now_s, "", delay_s=0.0 if node.online else grace_s)

    def _node(self, group_id: str, edge_node_id: str) -> EdgeNode:
        key = (group_id, edge_node_id)
        node = self.nodes.get(key)
        if node is None:
            node = self.nodes[key] = EdgeNode(group_id, edge_node_id)
        return node

    # -- input --------------------------------------------------------------------------------

    def receive(self, topic_name: str, payload: bytes, received_us: int, now_s: float) -> None:
        """Take one message; raises nothing, whatever the bytes are.

        Args:
            received_us: our wall clock, UTC microseconds.
            now_s: monotonic seconds.
        """
        parts = topic_name.split("/")
        if parts[0] != NAMESPACE or len(parts) < 3:
            return
        if parts[1] == "STATE":
            self._take_state(parts[2], payload)
            return
        kind = parts[2]
        device_id = parts[4] if len(parts) == 5 else ""
        expected_parts = 4 if kind in ("NBIRTH", "NDEATH", "NDATA") else 5
        if kind not in _HANDLERS or len(parts) != expected_parts or not all(parts):
            return
        key = (parts[1], parts[3])
        if key not in self.nodes and len(self.nodes) >= NODES_MAX:
            self.refused_nodes += 1
            return
        node = self._node(*key)
        node.rebirth_tries = min(node.rebirth_tries, 1)
        self._wall_us = received_us
        if kind in ("NDATA", "DDATA") and self._take_runs(node, device_id, payload, received_us):
            return
        try:
            body = Payload.FromString(payload)
            self._sequence(node, Held(kind, device_id, body, received_us), now_s)
        except (DecodeError, UnicodeDecodeError) as error:
            text = f"a {kind} of {node.title} is no Sparkplug payload: {error}"
            self._out.notices.append(("EDGE-4201", text))
            node.in_doubt = node.online
            self._ask_rebirth(node, now_s, "an unreadable message")

    def _take_runs(self, node: EdgeNode, device_id: str, payload: bytes, received_us: int) -> bool:
        """Take a message of plain numbers as arrays, all of it or nothing; false leaves it to the
        careful way."""
        if not node.online or node.in_doubt or (device_id and device_id not in node.born):
            return False
        table = node.table(device_id)
        known = table.template(payload)
        if known is not None:
            return self._take_match(node, table, *known, received_us)
        message = decode_runs(payload)
        if message is None or message.seq != node.next_seq or node.reorder:
            return False
        if message.timestamp_ms < node.birth_ms:
            return False
        tags = [table.tags(run.alias, run.datatype) for run in message.runs]
        if any(each is None for each in tags):
            return False
        node.next_seq = (node.next_seq + 1) % SEQ_COUNT
        table.in_use = True
        for run, tag_id in zip(message.runs, tags, strict=True):
            assert tag_id is not None
            at_us = np.where(run.at_ms == 0, message.timestamp_ms, run.at_ms) * 1_000
            declared = tag_id >= 0
            # Of declared ones only: the first value of a later tag is news, whatever its time.
            table.last_us[run.alias[declared]] = at_us[declared]
            count = int(declared.sum())
            node.undeclared += len(tag_id) - count
            self._out.expected += count
            if count == len(tag_id):
                self._out.columns.add_block(tag_id, at_us, run.value, received_us)
            elif count:
                self._out.columns.add_block(
                    tag_id[declared], at_us[declared], run.value[declared], received_us
                )
        return True

    def _take_match(
        self,
        node: EdgeNode,
        table: AliasTable,
        template: Template,
        message: Match,
        received_us: int,
    ) -> bool:
        """Take a message of a known layout when it is the next one."""
        if message.seq != node.next_seq or node.reorder or message.timestamp_ms < node.birth_ms:
            return False
        node.next_seq = (node.next_seq + 1) % SEQ_COUNT
        table.in_use = True
        at_us = message.timestamp_ms * 1_000
        table.last_us[template.alias] = at_us
        node.undeclared += template.undeclared
        self._out.expected += len(message.values)
        self._out.columns.add_moment(template.tag_bytes, at_us, message.values, received_us)
        return True

    def _sequence(self, node: EdgeNode, message: Held, now_s: float) -> None:
        """Births and deaths of the node rule by themselves; all else must come in sequence."""
        if message.kind == "NBIRTH":
            self._nbirth(node, message, now_s)
        elif message.kind == "NDEATH":
            self._ndeath(node, message)
        elif not node.online:
            self._ask_rebirth(node, now_s, "data before its birth")
        elif node.in_doubt:
            self._keep_orphan(node, message)
        else:
            self._in_order(node, message, now_s)

    def _in_order(self, node: EdgeNode, message: Held, now_s: float) -> None:
        if not message.payload.HasField("seq"):
            node.in_doubt = True
            self._ask_rebirth(node, now_s, "a message without a sequence number")
            return
        if self._is_from_before(node, message):
            # Its sequence number belongs to earlier births; if only the node's clock was set back,
            # new births put that right.
            text = f"a {message.kind} of {node.title} is older than its births: not used"
            self._out.notices.append(("EDGE-4215", text))
            self._ask_rebirth(node, now_s, "a message that is older than its births")
            return
        seq = message.payload.seq
        if seq != node.next_seq:
            if seq >= SEQ_COUNT or seq in node.reorder:
                self._give_up_order(node, now_s)
                self._keep_orphan(node, message)
                return
            if not node.reorder:
                node.reorder_deadline_s = now_s + self._reorder_timeout_s
            node.reorder[seq] = message
            return
        self._apply(node, message, now_s)
        while node.reorder and not node.in_doubt:
            following = node.reorder.pop(node.next_seq, None)
            if following is None:
                return
            self._apply(node, following, now_s)

    def _is_from_before(self, node: EdgeNode, message: Held) -> bool:
        """It was sent before the births in force, and they changed what its aliases mean."""
        if not message.payload.HasField("timestamp"):
            return False
        if message.payload.timestamp >= node.birth_ms:
            return False
        if message.kind not in ("NDATA", "DDATA"):
            return True
        if any(metric.alias in node.changed for metric in message.payload.metrics):
            return True  # we do not know which of several births it belongs to
        return not _same_meaning(message, node.former_alias, node)

    def _apply(self, node: EdgeNode, message: Held, now_s: float) -> None:
        node.next_seq = (node.next_seq + 1) % SEQ_COUNT
        _HANDLERS[message.kind](self, node, message, now_s)

    def tick(self, now_us: int, now_s: float) -> None:
        """Let time pass: give up waiting for missing messages, ask again, declare devices dead.

        Args:
            now_us: our wall clock, UTC microseconds.
            now_s: monotonic seconds.
        """
        self._wall_us = now_us
        for node in self.nodes.values():
            if node.reorder and now_s >= node.reorder_deadline_s:
                self._give_up_order(node, now_s)
            if node.awaited:
                for device_id in [each for each, at in node.awaited.items() if now_s >= at]:
                    del node.awaited[device_id]
                    self._device_stale(node, device_id, now_us)
            if node.rebirth_due and now_s >= node.rebirth_not_before_s:
                self._send_rebirth(node, now_s)

    def _give_up_order(self, node: EdgeNode, now_s: float) -> None:
        """The missing message will not come: what came after it waits for new births."""
        missing = node.next_seq
        waiting = sorted(node.reorder, key=lambda seq: (seq - missing) % SEQ_COUNT)
        reason = f"message {missing} of its sequence is missing"
        span = (waiting[-1] - missing) % SEQ_COUNT + 1 if waiting else 1
        self._out.gaps += span - len(waiting)
        for seq in waiting:
            self._keep_orphan(node, node.reorder[seq])
        node.reorder.clear()
        node.in_doubt = True
        self._ask_rebirth(node, now_s, reason)

    def _keep_orphan(self, node: EdgeNode, message: Held) -> None:
        if message.kind == "DDEATH":
            self._device_stale(node, message.device_id, message.received_us)
        if message.kind not in ("NDATA", "DDATA"):
            return  # births are superseded by the births that we asked for
        if node.overtaken_ms >= 0 or self._is_from_before(node, message):
            # Births that we did not use may have changed what its aliases mean.
            self._say_lost(f"messages of {node.title} could not be understood: births of two times")
            return
        if not node.orphans:
            node.old_alias = node.alias
        if len(node.orphans) < ORPHANS_MAX:
            node.orphans.append(message)
            return
        self._out.gaps += 1
        text = f"{node.title} sent more than {ORPHANS_MAX} messages without the births we asked for"
        self._say_lost(text)

    def _say_lost(self, text: str) -> None:
        if ("EDGE-4211", text) not in self._out.notices:
            self._out.notices.append(("EDGE-4211", text))

    # -- rebirth requests ---------------------------------------------------------------------

    def _ask_rebirth(
        self, node: EdgeNode, now_s: float, reason: str, *, delay_s: float = 0.0
    ) -> None:
        if not node.rebirth_due:
            node.rebirth_due = True
            node.rebirth_not_before_s = max(node.rebirth_not_before_s, now_s + delay_s)
            if reason:
                text = f"asked {node.title} for its births: {reason}"
                self._out.notices.append(("EDGE-4202", text))
        if now_s >= node.rebirth_not_before_s:
            self._send_rebirth(node, now_s)

    def _send_rebirth(self, node: EdgeNode, now_s: float) -> None:
        doublings = min(node.rebirth_tries, _BACKOFF_DOUBLINGS_MAX)
        node.rebirth_not_before_s = now_s + self._rebirth_interval_s * 2**doublings
        node.rebirth_tries += 1
        node.rebirth_sent_s = now_s
        where = topic("NCMD", node.group_id, node.edge_node_id)
        self.outbox.append(
            Outgoing(where, rebirth_request(REBIRTH, self._wall_us // 1_000), 0, False)
        )

    # -- births and deaths --------------------------------------------------------------------

    def _nbirth(self, node: EdgeNode, message: Held, now_s: float) -> None:
        payload = message.payload
        bd_seq = _bd_seq(payload)
        if not payload.HasField("seq") or payload.seq >= SEQ_COUNT:
            text = f"the NBIRTH of {node.title} has no valid seq; it was not used"
            self._out.notices.append(("EDGE-4201", text))
            return
        if self._is_overtaken(node, payload):
            text = f"an NBIRTH of {node.title} is older than the births in force: not used"
            self._out.notices.append(("EDGE-4216", text))
            node.in_doubt = True
            node.rebirth_not_before_s = min(node.rebirth_not_before_s, now_s)
            self._ask_rebirth(node, now_s, "births that are older than those in force")
            return
        if node.bd_seq is not None:  # the first birth is nothing to tell
            again = "again " if node.online else ""
            text = f"{node.title} was born {again}(bdSeq {bd_seq})"
            self._out.notices.append(("EDGE-4203", text))
        node.online, node.bd_seq = True, bd_seq
        node.next_seq = (payload.seq + 1) % SEQ_COUNT
        for late in node.reorder.values():
            self._keep_orphan(node, late)
        node.reorder.clear()
        node.rebirth_due, node.in_doubt, node.rebirth_tries = False, False, 0
        node.rebirth_not_before_s = node.rebirth_sent_s + self._rebirth_interval_s
        node.drop_tables()
        node.retire_aliases()
        node.alias, node.birth_ms, node.overtaken_ms = {}, payload.timestamp, -1
        give_up_s = now_s + self._reorder_timeout_s + 1.0
        node.awaited = dict.fromkeys(node.born | set(node.awaited), give_up_s)
        node.born = set()
        self._learn(node, "", payload)
        self._take_birth(node, "", message)
        self._use_orphans(node, "", now_s)

    def _is_overtaken(self, node: EdgeNode, payload: Any) -> bool:
        """It was on its way for longer than newer births, and its aliases may mean other metrics. When
        later ones are older too, the node's clock was set back."""
        if not node.online or not payload.HasField("timestamp"):
            return False
        if payload.timestamp >= node.birth_ms or payload.timestamp > node.overtaken_ms >= 0:
            return False
        node.overtaken_ms = payload.timestamp
        return True

    def _dbirth(self, node: EdgeNode, message: Held, now_s: float) -> None:
        node.born.add(message.device_id)
        node.awaited.pop(message.device_id, None)
        if not self._learn(node, message.device_id, message.payload):
            node.born.discard(message.device_id)
            self._ask_rebirth(node, now_s, f"{message.device_id!r} uses an alias twice")
            return
        self._take_birth(node, message.device_id, message)
        self._use_orphans(node, message.device_id, now_s)

    def _learn(self, node: EdgeNode, device_id: str, payload: Any) -> bool:
        """Take over names, aliases and types of a birth; false when an alias is another's."""
        node.drop_tables()
        old = node.metrics.get(device_id, {})
        for metric in old.values():
            if metric.alias is not None and node.alias.get(metric.alias) is metric:
                del node.alias[metric.alias]
        known: dict[str, KnownMetric] = {}
        for metric in payload.metrics:
            alias = metric.alias if metric.HasField("alias") else None
            new = KnownMetric(device_id, metric.name, metric.datatype, alias)
            before = old.get(metric.name)
            if before is not None:
                new.last_us, new.watched = before.last_us, before.watched
                new.tag_ids = before.tag_ids
            _bind(new, node)
            known[metric.name] = new
            if alias is not None:
                other = node.alias.setdefault(alias, new)
                if other is not new:
                    if other.device_id != device_id:
                        return False
                    node.alias[alias] = KnownMetric(device_id, "", -1, alias)  # means nothing
        node.metrics[device_id] = known
        return True

    def _take_birth(self, node: EdgeNode, device_id: str, message: Held) -> None:
        payload, received_us = message.payload, message.received_us
        names = node.metrics[device_id]
        birth_us = payload.timestamp * 1_000 or received_us
        for metric in payload.metrics:
            known = names[metric.name]
            known.shown, known.unit = _shown(metric), unit_of(metric)
            if known.tag_ids or known.watched:
                self._birth_value(node, known, metric, birth_us, received_us)
            else:
                node.undeclared += metric.name not in (BD_SEQ, REBIRTH)
        for name, wanted in node.wanted.get(device_id, {}).items():
            if name not in names:
                where = f"{node.title}/{device_id}" if device_id else node.title
                problem = f"EDGE-4206 the birth of {where} has no metric {name!r}"
                for tag_id in wanted.tag_ids:
                    node.stale.pop(tag_id, None)
                    self._out.revive(tag_id)
                    self._out.expected += 1
                    self._out.fail(
                        tag_id, birth_us, codes.BAD_NODE_ID_UNKNOWN, problem, received_us
                    )

    def _birth_value(
        self, node: EdgeNode, known: KnownMetric, metric: Any, birth_us: int, received_us: int
    ) -> None:
        """A birth's value: new when its time is; else what we had, confirmed when it was stale."""
        at_us = metric.timestamp * 1_000 or birth_us
        for tag_id in known.tag_ids:
            self._out.revive(tag_id)
        stale_since = [node.stale.pop(tag, None) for tag in known.tag_ids]
        was_stale = any(each is not None for each in stale_since)
        if at_us != known.last_us or known.watched:
            self._value(node, known, metric, at_us, received_us)
        if was_stale and at_us < birth_us:
            self._value(node, known, metric, birth_us, received_us)

    def _ndeath(self, node: EdgeNode, message: Held) -> None:
        bd_seq = _bd_seq(message.payload)
        if node.online and None not in (bd_seq, node.bd_seq) and bd_seq != node.bd_seq:
            text = (
                f"an NDEATH of {node.title} belongs to bdSeq {bd_seq}, not {node.bd_seq}: ignored"
            )
            self._out.notices.append(("EDGE-4212", text))
            return
        if not node.online:
            return
        for late in node.reorder.values():
            self._keep_orphan(node, late)
        node.reorder.clear()
        node.online, node.bd_seq = False, None
        node.drop_tables()
        node.retire_aliases()
        node.alias, node.born, node.awaited = {}, set(), {}
        node.rebirth_due = node.in_doubt = False
        for device_id in list(node.wanted):
            self._mark_stale(node, node.tag_ids(device_id), message.received_us)
        self._out.notices.append(("EDGE-4204", f"{node.title} died (bdSeq {bd_seq})"))

    def _ddeath(self, node: EdgeNode, message: Held, now_s: float) -> None:
        del now_s
        self._device_stale(node, message.device_id, message.received_us)

    def _device_stale(self, node: EdgeNode, device_id: str, at_us: int) -> None:
        node.drop_tables()
        for metric in node.metrics.get(device_id, {}).values():
            if metric.alias is not None and node.alias.get(metric.alias) is metric:
                del node.alias[metric.alias]
        node.born.discard(device_id)
        node.awaited.pop(device_id, None)
        node.orphans = [each for each in node.orphans if each.device_id != device_id]
        self._mark_stale(node, node.tag_ids(device_id), at_us)
        self._out.notices.append(("EDGE-4204", f"device {node.title}/{device_id} died"))

    def _mark_stale(self, node: EdgeNode, tag_ids: list[int], at_us: int) -> None:
        self._out.die(tag_ids)
        node.stale.update(dict.fromkeys(tag_ids, at_us))

    # -- data ---------------------------------------------------------------------------------

    def _data(self, node: EdgeNode, message: Held, now_s: float) -> None:
        device_id = message.device_id
        node.settle_table(device_id)
        if device_id and device_id not in node.born:
            self._ask_rebirth(node, now_s, f"data of the device {device_id!r} before its birth")
            return
        self._take_data(node, message, now_s, node.alias)

    def _take_data(
        self, node: EdgeNode, message: Held, now_s: float, aliases: dict[int, KnownMetric]
    ) -> None:
        payload, device_id, received_us = message.payload, message.device_id, message.received_us
        default_us = payload.timestamp * 1_000 or received_us
        names = node.metrics[device_id]
        columns = self._out.columns
        add_tag, add_time = columns.tag_id.append, columns.source_us.append
        add_value = columns.value.append
        taken = 0
        for metric in payload.metrics:
            name = metric.name
            known = names.get(name) if name else aliases.get(metric.alias)
            if known is None or known.device_id != device_id or known.datatype < 0:
                self._ask_rebirth(node, now_s, f"the unknown metric {name or metric.alias!r}")
                continue
            if not name and not metric.alias and not metric.HasField("alias"):
                self._ask_rebirth(node, now_s, "a metric without name and alias")
                continue
            tag_ids = known.tag_ids
            if not tag_ids and not known.watched:
                node.undeclared += 1
                continue
            at_us = metric.timestamp * 1_000 or default_us
            if known.quick and not metric.HasField("properties"):
                value = getattr(metric, known.quick)
                # A value that is not zero proves that this member of the oneof is set.
                stated = metric.datatype or known.datatype
                if value and not metric.is_null and stated == known.datatype:
                    for tag_id in tag_ids:
                        add_tag(tag_id)
                        add_time(at_us)
                        add_value(value)
                    taken += len(tag_ids)
                    if not metric.is_historical:
                        known.last_us = at_us
                    continue
            columns.settle(received_us)
            self._value(node, known, metric, at_us, received_us)
        columns.settle(received_us)
        self._out.expected += taken

    def _value(
        self, node: EdgeNode, known: KnownMetric, metric: Any, at_us: int, received_us: int
    ) -> None:
        """Any value of any type, the careful way."""
        if known.sample_interval_us and known.datatype in ARRAY_DTYPES:
            self._waveform(known, metric, at_us, received_us)
            return
        number, text, status, problem = found = decode_value(metric, known.datatype)
        columns = self._out.columns
        for tag_id in known.tag_ids:
            if problem:
                self._out.fail(tag_id, at_us, status, problem, received_us)
            elif text is not None:
                columns.add_text(tag_id, at_us, text, status, received_us)
            elif isinstance(number, int):
                columns.add_integer(tag_id, at_us, number, status, received_us)
            else:
                columns.add(tag_id, at_us, number, status, received_us)
            self._out.expected += 1
        if not metric.is_historical:
            known.last_us = at_us
            if known.watched:
                where = MetricAddress(node.group_id, node.edge_node_id, known.device_id, known.name)
                self.on_watched(where, found)

    def _waveform(self, known: KnownMetric, metric: Any, at_us: int, received_us: int) -> None:
        values = decode_array(metric, known.datatype)
        for tag_id in known.tag_ids:
            if values is None:
                problem = f"EDGE-4207 the metric {known.name!r} carries no array of its type"
                self._out.expected += 1
                self._out.fail(tag_id, at_us, codes.BAD_TYPE_MISMATCH, problem, received_us)
                continue
            first_us = at_us - (len(values) - 1) * known.sample_interval_us
            self._out.columns.add_run(
                tag_id, first_us, known.sample_interval_us, values, 0, received_us
            )
            self._out.expected += len(values)
        if not metric.is_historical:
            known.last_us = at_us

    def _use_orphans(self, node: EdgeNode, device_id: str, now_s: float) -> None:
        """Take the messages that came after a gap, where the births confirm their meaning."""
        if not node.orphans:
            return
        mine = [each for each in node.orphans if each.device_id == device_id]
        node.orphans = [each for each in node.orphans if each.device_id != device_id]
        lost = 0
        for message in mine:
            if _same_meaning(message, node.old_alias, node):
                self._take_data(node, message, now_s, node.alias)
            else:
                lost += 1
        if lost:
            text = f"{lost} messages of {node.title} after a gap could not be understood any more"
            self._out.notices.append(("EDGE-4211", text))

    # -- commands -----------------------------------------------------------------------------

    def command(self, address: MetricAddress, value: float | str, timestamp_ms: int) -> Outgoing:
        """The NCMD or DCMD that writes a value (5.16).

        Raises:
            Refused: EDGE-4209 when the births in force do not have the metric.
            Misconfigured: EDGE-4208 when its type cannot take the value.
        """
        known = self.metric(address)
        if known is None:
            raise Refused(
                "EDGE-4209",
                f"cannot write {address.metric!r} of {address.group_id}/{address.edge_node_id}: "
                "it is offline or has no such metric",
                "Wait for its birth, or check the tag's address.",
            )
        payload = Payload(timestamp=timestamp_ms)
        metric = payload.metrics.add(timestamp=timestamp_ms)
        if known.alias is not None:
            metric.alias = known.alias
        else:
            metric.name = known.name
        set_value(metric, known.datatype, value, f"metric {known.name!r}")
        kind = "DCMD" if address.device_id else "NCMD"
        where = topic(kind, address.group_id, address.edge_node_id, address.device_id)
        return Outgoing(where, payload.SerializeToString(), 0, False)

    def watch(self, address: MetricAddress, on: bool) -> None:
        """Report the next values of a metric to :attr:`on_watched`, or no longer."""
        known = self.metric(address)
        if known is not None:
            node = self.nodes[address.group_id, address.edge_node_id]
            node.drop_tables()
            known.watched = on
            _bind(known, node)

    def metric(self, address: MetricAddress) -> KnownMetric | None:
        """What the births in force say of a metric; None when they do not have it."""
        node = self.nodes.get((address.group_id, address.edge_node_id))
        if node is None or not node.online:
            return None
        if address.device_id and address.device_id not in node.born:
            return None
        return node.metrics.get(address.device_id, {}).get(address.metric)


def _same_meaning(message: Held, before: dict[int, KnownMetric], node: EdgeNode) -> bool:
    """The births in force give a message's metrics the meaning that they had before."""
    names = node.metrics.get(message.device_id, {})
    for metric in message.payload.metrics:
        if metric.name:
            if metric.name not in names:
                return False
            continue
        old, new = before.get(metric.alias), node.alias.get(metric.alias)
        if old is None or new is None or old.identity() != new.identity():
            return False
    return True


def _bind(metric: KnownMetric, node: EdgeNode) -> None:
    wanted = node.wanted.get(metric.device_id, {}).get(metric.name, Wanted((), 0))
    if metric.tag_ids != wanted.tag_ids:
        metric.last_us = -1  # the next birth's value is new to them
    metric.tag_ids, metric.sample_interval_us = wanted
    metric.quick = "" if metric.watched else quick_attribute(metric.datatype)


def _bd_seq(payload: Any) -> int | None:
    for metric in payload.metrics:
        if metric.name == BD_SEQ:
            value = metric.long_value or metric.int_value
            return int(value)
    return None


def _shown(metric: Any) -> str:
    value = decode_value(metric, metric.datatype)
    shown = value.text if value.text is not None else value.number
    return "" if shown is None else str(shown)[:80]


_HANDLERS: Final[dict[str, Callable[[HostSession, EdgeNode, Held, float], None]]] = {
    "NBIRTH": HostSession._nbirth,
    "NDEATH": lambda session, node, message, _now: session._ndeath(node, message),
    "NDATA": HostSession._data,
    "DBIRTH": HostSession._dbirth,
    "DDATA": HostSession._data,
    "DDEATH": HostSession._ddeath,
}
