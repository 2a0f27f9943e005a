"""HTTP channels as their makers describe them: what is posted, and what an answer means. No I/O.

==========  =============================  ==================================  =====================
kind        signature                      body                                said by the answer
==========  =============================  ==================================  =====================
webhook     header, HMAC-SHA256 of the     JSON, docs/notifications.md         the HTTP status
            body with its time
wecom       the key in the URL             markdown up to 4,096 bytes, or      ``errcode``
                                           text (2,048) when it mentions
dingtalk    query ``timestamp`` (ms) and   markdown up to 20,000 bytes         ``errcode``
            ``sign``
feishu      body ``timestamp`` (s) and     interactive card up to 20 KB        ``code``
            ``sign``
==========  =============================  ==================================  =====================

Robots answer HTTP 200 to what they refuse: only the code in the body says that it was sent. Sources:
WeCom developer centre 91770 (group robot), DingTalk open platform (custom robot access), Feishu open
platform (custom bot guide).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from headrace.alarms.notify.texts import Message
from headrace.model.decoding import UNREADABLE
from headrace.model.notify import ChannelConfig
from headrace.model.time import US_PER_MS, US_PER_S

WECOM_MARKDOWN_MAX: Final = 4_096
WECOM_TEXT_MAX: Final = 2_048
DINGTALK_MAX: Final = 18_000
FEISHU_MAX: Final = 16_000
RETRY_AFTER_MAX_S: Final = 900.0
LIMITED_S: Final = 60.0
DINGTALK_LIMITED_S: Final = 600.0
"""More than 20 messages a minute shut a DingTalk robot for ten minutes."""

Result = Literal["sent", "retry", "limited", "refused"]
"""``retry``: may work later; ``limited``: it was too much, later; ``refused``: a person is needed."""


class Outcome(NamedTuple):
    """What became of one attempt.

    Attributes:
        code: the other side's own, such as ``errcode 45009`` or ``http 503``.
        text: the other side's own words, or what failed on the way.
        retry_after_s: what the other side asked for; 0 when it said nothing.
    """

    result: Result
    code: str = ""
    text: str = ""
    retry_after_s: float = 0.0


class Request(NamedTuple):
    """A POST."""

    url: str
    headers: dict[str, str]
    body: bytes


def request_of(
    channel: ChannelConfig, message: Message, *, url: str, secret: str, now_us: int, key: str
) -> Request:
    """The POST that tells a message.

    Args:
        url, secret: what the channel's settings name.
        now_us: UTC microseconds; signatures hold it.
        key: the same for each attempt at the same message.

    Raises:
        ValueError: when the URL is none.
    """
    return _BUILDERS[channel.kind](channel, message, url, secret, now_us, key)


def sign_dingtalk(secret: str, timestamp_ms: int) -> str:
    """Base64 of HMAC-SHA256 over ``timestamp\\nsecret``, by the secret.

    Example:
        >>> sign_dingtalk("SEC1", 1_700_000_000_000)
        'ukR4+WoOOBTGaOauYqugxVrMSFyr92q4hPxJxuOkiio='
    """
    told = f"{timestamp_ms}\n{secret}".encode()
    return base64.b64encode(hmac.digest(secret.encode(), told, "sha256")).decode()


def sign_feishu(secret: str, timestamp_s: int) -> str:
    """Base64 of HMAC-SHA256 over nothing, by ``timestamp\\nsecret``.

    Example:
        >>> sign_feishu("abc", 1_700_000_000)
        'VIS10b0EBvzzSdFnuk4tznEmK5wHaruvf/WnViv2yR4='
    """
    key = f"{timestamp_s}\n{secret}".encode()
    return base64.b64encode(hmac.digest(key, b"", "sha256")).decode()


def sign_webhook(secret: str, timestamp_s: int, body: bytes) -> str:
    """``sha256=`` and the hex HMAC-SHA256 over ``timestamp.body``, by the secret.

    Example:
        >>> sign_webhook("abc", 1, b"{}")[:15]
        'sha256=741616cf'
    """
    told = str(timestamp_s).encode() + b"." + body
    return f"sha256={hmac.new(secret.encode(), told, hashlib.sha256).hexdigest()}"


def _webhook(
    channel: ChannelConfig, message: Message, url: str, secret: str, now_us: int, key: str
) -> Request:
    timestamp_s = now_us // US_PER_S
    body = msgspec.json.encode(
        {
            "schema": "headrace.notification.v1",
            "id": key,
            "channel": channel.name,
            "sent_at_us": now_us,
            "title": message.title,
            "text": message.plain(),
            "link": message.link,
            "count": message.total,
            "notices": [msgspec.to_builtins(each) for each in message.notices],
        }
    )
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "X-Headrace-Timestamp": str(timestamp_s),
    }
    if secret:
        headers["X-Headrace-Signature"] = sign_webhook(secret, timestamp_s, body)
    return Request(url, headers, body)


def _wecom(
    channel: ChannelConfig, message: Message, url: str, secret: str, now_us: int, key: str
) -> Request:
    del secret, now_us, key
    if channel.mention:
        content = _cut(_keyed(channel, message.plain()), WECOM_TEXT_MAX)
        called = ["@all" if each == "all" else each for each in channel.mention]
        text = {"content": content, "mentioned_mobile_list": called}
        return _post(url, {"msgtype": "text", "text": text})
    shade = {"red": "warning", "orange": "warning", "green": "info"}.get(message.colour, "comment")
    rows = [f'### <font color="{shade}">{_safe(message.title)}</font>']
    rows += [f"> {_labelled(label, text)}" for label, text in message.lines]
    if message.link:
        rows.append(f"[{message.link_text}]({message.link})")
    content = _cut(_keyed(channel, "\n".join(rows)), WECOM_MARKDOWN_MAX)
    return _post(url, {"msgtype": "markdown", "markdown": {"content": content}})


def _dingtalk(
    channel: ChannelConfig, message: Message, url: str, secret: str, now_us: int, key: str
) -> Request:
    del key
    if secret:
        timestamp_ms = now_us // US_PER_MS
        url = _with_query(url, timestamp=timestamp_ms, sign=sign_dingtalk(secret, timestamp_ms))
    rows = [f"### {_safe(message.title)}"]
    rows += [f"- {_labelled(label, text)}" for label, text in message.lines]
    if message.link:
        rows.append(f"\n[{message.link_text}]({message.link})")
    mobiles = [each for each in channel.mention if each != "all"]
    if mobiles:
        rows.append("\n" + " ".join(f"@{each}" for each in mobiles))
    body = {
        "msgtype": "markdown",
        "markdown": {
            "title": _safe(message.title),
            "text": _cut(_keyed(channel, "\n".join(rows)), DINGTALK_MAX),
        },
        "at": {"atMobiles": mobiles, "isAtAll": "all" in channel.mention},
    }
    return _post(url, body)


def _feishu(
    channel: ChannelConfig, message: Message, url: str, secret: str, now_us: int, key: str
) -> Request:
    del key
    rows = [f"{label}: {text}" if label else text for label, text in message.lines]
    said = _cut(_keyed(channel, "\n".join(rows)), FEISHU_MAX)
    elements: list[dict[str, Any]] = [
        {"tag": "div", "text": {"tag": "plain_text", "content": said}}
    ]
    if channel.mention:
        called = " ".join(f"<at id={each}></at>" for each in channel.mention)
        elements.append({"tag": "markdown", "content": called})
    if message.link:
        button = {
            "tag": "button",
            "text": {"tag": "plain_text", "content": message.link_text},
            "url": message.link,
            "type": "default",
        }
        elements.append({"tag": "action", "actions": [button]})
    template = message.colour if message.colour != "grey" else "blue"
    card = {
        "config": {"wide_screen_mode": True},
        "header": {
            "template": template,
            "title": {"tag": "plain_text", "content": message.title},
        },
        "elements": elements,
    }
    body: dict[str, Any] = {"msg_type": "interactive", "card": card}
    if secret:
        timestamp_s = now_us // US_PER_S
        body = {"timestamp": str(timestamp_s), "sign": sign_feishu(secret, timestamp_s), **body}
    return _post(url, body)


_Builder = Callable[[ChannelConfig, Message, str, str, int, str], Request]
_BUILDERS: Final[dict[str, _Builder]] = {
    "webhook": _webhook,
    "wecom": _wecom,
    "dingtalk": _dingtalk,
    "feishu": _feishu,
}


def _post(url: str, body: dict[str, Any]) -> Request:
    return Request(url, {"Content-Type": "application/json"}, msgspec.json.encode(body))


def _with_query(url: str, **fields: object) -> str:
    parts = urlsplit(url)
    query = [
        each for each in parse_qsl(parts.query, keep_blank_values=True) if each[0] not in fields
    ]
    query += [(name, str(value)) for name, value in fields.items()]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _keyed(channel: ChannelConfig, text: str) -> str:
    """With the keyword in front when it is not in it: a robot that asks for one refuses the rest."""
    return text if not channel.keyword or channel.keyword in text else f"{channel.keyword}\n{text}"


def _labelled(label: str, text: str) -> str:
    return f"**{label}** {_safe(text)}" if label else _safe(text)


def _safe(text: str) -> str:
    """Without what a robot would take for a mention, a colour or a link."""
    return text.replace("<", "＜").replace(">", "＞").replace("](", "] (")


def _cut(text: str, bytes_max: int) -> str:
    """Cut to so many bytes of UTF-8, between characters."""
    raw = text.encode()
    if len(raw) <= bytes_max:
        return text
    return raw[: bytes_max - 3].decode(errors="ignore") + "…"


def judge(kind: str, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """What an answer means.

    Args:
        headers: with names in lower case. body: the first bytes of it.
    """
    if status == 429:
        after_s = _retry_after_s(headers.get("retry-after", "")) or LIMITED_S
        return Outcome("limited", "http 429", "too many requests", after_s)
    if status in (408, 425) or status >= 500:
        after_s = _retry_after_s(headers.get("retry-after", ""))
        return Outcome("retry", f"http {status}", _words(body), after_s)
    if not 200 <= status < 300:
        return Outcome("refused", f"http {status}", _words(body))
    if kind == "webhook":
        return Outcome("sent", f"http {status}")
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except UNREADABLE:
        return Outcome("retry", f"http {status}", f"no answer of a robot: {_words(body)}")
    return _robot_outcome(kind, answer)


def _robot_outcome(kind: str, answer: dict[str, Any]) -> Outcome:
    name = "code" if kind == "feishu" else "errcode"
    code = answer.get(name, answer.get("StatusCode") if kind == "feishu" else None)
    text = str(answer.get("errmsg" if name == "errcode" else "msg", ""))[:300]
    if code == 0:
        return Outcome("sent", f"{name} 0")
    if not isinstance(code, int):
        return Outcome("retry", "", f"no answer of a robot: {str(answer)[:200]}")
    said = f"{name} {code}"
    limited_s = _LIMITED.get((kind, code), 0.0)
    if kind == "feishu" and code == 9499 and "too many" in text.lower():
        limited_s = LIMITED_S
    if limited_s:
        return Outcome("limited", said, text, limited_s)
    return Outcome("retry" if code == -1 else "refused", said, text)


_LIMITED: Final[dict[tuple[str, int], float]] = {
    ("wecom", 45009): LIMITED_S,
    ("wecom", 45033): LIMITED_S,
    ("dingtalk", 130101): DINGTALK_LIMITED_S,
    ("dingtalk", 410100): DINGTALK_LIMITED_S,
    ("feishu", 11232): LIMITED_S,
}

REMEDIES: Final[dict[tuple[str, str], str]] = {
    (
        "wecom",
        "errcode 93000",
    ): "The robot is gone, or its URL is wrong: copy it from the group anew.",
    ("dingtalk", "errcode 310000"): "The robot's security settings do not agree: keyword, secret "
    "(signature), the machine's clock, or its list of addresses.",
    ("dingtalk", "errcode 300001"): "The token in the URL is not known: copy the URL anew.",
    ("dingtalk", "errcode 400101"): "The token in the URL is not known: copy the URL anew.",
    ("dingtalk", "errcode 400102"): "The robot was stopped: start it in the group.",
    (
        "feishu",
        "code 19001",
    ): "The robot is gone, or its URL is wrong: copy it from the group anew.",
    ("feishu", "code 19021"): "The secret is wrong, or the machine's clock is off by an hour.",
    ("feishu", "code 19022"): "Add this machine's address to the robot's list.",
    ("feishu", "code 19024"): "Give the channel the robot's keyword.",
}
"""What a person can do about a robot's answer."""


def _retry_after_s(text: str) -> float:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); a date is not followed."""
    return min(float(text), RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 0.0


def _words(body: bytes) -> str:
    return " ".join(body[:400].decode(errors="replace").split())[:200]
