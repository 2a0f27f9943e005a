"""An app with one widget of each kind, for the browser tests and the gallery picture of the documentation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from headrace import __version__
from headrace.apps.catalog import Catalog
from headrace.apps.package import content_sha256, pack, read_folder
from headrace.model.bench_certificate import Certificate, ScenarioResult
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.security.package_keys import new_key, public_of

Edit = Callable[[str], str]
KEY = new_key()
"""Of all tests of one run: their packages of one version are the same bytes."""
MANIFEST = """\
id = "pump-board"
version = "{version}"
publisher = "acme"
views = ["fleet.toml", "pump.toml"]
python = "pump_board"

[title]
en = "Pump board"
zh = "水泵看板"

[description]
en = "Each kind of widget, on the pumps of the works."
zh = "以工厂水泵展示每一种组件。"

[types.pump]
package = "pump"
quantities = {{ flow = "m3/h", head = "m", power = "kW" }}

[formulas]
pump = \"\"\"
specific = power / flow
\"\"\"

[titles.pump.specific]
en = "Specific energy"
zh = "比能耗"

[settings.least_flow]
unit = "m3/h"
default = 5.0
minimum = 0.0
maximum = 100.0
title = {{ en = "Least flow", zh = "最小流量" }}

[[services]]
name = "what_if"
title = {{ en = "What if the speed changes?", zh = "若改变转速？" }}

[[services]]
name = "flush"
title = {{ en = "Flush the station", zh = "冲洗泵站" }}
dangerous = true

[permissions]
history = true
"""
DESCRIBED: dict[str, Any] = {
    "services": {
        "what_if": {
            "help": "Scales the pump's curve by the affinity laws.",
            "request": {
                "$ref": "#/$defs/WhatIf",
                "$defs": {
                    "WhatIf": {
                        "type": "object",
                        "required": ["flow"],
                        "properties": {
                            "flow": {
                                "type": "number",
                                "unit": "m3/h",
                                "minimum": 0,
                                "maximum": 100,
                            },
                            "speed": {"type": "number", "unit": "%", "default": 90.0},
                            "mode": {"enum": ["eco", "full"], "default": "eco"},
                        },
                    }
                },
            },
            "answer": {
                "type": "object",
                "properties": {"power": {"type": "number", "unit": "kW"}},
            },
        },
        "flush": {
            "help": "Opens the flushing valve for a while.",
            "request": {
                "type": "object",
                "required": ["minutes"],
                "properties": {"minutes": {"type": "number", "unit": "min", "minimum": 1}},
            },
            "answer": {
                "type": "object",
                "properties": {"volume": {"type": "number", "unit": "m3"}},
            },
        },
    }
}
FLEET = """\
title = { en = "All pumps", zh = "全部水泵" }
scope = "fleet"
type = "pump"

[[widget]]
kind = "status_grid"
names = ["flow"]
limits = [{ at = 40, state = "warn" }, { at = 60, state = "bad" }]
title = { en = "Flow of each", zh = "各泵流量" }

[[widget]]
kind = "table"
names = ["flow", "head", "power"]
title = { en = "Newest values", zh = "最新值" }

[[widget]]
kind = "trend"
names = ["flow"]
span_h = 1
width = 8

[[widget]]
kind = "heat_map"
name = "flow"
span_h = 12
width = 4
title = { en = "Flow by hour", zh = "每小时流量" }

[[widget]]
kind = "value_ledger"
width = 12
"""
PUMP = """\
title = { en = "One pump", zh = "单台水泵" }
type = "pump"

[[widget]]
kind = "gauge"
name = "flow"
maximum = 80
limits = [{ at = 40, state = "warn" }, { at = 60, state = "bad" }]

[[widget]]
kind = "kpi"
name = "power"

[[widget]]
kind = "kpi"
name = "flow"
of = "average"
span_h = 1

[[widget]]
kind = "kpi"
name = "head"
limits = [{ at = 30, state = "bad" }]

[[widget]]
kind = "mimic"
file = "pump.svg"
width = 7
title = { en = "Station", zh = "泵站" }

[[widget.bindings]]
element = "flow"
name = "flow"

[[widget.bindings]]
element = "level"
name = "head"
show = "level"
maximum = 60

