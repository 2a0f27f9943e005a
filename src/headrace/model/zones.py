"""Zones and conduits (IEC 62443-3-2, ZCR 3): what lies where, and what may cross between. Pure.

A conduit names its way: a device's data that an edge reads goes from the device's zone to the edge's; a write
goes the other way. What no conduit allows does not cross. Whatever is in no declared zone is in
:data:`DEFAULT_ZONE`; without any declared zone all is one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import msgspec

DEFAULT_ZONE: Final = "site"
_HOST: Final = re.compile(r"^(?:[a-z0-9+.\-]+://)?(?:\[([0-9a-f:.]+)\]|([^/:\s]+))", re.IGNORECASE)


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """A zone.

    Attributes:
        security_level: target, SL-T 1 to 4.
        equipment: paths; all below them too, unless another zone has the deeper path.
        connections, edges: names. networks: such as ``10.1.0.0/16``; devices with an address in it.
    """

    name: str
    title: str = ""
    title_zh: str = ""
    security_level: int = 1
    equipment: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


class Conduit(msgspec.Struct, frozen=True, kw_only=True):
    """What may cross from one zone to another.

    Attributes:
        source, target: zones. both_ways: also from ``target`` to ``source``.
        protocols: of connections; none named: all.
        groups: tag groups whose samples may cross; none named: all.
    """

    source: str
    target: str
    both_ways: bool = False
    protocols: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def leads(self, source: str, target: str, protocol: str = "") -> bool:
        """Whether it leads from one zone to another for a protocol; "" is any."""
        way = (source, target)
        right_way = way == (self.source, self.target) or (
            self.both_ways and way == (self.target, self.source)
        )
        return right_way and (not self.protocols or not protocol or protocol in self.protocols)


class ZoneMap(msgspec.Struct, frozen=True, kw_only=True):
    """The zones and conduits of a site.

    Example:
        >>> zones = ZoneMap(zones=(Zone(name="control", equipment=("mill/line_1",)),))
        >>> zones.zone_of("mill/line_1/pump"), zones.zone_of("mill")
        ('control', 'site')
    """

    zones: tuple[Zone, ...] = ()
    conduits: tuple[Conduit, ...] = ()

    def zone_of(self, path: str) -> str:
        """The zone of equipment, or of a tag by its path: that of the longest path that it lies in."""
        best, length = DEFAULT_ZONE, -1
        for zone in self.zones:
            for each in zone.equipment:
                if (path == each or path.startswith(f"{each}/")) and len(each) > length:
                    best, length = zone.name, len(each)
        return best

    def zone_of_edge(self, edge: str) -> str:
        """The zone of an edge."""
        return next((zone.name for zone in self.zones if edge in zone.edges), DEFAULT_ZONE)

    def zone_of_connection(self, name: str, endpoint: str) -> str:
        """The zone of a device: that of its address when a zone has its network, else by its name."""
        found = self.zone_of_address(endpoint)
        return found or next((z.name for z in self.zones if name in z.connections), DEFAULT_ZONE)

    def zone_of_address(self, endpoint: str) -> str:
        """The zone whose network an endpoint's address lies in, the narrowest; "" for none, and for names:
        they are not looked up."""
        match = _HOST.match(endpoint)
        try:
            address = ipaddress.ip_address((match[1] or match[2]) if match else "")
        except ValueError:
            return ""
        best, length = "", -1
        for zone in self.zones:
            for network in map(ipaddress.ip_network, zone.networks):
                if address in network and network.prefixlen > length:
                    best, length = zone.name, network.prefixlen
        return best

    def conduits_of(self, source: str, target: str, protocol: str = "") -> list[Conduit]:
        """The conduits that lead from one zone to another."""
        return [each for each in self.conduits if each.leads(source, target, protocol)]

    def may_cross(
        self, source: str, target: str, protocol: str, groups: Iterable[str] = ()
    ) -> bool:
        """Whether samples of these groups, or a write when there are none, may go from zone to zone."""
        if source == target:
            return True
        found = self.conduits_of(source, target, protocol)
        return bool(found) and all(
            any(not conduit.groups or group in conduit.groups for conduit in found)
            for group in groups
        )
