"""How an edge joins its hub: one exchange over TLS, and the hub is known before the secret is said.

::

    edge                                            hub (join port)
      GET /ca.pem  ───────────────────────────────►   its authority's certificate
      fingerprint = that of the token? else stop
      POST /join {secret, request}  (TLS, verified) ►   certificate, credentials of its broker

The edge's key is made on its machine and stays there. The listener is HTTP/1.1 with one request a
connection; everything about it is bounded.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Callable
from typing import Final

import msgspec

from headrace.bus import leaf
from headrace.bus.leaf import HubSettings, Joined
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError, Misconfigured, Refused, Transient, error_from_dict
from headrace.model.folder import DataFolder
from headrace.security import authority
from headrace.security.files import move, write_whole
from headrace.security.sealing import own_edge_key
from headrace.site.edges import Admission, Token

HEAD_BYTES_MAX: Final = 8_192
BODY_BYTES_MAX: Final = 16_384
EXCHANGE_S: Final = 10.0
AT_ONCE_MAX: Final = 8


class JoinCall(msgspec.Struct, kw_only=True):
    """What an edge says to join: the token's secret, its request for a certificate (PEM), and the key to
    which its secrets are to be sealed (base64)."""

    secret: str
    request: str
    sealing_key: str = ""


_JOINING: Final = "joining"
Redeem = Callable[[JoinCall], Admission]


class JoinListener:
    """The hub's side.

    Args:
        folder: the data folder, with the hub's certificates.
        settings: where to listen.
        redeem: answers a call; a HeadraceError goes to the edge as itself.
    """

    def __init__(self, folder: DataFolder, settings: HubSettings, redeem: Redeem) -> None:
        self._folder = folder
        self._settings = settings
        self._redeem = redeem
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            Refused: SITE-1910 when the port is taken.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        hub = self._folder.hub
        context.load_cert_chain(hub / "server.pem", hub / "server.key")
        host, port = self._settings.host, self._settings.join_port
        try:
            self._server = await asyncio.start_server(
                self._take, host, port, ssl=context, ssl_handshake_timeout=5.0, limit=HEAD_BYTES_MAX
            )
        except OSError as error:
            raise Refused(
                "SITE-1910",
                f"the hub cannot listen on {host}:{port}: {error.strerror or error}",
                "Give another address with --hub-listen.",
            ) from error

    async def stop(self) -> None:
        """Stop listening; safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(EXCHANGE_S), self._turns:
                status, body = await self._exchange(reader)
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever knocked went away or talks nonsense; edges tell their own failure
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader) -> tuple[str, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if head[0].startswith("GET /ca.pem "):
            return "200 OK", (self._folder.hub / "ca.pem").read_bytes()
        if not head[0].startswith("POST /join "):
            return "404 Not Found", b""
        fields = dict(line.lower().split(":", 1) for line in head[1:] if ":" in line)
        length = fields.get("content-length", "").strip()
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            return "413 Content Too Large", b""
        body = await reader.readexactly(int(length))
        try:
            call = msgspec.json.decode(body, type=JoinCall)
            admission = await asyncio.to_thread(self._redeem, call)
        except UNREADABLE:
            return "400 Bad Request", b""
        except HeadraceError as error:
            return "403 Forbidden", msgspec.json.encode(error.as_dict())
        return "200 OK", msgspec.json.encode(admission)


def join(folder: DataFolder, hub: str, port: int, token: Token) -> Joined:
    """Join a hub from this machine: make a key, get it signed, write what the edge needs.

    Args:
        folder: the edge's data folder.
        hub, port: where the hub takes edges in.
        token: from ``headrace edge invite``.

    Raises:
        Refused: SITE-1911 when the hub is not the token's, SITE-1912 when this folder's edge has
            joined already; what the hub refuses.
        Transient: SITE-1913 when the hub cannot be reached.
        Misconfigured: SITE-1914 when the hub does not answer as a hub.
    """
    if leaf.joined(folder) is not None:
        raise Refused(
            "SITE-1912",
            f"the edge on {folder.root} has joined a hub already",
            f"To join anew, remove {folder.edge} and ask for a new token.",
        )
    authority_pem = _get_authority(hub, port)
    if authority.fingerprint(authority_pem) != token.fingerprint:
        raise Refused(
            "SITE-1911",
            f"{hub}:{port} is not the hub that gave the token: its certificate has another fingerprint",
            "Check the address. If it is right, somebody stands between: tell your administrator.",
        )
    request = authority.request_certificate(folder.edge, "edge")
    call = JoinCall(secret=token.secret, request=request.decode())
    # The edge's name is known after the answer only, and the answer may be lost: the key comes first.
    call.sealing_key = own_edge_key(folder.keys, _JOINING).public
    admission = _say_join(hub, port, authority_pem, call)
    write_whole(folder.edge / "ca.pem", authority_pem, mode=0o644)
    write_whole(folder.edge / "edge.pem", admission.certificate.encode(), mode=0o644)
    own = Joined(
        edge=admission.edge,
        enterprise=admission.enterprise,
        site=admission.site,
        domain=admission.domain,
        password=admission.password,
        hub=hub,
        leaf_port=admission.leaf_port,
    )
    move(folder.keys / f"edge.{_JOINING}.key", folder.keys / f"edge.{own.edge}.key")
    leaf.save(folder.edge / "joined.json", own)
    return own


def _get_authority(hub: str, port: int) -> bytes:
    """The authority that the hub shows; believed only when its fingerprint is the token's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    status, body = _exchange(hub, port, context, "GET", "/ca.pem", b"")
    if status != 200 or not body.startswith(b"-----BEGIN CERTIFICATE"):
        raise _no_hub(hub, port, status)
    return body


def _say_join(hub: str, port: int, authority_pem: bytes, call: JoinCall) -> Admission:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority_pem.decode())
    status, body = _exchange(hub, port, context, "POST", "/join", msgspec.json.encode(call))
    try:
        if status == 403:
            raise error_from_dict(msgspec.json.decode(body, type=dict[str, str]))
        return msgspec.json.decode(body, type=Admission)
    except UNREADABLE as error:
        raise _no_hub(hub, port, status) from error


def _exchange(
    hub: str, port: int, context: ssl.SSLContext, method: str, path: str, body: bytes
) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection(hub, port, timeout=EXCHANGE_S, context=context)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_BYTES_MAX)
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            "SITE-1911",
            f"the certificate of {hub}:{port} is not good for that name: {error.verify_message}",
            "Use a name that the hub was started with (--hub-name).",
        ) from error
    except ssl.SSLError as error:
        raise _no_hub(hub, port, 0) from error
    except (OSError, http.client.HTTPException) as error:
        raise Transient(
            "SITE-1913",
            f"the hub {hub}:{port} cannot be reached: {error}",
            "See whether it runs with --hub-listen, and whether a firewall lets this machine pass.",
        ) from error
    finally:
        connection.close()


def _no_hub(hub: str, port: int, status: int) -> Misconfigured:
    return Misconfigured(
        "SITE-1914",
        f"{hub}:{port} does not answer as a hub (HTTP status {status})",
        "Give the join address that `headrace edge invite` printed.",
    )
