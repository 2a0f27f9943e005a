"""The demo's site file: ``site.toml`` with its ``tags.csv``, and the ports of its devices."""

from __future__ import annotations

import csv
import io
import json
import socket
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from headrace.bus.broker import BrokerAddress, free_port, load_address, write_private
from headrace.model.errors import Corrupt
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder, write_whole
from headrace.sim.demo_devices import (
    ENTERPRISE,
    SITE,
    WAVEFORM_GROUP,
    DemoDevice,
    DemoTag,
    demo_devices,
)
from headrace.sim.demo_knowledge import (
    ATTRIBUTES,
    CALENDAR,
    RELATIONS,
    quantities_of,
    relations_of,
    statements,
    titles_of,
)
from headrace.sim.demo_titles import (
    AREAS,
    KEY_QUANTITIES,
    TYPES,
    WORK_CENTERS,
    Title,
    asset_title,
    quantity_title,
)
from headrace.sim.plant.plant import Plant, Unit
from headrace.site.edit import SiteEdit

TAG_FILE: Final = "tags.csv"
_COLUMNS: Final = (
    "path",
    "connection",
    "address",
    "unit",
    "title",
    "title_zh",
    "description",
    "scan_interval_ms",
    "scale",
    "writable",
    "write_minimum",
    "write_maximum",
)


def write_demo_site(folder: DataFolder, address: BrokerAddress) -> None:
    """Write the demo's ``site.toml`` and ``tags.csv`` where there is none; keep a port's site file.

    Called before the roles start. Ports are kept in ``run/sim.json``; where one is taken by now, it
    gets another, and only that endpoint changes in the site file: edits of people stay.

    Args:
        folder: of the installation. address: of its broker; the demo's MQTT devices use it.

    Raises:
        Misconfigured: as of :class:`headrace.site.edit.SiteEdit` when a port had to change and the
            site file that is there is wrong.
        Corrupt: SIM-1021 when ``run/sim.json`` cannot be read.
    """
    del address  # the site file says "broker"; the port is known to both sides by run/broker.json
    devices = demo_devices(Plant(1))
    before = read_ports(folder)
    ports = prepare_ports(folder, devices)
    if not folder.site_file.exists():
        tags = folder.root / TAG_FILE
        if not tags.exists():
            write_whole(tags, tags_csv(devices).encode(), mode=0o644)
        text = site_text(Plant(1), devices, ports)
        write_whole(folder.site_file, text.encode(), mode=0o644)
        return
    moved = {name: port for name, port in ports.items() if before.get(name, port) != port}
    if not moved:
        return
    by_name = {device.name: device for device in devices}
    edit = SiteEdit(folder)
    connections = tomllib.loads(edit.text).get("connection", {})
    for name, port in moved.items():
        known = connections.get(name, {})
        # A connection that a person pointed elsewhere stays there.
        if known.get("endpoint") == by_name[name].endpoint(before[name]):
            edit.change_connection(name, endpoint=by_name[name].endpoint(port))
    edit.save()


