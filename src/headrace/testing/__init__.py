"""Suites that anyone can run on their own parts: ``check_connector`` for connectors.

Example::

    from headrace.testing import ConnectorCase, check_connector


    async def test_contract():
        await check_connector(lambda: ConnectorCase(connector=CONNECTOR, make_emulator=...))
"""

from headrace.testing.connector_case import ConnectorCase
from headrace.testing.connector_suite import CONNECTOR_CHECKS, check_connector

__all__ = ["CONNECTOR_CHECKS", "ConnectorCase", "check_connector"]
