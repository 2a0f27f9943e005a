"""The console tests' site with an asset type, shifts and attributes, for the tests of saved formulas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from site_fixture import RunningSite
from test_rest import token

from waiting import until_sync

PUMP = "utilities/pumping/pump_1"
KNOWLEDGE = f"""
[[calendar.shift]]
name = "night"
start = "22:00"
end = "06:00"

[asset_type.pump]
quantities = {{ flow = "m3/h", head = "m", power = "kW" }}
attributes = {{ rated_power = "kW" }}

[asset."{PUMP}"]
type = "pump"
attributes = {{ rated_power = 50 }}
"""


class FormulaClient:
    """REST as an engineer."""

    def __init__(self, site: RunningSite, role: Any = "engineer") -> None:
        self.url = f"{site.url}/api/v1"
        self.headers = {"Authorization": f"Bearer {token(site, role)}"}

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = self.headers
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=30, **more)

    def formulas(self) -> dict[str, dict[str, Any]]:
        """Those of the site by name, as the console knows them now."""
        listed = self("GET", "/formula").json()["formulas"]
        return {f"{each['asset_type']}.{each['name']}": each for each in listed}


@contextmanager
def with_pumps(site: RunningSite) -> Iterator[FormulaClient]:
    """The site file with an asset type; as it was again at the end."""
    client = FormulaClient(site)
    plain = client("GET", "/site").text.partition("[asset_type.pump]")[0]

    def known() -> bool:
        body = {"formula": "rated_power + power", "asset_type": "pump"}
        return client("POST", "/formula/preview", json=body).status_code == 200

    with site.site_file(plain + KNOWLEDGE):  # the site has pumps with alarms of its own
        until_sync(known, 30, "the console knows the asset type")
        yield client
