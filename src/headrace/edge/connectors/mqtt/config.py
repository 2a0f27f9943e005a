"""Settings of an MQTT connection and the grammar of its addresses; checked without any I/O.

An address is ``<topic>#<pointer>``: an MQTT topic without wildcards, then a JSON pointer (RFC 6901)
into the message's payload. ``<topic>#`` alone means the whole payload, also a bare number or text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from headrace.model import status as codes
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured

PLATFORM_BROKER: Final = "broker"
TOPIC_BYTES_MAX: Final = 65_535
TIME_UNITS_US: Final = {"s": 1e6, "ms": 1e3, "us": 1.0}
QUALITY_WORDS: Final = {
    "good": codes.GOOD,
    "ok": codes.GOOD,
    "true": codes.GOOD,
    "192": codes.GOOD,
    "uncertain": codes.UNCERTAIN,
    "64": codes.UNCERTAIN,
    "bad": codes.BAD,
    "false": codes.BAD,
    "0": codes.BAD,
}

Pointer = tuple[str, ...]


class MqttSessionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every connection over MQTT can set.

    Attributes:
        username: user at the broker; "" with endpoint ``broker`` means the platform's own.
        password: a secret such as ``env:MQTT_PASSWORD`` or ``file:/run/secret``.
        client_id: "" makes a stable one from the edge's identity and the connection's name.
        keep_alive_s: the broker and we notice a dead link within about twice this time.
        connect_timeout_s: for TCP, TLS and the broker's first answer together.
        tls_ca_file, tls_certificate_file, tls_key_file: PEM files for ``mqtts://``; without a CA file
            the system's own authorities are trusted.
        queue_messages_max: received messages that may wait before we stop reading the socket.
    """

    username: str = ""
    password: str = ""
    client_id: str = ""
    keep_alive_s: int = 15
    connect_timeout_s: float = 5.0
    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    queue_messages_max: int = 2_000


class MqttOptions(MqttSessionOptions, frozen=True, kw_only=True):
    """Settings of a plain JSON connection.

    Attributes:
        qos: of our subscriptions, 0 or 1. With 1 a message is acknowledged only once its samples are
            durable.
        clean_session: true makes the broker forget us while we are away; then messages are lost.
        timestamp: where a message carries its time: ``<pointer>@<s|ms|us|iso>``, for example
            ``/ts@ms``; "" takes the arrival time. An ISO time without an offset is UTC.
        quality: pointer to a quality word in the message; "" means all is Good.
        quality_map: word -> StatusCode name, beside good, ok, uncertain, bad, 192, 64, 0, true, false.
        missing_field: ``bad`` gives a tag whose field is absent from a message a Bad sample;
            ``ignore`` is for devices that send only what changed.
        stale_after_s: no message on a topic for this long makes its tags stale; 0 never does.
        availability_topic: the device's last-will topic: payload ``offline`` makes all tags stale.
        write_topic_suffix: commands are published to the tag's topic with this suffix; "" means the
            device cannot be written.
        write_timeout_s: how long a write waits for the device to echo the value.
        browse_listen_s: how long a browse listens.
    """

    qos: Literal[0, 1] = 1
    clean_session: bool = False
    timestamp: str = ""
    quality: str = ""
    quality_map: dict[str, str] = {}
    missing_field: Literal["bad", "ignore"] = "bad"
    stale_after_s: float = 0.0
    availability_topic: str = ""
    write_topic_suffix: str = ""
    write_timeout_s: float = 5.0
    browse_listen_s: float = 3.0


