"""The web application: gate, REST, live values and pages on one FastAPI app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from nicegui import ui

from headrace.console.api import alarms as alarms_api
from headrace.console.api import app_records as app_records_api
from headrace.console.api import (
    app_services,
    audit,
    errors,
    gate,
    ledger,
    live,
    rest,
    screen,
    single_sign_on,
    site_file,
    why,
)
from headrace.console.api import apps as apps_api
from headrace.console.api import backfill as backfill_api
from headrace.console.api import backtest as backtest_api
from headrace.console.api import formula as formula_api
from headrace.console.api import models as models_api
from headrace.console.api import notifications as notifications_api
from headrace.console.api import operations_requests as operations_requests_api
from headrace.console.api import policy as policy_api
from headrace.console.api import shared as shared_api
from headrace.console.api.guard import Guard, SecurityHeaders
from headrace.console.hardening import harden
from headrace.console.pages import (
    actors,
    add_connection,
    alarm_journal,
    alarm_metrics,
    alarms,
    app_bind,
    app_values,
    apps,
    backtest,
    catalog,
    connections,
    equipment,
    events,
    faults,
    formula,
    notifications,
    overview,
    policy,
    profile,
    trend,
    users,
    zones,
)
from headrace.console.pages.audit import show as show_audit
from headrace.console.pages.ledger import show as show_ledger
from headrace.console.pages.models import show as show_models
from headrace.console.pages.shell import PageBody, add_page
from headrace.console.services import Services
from headrace.security.policy import Action

STATIC: Final = Path(__file__).parent / "static"
_PAGES: Final[tuple[tuple[str, PageBody, Action], ...]] = (
    ("/", overview.show, "read"),
    ("/equipment", equipment.show, "read"),
    ("/equipment/{path:path}", equipment.show, "read"),
    ("/alarms", alarms.show, "read"),
    ("/alarms/journal", alarm_journal.show, "read"),
    ("/alarms/metrics", alarm_metrics.show, "read"),
    ("/alarms/notifications", notifications.show, "read"),
    ("/apps", apps.show, "read"),
    ("/apps/values", app_values.show_values, "read"),
    ("/apps/work-requests", app_values.show_work, "read"),
    ("/apps/{app_id}", apps.show_app, "read"),
    ("/apps/{app_id}/bind", app_bind.show, "edit"),
    ("/catalog", catalog.show, "read"),
    ("/trend", trend.show, "read"),
    ("/formulas", formula.show, "read"),
    ("/formulas/backtest", backtest.show, "read"),
    ("/models", show_models, "read"),
    ("/connections", connections.show, "read"),
    ("/connections/add", add_connection.show, "edit"),
    ("/zones", zones.show, "edit"),
    ("/events", events.show, "read"),
    ("/ledger", show_ledger, "read"),
    ("/faults", faults.show, "simulate"),
    ("/policy", policy.show, "administer"),
    ("/audit", show_audit, "audit"),
    ("/users", users.show_users, "administer"),
    ("/actors", actors.show, "administer"),
    ("/profile", profile.show_profile, "change_own"),
)
_ROUTERS: Final[tuple[Callable[[Services], object], ...]] = (
    gate.make_router,
    single_sign_on.make_router,
    live.make_router,
    screen.make_router,
    rest.make_router,
    formula_api.make_router,
    backfill_api.make_router,
    backtest_api.make_router,
    apps_api.make_router,
    app_records_api.make_router,
    operations_requests_api.make_router,
    models_api.make_router,
    alarms_api.make_router,
    notifications_api.make_router,
    app_services.make_router,
    ledger.make_router,
    site_file.make_router,
    why.make_router,
    audit.make_router,
    policy_api.make_router,
    shared_api.make_router,
)


def build_api(services: Services) -> FastAPI:
    """The app without pages: gate, REST and live values."""
    app = FastAPI(
        title="Headrace",
        version="1",
        description="Samples, tags, connections and events of one site.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    app.add_middleware(Guard, services=services)
    app.add_middleware(SecurityHeaders)  # outermost: what the guard refuses has them too
    for make_router in _ROUTERS:
        app.include_router(make_router(services))  # type: ignore[arg-type] # each gives an APIRouter
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def build_app(services: Services) -> FastAPI:
    """The whole console. NiceGUI keeps pages per process, so a process has one console."""
    app = build_api(services)
    for path, body, action in _PAGES:
        add_page(services, path, body, action=action)
    harden()
    ui.run_with(
        app,
        title="Headrace",
        favicon=STATIC / "favicon.svg",
        tailwind=False,
        dark=None,
        show_welcome_message=False,
        reconnect_timeout=10.0,
        message_history_length=200,
    )
    return app
