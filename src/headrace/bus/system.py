"""Who is connected to the broker, and the end of a connection: the server's own account.

Requests of nats-server under ``$SYS.REQ.SERVER``: ``PING.CONNZ`` lists connections of every server of a
cluster, ``<id>.KICK`` ends one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import tls_context
from headrace.bus.configuration import SYSTEM_USER, role_password
from headrace.model.errors import Transient

ANSWER_S: Final = 2.0
ANSWERS_GAP_S: Final = 0.2
CONNECT_S: Final = 5.0
LISTED_MAX: Final = 10_000
_ERRORS: Final = (nats.errors.Error, TimeoutError, OSError, ValueError, KeyError)


@dataclass(frozen=True)
class Connection:
    """One connection: of which server, its number there, as whom, and by which certificate.

    Attributes:
        certificate_sha256: of what the client showed, hex; "" without.
        is_leaf: an edge's broker; its user is then the name of the edge.
    """

    server_id: str
    client_id: int
    user: str
    account: str
    certificate_sha256: str = ""
    is_leaf: bool = False


class System:
    """Use :func:`open_system`."""

    def __init__(self, client: Client, servers: int) -> None:
        self._client = client
        self._servers = servers

    async def connections(self) -> list[Connection]:
        """All of them, at every server of the broker.

        Raises:
            Transient: BUS-1405 when the broker does not tell.
        """
        request = json.dumps({"auth": True, "limit": LISTED_MAX}).encode()
        try:
            told = await self._ask_all("$SYS.REQ.SERVER.PING.CONNZ", request)
            return [
                Connection(
                    server_id=str(page["server_id"]),
                    client_id=int(each["cid"]),
                    user=str(each.get("authorized_user", "")),
                    account=str(each.get("account", "")),
                    certificate_sha256=_shown(each),
                    is_leaf=each.get("kind") == "Leafnode",
                )
                for page in told
                for each in page.get("connections") or []
            ]
        except _ERRORS as error:
            raise Transient("BUS-1405", "the broker does not tell who is connected") from error

    async def kick(self, server_id: str, client_id: int) -> None:
        """End a connection at once; it comes again only if its credentials still count.

        Raises:
            Transient: BUS-1111 when the broker does not do it.
        """
        subject = f"$SYS.REQ.SERVER.{server_id}.KICK"
        try:
            body = json.dumps({"cid": client_id}).encode()
            await self._client.request(subject, body, timeout=ANSWER_S)
        except _ERRORS as error:
            raise Transient(
                "BUS-1111",
                f"the connection {client_id} could not be cut",
                "It is tried again each second; restart headrace up to be certain.",
            ) from error

    async def _ask_all(self, subject: str, body: bytes) -> list[dict[str, Any]]:
        """Each server answers for itself; a node that is away answers nothing."""
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            await self._client.publish(subject, body, reply=inbox)
            found = [await answers.next_msg(timeout=ANSWER_S)]
            while len(found) < self._servers:
                try:
                    found.append(await answers.next_msg(timeout=ANSWERS_GAP_S))
                except nats.errors.TimeoutError:
                    break
        finally:
            await answers.unsubscribe()
        return [json.loads(message.data)["data"] for message in found]


def _shown(connection: dict[str, Any]) -> str:
    chain = connection.get("tls_peer_certs") or [{}]
    return str(chain[0].get("cert_sha256", ""))


@asynccontextmanager
async def open_system(address: BrokerAddress) -> AsyncIterator[System]:
    """A connection to the server's own account.

    Args:
        address: with the installation's secret.

    Raises:
        Transient: BUS-1111 when the broker does not answer.
    """
    client = Client()
    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                address.urls,
                tls=tls_context(address),
                user=SYSTEM_USER,
                password=role_password(address.platform_password, SYSTEM_USER),
                name="security",
                allow_reconnect=False,
                error_cb=_quiet,
            )
    except (nats.errors.Error, TimeoutError, OSError) as error:
        await client.close()
        raise Transient(
            "BUS-1111", "the broker's own account does not answer", "See logs/broker.log."
        ) from error
    try:
        yield System(client, max(1, len(address.servers)))
    finally:
        await client.close()


async def _quiet(error: Exception) -> None:
    """Each request tells its own failure."""
    del error
