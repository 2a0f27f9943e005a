"""One OPC UA session: secure channel, user, trust, raw requests, and errors that say what to do.

asyncua keeps the channel and its keys; this file decides whom to trust and what an error means. It
uses no supervisor of asyncua: the host owns retry, and a dead session is noticed by its reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties, InvalidSignature
from asyncua.ua.ua_binary import struct_from_binary

from headrace.edge.connectors.opcua.address import Address
from headrace.edge.connectors.opcua.options import OpcUaOptions
from headrace.edge.connectors.opcua.structures import Structures
from headrace.edge.contract import ConnectorContext
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import HeadraceError, Refused, Transient
from headrace.security import certificates

# The driver logs every lost packet as an error with traceback; we say what happened once, by code.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

DRIVER_ERRORS: Final = (ua.UaError, OSError, struct.error, ValueError, InvalidSignature)
"""What asyncua raises when the other side misbehaves; OSError holds all of time-out and socket."""
SESSION_TIMEOUT_MS: Final = 60_000
CONNECT_ANSWERS: Final = 4
"""Answers that a connect waits for: acknowledge, channel, session, activation."""
CLOSE_TIMEOUT_S: Final = 1.0
OPERATIONS_MAX: Final = 1000
"""Operations in one service call, unless the server wants fewer."""

_USER_REFUSED: Final = frozenset(
    {
        ua.StatusCodes.BadUserAccessDenied,
        ua.StatusCodes.BadIdentityTokenRejected,
        ua.StatusCodes.BadIdentityTokenInvalid,
        ua.StatusCodes.BadUserSignatureInvalid,
    }
)
_CERTIFICATE_REFUSED: Final = frozenset(
    {
        ua.StatusCodes.BadSecurityChecksFailed,
        ua.StatusCodes.BadCertificateUntrusted,
        ua.StatusCodes.BadCertificateInvalid,
        ua.StatusCodes.BadCertificateUriInvalid,
        ua.StatusCodes.BadCertificateUseNotAllowed,
        ua.StatusCodes.BadCertificateTimeInvalid,
        ua.StatusCodes.BadCertificateRevoked,
        ua.StatusCodes.BadApplicationSignatureInvalid,
    }
)
_SECURITY_REFUSED: Final = frozenset(
    {ua.StatusCodes.BadSecurityModeRejected, ua.StatusCodes.BadSecurityPolicyRejected}
)

ResponseT = TypeVar("ResponseT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Session:
    """A session with one server; opened once, closed once."""

    def __init__(
        self, connection: ConnectionConfig, options: OpcUaOptions, context: ConnectorContext
    ) -> None:
        self.connection = connection
        self.options = options
        self._context = context
        self.structures = Structures()
        self._sizes: dict[str, int] = {}
        self._namespaces: list[str] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._client = Client(connection.endpoint, timeout=options.timeout_s)
        self._client.name = "Headrace"
        self._client.description = f"Headrace {context.identity}"
        self._client.application_uri = f"urn:headrace:{context.identity}"
        self._client.product_uri = "urn:headrace"
        self._client.session_timeout = SESSION_TIMEOUT_MS

    async def open(self) -> None:
        """Channel, session, user.

        Raises:
            Transient: EDGE-2001 cannot reach the server, EDGE-2002 it answered with a fault.
            Refused: EDGE-2003 user, EDGE-2004 security mode, EDGE-2005 our certificate,
                EDGE-2006 its certificate, EDGE-2007 a password in plain text.
        """
        try:
            async with asyncio.timeout(self.options.timeout_s * CONNECT_ANSWERS):
                await self._open()
        except DRIVER_ERRORS as error:
            raise self.explain(error, "cannot connect") from error

    async def _open(self) -> None:
        options, client = self.options, self._client
        if options.security != "None":
            await self._secure()
        await client.connect_socket()
        await client.send_hello()
        await client.open_secure_channel()
        await client.create_session()
        username = options.username or None
        password = self._context.secret(options.password) if username else None
        if password:
            self._check_password_is_hidden()
        await client.activate_session(username=username, password=password)
        self._renewal = asyncio.create_task(self._renew())

    async def _secure(self) -> None:
        mode = ua.MessageSecurityMode[self.options.security]
        policy = SecurityPolicyBasic256Sha256
        endpoints = await self._client.connect_and_get_server_endpoints()
        offers = [
            e for e in endpoints if e.SecurityMode == mode and e.SecurityPolicyUri == policy.URI
        ]
        if not offers:
            raise self._not_offered(endpoints)
        der = certificates.leaf(offers[0].ServerCertificate or b"")
        folder = self._context.certificates
        if not certificates.is_trusted(folder, der):
            entry = certificates.reject(folder, der)
            raise Refused(
                "EDGE-2006",
                f"{self._name} has a certificate that nobody trusted yet: {entry.subject}, "
                f"thumbprint {entry.thumbprint}",
                "Compare the thumbprint with the device's own, then run "
                f"`headrace trust add {entry.thumbprint}`.",
            )
        certificate, key = certificates.own_certificate(
            folder,
            f"opcua-{self._context.identity}",
            self._client.application_uri,
            self._context.clock.now_us(),
        )
        await self._client.set_security(
            policy, certificate, key, server_certificate=CertProperties(der, "der"), mode=mode
        )

    def _not_offered(self, endpoints: list[ua.EndpointDescription]) -> Refused:
        offered = {
            f"{e.SecurityMode.name.strip('_')} {(e.SecurityPolicyUri or '').rpartition('#')[2]}"
            for e in endpoints
        }
        return Refused(
            "EDGE-2004",
            f"{self._name} does not offer {self.options.security} with "
            f"{self.options.security_policy}; it offers {', '.join(sorted(offered)) or 'nothing'}",
            "Change security in the connection's options, or switch the mode on at the server.",
        )

    def _check_password_is_hidden(self) -> None:
        if self.options.plain_password or self.options.security == "SignAndEncrypt":
            return
        policy = self._client.server_policy(ua.UserTokenType.UserName)
        if policy.SecurityPolicyUri in (None, "") or policy.SecurityPolicyUri.endswith("#None"):
            raise Refused(
                "EDGE-2007",
                f"{self._name} would get the password of {self.options.username} in plain text",
                "Set security to SignAndEncrypt, or plain_password to true on a network you trust.",
            )

    async def _renew(self) -> None:
        """Renew the channel's token at 75 % of its life (OPC 10000-4, 5.5.2.1)."""
        while True:
            await asyncio.sleep(self._client.secure_channel_timeout * 0.75 / 1000)
            try:
                await self._client.open_secure_channel(renew=True)
                self._client.uaclient.revolve_security_token()
            except DRIVER_ERRORS:
                return  # the next answer that fails tells the reader

    async def close(self) -> None:
        """Say goodbye when the server still answers, and leave no socket behind."""
        if self._renewal is not None:
            self._renewal.cancel()
        protocol = self._client.uaclient.protocol
        with contextlib.suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._client.disconnect()
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    async def raw(self, request: Any, timeout_s: float | None = None) -> bytes:
        """Send a request and give the body of its answer, undecoded.

        Args:
            request: an asyncua request.
            timeout_s: None is the connection's own; 0 waits for ever (Publish).
        """
        protocol = self._client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the session is closed")
        return bytes(await protocol.send_request(request, timeout_s))

    async def call(self, request: Any, response: type[ResponseT]) -> ResponseT:
        """Send a request and give its answer, decoded and Good as a whole.

        Raises:
            UaStatusCodeError and the other DRIVER_ERRORS.
        """
        answer = struct_from_binary(response, ua.utils.Buffer(await self.raw(request)))
        answer.ResponseHeader.ServiceResult.check()
        decoded: ResponseT = answer
        return decoded

    async def in_batches(
        self,
        service: str,
        items: list[ItemT],
        call: Callable[[list[ItemT]], Awaitable[list[ResultT]]],
        size_max: int = OPERATIONS_MAX,
    ) -> list[ResultT]:
        """Results of a service for many items, in calls as large as the server takes.

        A server that says BadTooManyOperations gets half as many, from then on.

        Args:
            service: name under which the size is remembered.
            items: one for each operation.
            call: makes one call; gives as many results as it got items.
            size_max: largest call to try.
        """
        results: list[ResultT] = []
        at = 0
        while at < len(items):
            size = min(self._sizes.get(service, size_max), size_max)
            try:
                part = await call(items[at : at + size])
            except ua.UaStatusCodeError as error:
                if error.code != ua.StatusCodes.BadTooManyOperations or size == 1:
                    raise
                self._sizes[service] = size // 2
                continue
            if len(part) != len(items[at : at + size]):
                raise ua.UaError(f"{len(part)} results for {len(items[at : at + size])} operations")
            results += part
            at += size
        return results

    async def read_attributes(
        self, nodes: list[tuple[ua.NodeId, ua.AttributeIds]]
    ) -> list[ua.DataValue]:
        """Any attributes of any nodes, in order."""
        return await self.in_batches("Read", nodes, self._read)

    async def _read(self, nodes: list[tuple[ua.NodeId, ua.AttributeIds]]) -> list[ua.DataValue]:
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId=node, AttributeId=attribute) for node, attribute in nodes
        ]
        return (await self.call(request, ua.ReadResponse)).Results or []

    async def node_id(self, address: Address) -> ua.NodeId | None:
        """The node id of an address in this session; None when the server lacks its namespace."""
        index = address.namespace_index
        if address.namespace_uri:
            if self._namespaces is None:
                array = ua.NodeId(ua.ObjectIds.Server_NamespaceArray)
                value = (await self.read_attributes([(array, ua.AttributeIds.Value)]))[0].Value
                self._namespaces = list(value.Value or []) if value is not None else []
            if address.namespace_uri not in self._namespaces:
                return None
            index = self._namespaces.index(address.namespace_uri)
        node = ua.NodeId.from_string(f"{address.kind}={address.identifier}")
        return ua.NodeId(node.Identifier, index)

    async def learn_structure(self, data_type: ua.NodeId) -> None:
        """Learn one of the server's own structures, so that its fields can be read."""
        await self.structures.learn(data_type, self._definition, self._supertype)

    async def _definition(self, data_type: ua.NodeId) -> Any:
        wanted = [(data_type, ua.AttributeIds.DataTypeDefinition)]
        value = (await self.read_attributes(wanted))[0].Value
        return value.Value if value is not None else None

    async def _supertype(self, data_type: ua.NodeId) -> ua.NodeId | None:
        request = ua.BrowseRequest()
        request.Parameters.NodesToBrowse = [
            ua.BrowseDescription(
                NodeId=data_type,
                BrowseDirection=ua.BrowseDirection.Inverse,
                ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasSubtype),
                IncludeSubtypes=False,
                ResultMask=ua.BrowseResultMask.None_,
            )
        ]
        results = (await self.call(request, ua.BrowseResponse)).Results or []
        references = results[0].References if results else None
        if not references:
            return None
        found = references[0].NodeId
        return ua.NodeId(found.Identifier, found.NamespaceIndex)

    @property
    def _name(self) -> str:
        return f"{self.connection.name} ({self.connection.endpoint})"

    def explain(self, error: Exception, doing: str) -> HeadraceError:
        """Our error for a driver's: its class says what the host does next."""
        if isinstance(error, HeadraceError):
            return error
        if isinstance(error, ua.UaStatusCodeError):
            return self._explain_status(error, doing)
        if isinstance(error, TimeoutError):
            return Transient(
                "EDGE-2001",
                f"{doing}: {self._name} did not answer within {self.options.timeout_s:g} s",
                "Check that the server runs and that no firewall drops the connection.",
            )
        if isinstance(error, OSError):
            return Transient(
                "EDGE-2001",
                f"{doing}: {self._name} cannot be reached ({error.strerror or error})",
                "Check host, port and network; the edge keeps trying.",
            )
        if str(error).startswith("No matching endpoints"):
            return self._not_offered([])
        return Transient(
            "EDGE-2002",
            f"{doing}: {self._name} gave an answer that makes no sense ({error})",
            "If it stays, record the traffic and report it.",
        )

    def _explain_status(self, error: ua.UaStatusCodeError, doing: str) -> HeadraceError:
        name = status_name(error.code)
        if error.code in _USER_REFUSED:
            return Refused(
                "EDGE-2003",
                f"{doing}: {self._name} refused user "
                f"{self.options.username or 'anonymous'!r} ({name})",
                "Check username and password in the connection's options.",
            )
        if error.code in _CERTIFICATE_REFUSED:
            return Refused(
                "EDGE-2005",
                f"{doing}: {self._name} does not accept our certificate ({name})",
                f"Trust {self._context.certificates / 'own'}/opcua-{self._context.identity}.der "
                "at the server.",
            )
        if error.code in _SECURITY_REFUSED:
            return Refused(
                "EDGE-2004",
                f"{doing}: {self._name} refused security {self.options.security} ({name})",
                "Change security in the connection's options.",
            )
        return Transient(
            "EDGE-2002",
            f"{doing}: {self._name} answered {name}",
            "The edge tries again; if it stays, look at the server's own log.",
        )


def status_name(code: int) -> str:
    """The standard's name of a StatusCode, or its digits in hex."""
    name: str = ua.status_codes.get_name_and_doc(code & 0xFFFF_0000)[0]
    return name if name.startswith(("Good", "Bad", "Uncertain")) else f"0x{code:08X}"
