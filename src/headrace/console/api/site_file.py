"""The site file by REST: read it, check a new one, put a new one in its place."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer
from headrace.console.services import Services
from headrace.model.errors import Refused
from headrace.model.folder import DataFolder
from headrace.site.file import SiteFiles, check_site
from headrace.site.writing import site_lock, write_files

BYTES_MAX: Final = 4 << 20


def make_router(services: Services) -> APIRouter:
    """Routes for the site file; its tag lists are left as they are."""
    router = APIRouter(prefix="/api/v1/site", tags=["site"])
    folder = services.sources.folder

    @router.get("")
    async def site(request: Request) -> Response:
        """The site file as it is on disk; for engineers, since options may hold a secret."""
        services.require(request, "edit", "site")
        text = await asyncio.to_thread(folder.site_file.read_text, "utf-8")
        return Response(text, media_type="application/toml")

    @router.post("/check")
    async def check(request: Request) -> Response:
        """Check a site file in the body; nothing is changed. ``problems`` is empty when it is good."""
        services.require(request, "edit", "site")
        problems = await asyncio.to_thread(_problems, folder, await whole_body(request))
        return json_answer({"problems": problems})

    @router.put("")
    async def put(request: Request) -> Response:
        """Replace the site file, whole or not at all; edges follow within seconds."""
        services.require(request, "edit", "site")
        body = await whole_body(request)

        def replace() -> list[dict[str, object]]:
            with site_lock(folder):
                problems = _problems(folder, body)
                if not problems:
                    write_files(folder, {"site.toml": body})
            return problems

        problems = await asyncio.to_thread(replace)
        return json_answer({"problems": problems}, 422 if problems else 200)

    return router


def _problems(folder: DataFolder, body: bytes) -> list[dict[str, object]]:
    _, problems = check_site(SiteFiles(folder.site_file, {"site.toml": body}))
    found: list[dict[str, object]] = msgspec.to_builtins(problems)
    return found


async def whole_body(request: Request) -> bytes:
    """The body of a request, bounded.

    Raises:
        Refused: CONS-1005 when it is too large.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BYTES_MAX:
            raise Refused(
                "CONS-1005",
                f"the site file is larger than {BYTES_MAX:,} bytes",
                "Keep tags in tag files.",
            )
        parts.append(part)
    return b"".join(parts)
