"""Canaries: secrets are put wherever one can be given, everything is asked and made to fail, and every file,
answer, message and line of a running installation is searched for them.

Each canary is really used (the device and the web hook below get it), so that nothing is proven by a secret
that went nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socketserver
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from installation import Installation
from typer.testing import CliRunner

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.cli.app import build
from headrace.model.folder import DataFolder
from headrace.security.identity import Identity
from headrace.security.secrets import Vault
from waiting import until_sync

VAULTED = "canary-vaulted/8f31&c2"
PLAIN = "canary-plain-in-file-77a1"
FROM_FILE = "canary-from-a-file-19d4"
FROM_ENV = "canary-from-environment-52bb"
HOOK_PATH = "canary-hook-path-3c90"
SIGNING = "canary-signing-key-e0d7"
NUMBER = 7_731_902_244_115

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.vaulted]
protocol = "mqtt"
endpoint = "mqtt://127.0.0.1:{device}"
options = {{ username = "u1", password = "secret:device" }}

[connection.plain]
protocol = "mqtt"
endpoint = "mqtt://127.0.0.1:{device}"
options = {{ username = "u2", password = "{plain}" }}

[connection.from_file]
protocol = "mqtt"
endpoint = "mqtt://127.0.0.1:{device}"
options = {{ username = "u3", password = "file:{file}" }}

[connection.from_env]
protocol = "mqtt"
endpoint = "mqtt://127.0.0.1:{device}"
options = {{ username = "u4", password = "env:CANARY" }}

[[tag]]
path = "hall/line/machine/load"
connection = "vaulted"
address = "machine/load#"

[notify.channel.hook]
kind = "dingtalk"
url = "secret:hook"
secret = "secret:signing"
timeout_s = 2
"""


