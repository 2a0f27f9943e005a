"""A mail server of our own for tests: RFC 5321 with STARTTLS, TLS from the start, and AUTH PLAIN/LOGIN."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

from headrace.bus.broker import free_port


@dataclass
class MailServer:
    """One server.

    Attributes:
        context: its certificate; with ``implicit`` spoken from the start, else by STARTTLS.
        user, password: needed before MAIL when set.
        refuse: address -> reply to its RCPT. replies: verb -> replies in place of its own, used up.
        mails: what it took. encrypted: for each mail, whether it came by TLS.
    """

    context: ssl.SSLContext | None = None
    implicit: bool = False
    user: str = ""
    password: str = ""
    refuse: dict[str, str] = field(default_factory=dict)
    replies: dict[str, list[str]] = field(default_factory=dict)
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    port: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = _Talk(self, reader, writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await talk.run()
        writer.close()


class _Talk:
    def __init__(
        self, server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.encrypted = server.implicit
        self.signed_in = not server.user
        self.to: list[str] = []

    async def say(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self.writer.drain()

    async def run(self) -> None:
        await self.say("220 mill.example ESMTP")
        while line := (await self.reader.readline()).decode().strip():
            verb = line.split(":")[0].split(" ")[0].upper()
            if self.server.replies.get(verb):
                await self.say(self.server.replies[verb].pop(0))
                continue
            if verb == "QUIT":
                await self.say("221 bye")
                return
            await getattr(self, f"do_{verb.lower()}", self.unknown)(line)

    async def unknown(self, line: str) -> None:
        await self.say(f"502 what is {line!r}?")

    async def do_ehlo(self, line: str) -> None:
        del line
        able = ["250-mill.example"]
        if self.server.context is not None and not self.encrypted:
            able.append("250-STARTTLS")
        if self.server.user and self.encrypted:
            able.append("250-AUTH PLAIN LOGIN")
        await self.say(*able, "250 SMTPUTF8")

    async def do_starttls(self, line: str) -> None:
        del line
        assert self.server.context is not None
        await self.say("220 go on")
        await self.writer.start_tls(self.server.context)
        self.encrypted = True

    async def do_auth(self, line: str) -> None:
        kind, _, given = line.split(" ", 1)[1].partition(" ")
        if kind == "PLAIN":
            _, user, password = base64.b64decode(given).decode().split("\0")
        else:
            await self.say("334 " + base64.b64encode(b"Username:").decode())
            user = base64.b64decode(await self.reader.readline()).decode()
            await self.say("334 " + base64.b64encode(b"Password:").decode())
            password = base64.b64decode(await self.reader.readline()).decode()
        self.signed_in = (user, password) == (self.server.user, self.server.password)
        await self.say("235 welcome" if self.signed_in else "535 5.7.8 credentials invalid")

    async def do_mail(self, line: str) -> None:
        del line
        self.to = []
        await self.say("250 ok" if self.signed_in else "530 5.7.0 authentication required")

    async def do_rcpt(self, line: str) -> None:
        address = line.partition("<")[2].partition(">")[0]
        reply = self.server.refuse.get(address, "250 ok")
        if reply.startswith("250"):
            self.to.append(address)
        await self.say(reply)

    async def do_rset(self, line: str) -> None:
        del line
        await self.say("250 ok")

    async def do_data(self, line: str) -> None:
        del line
        await self.say("354 go on")
        raw = await self.reader.readuntil(b"\r\n.\r\n")
        content = raw[:-5].replace(b"\r\n..", b"\r\n.")
        self.server.mails.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
        self.server.recipients.append(self.to)
        self.server.encrypted.append(self.encrypted)
        await self.say("250 taken")


@asynccontextmanager
async def mail_server(server: MailServer) -> AsyncIterator[MailServer]:
    """The server behind a port of this machine."""
    server.port = free_port()
    context = server.context if server.implicit else None
    listening = await asyncio.start_server(server.talk, "127.0.0.1", server.port, ssl=context)
    try:
        yield server
    finally:
        listening.close()
        await listening.wait_closed()
