"""The line to one device: its session, how many requests are on it at once, and a new one after doubt."""

from __future__ import annotations

from headrace.edge.connectors.modbus.config import ModbusSettings
from headrace.edge.connectors.modbus.groupplan import GroupPlan
from headrace.edge.connectors.modbus.pipelining import BLOCKS_MIN, BUSY, Refusals, prove
from headrace.edge.connectors.modbus.poll import SILENT, Polled, poll
from headrace.edge.connectors.modbus.session import ModbusSession
from headrace.model.errors import Transient
from headrace.model.time import Clock


class Line:
    """One connector's way to its device.

    Args:
        settings: of the connection.
        clock: tells when refused things are tried again.
        refusals: devices that bear one request at a time.
    """

    def __init__(self, settings: ModbusSettings, clock: Clock, refusals: Refusals) -> None:
        self._settings = settings
        self._clock = clock
        self._refusals = refusals
        self._session: ModbusSession | None = None
        self._again = False
        self._quiet: dict[int, float] = {}
        options = settings.options
        self._untried = options.requests_in_flight == 0 and options.framing == "tcp"
        self._fell_back = False

    async def open(self) -> None:
        """Open a session; the one before is given up.

        Raises:
            Transient: EDGE-3001.
        """
        self.close()
        self._session = ModbusSession(self._settings)
        await self._session.open()
        self._again = False

    def close(self) -> None:
        """Give up the session; nothing when there is none."""
        if self._session is not None:
            self._session.close()

    async def session(self) -> ModbusSession:
        """The session, a new one when the last was in doubt.

        Raises:
            Transient: EDGE-3003 the line is not open, EDGE-3001 it cannot be opened again.
        """
        if self._again:
            await self.open()
        if self._session is None:
            raise Transient(
                "EDGE-3003", f"{self._settings.name} is not connected", "Connect before you read."
            )
        return self._session

    async def poll(self, plan: GroupPlan) -> Polled:
        """Read every block of the plan once; see :func:`headrace.edge.connectors.modbus.poll.poll`.

        Raises:
            Transient: as there.
        """
        session = await self.session()
        begin_s = self._clock.monotonic_s()
        if not session.strict:
            polled = await poll(session, plan, self._quiet, begin_s)
            if self._untried and len(plan.blocks) >= BLOCKS_MIN and _is_calm(polled):
                spent_s = self._clock.monotonic_s() - begin_s
                await self._try_pipelining(session, plan, spent_s / len(plan.blocks))
            return polled
        try:
            polled = await poll(session, plan, self._quiet, begin_s)
            if _is_calm(polled):
                return polled
        except Transient:
            pass  # was it the number of requests? the same one by one tells
        return await self._poll_one_by_one(plan)

    def take_notices(self) -> list[tuple[str, str]]:
        """What the sessions had to tell since the last look."""
        notices: list[tuple[str, str]] = []
        if self._session is not None and self._session.stale:
            text = f"{self._session.stale} answers came too late or unasked and were thrown away"
            notices.append(("EDGE-3010", text))
            self._session.stale = 0
        if self._fell_back:
            self._fell_back = False
            text = (
                f"{self._settings.name} did not answer several requests at once as it had before; "
                "it is asked one by one"
            )
            notices.append(("EDGE-3014", text))
        return notices

    async def _try_pipelining(
        self, session: ModbusSession, plan: GroupPlan, answer_s: float
    ) -> None:
        self._untried = False
        now_s = self._clock.monotonic_s()
        if self._refusals.has(self._settings.endpoint, now_s):
            return
        if not await prove(session, plan.blocks, answer_s):
            # It has answered one by one a moment ago, and does so on a new connection.
            self._refusals.add(self._settings.endpoint, now_s)
            session.close()
            self._again = True

    async def _poll_one_by_one(self, plan: GroupPlan) -> Polled:
        await self.open()
        session = await self.session()
        now_s = self._clock.monotonic_s()
        polled = await poll(session, plan, self._quiet, now_s)
        if _is_calm(polled):
            self._refusals.add(self._settings.endpoint, now_s)
            self._fell_back = True
        return polled


def _is_calm(polled: Polled) -> bool:
    """Nobody was silent or busy; refused addresses are another matter."""
    return not any(code in BUSY or code == SILENT for code in polled.failed.values())