[[widget.bindings]]
element = "wheel"
name = "flow"
show = "colour"
limits = [{ at = 40, state = "warn" }, { at = 60, state = "bad" }]

[[widget]]
kind = "form"
service = "what_if"
width = 5
height = "large"

[[widget]]
kind = "trend"
names = ["flow", "power"]
span_h = 1

[[widget]]
kind = "xy_plot"
x = "flow"
y = "power"
span_h = 1

[[widget]]
kind = "heat_map"
name = "flow"
span_h = 72
title = { en = "Flow by day and hour", zh = "按日与小时的流量" }

[[widget]]
kind = "table"
names = ["flow", "head", "power", "specific"]

[[widget]]
kind = "alarm_list"
own = false

[[widget]]
kind = "markdown"
text = { en = \"\"\"
## How to read it

- **Flow** above *60 m³/h* wears the seal.
- See [all pumps](/apps/pump-board?view=fleet).

| state | do |
|---|---|
| warn | look |
| bad | stop |
\"\"\", zh = "**流量**高于 60 m³/h 会磨损密封。" }
"""
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 200" font-size="15" onload="alert(1)">
<script>alert(1)</script>
<g fill="none" stroke="currentColor" stroke-width="2">
<rect x="20" y="30" width="90" height="140" rx="8"/><path d="M110 140 H190 M250 140 H400"/>
<circle cx="220" cy="140" r="32"/></g>
<rect id="level" x="24" y="34" width="82" height="132" fill="#4fb3da" opacity="0.6"/>
<path id="wheel" d="M206 122 L248 140 L206 158 Z" fill="#999"/>
<text id="flow" x="330" y="126" text-anchor="middle" fill="currentColor">-</text>
<text x="65" y="190" text-anchor="middle" fill="currentColor" opacity="0.6">tank</text>
</svg>
"""
BIND = """
[app.pump-board]
version = "1.0.0"

[app.pump-board.bind.pump]
type = "pump"
"""


def write(folder: Path, version: str = "1.0.0") -> Path:
    """The app's folder. Nobody runs its Python here: a test answers the service."""
    (folder / "views").mkdir(parents=True)
    (folder / "app.toml").write_text(MANIFEST.format(version=version), encoding="utf-8")
    (folder / "views" / "fleet.toml").write_text(FLEET, encoding="utf-8")
    (folder / "views" / "pump.toml").write_text(PUMP, encoding="utf-8")
    (folder / "views" / "pump.svg").write_text(SVG, encoding="utf-8")
    (folder / "pump_board.py").write_text("", encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(
        f"# Changes\n\n## {version}\n\nThe heat map is by hour.\n", encoding="utf-8"
    )
    return folder


def package(
    version: str,
    key: bytes | None,
    *,
    passed: tuple[bool, ...] = (),
    edit: Edit = str,
    app: str = "pump-board",
) -> bytes:
    """A package, signed with a key, and with a certificate of scenarios that passed or not.

    Args:
        edit: changes the manifest. app: its id.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(Path(scratch) / "app", version)
        manifest = folder / "app.toml"
        text = manifest.read_text(encoding="utf-8").replace('"pump-board"', f'"{app}"', 1)
        manifest.write_text(edit(text), encoding="utf-8")
        if passed:
            results = tuple(
                ScenarioResult(name=f"day {n}", passed=each, checks=1)
                for n, each in enumerate(passed)
            )
            certificate = Certificate(
                id=app,
                version=version,
                content_sha256=content_sha256(read_folder(folder)),
                headrace=__version__,
                scenarios={each.name: "0" * 64 for each in results},
                results=results,
            )
            (folder / "certificate.json").write_bytes(msgspec.json.encode(certificate))
        return pack(folder, key, described=msgspec.json.encode(DESCRIBED))


def trusting(folder: DataFolder) -> bytes:
    """A publisher's key that the installation trusts as ``acme``."""
    identity = Identity(folder)
    try:
        Catalog(folder, identity.audit, SystemClock()).publishers.add(
            "acme", public_of(KEY), "test"
        )
    finally:
        identity.close()
    return KEY


def take(folder: DataFolder, content: bytes) -> None:
    """Keep a package in the catalog of the installation."""
    identity = Identity(folder)
    try:
        Catalog(folder, identity.audit, SystemClock()).take(content, "test")
    finally:
        identity.close()
