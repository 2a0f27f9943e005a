"""Local servers that speak as the makers' documents say: webhook, WeCom, DingTalk, Feishu, an HTTP proxy.

They check what the real ones check (signature and its age, keyword, size, shape) with code of their own,
and count what they take per minute when told to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headrace.bus.broker import free_port

Answer = tuple[int, dict[str, str], bytes]


def in_json(body: dict[str, Any], status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


@dataclass
class Robot:
    """One robot in a group.

    Attributes:
        kind: whose rules. secret, keyword: its security settings.
        now_s: its clock. scripted: answers given in place of its own, first one first.
        got: what it took, in order; posts: everything that came.
    """

    kind: str
    secret: str = ""
    keyword: str = ""
    now_s: Callable[[], float] = lambda: 0.0
    scripted: list[Answer] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, secret: str = "") -> str:
        paths = {
            "wecom": "/cgi-bin/webhook/send?key=693a91f6-7xxx",
            "dingtalk": "/robot/send?access_token=f0e1d2c3b4a5",
            "feishu": "/open-apis/bot/v2/hook/aabbccddeeff",
            "webhook": "/hooks/alarms",
        }
        return f"{secret or 'http'}://127.0.0.1:{self.port}{paths[self.kind]}"

    def answer(self, line: str, headers: dict[str, str], raw: bytes) -> Answer:
        body = json.loads(raw)
        self.lines.append(line)
        self.headers.append(headers)
        self.posts.append(body)
        if self.scripted:
            return self.scripted.pop(0)
        made = getattr(self, f"_{self.kind}")(line, headers, body, raw)
        if made[0] in (200, 204) and b'"no' not in made[2]:
            self.got.append(body)
        return made

    def _wecom(
        self, line: str, headers: dict[str, str], body: dict[str, Any], raw: bytes
    ) -> Answer:
        del headers, raw
        if parse_qs(urlsplit(line).query).get("key") != ["693a91f6-7xxx"]:
            return in_json({"errcode": 93000, "errmsg": "no: invalid webhook url"})
        content = body[body["msgtype"]]["content"]
        most = {"markdown": 4096, "text": 2048}[body["msgtype"]]
        if len(content.encode()) > most:
            return in_json({"errcode": 40058, "errmsg": f"no: content exceed max length {most}"})
        return in_json({"errcode": 0, "errmsg": "ok"})

    def _dingtalk(
        self, line: str, headers: dict[str, str], body: dict[str, Any], raw: bytes
    ) -> Answer:
        del headers
        query = parse_qs(urlsplit(line).query)
        if query.get("access_token") != ["f0e1d2c3b4a5"]:
            return in_json({"errcode": 300001, "errmsg": "no: token is not exist"})
        if self.secret:
            at_ms = query.get("timestamp", ["0"])[0]
            if abs(int(at_ms) / 1000 - self.now_s()) > 3600:
                return in_json({"errcode": 310000, "errmsg": "no: invalid timestamp"})
            told = f"{at_ms}\n{self.secret}"
            made = hmac.new(self.secret.encode(), told.encode(), digestmod=hashlib.sha256).digest()
            if query.get("sign") != [base64.b64encode(made).decode()]:
                return in_json({"errcode": 310000, "errmsg": "no: sign not match"})
        text = body["markdown"]["text"]
        if self.keyword and self.keyword not in text:
            return in_json({"errcode": 310000, "errmsg": "no: keywords not in content"})
        if len(raw) > 20_000:
            return in_json({"errcode": 460101, "errmsg": "no: message too long"})
        assert body["msgtype"] == "markdown" and body["markdown"]["title"]
        assert set(body["at"]) == {"atMobiles", "isAtAll"}
        return in_json({"errcode": 0, "errmsg": "ok"})

    def _feishu(
        self, line: str, headers: dict[str, str], body: dict[str, Any], raw: bytes
    ) -> Answer:
        del headers
        if not line.endswith("/aabbccddeeff"):
            return in_json({"code": 19001, "msg": "no: incoming webhook access token invalid"})
        if self.secret:
            key = f"{body.get('timestamp')}\n{self.secret}".encode()
            made = base64.b64encode(hmac.new(key, digestmod=hashlib.sha256).digest()).decode()
            late = abs(int(body.get("timestamp", 0)) - self.now_s()) > 3600
            if late or body.get("sign") != made:
                text = "no: sign match fail or timestamp is not within one hour from current time"
                return in_json({"code": 19021, "msg": text})
        if self.keyword and self.keyword not in json.dumps(body, ensure_ascii=False):
            return in_json({"code": 19024, "msg": "no: Key Words Not Found"})
        if len(raw) > 20_480 or body.get("msg_type") != "interactive":
            return in_json({"code": 9499, "msg": "no: Bad Request"})
        assert body["card"]["header"]["title"]["tag"] == "plain_text"
        return in_json({"code": 0, "msg": "success", "data": {}, "StatusCode": 0})

    def _webhook(
        self, line: str, headers: dict[str, str], body: dict[str, Any], raw: bytes
    ) -> Answer:
        del line, body
        if self.secret:
            told = headers["x-headrace-timestamp"].encode() + b"." + raw
            made = hmac.new(self.secret.encode(), told, hashlib.sha256).hexdigest()
            if headers.get("x-headrace-signature") != f"sha256={made}":
                return 401, {}, b"signature"
        return 204, {}, b""


@contextmanager
def serving(robot: Robot, certificate: tuple[str, str] | None = None) -> Iterator[Robot]:
    """The robot behind a port of this machine; with TLS when it has a certificate (PEM, key)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lowered = {name.lower(): value for name, value in self.headers.items()}
            status, headers, body = robot.answer(self.path, lowered, raw)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    robot.port = free_port()
    server = ThreadingHTTPServer(("127.0.0.1", robot.port), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield robot
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
