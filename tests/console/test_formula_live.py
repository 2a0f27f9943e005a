"""What the console shows of the apps role: a line, a row a formula, and its routes."""

from __future__ import annotations

import httpx
import pytest
from site_fixture import RunningSite

from headrace.console.pages.formula_live import head, table
from headrace.console.texts import Texts
from headrace.model.apps import AppsState, FormulaHealth
from headrace.security.identity import Identity

STATE = AppsState(
    state="running",
    at_us=1,
    started_us=0,
    results_rate=12.4,
    lag_us=30_000,
    latency_p99_us=420_000,
    repairs=2,
    formulas=[
        FormulaHealth(
            key="pump.ratio",
            role="formula",
            state="shadow",
            version=3,
            assets=4,
            missing=1,
            results=1_234,
            last_us=1_700_000_000_000_000,
        ),
        FormulaHealth(
            key="pump.<b>", role="formula", state="live", version=1, assets=0,
            error_code="APPS-1004", error="it cannot be evaluated", error_remedy="Report it.",
        ),
    ],
)  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_formula_has_a_row_and_a_stopped_one_says_why(language: str) -> None:
    texts = Texts(language)
    line, rows = str(head(texts, STATE)), str(table(texts, STATE))
    assert "12" in line and "420" in line and "30" in line
    assert rows.count("<tr") == 3 and "1,234" in rows and "4 (−1)" in rows
    assert "APPS-1004" in rows and "<b>" not in rows
    assert texts("formula_live.shadow") in rows and texts("formula_live.stopped") in rows


def test_a_silent_role_is_said_to_be_silent() -> None:
    texts = Texts("en")
    assert "says nothing" in str(head(texts, None))
    assert "No formulas" in str(table(texts, None))


def test_the_routes_ask_who_asks_and_give_what_is_known(running_site: RunningSite) -> None:
    for route in ("live", "changes"):
        answer = httpx.get(f"{running_site.url}/api/v1/formula/{route}")
        assert (answer.status_code, answer.json()["code"]) == (401, "SEC-1003")
    identity = Identity(running_site.folder)
    try:
        token = identity.add_token("leo", "test")
    finally:
        identity.close()
    headers = {"Authorization": f"Bearer {token}"}
    live = httpx.get(f"{running_site.url}/api/v1/formula/live", headers=headers)
    assert live.json() == {"apps": None, "edges": []}
    changes = httpx.get(f"{running_site.url}/api/v1/formula/changes?limit=5", headers=headers)
    assert changes.json() == {"changes": []}
