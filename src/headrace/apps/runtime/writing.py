"""Writes of an app to devices: declared, bound, allowed by the site's policy, told in the audit chain.

An app is an actor of kind ``app``. What its manifest declares and the site file binds is permitted to it
(``app.declared`` of the built-in policies), and a ``forbid`` of the site wins, as it does for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from headrace.apps.runtime.effects import Write
from headrace.apps.runtime.frames import as_the_tag
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.edge.calls import WriteAnswer, WriteCall
from headrace.model.app_state import AppEvent
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import HeadraceError, Refused
from headrace.model.folder import DataFolder
from headrace.model.health import Severity
from headrace.model.time import US_PER_S, Clock
from headrace.security.audit import AuditChain
from headrace.security.policy import Actor, decide
from headrace.security.policy_files import Mark, PolicyFiles, use_files

WRITE_AGE_MAX_US: Final = 60 * US_PER_S
EDGE_S: Final = 10.0
UNANSWERED: Final = frozenset({"BUS-1024", "EDGE-1033"})
"""After these the device may have the value, or not."""


class SitePolicy:
    """The policies of a data folder, as they are at each question.

    Args:
        folder: whose ``policies/*.cedar`` count. audit: where writes are told, before and after.
    """

    def __init__(self, folder: DataFolder, audit: AuditChain) -> None:
        self._folder = folder
        self._files = PolicyFiles(folder)
        self._mark: Mark | None = None
        self.audit = audit

    def check_write(self, actor: Actor, tag_id: int, equipment: str) -> None:
        """Let pass what the policy allows; may block.

        Raises:
            Refused: APPS-2281 with the policy's reason.
            Corrupt: SEC-1406 when nobody knows which policies are in force.
        """
        mark = self._files.mark()
        if mark != self._mark:
            use_files(self._folder)
            self._mark = mark
        facts = {"equipment": equipment, "verb": "declared"}
        decision = decide(actor, "write", f"tag/{tag_id}", facts)
        if not decision.allowed:
            who, what = f"app/{actor.name}", f"tag/{tag_id}"
            self.audit.record(who, "write", what, "denied", reason=decision.reason)
            why = f" ({', '.join(decision.policies)})" if decision.policies else ""
            raise Refused(
                "APPS-2281",
                f"the policy does not let the app write: {decision.reason}{why}",
                "Ask the security officer; the policies in force: headrace policy list",
            )


class Writing:
    """Makes the writes of one app; see :class:`headrace.apps.runtime.keeping.Maker`.

    Args:
        deployment: what is bound. policy: of the site; None where it is not known.
        noted: takes each event, says whether it is to go out.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        deployment: AppDeployment,
        policy: SitePolicy | None,
        noted: Callable[[AppEvent], bool],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._deployment = deployment
        self._policy = policy
        self.noted = noted

    async def make(self, write: Write) -> AppEvent:
        """Through policy and edge; an old one is not made up for."""
        about = f"{write.quantity} of {write.asset}"
        try:
            bound = self._bound(write)
            if self._clock.now_us() - write.at_us > WRITE_AGE_MAX_US:
                raise Refused("APPS-2247", f"{about} is not written: it is too old")
            if isinstance(write.value, bool):
                raise Refused("APPS-2247", f"{about} is not written: {write.value} is no number")
            if self._policy is None:
                raise Refused(
                    "APPS-2275",
                    f"{about} is not written: on the machine of an edge nobody knows the site's policy",
                    "Place an app that writes on the platform.",
                )
            read_back = await self._ask(write, bound, self._policy)
        except HeadraceError as error:
            if error.code in UNANSWERED:
                return self._event("warning", "APPS-2280", *_unknown(about, error))
            return self._event("warning", error.code, f"{about}: {error.what}", error.remedy)
        text = f"{about} was set to {write.value}; the device has {read_back}"
        return self._event("info", "APPS-2248", text, "")

    async def _ask(self, write: Write, bound: BoundAsset, policy: SitePolicy) -> float | str:
        word = self._deployment.manifest.word
        tag_id, value = bound.tags[write.quantity], write.value
        actor = Actor(word, "viewer", kind="app")
        unit_path = write.tag.rpartition("/")[0]
        await asyncio.to_thread(policy.check_write, actor, tag_id, unit_path)
        if not isinstance(value, str):
            needed = self._deployment.manifest.types[bound.type]
            value = as_the_tag(needed, bound, write.quantity, value)
        call = WriteCall(tag_id=tag_id, value=value, actor=f"app/{word}")
        subject = self._subjects.edge_call(write.edge, "write")
        chain = (f"app/{word}", "write", f"tag/{tag_id}")
        async with policy.audit.doing(*chain, path=write.tag, value=value) as told:
            raw = await self._bus.request(subject, msgspec.json.encode(call), timeout_s=EDGE_S)
            try:
                told["read_back"] = msgspec.json.decode(raw, type=WriteAnswer).value
            except UNREADABLE:
                told["read_back"] = (
                    value  # an edge of another version: it answered, so it is written
                )
        return told["read_back"]  # type: ignore[no-any-return] # set above

    def _bound(self, write: Write) -> BoundAsset:
        for asset in self._deployment.assets:
            way = asset.writes.get(write.quantity) if asset.path == write.asset else None
            if way is not None:
                return asset
        raise Refused(
            "APPS-2282",
            f"{write.quantity} of {write.asset} is not written: the app is no longer bound to it",
            "Bind it again if the app is to write there.",
        )

    def _event(self, severity: Severity, code: str, text: str, remedy: str) -> AppEvent:
        return AppEvent(
            at_us=self._clock.now_us(),
            severity=severity,
            code=code,
            source=f"app/{self._deployment.manifest.id}",
            text=text,
            remedy=remedy,
        )


class NoWriting:
    """For an app that runs no more: what it had noted and not begun is not written, and that is told."""

    def __init__(self, clock: Clock, app_id: str) -> None:
        self._clock = clock
        self._app_id = app_id

    async def make(self, write: Write) -> AppEvent:
        """Nothing but the event."""
        return AppEvent(
            at_us=self._clock.now_us(),
            severity="warning",
            code="APPS-2282",
            source=f"app/{self._app_id}",
            text=f"{write.quantity} of {write.asset} is not written: the app runs here no more",
            remedy="Write it by hand when it has to be.",
        )

    def noted(self, event: AppEvent) -> bool:
        """Each is told."""
        del event
        return True


def _unknown(about: str, error: HeadraceError) -> tuple[str, str]:
    text = f"{about}: unknown whether it reached the device: {error.what}"
    return text, "Look at the device; it is not written again."
