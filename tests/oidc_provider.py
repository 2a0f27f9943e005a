"""A real OpenID provider on this machine: Debian's glewlwyd, with a user, groups and our client."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey

from headrace.bus.broker import free_port
from waiting import until_sync

CLIENT, CLIENT_SECRET = "headrace", "a secret of the client"
PERSON, PASSWORD = "ada", "a secret of the person"
SCHEMA = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
CONFIG = """
port={port}
bind_address="127.0.0.1"
external_url="{url}/"
login_url="login.html"
api_prefix="api"
log_mode="file"
log_level="WARNING"
log_file="{folder}/log"
cookie_secure=false
session_expiration=3600
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3"; path = "{folder}/glewlwyd.db"; }};
"""


class Provider:
    """A running provider.

    Attributes:
        url: of its root. issuer: as it names itself. folder: of its files.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.issuer = f"{url}/api/oidc"
        self.folder = folder
        self.admin = httpx.Client(base_url=f"{url}/api", timeout=60)

    def set_up(self, redirect_uri: str) -> None:
        """Our client, a person in two groups, and the plugin that speaks OpenID Connect."""
        self._do("POST", "/auth/", {"username": "admin", "password": "password"})
        self._do("POST", "/mod/plugin/", self._plugin("key-1"))
        client = {
            "client_id": CLIENT,
            "name": "Headrace",
            "password": CLIENT_SECRET,
            "client_secret": CLIENT_SECRET,
            "confidential": True,
            "enabled": True,
            "scope": [],
            "redirect_uri": [redirect_uri],
            "authorization_type": ["code"],
            "token_endpoint_auth_method": ["client_secret_basic"],
        }
        self._do("POST", "/client/", client)
        person = {
            "username": PERSON,
            "name": "Ada",
            "password": PASSWORD,
            "enabled": True,
            "scope": ["openid", "g_profile"],
            "groups": ["plant-engineers", "canteen"],
        }
        self._do("POST", "/user/", person)

    def set_groups(self, groups: list[str]) -> None:
        """Move the person to other groups."""
        self._do("PUT", f"/user/{PERSON}", {"scope": ["openid", "g_profile"], "groups": groups})

    def rotate(self, name: str) -> None:
        """Sign with another key from now on; the old one is gone."""
        self._do("PUT", "/mod/plugin/oidc", self._plugin(name))
        self._do("PUT", "/mod/plugin/oidc/reset", {})

    def authorize(self, url: str) -> str:
        """Be the person's browser at the provider: sign in, consent, and give the callback's URL."""
        with httpx.Client(timeout=60) as browser:
            fields = {"username": PERSON, "password": PASSWORD}
            assert browser.post(f"{self.url}/api/auth/", json=fields).status_code == 200
            granted = {"scope": "openid"}
            answer = browser.put(f"{self.url}/api/auth/grant/{CLIENT}", json=granted)
            assert answer.status_code == 200, answer.text
            joint = f"{url}&g_continue"
            answer = browser.get(joint)
            target = answer.headers["location"]
            assert "/callback" in urlsplit(target).path, target
            return target

    def _plugin(self, key: str) -> dict[str, Any]:
        private = rsa.generate_private_key(65_537, 2048)
        jwk = RSAKey.import_key(private, {"kid": key, "alg": "RS256"}).as_dict(private=True)
        return {
            "module": "oidc",
            "name": "oidc",
            "display_name": "OpenID",
            "parameters": {
                "iss": self.issuer,
                "jwks-private": json.dumps({"keys": [jwk]}),
                "default-kid": key,
                "jwks-show": True,
                "access-token-duration": 3600,
                "refresh-token-duration": 3600,
                "code-duration": 600,
                "subject-type": "public",
                "auth-type-code-enabled": True,
                "auth-type-code-revoke-replayed": True,
                "auth-type-token-enabled": False,
                "auth-type-refresh-enabled": True,
                "pkce-allowed": True,
                "pkce-required": True,
                "pkce-method-plain-allowed": False,
                "allow-non-oidc": False,
                "session-management-allowed": True,
                "session-cookie-name": "GLEWLWYD2_OIDC_SID",
                "session-cookie-expiration": 3600,
                "name-claim": "on-demand",
                "claims": [
                    {"name": name, "user-property": field, "type": "string",
                     "mandatory": True, "on-demand": False, "scope": []}
                    for name, field in (("groups", "groups"), ("preferred_username", "username"))
                ],
            },
        }  # fmt: skip

    def _do(self, method: str, path: str, body: dict[str, Any]) -> None:
        answer = self.admin.request(method, path, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"


@contextmanager
def start_provider(folder: Path, redirect_uri: str) -> Iterator[Provider]:
    """Run a provider of its own until the end; skips where there is none."""
    if shutil.which("glewlwyd") is None or not SCHEMA.exists():
        pytest.skip("no OpenID provider; install one with: apt-get install glewlwyd")
    _make_database(folder / "glewlwyd.db")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    (folder / "conf").write_text(CONFIG.format(port=port, url=url, folder=folder))
    process = subprocess.Popen(["glewlwyd", f"--config-file={folder / 'conf'}"])
    try:
        until_sync(lambda: _answers(f"{url}/api/auth"), 60, "the provider to answer")
        provider = Provider(url, folder)
        provider.set_up(redirect_uri)
        yield provider
        provider.admin.close()
    finally:
        process.terminate()
        process.wait(30)


def _make_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.executescript(SCHEMA.read_text())
    found = database.execute("SELECT gumi_parameters FROM g_user_module_instance").fetchone()
    parameters = json.loads(found[0])
    parameters["data-format"]["groups"] = {"multiple": True, "read": True, "write": True}
    parameters["use-glewlwyd-connection"] = True
    database.execute(
        "UPDATE g_user_module_instance SET gumi_parameters = ?", [json.dumps(parameters)]
    )
    database.commit()
    database.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False


def query_of(url: str) -> dict[str, str]:
    """The query of a URL, one value a name."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
