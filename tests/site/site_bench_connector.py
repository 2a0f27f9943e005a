"""A connector that opens nothing, and a small right site file, for the tests of the site."""

from __future__ import annotations

import msgspec

from headrace.edge.contract import ConnectorType
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured


class BenchOptions(msgspec.Struct, frozen=True):
    unit_id: int = 1
    timeout_ms: int = 1000


class BenchConnector:
    """Knows addresses ``register:N`` and endpoints ``host:port``; opens nothing."""

    protocol = "bench"
    title = ("Bench", "台架")
    mode = "poll"
    abilities = frozenset({"read"})
    options = BenchOptions
    endpoint_example = "127.0.0.1:1502"
    address_example = "register:0"

    def check_connection(self, connection: ConnectionConfig) -> None:
        if ":" not in connection.endpoint:
            raise Misconfigured(
                "EDGE-1999",
                f"the endpoint {connection.endpoint!r} has no port",
                "Write host:port.",
            )
        try:
            msgspec.convert(connection.options, BenchOptions)
        except msgspec.ValidationError as error:
            raise Misconfigured("EDGE-1998", f"options: {error}", "Correct it.") from error

    def check_tag(self, tag: TagConfig) -> None:
        kind, _, number = tag.address.partition(":")
        if kind != "register" or not number.isdigit():
            raise Misconfigured(
                "EDGE-1997", f"the address {tag.address!r} is no register", "Write register:0."
            )


CONNECTOR: ConnectorType = BenchConnector()  # type: ignore[assignment] # it opens nothing


SITE = """\
[site]
enterprise = "acme"
name = "mill"
title = { en = "Demo works", zh = "示范工厂" }
time_zone = "Europe/Berlin"

[area.utilities]
title = { en = "Utilities", zh = "公用工程" }

[asset_type.pump]
quantities = { flow = "m3/h", head = "m" }

[asset."utilities/pumping/pump_1"]
type = "pump"
title = "Pump 1"

[group.waveforms]
retention_days = 7

[connection.plc]
protocol = "bench"
endpoint = "127.0.0.1:1502"
options = { unit_id = 1 }

# the pump's own instruments
[[tag]]
path = "utilities/pumping/pump_1/flow"
connection = "plc"
address = "register:0"
unit = "m3/h"

[[tag]]
path = "utilities/pumping/pump_1/vibration"
connection = "plc"
address = "register:2"
unit = "mm/s"
group = "waveforms"
sample_interval_us = 1000
"""