@dataclass(frozen=True)
class Endpoint:
    """Where a broker listens."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True)
class TimeField:
    """Where a message has its time; ``unit_us`` is 0 for ISO 8601 text."""

    pointer: Pointer
    unit_us: float


O = TypeVar("O", bound=MqttSessionOptions)  # noqa: E741 # the options' type


def decode_options(connection: ConnectionConfig, kind: type[O]) -> O:
    """The connection's options, checked against their type.

    Raises:
        Misconfigured: EDGE-4002 with the option that is wrong.
    """
    try:
        options = msgspec.convert(connection.options, kind)
    except msgspec.ValidationError as error:
        raise Misconfigured(
            "EDGE-4002",
            f"connection {connection.name!r} has wrong options: {error}",
            f"Known options: {', '.join(kind.__struct_fields__)}.",
        ) from error
    for name in ("keep_alive_s", "connect_timeout_s", "queue_messages_max"):
        if getattr(options, name) <= 0:
            raise Misconfigured(
                "EDGE-4002",
                f"connection {connection.name!r} has {name} = {getattr(options, name)}",
                "Use a number above 0.",
            )
    return options


def parse_endpoint(endpoint: str, connection: str) -> Endpoint:
    """Host, port and TLS of ``mqtt://host[:1883]`` or ``mqtts://host[:8883]``.

    Raises:
        Misconfigured: EDGE-4001 when it is not such an address.

    Example:
        >>> parse_endpoint("mqtts://plant.example", "cell_7")
        Endpoint(host='plant.example', port=8883, tls=True)
    """
    remedy = "Use mqtt://host:1883, mqtts://host:8883, or broker for the platform's own."
    what = f"connection {connection!r} has the endpoint {endpoint!r}"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        raise Misconfigured("EDGE-4001", what, remedy) from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise Misconfigured("EDGE-4001", what, remedy)
    if parts.username or parts.password or parts.path.strip("/") or parts.query:
        raise Misconfigured(
            "EDGE-4001", what, "Credentials go into the options username and password."
        )
    tls = parts.scheme == "mqtts"
    return Endpoint(parts.hostname, port or (8883 if tls else 1883), tls)


def parse_pointer(text: str, what: str) -> Pointer:
    """The tokens of a JSON pointer (RFC 6901, section 3 and 4).

    Raises:
        Misconfigured: EDGE-4003 when it is none.

    Example:
        >>> parse_pointer("/a~1b/0", "tag x")
        ('a/b', '0')
    """
    if not text:
        return ()
    bad_escape = any(part[:1] not in ("0", "1") for part in text.split("~")[1:])
    if not text.startswith("/") or bad_escape:
        raise Misconfigured(
            "EDGE-4003",
            f"{what} has the JSON pointer {text!r}",
            "A pointer is empty or begins with /, and has ~0 for ~ and ~1 for /.",
        )
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def check_topic(topic: str, what: str) -> str:
    """The topic itself when it can be published to (MQTT 3.1.1, 4.7).

    Raises:
        Misconfigured: EDGE-4003.
    """
    bad = not topic or any(sign in topic for sign in "+#\0") or len(topic) > TOPIC_BYTES_MAX // 4
    if bad:
        raise Misconfigured(
            "EDGE-4003",
            f"{what} has the topic {topic!r}",
            "A topic is not empty and has no wildcards (+ or #); one tag, one topic.",
        )
    return topic


def parse_address(address: str, what: str) -> tuple[str, Pointer]:
    """Topic and pointer of a tag's address.

    Raises:
        Misconfigured: EDGE-4003 when it does not follow the grammar.

    Example:
        >>> parse_address("hall/meter_1#/power/total", "tag x")
        ('hall/meter_1', ('power', 'total'))
    """
    topic, mark, pointer = address.partition("#")
    if not mark:
        raise Misconfigured(
            "EDGE-4003",
            f"{what} has the address {address!r} without #",
            "Use <topic>#<json pointer>, for example hall/meter_1#/power; <topic># is the payload.",
        )
    return check_topic(topic, what), parse_pointer(pointer, what)


def parse_time_field(text: str, what: str) -> TimeField | None:
    """Where and how messages carry their time; None for "".

    Raises:
        Misconfigured: EDGE-4002.

    Example:
        >>> parse_time_field("/ts@ms", "connection x")
        TimeField(pointer=('ts',), unit_us=1000.0)
    """
    if not text:
        return None
    pointer, _, unit = text.rpartition("@")
    if not pointer or unit not in (*TIME_UNITS_US, "iso"):
        raise Misconfigured(
            "EDGE-4002",
            f"{what} has timestamp = {text!r}",
            "Use <pointer>@<unit> with s, ms, us or iso, for example /ts@ms.",
        )
    return TimeField(parse_pointer(pointer, what), TIME_UNITS_US.get(unit, 0.0))


def quality_codes(options: MqttOptions, what: str) -> dict[str, int]:
    """Quality word -> StatusCode: the common words and the connection's own.

    Raises:
        Misconfigured: EDGE-4002 when a name is no StatusCode that we know.
    """
    by_name = {name: code for code, name in codes.NAMES.items()}
    known = dict(QUALITY_WORDS)
    for word, name in options.quality_map.items():
        if name not in by_name:
            raise Misconfigured(
                "EDGE-4002",
                f"{what} maps the quality {word!r} to {name!r}",
                "Use the name of a StatusCode, for example Good, Uncertain or BadSensorFailure.",
            )
        known[word.lower()] = by_name[name]
    return known
