"""``headrace zone``: zones and conduits of the site file, and what crosses."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.run import DATA
from headrace.model.folder import DataFolder
from headrace.model.zones import DEFAULT_ZONE
from headrace.site.file import load_site
from headrace.site.model import SiteModel

ROW = ("connection", "its zone", "edge", "its zone", "crosses by")


def register(app: typer.Typer) -> None:
    """Add the group ``zone``."""
    group = typer.Typer(help="Zones and conduits (IEC 62443-3-2).", no_args_is_help=True)

    @group.command("list")
    def list_zones(data: Path = DATA) -> None:
        """Show zones, conduits, and how each connection reaches its edge."""
        _show(load_site(DataFolder(data.resolve()).site_file))

    @group.command("check")
    def check(
        path: str = typer.Argument(help="Path of equipment or of a tag."), data: Path = DATA
    ) -> None:
        """Say in which zone something is, and which conduits lead there and away."""
        zones = load_site(DataFolder(data.resolve()).site_file).zones
        name = zones.zone_of(path)
        _say(f"{path} is in the zone {name}")
        for each in zones.conduits:
            if name in (each.source, each.target):
                way = "both ways" if each.both_ways else "one way"
                what = ", ".join((*each.protocols, *each.groups)) or "everything"
                _say(f"  {each.source} → {each.target}, {way}: {what}")

    app.add_typer(group, name="zone")


def _show(model: SiteModel) -> None:
    zones, console = model.zones, Console()
    table = Table("zone", "SL-T", "equipment", "edges", "networks", box=None, header_style="bold")
    for zone in zones.zones:
        parts = (", ".join(each) for each in (zone.equipment, zone.edges, zone.networks))
        table.add_row(zone.name, str(zone.security_level), *parts)
    table.add_row(DEFAULT_ZONE, "", "everything else", "", "")
    console.print(table)
    ways = Table(*ROW, box=None, header_style="bold")
    for each in model.connections:
        device = zones.zone_of_connection(each.name, each.endpoint)
        edge = zones.zone_of_edge(each.edge)
        found = zones.conduits_of(device, edge, each.protocol)
        by = ", ".join(f"{conduit.source} → {conduit.target}" for conduit in found)
        ways.add_row(each.name, device, each.edge, edge, by or "no crossing")
    console.print(ways)


def _say(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
