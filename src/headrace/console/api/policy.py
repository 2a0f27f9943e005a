"""REST: the policy in force, why it decides so, own policy files; signatures and approvals."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer
from headrace.console.api.site_file import whole_body
from headrace.console.doors import DOORS, PAGES
from headrace.console.policy_questions import about, actor_named, explain
from headrace.console.services import Services, session_cookie
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Refused
from headrace.security.policy import Actor, decide, in_force
from headrace.security.policy_files import PolicyWatch
from headrace.security.signatures import SIGNED_S

T = TypeVar("T")


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be signed or approved, as the refusal of SEC-1410 or SEC-1411 names it in ``for``."""

    action: str
    resource: str
    reason: str
    facts: dict[str, Any] = {}
    meaning: str = ""
    password: str = ""
    code: str = ""


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """A note of who approves or rejects."""

    note: str = ""


def make_router(services: Services) -> APIRouter:
    """The routes below ``/api/v1/policy``, ``/signatures`` and ``/approvals``."""
    router = APIRouter(prefix="/api/v1", tags=["policy"])
    _add_policy(router, services)
    _add_signatures(router, services)
    _add_approvals(router, services)
    return router


def _add_policy(router: APIRouter, services: Services) -> None:
    @router.get("/policy")
    async def listed(request: Request) -> Response:
        """Every policy in force, what is wrong with own files that are not, and what each route and page
        asks the policy."""
        services.require(request, "read", "policy")
        watch = services.policies
        problem = watch.problem.as_dict() if watch is not None and watch.problem else None
        policies = in_force().policies
        shown = [about(policy) for policy in policies.policies]
        answer = {"digest": policies.digest, "policies": shown, "problem": problem}
        return json_answer({**answer, "doors": {**DOORS, **PAGES}})

    @router.get("/policy/explain")
    async def why(
        request: Request, action: str, resource: str, actor: str = "", equipment: str = ""
    ) -> Response:
        """Whether ``actor`` (without one: who asks) may do ``action`` on ``resource``, and which policies
        say so. ``resource`` is a tag's path, equipment (``pump_1``), or as in the audit chain."""
        asker = services.require(request, "read", "console")
        who = asker
        if actor and actor != asker.name:
            services.require(request, "administer", "policy_question")
            who = await asyncio.to_thread(actor_named, services, actor)
        return json_answer(explain(services.site(asker), who, action, resource, equipment))

    @router.put("/policy/files/{name}")
    async def put(request: Request, name: str) -> Response:
        """Write an own policy file (an empty body removes it), when all files together are good with it;
        in force within a second, also here at once."""
        body = await whole_body(request)
        facts = {"file": name, "sha256": hashlib.sha256(body).hexdigest()}
        services.require(request, "administer", f"policy/{name}", facts)
        watch = _watch(services)

        def work() -> dict[str, Any]:
            policies = watch.files.write(name, _text(body))
            watch.look()
            return {"digest": policies.digest, "own": policies.own}

        return json_answer(await asyncio.to_thread(work))


def _add_signatures(router: APIRouter, services: Services) -> None:
    identity = services.identity

    @router.post("/signatures")
    async def sign(request: Request) -> Response:
        """Sign ``{"action", "resource", "facts", "meaning", "reason", "password", "code"}``: the code
        where one has a second factor, neither where the provider was asked again. The ``release`` of
        the answer goes into the header ``X-Headrace-Release`` of the same request again, once."""
        actor = services.require(request, "change_own", "signature")
        asked = _wanted(await request.body())
        _check_needed(actor, asked, "signature")
        address = request.client.host if request.client else "unknown"
        shown = (actor.name, asked.password, address)
        session = request.cookies.get(session_cookie(request), "")
        await asyncio.to_thread(identity.confirm, *shown, code=asked.code, session=session)
        what = (actor.name, asked.action, asked.resource, asked.facts)
        release = await asyncio.to_thread(
            identity.releases.sign, *what, asked.meaning, asked.reason
        )
        return json_answer({"release": release, "valid_s": SIGNED_S}, 201)


def _add_approvals(router: APIRouter, services: Services) -> None:
    releases = services.identity.releases

    @router.post("/approvals")
    async def ask(request: Request) -> Response:
        """Ask another person for ``{"action", "resource", "facts", "reason"}``; once it is approved, the
        same request again is done."""
        actor = services.require(request, "change_own", "approval")
        asked = _wanted(await request.body())
        _check_needed(actor, asked, "second_person")
        what = (actor.name, asked.action, asked.resource, asked.facts)
        release = await asyncio.to_thread(releases.ask, *what, asked.reason)
        return json_answer({"release": release}, 201)

    @router.get("/approvals")
    async def waiting(request: Request) -> Response:
        """What waits: one's own requests, and those that one may approve or reject."""
        actor = services.require(request, "read", "console")
        found = await asyncio.to_thread(releases.waiting)
        shown = [one for one in found if one.actor == actor.name or may_answer(actor, one)]
        return json_answer({"approvals": msgspec.to_builtins(shown)})

    @router.post("/approvals/{release}/{verdict}")
    async def answer(request: Request, release: str, verdict: str) -> Response:
        """``approve`` or ``reject``, with ``{"note": ...}``."""
        services.require(request, "read", "console")
        if verdict not in ("approve", "reject"):
            raise Misconfigured("CONS-1003", f"{verdict!r} is no verdict", "approve or reject.")
        found = await asyncio.to_thread(releases.find, release)
        facts = {"equipment": found.equipment}
        actor = services.require(request, "approve", found.resource, facts)
        said = _decoded(await request.body() or b"{}", Answer)
        done = await asyncio.to_thread(
            releases.answer, release, actor.name, verdict == "approve", said.note
        )
        return json_answer(msgspec.to_builtins(done))


def may_answer(actor: Actor, release: Any) -> bool:
    """Whether somebody may approve what waits."""
    facts = {"equipment": release.equipment}
    return release.actor != actor.name and decide(actor, "approve", release.resource, facts).allowed


def _check_needed(actor: Actor, asked: Wanted, need: str) -> None:
    decision = decide(actor, asked.action, asked.resource, asked.facts)  # type: ignore[arg-type] # an unknown one is denied
    if decision.needs != need:
        what = "is allowed as it is" if decision.allowed else decision.reason
        raise Refused(
            "SEC-1415",
            f"{asked.action} on {asked.resource} needs no {need.replace('_', ' ')}: {what}",
            "Send what the refusal names in for.",
        )


def _watch(services: Services) -> PolicyWatch:
    if services.policies is None:
        raise Refused("SEC-1404", "this console keeps no policy files", "Write them in the folder.")
    return services.policies


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Misconfigured("SEC-1404", "the policy is not UTF-8", "Save it as UTF-8.") from error


def _wanted(body: bytes) -> Wanted:
    return _decoded(body, Wanted)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise Misconfigured(
            "CONS-1003", f"the body does not fit: {error}", 'Send {"action": ..., "resource": ...}.'
        ) from error
