"""One attempt: resolves what the channel's settings name, sends, and says what became of it.

Nothing leaves but to the channel's own address: no proxy of the environment, no redirect is followed.
What is recorded holds no secret: they are blotted out of every text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from headrace.alarms.notify.mail import mail_of, send_mail
from headrace.alarms.notify.robots import Outcome, Request, judge, request_of
from headrace.alarms.notify.texts import Message
from headrace.model.errors import Corrupt, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.notify import ChannelConfig
from headrace.security.secrets import find_secret

ANSWER_BYTES_MAX: Final = 65_536
SECRET_BYTES_MAX: Final = 8_192
_SHORT: Final = 6
_OWN_PLACES: Final = frozenset(
    (name,)
    for name in ("run", "broker", "audit", "certificates", "hub", "edge", "metadata.db", "logs")
)
"""First parts of the paths in a data folder that hold the platform's own keys and data."""


class Sender:
    """Sends messages on channels.

    Args:
        root: the data folder, where ``file:`` and ``ca_file`` are looked for.
        now_us: the clock of signatures and dates, UTC microseconds.
    """

    def __init__(self, root: Path, now_us: Callable[[], int]) -> None:
        self._root = root
        self._now_us = now_us

    async def send(self, channel: ChannelConfig, message: Message, key: str) -> Outcome:
        """One attempt; whatever goes wrong on the way is an outcome.

        Args:
            key: the same for each attempt at the same message.
        """
        blots: list[str] = []
        try:
            outcome = await self._send(channel, message, key, blots)
        except (Misconfigured, Refused, Corrupt, Transient) as error:
            return Outcome("refused", error.code, f"{error.what}. {error.remedy}")
        return outcome._replace(text=blotted(outcome.text, blots))

    async def _send(
        self, channel: ChannelConfig, message: Message, key: str, blots: list[str]
    ) -> Outcome:
        def resolve(setting: str) -> str:
            value = resolve_secret(setting, self._root)
            if value != setting:
                blots.append(value)
            return value

        trust = await asyncio.to_thread(_trust, channel, self._root)
        if channel.kind == "email":
            mail = mail_of(channel, message, self._now_us(), key)
            return await asyncio.to_thread(
                send_mail, channel, mail, resolve(channel.password), trust
            )
        url, secret, proxy = resolve(channel.url), resolve(channel.secret), resolve(channel.proxy)
        now_us = self._now_us()
        request = request_of(channel, message, url=url, secret=secret, now_us=now_us, key=key)
        return await post(channel, request, proxy, trust)


async def post(
    channel: ChannelConfig, request: Request, proxy: str, trust: ssl.SSLContext | None
) -> Outcome:
    """Post a request, and judge the answer by the channel's kind."""
    # Here, for a site without channels never needs it.
    import httpx

    if _is_beside_the_network(request.url):
        return Outcome("refused", "url", "the address is link-local, multicast or none at all")
    try:
        async with (
            asyncio.timeout(channel.timeout_s),
            httpx.AsyncClient(
                verify=trust if trust is not None else True,
                proxy=proxy or None,
                trust_env=False,
                follow_redirects=False,
                timeout=channel.timeout_s,
            ) as client,
            client.stream(
                "POST", request.url, headers=request.headers, content=request.body
            ) as answer,
        ):
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) >= ANSWER_BYTES_MAX:
                    break
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return judge(channel.kind, answer.status_code, headers, body)
    except TimeoutError:
        return Outcome("retry", "timeout", f"no answer within {channel.timeout_s:g} s")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
        return Outcome("refused", "url", str(error)[:200])
    except httpx.HTTPError as error:
        if isinstance(_root_cause(error), ssl.SSLCertVerificationError):
            return Outcome("refused", "tls", str(error)[:200])
        return Outcome("retry", "network", f"{type(error).__name__}: {error}"[:200])


def _is_beside_the_network(url: str) -> bool:
    """Whether a URL names an address at which no receiver of alarms is: 169.254.169.254, for example, where
    clouds tell a machine its own credentials."""
    try:
        address = ipaddress.ip_address((urlsplit(url).hostname or "").partition("%")[0])
    except ValueError:
        return False  # a name
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified)


def _root_cause(error: BaseException) -> BaseException:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _trust(channel: ChannelConfig, root: Path) -> ssl.SSLContext | None:
    if channel.kind == "email" and channel.security == "none":
        return None
    if not channel.ca_file:
        return ssl.create_default_context()
    path = _inside(root, channel.ca_file)
    try:
        return ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            "ALARM-2005",
            f"the CA file {channel.ca_file} of channel {channel.name} cannot be used: {error}",
            "Put a PEM file there, inside the data folder.",
        ) from error


def resolve_secret(setting: str, root: Path) -> str:
    """The text that a setting names; one that names none stands for itself.

    Args:
        root: the data folder, where ``file:`` is looked for.

    Raises:
        Misconfigured: ALARM-2004 when the variable or file is not there, is empty or too large; SEC-1511
            when the vault has no such secret.
        Refused: SEC-1503 when the vault's key is lost. Corrupt: SEC-1508 when it was tampered with.

    Example:
        >>> resolve_secret("https://host/hook", Path("/srv/headrace"))
        'https://host/hook'
    """
    kind, _, name = setting.partition(":")
    if kind == "secret":
        return find_secret(DataFolder(root), name)
    if kind == "env":
        value = os.environ.get(name, "")
        if not value:
            raise Misconfigured(
                "ALARM-2004",
                f"the environment has no variable {name}",
                f"Set {name} for the process that sends, and start it anew.",
            )
        return value
    if kind != "file":
        return setting
    try:
        with _inside(root, name).open("rb") as file:
            value = file.read(SECRET_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _no_secret(name, "cannot be read") from error
    if not value:
        raise _no_secret(name, "is empty")
    return value


def _no_secret(name: str, why: str) -> Misconfigured:
    return Misconfigured(
        "ALARM-2004",
        f"the secret file {name} in the data folder {why}",
        "Put the secret there, readable for this user only.",
    )


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    is_inside = path.is_relative_to(root.resolve())
    if is_inside and path.relative_to(root.resolve()).parts[:1] in _OWN_PLACES:
        # Else whoever writes the site file could have our own keys sent to his server as a password.
        raise Misconfigured(
            "ALARM-2004",
            f"the file {name} is the platform's own",
            "Name a file under secrets/.",
        )
    if not is_inside:
        raise Misconfigured(
            "ALARM-2004",
            f"the file {name} lies outside the data folder",
            "Put it into the data folder, for example under secrets/.",
        )
    return path


def blotted(text: str, secrets: list[str]) -> str:
    """A text without secrets: neither whole, nor the path and query of a URL that is one.

    Example:
        >>> blotted("no route to /hook/a1b2c3", ["https://host/hook/a1b2c3"])
        'no route to ***'
    """
    for secret in secrets:
        parts = [secret]
        if "://" in secret:
            path = secret.split("://", 1)[1].partition("/")[2]
            parts += [f"/{path}", path.partition("?")[2], path.rpartition("/")[2]]
            parts += [secret.rpartition("=")[2]]
        for part in parts:
            if len(part) >= _SHORT:
                text = text.replace(part, "***")
    return text