class _Device(socketserver.ThreadingTCPServer):
    """Takes whatever comes, and answers as an unfriendly MQTT broker or web server: it sends it back."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.heard = b""
        super().__init__(("127.0.0.1", 0), _Exchange)


class _Exchange(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        body = self.request.recv(65_536)
        self.server.heard += body  # type: ignore[attr-defined]
        if body.startswith(b"POST"):
            told = b"HTTP/1.1 500 no\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            self.request.sendall(told)
        else:
            self.request.sendall(b"\x20\x02\x00\x05")  # CONNACK 3.1.1, 5: not authorized


@pytest.fixture(scope="module")
def device() -> Iterator[_Device]:
    with _Device() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def installation(
    device: _Device, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp("canaries")
    (root / "given.secret").write_text(FROM_FILE)
    folder = DataFolder(root / "data")
    folder.root.mkdir()
    port = device.server_address[1]
    text = SITE.format(device=port, plain=PLAIN, file=root / "given.secret")
    folder.site_file.write_text(text)
    with Vault(folder) as vault:
        vault.set_all(
            {
                "device": VAULTED,
                "hook": f"http://127.0.0.1:{port}/{HOOK_PATH}",
                "signing": SIGNING,
            }
        )
    os.environ["CANARY"] = FROM_ENV
    started = Installation(folder.root, "--port", "0")
    try:
        yield started.start()
    finally:
        os.environ.pop("CANARY")
        started.stop()


def forms(secret: str) -> list[bytes]:
    """How a secret may stand in bytes; made here on purpose, not by the code under test."""
    raw = secret.encode()
    found = [raw, raw.hex().encode(), quote(secret, safe="").encode(), secret.encode("utf-16-le")]
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        whole = coded[4 if before else 0 : len(coded) // 4 * 4 - 4]
        found += [whole, whole.replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(found))


SECRETS = {
    name: forms(value)
    for name, value in {
        "vaulted": VAULTED,
        "plain": PLAIN,
        "from a file": FROM_FILE,
        "from the environment": FROM_ENV,
        "path of the hook": HOOK_PATH,
        "signing key": SIGNING,
        "a number": str(NUMBER),
    }.items()
}


def found_in(body: bytes) -> list[str]:
    return [name for name, each in SECRETS.items() if any(form in body for form in each)]


def test_the_search_finds_each_form() -> None:
    for secret in (VAULTED, HOOK_PATH):
        for text in (
            secret,
            quote(secret, safe=""),
            secret.encode().hex(),
            base64.b64encode(b"u1:" + secret.encode()).decode(),
            base64.urlsafe_b64encode(b"u:" + secret.encode() + b"!").decode(),
        ):
            assert found_in(f"before {text} after".encode())


def command(root: Path, *words: str) -> bytes:
    """What a command prints, with its error as a traceback would show it."""
    result = CliRunner().invoke(build((words[0],)), [*words, "--data", str(root)])
    error = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    return (result.output + error).encode()


@pytest.fixture(scope="module")
def driven(installation: Installation, device: _Device) -> Installation:
    """Every secret was used, and every connection and the hook have failed."""

    def all_heard() -> bool:
        wanted = (VAULTED, PLAIN, FROM_FILE, FROM_ENV)
        return all(secret.encode() in device.heard for secret in wanted)

    until_sync(all_heard, 60, "the passwords at the device")
    told = command(installation.folder.root, "notify", "test", "hook")
    assert HOOK_PATH.encode() in device.heard
    assert found_in(told) == [], told
    return installation


@pytest.fixture(scope="module")
def browser(driven: Installation) -> Iterator[httpx.Client]:
    """Signed in as an admin."""
    identity = Identity(driven.folder)
    identity.add_user("canary_watch", "admin", "a long enough password")
    token = identity.add_token("canary_watch", "canaries", role="admin")
    session = identity.sign_in("canary_watch", "a long enough password", "127.0.0.1")
    identity.close()
    headers = {"authorization": f"Bearer {token}"}
    cookies = {"headrace_session": session}
    with httpx.Client(base_url=driven.url, headers=headers, cookies=cookies, timeout=30) as client:
        yield client


def test_rest_answers_and_pages_hold_no_secret(browser: httpx.Client) -> None:
    paths = browser.get("/api/openapi.json").json()["paths"]
    asked = 0
    for path, verbs in paths.items():
        if "get" not in verbs or path == "/api/v1/site":  # the file itself, for engineers
            continue
        for name in ("vaulted", "plain", "hook", "x"):
            filled = path
            while "{" in filled:
                begin, _, rest = filled.partition("{")
                filled = begin + name + rest.partition("}")[2]
            answer = browser.get(filled, params={"limit": 1000, "path": "hall/line/machine/load"})
            assert found_in(answer.content) == [], (filled, answer.text[:2000])
            asked += 1
            if filled == path:
                break
    assert asked > 20
    for page in ("/", "/connections", "/events", "/users", "/alarms/notifications", "/zones"):
        answer = browser.get(page)
        assert found_in(answer.content) == [], page


def test_errors_do_not_show_what_was_given(browser: httpx.Client, driven: Installation) -> None:
    text = driven.folder.site_file.read_text()
    wrong = [
        text.replace(f'"{PLAIN}"', str(NUMBER)),
        text.replace(f'"{PLAIN}"', f'["{VAULTED}"]'),
        text.replace(f'password = "{PLAIN}"', f'passwort = "{VAULTED}"'),
        text.replace('"secret:signing"', f'"{VAULTED}"'),
        text.replace('"secret:signing"', str(NUMBER)),
        text.replace('"secret:hook"', f'"https://host/{VAULTED}"'),
    ]
    for body in wrong:
        answer = browser.post("/api/v1/site/check", content=body.encode())
        problems = answer.json()["problems"]
        assert problems, body
        assert found_in(answer.content) == [], problems
    for sent in (f"Bearer {VAULTED}", f"Basic {base64.b64encode(VAULTED.encode()).decode()}"):
        answer = httpx.get(f"{driven.url}/api/v1/connections", headers={"authorization": sent})
        assert answer.status_code in (401, 403) and found_in(answer.content) == []


def test_commands_print_no_secret(driven: Installation) -> None:
    root = driven.folder.root
    for words in (
        ("status",),
        ("why", "hall/line/machine/load"),
        ("audit", "list", "--format", "json"),
        ("notify", "log"),
        ("secret", "show", "device"),
    ):
        told = command(root, *words)
        assert told and found_in(told) == [], (words, told[-2000:])


async def test_no_message_on_the_bus_holds_a_secret(driven: Installation) -> None:
    messages = 0
    async with open_bus(load_address(driven.folder), "canaries") as bus:
        for info in await bus.stream.streams_info():
            for number in range(info.state.first_seq or 1, info.state.last_seq + 1):
                try:
                    message = await bus.stream.get_msg(info.config.name, number)
                except Exception as error:  # noqa: BLE001 - removed meanwhile
                    assert "not found" in str(error).lower() or "no message" in str(error).lower()
                    continue
                body = (message.data or b"") + json.dumps(message.headers or {}).encode()
                assert found_in(body) == [], (info.config.name, message.subject, body[:2000])
                messages += 1
        heard: list[bytes] = []

        async def hear(message) -> None:  # type: ignore[no-untyped-def]
            heard.append(message.data)

        await bus.subscribe("v1.>", hear, pending_max=1_000)
        async with asyncio.timeout(20):
            while len(heard) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [found for body in heard if (found := found_in(body))] == []
    assert messages > 10


def test_no_file_holds_a_secret(driven: Installation, browser: httpx.Client) -> None:
    del browser  # what it asked for stands in logs and databases by now
    folder = driven.folder
    may = {
        # The file that a person wrote it into, and its kept versions, until `headrace secret adopt`.
        folder.site_file: ["plain"],
        folder.root.parent / "given.secret": ["from a file"],
    }
    searched = 0
    for path in sorted(folder.root.parent.rglob("*")):
        if not path.is_file() or path.is_relative_to(folder.site_versions):
            continue
        searched += 1
        body = path.read_bytes()
        assert [name for name in found_in(body) if name not in may.get(path, [])] == [], path
    assert searched > 20
    key = (folder.keys / "master.key").read_bytes().strip()
    platform = load_address(folder).platform_password.encode()
    for path in sorted(folder.root.rglob("*")):
        if not path.is_file() or path.parent in (folder.keys, folder.run):
            continue
        body = path.read_bytes()
        assert key not in body, path
        if platform in body:
            assert path.is_relative_to(folder.broker) and path.stat().st_mode & 0o077 == 0, path


def test_after_adopt_no_file_holds_the_plain_one_either(driven: Installation) -> None:
    folder = driven.folder
    told = command(folder.root, "secret", "adopt")
    assert b"plain.password" in told and found_in(told) == []
    assert found_in(folder.site_file.read_bytes()) == []
    for path in sorted(folder.site_versions.glob("*")):
        if path.is_file():
            assert found_in(path.read_bytes()) == [], path
