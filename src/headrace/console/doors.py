"""Every route of the console, and what the policy is asked first when it is called.

A test holds this to the routes that there are, and calls each: one that asks something else, or nothing, fails.
``OPEN`` are those that need no decision, each with the reason.
"""

from __future__ import annotations

from typing import Final

from headrace.security.policy import Action

DOORS: Final[dict[str, tuple[Action, str]]] = {
    "GET /api/v1/aggregate": ("read", "samples"),
    "GET /api/v1/alarms": ("read", "alarms"),
    "GET /api/v1/alarms/journal": ("read", "alarms"),
    "GET /api/v1/alarms/metrics": ("read", "alarms"),
    "GET /api/v1/alarms/one": ("read", "alarms"),
    "GET /api/v1/alarms/sheet": ("read", "alarm_sheet"),
    "GET /api/v1/approvals": ("read", "console"),
    "GET /api/v1/audit": ("administer", "audit"),
    "GET /api/v1/audit/checkpoint": ("administer", "audit"),
    "GET /api/v1/audit/verify": ("administer", "audit"),
    "GET /api/v1/audit/who-read": ("administer", "audit"),
    "GET /api/v1/connections": ("read", "connections"),
    "GET /api/v1/downsample": ("read", "samples"),
    "GET /api/v1/edges": ("read", "connections"),
    "GET /api/v1/equipment": ("read", "equipment"),
    "GET /api/v1/events": ("read", "events"),
    "GET /api/v1/formula": ("read", "samples"),
    "GET /api/v1/formula/changes": ("read", "apps"),
    "GET /api/v1/formula/functions": ("read", "samples"),
    "GET /api/v1/formula/live": ("read", "apps"),
    "GET /api/v1/formula/{asset_type}/{name}/versions": ("read", "formula/x.x"),
    "GET /api/v1/last": ("read", "samples"),
    "GET /api/v1/ledger": ("read", "ledger"),
    "GET /api/v1/metrics": ("read", "metrics"),
    "GET /api/v1/notifications": ("read", "notifications"),
    "GET /api/v1/notifications/log": ("read", "notifications"),
    "GET /api/v1/policy": ("read", "policy"),
    "GET /api/v1/policy/explain": ("read", "console"),
    "GET /api/v1/samples": ("read", "samples"),
    "GET /api/v1/site": ("edit", "site"),
    "GET /api/v1/sparklines": ("read", "samples"),
    "GET /api/v1/tags": ("read", "tags"),
    "GET /api/v1/trend": ("read", "samples"),
    "GET /api/v1/why": ("read", "samples"),
    "GET /api/v1/why/dialog": ("read", "samples"),
    "PUT /api/v1/alarms/sheet": ("edit", "site"),
    "PUT /api/v1/formula/{asset_type}/{name}": ("edit", "formula/x.x"),
    "PUT /api/v1/policy/files/{name}": ("administer", "policy/x"),
    "PUT /api/v1/site": ("edit", "site"),
    "POST /api/v1/alarms/{verb}": ("read", "alarms"),
    "POST /api/v1/approvals": ("change_own", "approval"),
    "POST /api/v1/approvals/{release}/{verdict}": ("read", "console"),
    "POST /api/v1/formula/backtest": ("read", "samples"),
    "POST /api/v1/formula/preview": ("read", "samples"),
    "POST /api/v1/notifications/{channel}/test": ("edit", "channel/x"),
    "POST /api/v1/signatures": ("change_own", "signature"),
    "POST /api/v1/site/check": ("edit", "site"),
    "POST /api/v1/write": ("write", "tag/7"),
    "POST /change-password": ("change_own", "user"),
    "DELETE /api/v1/formula/{asset_type}/{name}": ("edit", "formula/x.x"),
    "WS /api/v1/alarms/stream": ("read", "alarms"),
    "WS /api/v1/live": ("read", "live"),
}
OPEN: Final[dict[str, str]] = {
    "GET /api/v1/health": "says only that the console serves",
    "GET /api/openapi.json": "describes the routes, nothing of the site",
    "GET /sign-in": "the form",
    "POST /sign-in": "where one becomes somebody",
    "POST /sign-out": "ends one's own session",
    "GET /change-password": "the form; without a session it leads to the sign-in",
    "POST /preferences": "language and theme, of one's own",
}
PAGES: Final[dict[str, tuple[Action, str]]] = {
    "/": ("read", "console"),
    "/equipment": ("read", "console"),
    "/equipment/{path:path}": ("read", "console"),
    "/alarms": ("read", "console"),
    "/alarms/journal": ("read", "console"),
    "/alarms/metrics": ("read", "console"),
    "/alarms/notifications": ("read", "page/alarms/notifications"),
    "/trend": ("read", "console"),
    "/formulas": ("read", "console"),
    "/formulas/backtest": ("read", "console"),
    "/connections": ("read", "page/connections"),
    "/connections/add": ("edit", "page/connections/add"),
    "/events": ("read", "page/events"),
    "/ledger": ("read", "page/ledger"),
    "/faults": ("simulate", "page/faults"),
    "/audit": ("administer", "page/audit"),
    "/policy": ("administer", "page/policy"),
    "/users": ("administer", "page/users"),
    "/profile": ("change_own", "page/profile"),
}
"""Every page, and what the policy is asked before it is drawn."""
