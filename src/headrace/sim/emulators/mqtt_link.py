"""What the MQTT emulators share: a device's own, ever reconnecting link to its broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from headrace.edge.connectors.mqtt.session import Message, MqttSession, MqttSettings
from headrace.model.errors import Refused, Transient
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock

_RETRY_S: Final = 0.1
_TURN_S: Final = 0.5


def tls_settings(files: tuple[str, ...]) -> dict[str, Any]:
    """Fields of :class:`MqttSettings` for PEM files: authority, certificate and key."""
    names = ("tls_ca_file", "tls_certificate_file", "tls_key_file")
    return dict(zip(names, files, strict=False))


class BrokerLink:
    """Connects, serves messages, and connects again after a loss, until it is stopped.

    Args:
        make_settings: called for each session, so that wills can differ.
        clock: stamps arrivals.
        on_connected: prepares a new session (subscriptions, births).
        on_message: takes one message.
        on_lost: told when the session is gone.
    """

    def __init__(
        self,
        make_settings: Callable[[], MqttSettings],
        clock: Clock,
        *,
        on_connected: Callable[[MqttSession], Awaitable[None]],
        on_message: Callable[[MqttSession, Message], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self._make_settings = make_settings
        self._clock = clock
        self._on_connected = on_connected
        self._on_message = on_message
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None
        self.session: MqttSession | None = None

    async def start(self) -> None:
        """Connect and stay connected.

        Raises:
            Refused, Transient: when the first session cannot be opened.
        """
        session = await self._open()
        self._task = asyncio.create_task(self._run(session))

    async def _open(self) -> MqttSession:
        session = MqttSession(self._make_settings(), self._clock)
        try:
            await session.connect()
            await self._on_connected(session)
        except BaseException:
            session.abort()
            raise
        self.session = session
        return session

    async def _run(self, session: MqttSession | None) -> None:
        while True:
            try:
                if session is None:
                    session = await self._open()
                await self._serve(session)
            except (Transient, Refused):
                self._close(session)
                session = None
                await asyncio.sleep(_RETRY_S)

    async def _serve(self, session: MqttSession) -> None:
        while True:
            for message in await session.receive(_TURN_S):
                await self._on_message(session, message)
                if message.qos:
                    session.acknowledge([message.mid])

    def _close(self, session: MqttSession | None) -> None:
        self.session = None
        if session is not None:
            session.abort()
            self._on_lost()

    async def stop(self) -> None:
        """Drop the socket without a goodbye."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None
        if self.session is not None:
            self.session.abort()
            self.session = None
