"""The console off loopback: TLS or not at all, and a new certificate without a restart."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from headrace.bus.broker import BrokerAddress, free_port
from headrace.bus.subjects import Subjects
from headrace.console import role
from headrace.model.errors import Refused
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.listener import Listener


async def test_the_console_refuses_to_listen_off_loopback_without_tls(
    folder: DataFolder, broker: BrokerAddress
) -> None:
    with pytest.raises(Refused, match="SEC-1621"):
        await role.run(
            folder,
            broker,
            Subjects("acme", "mill"),
            asyncio.Event(),
            host="0.0.0.0",
            port=free_port(),
        )


async def test_a_new_certificate_is_shown_to_whoever_comes_next(folder: DataFolder) -> None:
    listener, now_us = Listener(folder), SystemClock().now_us()
    files = listener.ensure((), now_us)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    renewing = asyncio.create_task(role.renew_shown(context, folder, files))

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cadata=listener.trusted_pem())
    reader, writer = await asyncio.open_connection("localhost", port, ssl=trust)
    before = writer.get_extra_info("ssl_object").getpeercert(True)
    await asyncio.sleep(0)  # the task has seen the certificate that is shown now
    listener.renew_server(now_us)
    async with asyncio.timeout(30):
        after = before
        while after == before:
            _, later = await asyncio.open_connection("localhost", port, ssl=trust)
            after = later.get_extra_info("ssl_object").getpeercert(True)
            later.close()
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    server.close()
    renewing.cancel()
