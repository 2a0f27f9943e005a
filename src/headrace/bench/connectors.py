"""Connectors on the bench: the contract suite against a device of the bench, or one that was recorded."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import headrace
from headrace.bench.brokers import BenchBroker
from headrace.bench.checks import Verdict
from headrace.bench.device_recording import DeviceRecording, load_recording
from headrace.bench.device_replay import device_emulator, last_values
from headrace.bench.report import Report
from headrace.bench.trial import Trial
from headrace.bus.broker import BrokerAddress
from headrace.edge.catalog import connector_type, protocols
from headrace.model.errors import Misconfigured
from headrace.sim.emulators import Emulator, Point, PointType, Value
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator
from headrace.testing import CONNECTOR_CHECKS, ConnectorCase

Make = Callable[[], ConnectorCase]
_OVER_BROKER: Final = ("mqtt", "sparkplug")
_DRIVERS: Final = {"opcua": ("asyncua",), "mqtt": ("paho",), "sparkplug": ("paho", "google")}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "modbus": {"timeout_s": 1.0},
    "opcua": {"timeout_s": 2.0},
    "mqtt": {"connect_timeout_s": 1.0, "clean_session": True, "timestamp": "/ts@us"},
    "sparkplug": {"connect_timeout_s": 1.0, "startup_rebirth_ms": 0, "rebirth_interval_ms": 200},
}
_TIMEOUT_S: Final = {"opcua": 2.0}
# A device of each protocol: most types, texts, and integers that a float cannot hold.
_DEVICES: Final[dict[str, dict[str, tuple[PointType, Value]]]] = {
    "modbus": {
        "holding:0:float32:CDAB": ("float32", 20.5),
        "holding:2:uint16": ("uint16", 65_535),
        "holding:3:int16": ("int16", -1),
        "holding:4:int32:DCBA": ("int32", -70_000),
        "holding:6:uint64": ("uint64", 2**64 - 1),
        "holding:14:string16": ("string", "press 3"),
        "holding:22:bcd32": ("uint32", 12_345_678),
        "holding:24:bit3": ("bool", True),
        "input:100:float64:BADC": ("float64", 0.1),
        "coil:3": ("bool", True),
    },
    "opcua": {
        "ns=2;s=bench.load": ("float64", 0.1),
        "ns=2;s=bench.speed": ("float32", 900.25),
        "ns=2;s=bench.count": ("uint16", 65_535),
        "ns=2;s=bench.total": ("int64", 2**60 + 1),
        "ns=2;s=bench.program": ("string", "O1000"),
        "ns=2;s=bench.on": ("bool", True),
    },
    "mqtt": {
        "bench/meter#/flow": ("float64", 0.1),
        "bench/meter#/total": ("int64", 2**60 + 1),
        "bench/meter#/mode": ("string", "auto"),
    },
    "sparkplug": {
        "bench/device#level": ("float64", 0.1),
        "bench/device/meter#total": ("int64", 2**60 + 1),
        "bench/device/meter#power": ("float32", 1.5),
        "bench/device/meter#mode": ("string", "auto"),
    },
}
_WRITES: Final[dict[str, dict[str, float | str]]] = {
    "modbus": {"holding:200:float32:CDAB": 1.25},
    "opcua": {"ns=2;s=bench.setpoint": 7.5},
    "mqtt": {"bench/meter#/flow": 12.5},
    "sparkplug": {"bench/device/meter#power": 12.5},
}
# What a check needs of its case: without it, it says nothing.
_NEEDS: Final = {
    "one_bad_tag_spoils_no_other": "missing_address",
    "writes_and_reads_back": "writes",
    "browses": "browse_finds",
}
_MISSING: Final = {
    "modbus": "holding:65000:int32",
    "opcua": "ns=2;s=headrace.no.such.node",
    "mqtt": "bench/meter#/none",
    "sparkplug": "bench/device/meter#none",
}


def bench_connector(
    name: str, *, device: Path | None = None, case: str = "", only: Sequence[str] = ()
) -> Report:
    """Hold a connector against its contract, a trial a check.

    Args:
        name: of the connector, as in a site file. device: a recorded one; None is one of the bench.
        case: ``module:function`` that gives a :class:`headrace.testing.ConnectorCase`, for a connector of
            another protocol. only: names of checks.

    Raises:
        Misconfigured: APPS-2468 when there is no device for it, APPS-2469 no such check; EDGE-1002 no such
            connector; APPS-2430 no such recording.
        Corrupt: APPS-2431 when the recording is damaged.
    """
    checks = {each.__name__: each for each in CONNECTOR_CHECKS}
    for each in only:
        if each not in checks:
            raise Misconfigured(
                "APPS-2469", f"there is no check {each}", f"There are {', '.join(checks)}."
            )
    connector_type(name)
    recording = load_recording(device) if device is not None else None
    if recording is not None and recording.device.protocol != name:
        raise Misconfigured(
            "APPS-2468",
            f"{device} was recorded by {recording.device.protocol}, not {name}",
            "Name that connector.",
        )
    make = _given(case) if case else None
    chosen = only or list(checks)
    trials = [asyncio.run(_trial(name, each, recording, make)) for each in chosen]
    sha256 = hashlib.sha256(device.read_bytes()).hexdigest() if device is not None else ""
    return Report(
        subject="connector",
        id=name,
        content_sha256=sha256,
        platform=headrace.__version__,
        trials=trials,
    )


def _given(case: str) -> Make:
    """The case that somebody wrote for a connector."""
    module, _, name = case.partition(":")
    try:
        made: Make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Misconfigured(
            "APPS-2468",
            f"there is no case {case!r}: {error}",
            "Name module:function, on PYTHONPATH, that gives headrace.testing.ConnectorCase.",
        ) from error
    return made


async def _trial(
    protocol: str, check: str, recording: DeviceRecording | None, make: Make | None
) -> Trial:
    """One check as a trial: what a connector raises is its verdict, whatever it is."""
    run = next(each for each in CONNECTOR_CHECKS if each.__name__ == check)
    title = (run.__doc__ or check).partition("\n")[0].replace("``", "")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        broker = BenchBroker(folder) if protocol in _OVER_BROKER and make is None else None
        if broker is not None:
            stack.push_async_callback(broker.stop)
        case = make() if make is not None else _case(protocol, recording, broker)
        needed = _NEEDS.get(check, "")
        if needed and not getattr(case, needed):
            return _unjudged(check, title, "skipped", f"this device's case has no {needed}", "")
        (raised,) = await asyncio.gather(run(case), return_exceptions=True)
    if isinstance(raised, Misconfigured) and make is None and recording is not None:
        # The recorded device cannot be shown: that says nothing of the connector.
        return _unjudged(check, title, "error", f"{raised.code} {raised.what}", raised.remedy)
    seen = "as asked" if raised is None else _words(raised)
    verdict = Verdict(kind="contract", asked=title, passed=raised is None, seen=seen)
    return Trial(
        scenario=check,
        title=title,
        sha256="",
        protocol=protocol,
        outcome="passed" if raised is None else "failed",
        verdicts=[verdict],
    )


def _words(raised: BaseException) -> str:
    text = str(raised).partition("\n")[0] or type(raised).__name__
    return text if isinstance(raised, AssertionError) else f"{type(raised).__name__}: {text}"


def _unjudged(check: str, title: str, outcome: str, reason: str, remedy: str) -> Trial:
    return Trial(
        scenario=check, title=title, sha256="", outcome=outcome, reason=reason, remedy=remedy
    )


def _case(
    protocol: str, recording: DeviceRecording | None, broker: BenchBroker | None
) -> ConnectorCase:
    known = _DEVICES.get(protocol)
    if known is None:
        raise Misconfigured(
            "APPS-2468",
            f"the bench has no device for the connector {protocol}",
            f"Write a case and name it with --case; devices are there for {', '.join(_DEVICES)}"
            f" of {', '.join(protocols())}.",
        )
    fields: dict[str, Any] = {}
    if broker is not None:
        fields = {"server": broker, "context": broker.lent, "endpoint": "broker"}
    options = dict(_OPTIONS[protocol])
    if protocol == "mqtt" and recording is None:
        options |= {"write_topic_suffix": "/set", "write_timeout_s": 1.0, "browse_listen_s": 0.5}
    address = broker.address if broker is not None else None
    if recording is None:
        expected: dict[str, Value] = {name: value for name, (_, value) in known.items()}
        writes = _WRITES[protocol]
        kinds: dict[str, PointType] = {
            **dict.fromkeys(writes, "float64"),
            **{n: kind for n, (kind, _) in known.items()},
        }
        points = [Point(n, kind, _first(kind), writable=n in writes) for n, kind in kinds.items()]
        fields["writes"] = writes
        fields["browse_finds"] = () if protocol == "modbus" else tuple(known)
        make = partial(_emulator, protocol, points, address)
    else:
        expected = last_values(recording)
        options |= {n: v for n, v in recording.device.options.items() if n not in options}
        make = partial(_recorded, recording, address)
    return ConnectorCase(
        connector=connector_type(protocol),
        make_emulator=make,
        expected=expected,
        options=options,
        missing_address="" if recording is not None else _MISSING[protocol],
        drivers=_DRIVERS.get(protocol, ()),
        timeout_s=_TIMEOUT_S.get(protocol, 1.0),
        **fields,
    )


def _first(kind: PointType) -> Value:
    return "" if kind == "string" else kind != "bool" and 0


def _emulator(protocol: str, points: Sequence[Point], broker: BrokerAddress | None) -> Emulator:
    if protocol == "modbus":
        return ModbusEmulator(points)
    if protocol == "opcua":
        return OpcUaEmulator(points)
    assert broker is not None, "devices over MQTT have a broker"
    url, user, password = broker.mqtt_endpoint, broker.device_user, broker.device_password
    if protocol == "mqtt":
        return MqttJsonEmulator(
            points,
            endpoint=url,
            username=user,
            password=password,
            retain=True,
            write_topic_suffix="/set",
        )
    return SparkplugEmulator(points, endpoint=url, username=user, password=password)


def _recorded(recording: DeviceRecording, broker: BrokerAddress | None) -> Emulator:
    if broker is None:
        return device_emulator(recording)
    return device_emulator(
        recording,
        broker.mqtt_endpoint,
        username=broker.device_user,
        password=broker.device_password,
        retain=True,
    )
