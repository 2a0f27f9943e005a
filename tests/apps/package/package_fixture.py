"""A small right app, and a way to make hostile archives by hand."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

MANIFEST = """\
id = "seal-watch"
version = "1.2.0"
publisher = "acme"
headrace = ">=0.1"
views = ["pump.toml"]
python = "seal_watch"

[title]
en = "Seal watch"
zh = "密封监视"

[types.pump]
package = "pump"
version = ">=1.0"
quantities = { flow = "m3/h", power = "kW" }
optional = { seal_temperature = "degC" }
attributes = { rated_power = "kW" }

[formulas]
pump = \"\"\"
load = power / rated_power
alarm overloaded: load > 1.1 for 5 min
\"\"\"

[titles.pump.load]
en = "Load"

[[outputs]]
type = "pump"
name = "wear"
unit = "%"

[settings.limit]
unit = "%"
default = 80.0
minimum = 0.0
maximum = 100.0

[[services]]
name = "what_if"

[permissions]
writes = ["pump.flow"]
network = ["mail.plant.example:25"]
"""


def write_app(folder: Path, manifest: str = MANIFEST) -> Path:
    """The app in a folder."""
    (folder / "views").mkdir(parents=True)
    (folder / "app.toml").write_text(manifest, encoding="utf-8")
    (folder / "views" / "pump.toml").write_text('title = "x"\n', encoding="utf-8")
    (folder / "seal_watch.py").write_text("WEAR = 1\n", encoding="utf-8")
    (folder / "README.md").write_text("# Seal watch\n", encoding="utf-8")
    return folder


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = 0) -> bytes:
    """A zip with whatever entries, also those that no packer of ours would write."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", compression) as made:
        for name, content in entries:
            made.writestr(name, content)
    return body.getvalue()


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    """An entry that is a symbolic link."""
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target.encode()


def entries_of(package: bytes) -> dict[str, bytes]:
    """Name -> content of a package, nothing checked."""
    with zipfile.ZipFile(io.BytesIO(package)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}
