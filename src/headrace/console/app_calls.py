"""A call of an app's service, for the form and for REST: one way in, decided by the policy before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace.apps.package.package import read_package
from headrace.apps.runtime.describe import Described
from headrace.bus.desired import read_desired
from headrace.console.services import Services
from headrace.model.app_manifest import AppManifest, Service
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Refused
from headrace.model.ids import NAME
from headrace.security.policy import Actor

DESCRIBED: Final = "described.json"
REPLY_S: Final = 2.0


def call_facts(service: Service, body: bytes) -> dict[str, Any]:
    """What the policy is told of a call, and a signature binds."""
    verb = {"verb": "dangerous"} if service.dangerous else {}
    return {"service": service.name, "request": body.decode(errors="replace"), **verb}


async def deployed(services: Services, app_id: str) -> AppDeployment:
    """What runs of an app.

    Raises:
        Refused: CONS-2303 when there is no such app.
    """
    word = app_id.replace("-", "_")
    raw = await read_desired(services.sources.bus, f"app.{word}") if NAME.match(word) else None
    if not raw:
        raise Refused(
            "CONS-2303", f"there is no app {app_id!r}", "See which there are: /api/v1/apps"
        )
    return msgspec.json.decode(raw, type=AppDeployment)


def service_of(manifest: AppManifest, name: str) -> Service:
    """One of an app's services.

    Raises:
        Refused: CONS-2302 when it has none of that name.
    """
    found = next((service for service in manifest.services if service.name == name), None)
    if found is None:
        known = ", ".join(service.name for service in manifest.services) or "none"
        raise Refused("CONS-2302", f"{manifest.id} has no service {name!r}", f"It has {known}.")
    return found


async def call_service(
    services: Services,
    actor: Actor,
    deployment: AppDeployment,
    service: Service,
    body: bytes,
    edge: str = "",
) -> bytes:
    """The answer of a service, JSON to JSON; the policy has said yes already.

    A dangerous one stands in the audit chain, before and after.

    Args:
        edge: whose is asked, where the app runs in several places.

    Raises:
        HeadraceError: what the app or its runtime says; APPS-2273 when it does not run on that edge.
    """
    sources, manifest = services.sources, deployment.manifest
    subject = sources.subjects.app_call(manifest.word, service.name, deployment.place(edge))

    async def ask() -> bytes:
        return await sources.bus.request(subject, body, timeout_s=service.timeout_s + REPLY_S)

    if not service.dangerous:
        return await ask()
    about = (actor.name, "operate", f"app/{manifest.id}")
    said = body.decode(errors="replace")[:1_000]
    async with services.identity.audit.doing(*about, service=service.name, request=said) as told:
        answer = await ask()
        told["answer"] = answer.decode(errors="replace")[:1_000]
    return answer


async def open_api(services: Services, deployment: AppDeployment) -> dict[str, Any]:
    """An app's services as an OpenAPI 3.1 document, out of its package; none of its code runs.

    Raises:
        HeadraceError: what the package is wrong in.
    """
    manifest = deployment.manifest
    path = services.sources.folder.packages / f"{manifest.id}-{manifest.version}.hrapp"
    package = await asyncio.to_thread(read_package, path, None)
    raw = package.file(DESCRIBED) if DESCRIBED in package.names else b"{}"
    described = msgspec.json.decode(raw, type=Described)
    schemas: dict[str, Any] = {}
    paths = {
        f"/api/v1/apps/{manifest.id}/services/{service.name}": _path(service, described, schemas)
        for service in manifest.services
        if service.name in described.services
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": manifest.title.get("en", manifest.id), "version": manifest.version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _path(service: Service, described: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    told = described.services[service.name]
    request = _moved(told.request, f"{service.name}.", schemas)
    answer = _moved(told.answer, f"{service.name}.", schemas)
    return {
        "post": {
            "operationId": service.name,
            "summary": service.title.get("en", service.name),
            "description": told.help,
            "x-dangerous": service.dangerous,
            "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
            "responses": {
                "200": {
                    "description": "The answer.",
                    "content": {"application/json": {"schema": answer}},
                }
            },
        }
    }


def _moved(schema: Mapping[str, Any], prefix: str, schemas: dict[str, Any]) -> Any:
    """A schema whose definitions stand among the document's, under names of their own."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: f"#/components/schemas/{prefix}{told.rpartition('/')[2]}"
                if key == "$ref" and isinstance(told, str)
                else renamed(told)
                for key, told in value.items()
            }
        return [renamed(each) for each in value] if isinstance(value, list) else value

    for name, definition in schema.get("$defs", {}).items():
        schemas[f"{prefix}{name}"] = renamed(definition)
    return renamed({key: value for key, value in schema.items() if key != "$defs"})
