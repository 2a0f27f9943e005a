"""REST: models of apps: versions, lineage, metrics, what they are used for, drift; promote and roll back."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.apps.models.installed import deployment_of
from headrace.apps.models.live_shadow import drift_now, shadow_live
from headrace.apps.models.record import ModelRecord, ModelState
from headrace.apps.models.registry import open_models
from headrace.apps.models.shadow import Shadowed
from headrace.apps.models.watch import Watched, look_for_drift
from headrace.console.api.answers import json_answer, parse_time
from headrace.console.scope import is_whole
from headrace.console.services import Services
from headrace.historian.times import parse_duration
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured

STATES: dict[str, ModelState] = {
    "promote": "champion",
    "challenge": "challenger",
    "retire": "retired",
}


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """A reason, and which version; for a roll-back none, and the asset where it is of one alone."""

    why: str
    version: int = 0
    asset: str = ""


def make_router(services: Services) -> APIRouter:
    """Routes below ``/api/v1/models``."""
    router = APIRouter(prefix="/api/v1/models", tags=["models"])
    folder = services.sources.folder

    @router.get("")
    async def listed(request: Request, app: str = "") -> Response:
        """All versions of all models, or those of one app."""
        actor = services.require(request, "read", "models")

        def find() -> list[ModelRecord]:
            if not is_whole(actor):
                return []  # a model is of all its assets
            with open_models(folder) as registry:
                return registry.models(app)

        return json_answer({"models": msgspec.to_builtins(await asyncio.to_thread(find))})

    @router.get("/{app}/{name}/changes")
    async def changes(request: Request, app: str, name: str) -> Response:
        """What the versions of a model were used for: when, by whom, why; oldest first."""
        services.require(request, "read", "models")

        def find() -> list[object]:
            with open_models(folder) as registry:
                return [msgspec.to_builtins(each) for each in registry.changes(app, name)]

        return json_answer({"changes": await asyncio.to_thread(find)})

    @router.get("/{app}/{name}/drift")
    async def drift(
        request: Request,
        app: str,
        name: str,
        version: int = 0,
        last: str = "1d",
        end: str = "now",
        alpha: float = 0.05,
    ) -> Response:
        """The newest stretch of each quantity against the training window (docs/models.md)."""
        actor = services.require(request, "read", "models")
        end_us = parse_time(end, services.sources.clock.now_us())
        found = await asyncio.to_thread(
            watched, services, app, name, version, end_us, parse_duration(last), alpha
        )
        if not is_whole(actor):
            found = msgspec.structs.replace(found, quantities=[])
        return json_answer(msgspec.to_builtins(found))

    @router.get("/{app}/{name}/drift/now")
    async def drifting(request: Request, app: str, name: str) -> Response:
        """The newest drift of each asset: above 1 no block of the training was as unlike the others."""
        actor = services.require(request, "read", "models")

        def find() -> list[object]:
            if not is_whole(actor):
                return []
            reader = services.sources.history.reader
            told = drift_now(reader, deployment_of(folder, app), name)
            return [msgspec.to_builtins(each) for each in told]

        return json_answer({"drift": await asyncio.to_thread(find)})

    @router.get("/{app}/{name}/shadow")
    async def shadowed(
        request: Request,
        app: str,
        name: str,
        start: str = "-1d",
        end: str = "now",
        truth: str = "",
        asset: str = "",
    ) -> Response:
        """What the running site stored of champion and challenger, compared (docs/models.md)."""
        actor = services.require(request, "read", "models")
        now_us = services.sources.clock.now_us()
        span_us = parse_time(start, now_us), parse_time(end, now_us)

        def find() -> Shadowed:
            reader = services.sources.history.reader
            with open_models(folder) as registry:
                return shadow_live(
                    reader, registry, deployment_of(folder, app), name, span_us, truth=truth,
                    asset=asset,
                ).found  # fmt: skip

        found = await asyncio.to_thread(find)
        if not is_whole(actor):
            found = msgspec.structs.replace(found, outputs=[])
        return json_answer(msgspec.to_builtins(found))

    @router.post("/{app}/{name}/{verb}")
    async def change(request: Request, app: str, name: str, verb: str) -> Response:
        """``promote``, ``challenge``, ``retire`` a version, or ``rollback`` to the champion before."""
        actor = services.require(request, "edit", f"model/{app}/{name}")
        if verb != "rollback" and verb not in STATES:
            raise Misconfigured(
                "CONS-2501",
                f"models know no {verb!r}",
                f"Say {', '.join(STATES)} or rollback.",
            )
        try:
            asked = msgspec.json.decode(await request.body(), type=Change)
        except UNREADABLE as error:
            raise Misconfigured(
                "CONS-1003", f"the body does not fit: {error}", 'Send {"version": 2, "why": "..."}.'
            ) from error
        record = await asyncio.to_thread(apply, services, app, name, verb, asked, actor.name)
        return json_answer(msgspec.to_builtins(record))

    return router


def apply(
    services: Services, app: str, name: str, verb: str, asked: Change, by: str
) -> ModelRecord:
    """Change what a version is used for, for a person whom the policy let."""
    with open_models(services.sources.folder) as registry:
        if verb == "rollback":
            return registry.roll_back(app, name, by=by, why=asked.why, asset=asked.asset)
        return registry.change(app, name, asked.version, STATES[verb], by=by, why=asked.why)


def watched(
    services: Services,
    app: str,
    name: str,
    version: int,
    end_us: int,
    stretch_us: int,
    alpha: float,
) -> Watched:
    """A look at the drift of a model."""
    folder = services.sources.folder
    with open_models(folder) as registry:
        record = registry.get(app, name, version)
    reader = services.sources.history.reader
    return look_for_drift(reader, deployment_of(folder, app), record, end_us, stretch_us, alpha)
