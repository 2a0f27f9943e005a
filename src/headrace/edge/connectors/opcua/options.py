"""Settings of an OPC UA connection, checked without any I/O."""

from __future__ import annotations

from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured

Security = Literal["None", "Sign", "SignAndEncrypt"]
ReadingMode = Literal["subscribe", "poll"]
ENDPOINT_EXAMPLE = "opc.tcp://192.168.0.10:4840"


class OpcUaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set on an OPC UA connection.

    Attributes:
        security: message security mode; ``Sign`` and ``SignAndEncrypt`` use the policy.
        security_policy: name of the policy for the two.
        username: "" connects as anonymous.
        password: ``env:NAME``, ``file:/path`` or the text itself.
        plain_password: allow a password on a channel that does not encrypt it.
        reading: ``subscribe``, or ``poll`` for servers without subscriptions.
        publishing_interval_ms: how often the server sends what changed, 10 to 60,000.
        queue_size: samples that the server keeps a tag between two publishes, 1 to 100,000.
        timeout_s: for connect and for every answer, 0.5 to 120.
        history_resume: at connect, fetch what the server's history holds of the gap.
    """

    security: Security = "None"
    security_policy: Literal["Basic256Sha256"] = "Basic256Sha256"
    username: str = ""
    password: str = ""
    plain_password: bool = False
    reading: ReadingMode = "subscribe"
    publishing_interval_ms: int = 200
    queue_size: int = 1000
    timeout_s: float = 4.0
    history_resume: bool = False


_BOUNDS: dict[str, tuple[float, float]] = {
    "publishing_interval_ms": (10, 60_000),
    "queue_size": (1, 100_000),
    "timeout_s": (0.5, 120),
}


def parse_options(connection: ConnectionConfig) -> OpcUaOptions:
    """Endpoint and options of a connection, checked.

    Raises:
        Misconfigured: EDGE-2008 naming the connection, the field and the value.
    """
    _check_endpoint(connection)
    try:
        options = msgspec.convert(connection.options, OpcUaOptions)
    except msgspec.ValidationError as error:
        raise _wrong(connection, f"its options are wrong: {error}", _allowed()) from error
    for name, (low, high) in _BOUNDS.items():
        value = getattr(options, name)
        if not low <= value <= high:
            raise _wrong(connection, f"{name} is {value}", f"Use {low:g} to {high:g}.")
    if options.password and not options.username:
        raise _wrong(connection, "it has a password without a username", "Set username too.")
    return options


def _check_endpoint(connection: ConnectionConfig) -> None:
    try:
        parts = urlsplit(connection.endpoint)
        port = parts.port
    except ValueError as error:
        raise _endpoint(connection) from error
    if parts.scheme != "opc.tcp" or not parts.hostname or port is None:
        raise _endpoint(connection)
    if parts.username or parts.password:
        raise _wrong(
            connection,
            "its endpoint holds a user name",
            "Set username and password as options; an endpoint is shown to everybody.",
        )


def _endpoint(connection: ConnectionConfig) -> Misconfigured:
    return _wrong(
        connection,
        f"its endpoint is {connection.endpoint!r}",
        f"Use opc.tcp://HOST:PORT, for example {ENDPOINT_EXAMPLE}.",
    )


def _wrong(connection: ConnectionConfig, what: str, remedy: str) -> Misconfigured:
    return Misconfigured("EDGE-2008", f"connection {connection.name}: {what}", remedy)


def _allowed() -> str:
    hints: dict[str, Any] = {"security": get_args(Security), "reading": get_args(ReadingMode)}
    texts = [f"{name}: {' | '.join(hints[name])}" for name in hints]
    return f"Fields: {', '.join(OpcUaOptions.__struct_fields__)}; {'; '.join(texts)}."
