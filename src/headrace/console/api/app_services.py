"""REST: industrial apps, and their services from the types of their functions."""

from __future__ import annotations

import contextlib
from typing import Final

from fastapi import APIRouter, Request, Response

from headrace.bus.log import log_subjects
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.console.api.answers import json_answer
from headrace.console.app_calls import call_facts, call_service, deployed, open_api, service_of
from headrace.console.services import Services
from headrace.model.errors import Refused

KEY: Final = f"$KV.{DESIRED_BUCKET}.app."


def make_router(services: Services) -> APIRouter:
    """Routes below ``/api/v1/apps``."""
    router = APIRouter(prefix="/api/v1/apps", tags=["apps"])
    sources = services.sources

    @router.get("")
    async def apps(request: Request) -> Response:
        """Installed apps: id, version, whether enabled, assets, services, and how each does where it runs."""
        services.require(request, "read", "apps")
        subjects = await log_subjects(sources.bus, f"KV_{DESIRED_BUCKET}")
        words = [each.removeprefix(KEY) for each in subjects if each.startswith(KEY)]
        found = []
        for word in words:
            with contextlib.suppress(Refused):  # it was removed, or is at this moment
                found.append(await deployed(services, word))
        return json_answer(
            {
                "apps": [
                    {
                        "id": each.manifest.id,
                        "version": each.manifest.version,
                        "enabled": each.enabled,
                        "title": each.manifest.title,
                        "assets": [asset.path for asset in each.assets],
                        "services": [service.name for service in each.manifest.services],
                        "edges": list(each.edges),
                        "states": sources.health.app_places(each.manifest.word),
                    }
                    for each in found
                ]
            }
        )

    @router.get("/{app_id}/openapi.json")
    async def described(request: Request, app_id: str) -> Response:
        """The app's services as an OpenAPI 3.1 document."""
        services.require(request, "read", "apps")
        return json_answer(await open_api(services, await deployed(services, app_id)))

    @router.post("/{app_id}/services/{service}")
    async def call(request: Request, app_id: str, service: str, edge: str = "") -> Response:
        """Ask a service: JSON as its request's type in ``openapi.json``; the answer as its answer's. A
        dangerous one is asked for with a signature. ``edge``: whose is asked, of an app in several places."""
        services.require(request, "read", "apps")
        deployment = await deployed(services, app_id)
        manifest = deployment.manifest
        wanted = service_of(manifest, service)
        body = await request.body()
        facts = call_facts(wanted, body)
        actor = services.require(request, "operate", f"app/{manifest.id}", facts)
        answer = await call_service(services, actor, deployment, wanted, body, edge)
        return Response(answer, media_type="application/json")

    return router
