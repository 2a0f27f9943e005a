"""What stands on the page docs/apps.md, for the tests that type it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "apps.md").read_text("utf-8")
SECTION = PAGE.partition("## From nothing")[2].partition("\n## ")[0]
STEPS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
LINE = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)[0]


def edited(app: Path) -> None:
    """The manifest, edited as the page says."""
    manifest = app / "app.toml"
    text = manifest.read_text()
    at = text.index("alarm cavitating")
    manifest.write_text(text[:at] + LINE + text[at:])
