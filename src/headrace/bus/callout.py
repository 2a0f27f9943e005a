"""Who else may connect to the broker: the answers to nats-server's auth callout.

::

    client ──► nats-server ──$SYS.REQ.USER.AUTH──► here ──► who is that? what may it?
                    ▲                                │
                    └── signed token: account, subjects ──┘   or a refusal

Only who is no user of the broker's own configuration is asked for, so roles of ours never wait for this. While
nobody answers, the server refuses after two seconds, and devices try again. Token
formats: NATS ADR-26, JWT version 2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import open_bus
from headrace.bus.configuration import (
    CALLOUT_USER,
    issuer_key,
    role_password,
    tenant_account,
)
from headrace.bus.knock import Admitted, Judge, Knock
from headrace.bus.rights import SITE_ACCOUNT, claimed
from headrace.model.errors import HeadraceError
from headrace.model.time import Clock
from headrace.security.nkeys import read_token

SUBJECT: Final = "$SYS.REQ.USER.AUTH"
AT_ONCE_MAX: Final = 4
_log = logging.getLogger(__name__)


class Callout:
    """Answers until it is stopped.

    Args:
        address: of the broker, with the installation's secret.
        judge: see :class:`Judge`. clock: for the tokens' time.
        refused: told who was refused.
        mine: whom this process answers for; others are left to another one.
    """

    def __init__(
        self,
        address: BrokerAddress,
        judge: Judge,
        clock: Clock,
        refused: Callable[[Knock], None] = lambda knock: None,
        mine: Callable[[Knock], bool] = lambda knock: True,
    ) -> None:
        self._address = address
        self._judge = judge
        self._clock = clock
        self._refused = refused
        self._mine = mine
        self._key = issuer_key(address.platform_password)
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Answer until ``stop``; several processes may, the first answer counts."""
        async with open_bus(_own(self._address), CALLOUT_USER, wait_s=3_600) as bus:
            await bus.client.subscribe(SUBJECT, cb=self._answer, pending_msgs_limit=1_000)
            await bus.client.flush()
            if ready is not None:
                ready.set()
            await stop.wait()

    async def _answer(self, message: Any) -> None:
        async with self._turns:
            try:
                claims = read_token(message.data.decode("ascii"), "server")
                asked = claims["nats"]
                knock = _knock(asked)
                if not self._mine(knock):
                    return
                answer = await self._decide(asked, knock)
            except (
                HeadraceError,
                UnicodeDecodeError,
                KeyError,
                TypeError,
                AttributeError,
            ) as error:
                _log.warning("a request of the broker was not understood: %s", error)
                return
            await message.respond(answer.encode())

    async def _decide(self, asked: dict[str, Any], knock: Knock) -> str:
        body: dict[str, Any] = {"type": "authorization_response", "version": 2}
        try:
            admitted = await self._judge.admit(knock)
        except HeadraceError as error:
            _log.warning("who %s is cannot be said now: %s", knock.name, error)
            admitted = None
        if admitted is None:
            self._refused(knock)
            body["error"] = "not known here"
        else:
            body["jwt"] = self._token(asked["user_nkey"], admitted)
        return self._key.sign(
            {"sub": asked["user_nkey"], "aud": asked["server_id"]["id"], "nats": body},
            self._clock.now_us(),
        )

    def _token(self, user_key: str, admitted: Admitted) -> str:
        tenant = admitted.actor.tenant
        return self._key.sign(
            {
                "sub": user_key,
                "name": admitted.actor.name,
                "aud": tenant_account(tenant) if tenant else SITE_ACCOUNT,
                "nats": {"type": "user", "version": 2, **claimed(admitted.rights)},
            },
            self._clock.now_us(),
        )


def _own(address: BrokerAddress) -> BrokerAddress:
    return BrokerAddress(
        **{
            **vars(address),
            "platform_user": CALLOUT_USER,
            "platform_password": role_password(address.platform_password, CALLOUT_USER),
        }
    )


def _knock(asked: dict[str, Any]) -> Knock:
    options = asked.get("connect_opts") or {}
    client = asked.get("client_info") or {}
    shown = (asked.get("client_tls") or {}).get("verified_chains") or [[]]
    return Knock(
        name=str(options.get("user", "")),
        secret=str(options.get("pass") or options.get("auth_token") or ""),
        certificate=str(shown[0][0]) if shown[0] else "",
        address=str(client.get("host", "")),
        is_leaf=client.get("kind") == "Leafnode",
    )