def read_ports(folder: DataFolder) -> dict[str, int]:
    """Ports of the demo's devices at the last start; empty before the first.

    Raises:
        Corrupt: SIM-1021 when the file is damaged.
    """
    path = folder.run / "sim.json"
    try:
        ports = json.loads(path.read_text())["ports"]
        return {str(name): int(port) for name, port in ports.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(
            "SIM-1021", f"{path} cannot be read", "Remove it; the devices get new ports."
        ) from error


def prepare_ports(folder: DataFolder, devices: tuple[DemoDevice, ...]) -> dict[str, int]:
    """The ports to listen on: the last ones where they are free, new ones else; kept on disk."""
    known, ports = read_ports(folder), dict[str, int]()
    promised = _promised(folder)
    for device in devices:
        if device.has_port:
            port = known.get(device.name, 0)
            while port in (0, *promised, *ports.values()) or not port_is_free(port):
                port = free_port()
            ports[device.name] = port
    if ports != known:
        make_folder(folder.run, 0o700)
        write_private(folder.run / "sim.json", json.dumps({"ports": ports}, indent=1))
    return ports


def _promised(folder: DataFolder) -> set[int]:
    """Ports on which broker and console of this folder will listen; at the first start they do not yet."""
    kept = folder.run / "console.port"
    console = kept.read_text().strip() if kept.exists() else ""
    broker = load_address(folder) if (folder.run / "broker.json").exists() else None
    own = (broker.port, broker.mqtt_port, broker.monitor_port) if broker else ()
    return {*own, *([int(console)] if console.isdigit() else [])}


def port_is_free(port: int) -> bool:
    """Whether nobody listens on this loopback port at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def tags_csv(devices: tuple[DemoDevice, ...]) -> str:
    """The tag list of all devices, without the waveform."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for device in devices:
        for tag in device.tags:
            if not tag.sample_interval_us:
                fields = _fields(device, tag)
                writer.writerow([fields.get(column, "") for column in _COLUMNS])
    return out.getvalue()


def site_text(plant: Plant, devices: tuple[DemoDevice, ...], ports: dict[str, int]) -> str:
    """The text of the demo's ``site.toml``."""
    parts = [
        "# The demo site. Change anything while it runs: it applies within a second or two.",
        f"# Most tags stand in {TAG_FILE}, as engineers keep them; both forms are equal.",
        "[site]",
        f'enterprise = "{ENTERPRISE}"',
        f'name = "{SITE}"',
        'title = { en = "Demo works", zh = "示范工厂" }',
        'time_zone = "Europe/Berlin"',
        f'tag_files = ["{TAG_FILE}"]',
    ]
    parts += ["", *CALENDAR]
    for area, title in AREAS.items():
        parts += ["", f"[area.{area}]", _title_line(title)]
    for path, title in WORK_CENTERS.items():
        parts += ["", f'[work_center."{path}"]', _title_line(title)]
    kinds: dict[str, Unit] = {}
    for unit in plant.units:
        kinds.setdefault(unit.asset_type, unit)  # of machining centres the one with all instruments
    for kind, unit in kinds.items():
        parts += ["", *_type_lines(kind, unit)]
    for unit in plant.units:
        title = asset_title(unit.name, unit.asset_type)
        parts += ["", f'[asset."{unit.path}"]', f'type = "{unit.asset_type}"', _title_line(title)]
        attributes = {n: value for n, (_, value) in ATTRIBUTES.get(unit.asset_type, {}).items()}
        parts += _table_line("attributes", attributes)
        parts += _table_line("relations", relations_of(unit))
    parts += ["", f"[group.{WAVEFORM_GROUP}]", "retention_days = 7"]
    for device in devices:
        parts += ["", *_connection_lines(device, ports.get(device.name, 0))]
    for device in devices:
        for tag in device.tags:
            if tag.sample_interval_us:
                fields = _fields(device, tag)
                lines = [_title_line((fields.pop("title"), fields.pop("title_zh")))]
                lines += [f"{key} = {_literal(value)}" for key, value in fields.items()]
                parts += ["", "[[tag]]", *lines]
    return "\n".join(parts) + "\n"


PACKAGES: Final = {
    "pump": "pump",
    "compressor": "compressor",
    "machining_centre": "machining-centre",
    "smoke_sensor": "sensor-point",
    "gas_sensor": "sensor-point",
    "climate_sensor": "sensor-point",
}
"""Asset type -> what it is in the catalog of asset types."""


def _type_lines(kind: str, unit: Unit) -> list[str]:
    # The first quantities of a type are those that its tile in the overview shows.
    units = quantities_of(unit)
    ordered = dict.fromkeys((*KEY_QUANTITIES[kind], *units))
    return [
        f"[asset_type.{kind}]",
        _title_line(TYPES[kind]),
        *([f'package = "{PACKAGES[kind]}"'] if kind in PACKAGES else []),
        *_table_line("attributes", {n: of for n, (of, _) in ATTRIBUTES.get(kind, {}).items()}),
        *_table_line("relations", RELATIONS.get(kind, {})),
        "formulas = '''",
        *statements(kind).splitlines(),
        "'''",
        f"[asset_type.{kind}.quantities]",
        *(f"{name} = {_literal(units[name])}" for name in ordered),
        f"[asset_type.{kind}.titles]",
        *titles_of(kind),
    ]


def _table_line(name: str, table: Mapping[str, object]) -> list[str]:
    inner = ", ".join(f"{key} = {_literal(value)}" for key, value in table.items())
    return [f"{name} = {{ {inner} }}"] if table else []


def _title_line(title: Title) -> str:
    en, zh = title
    return f"title = {{ en = {_literal(en)}, zh = {_literal(zh)} }}"


def _connection_lines(device: DemoDevice, port: int) -> list[str]:
    lines = [
        f"[connection.{device.name}]",
        f'protocol = "{device.protocol}"',
        f'endpoint = "{device.endpoint(port)}"',
    ]
    if device.options:
        inner = ", ".join(f"{key} = {_literal(value)}" for key, value in device.options.items())
        lines.append(f"options = {{ {inner} }}")
    return lines


def _fields(device: DemoDevice, tag: DemoTag) -> dict[str, Any]:
    title, title_zh = quantity_title(tag.quantity.name)
    fields: dict[str, Any] = {
        "path": tag.path,
        "connection": device.name,
        "address": tag.address,
        "unit": tag.quantity.unit,
        "title": title,
        "title_zh": title_zh,
        "description": tag.quantity.description,
    }
    if tag.scan_interval_ms != 1000:
        fields["scan_interval_ms"] = tag.scan_interval_ms
    if tag.sample_interval_us:
        fields |= {"sample_interval_us": tag.sample_interval_us, "group": tag.group}
    if tag.scale != 1.0:
        fields["scale"] = tag.scale
    if tag.writable:
        fields |= {
            "writable": "true",
            "write_minimum": tag.quantity.minimum,
            "write_maximum": tag.quantity.maximum,
        }
    return fields


def _literal(value: Any) -> str:
    """A TOML literal; JSON's strings and numbers are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
