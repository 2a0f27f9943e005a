"""The configuration of nats-server, as text: accounts, users, listeners.

::

    SITE      JetStream, MQTT; users: the roles, the edges' brokers, the edge's MQTT side
    CALLOUT   where the security role is asked about everybody else
    $SYS      the user that may end a connection
    T_<name>  another company's: nothing of the site is there

Who is not a user here is asked for by the auth callout; the server refuses him when nobody answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.bus.rights import (
    CALLOUT_ACCOUNT,
    GATEWAY_RIGHTS,
    ROLES,
    SITE_ACCOUNT,
    SYSTEM_ACCOUNT,
    configured,
    role_rights,
)
from headrace.security.nkeys import SigningKey, derived

SYSTEM_USER: Final = "system"
CALLOUT_USER: Final = "callout"

_TEMPLATE = """\
# Written by headrace at each start; edits are lost.
server_name: {server_name}
listen: "{bind}:{port}"
http: "127.0.0.1:{monitor_port}"
pid_file: "{run}/broker.pid"
log_file: "{logs}/broker.log"
logfile_size_limit: 10MB
logfile_max_num: 3
max_payload: 8MB
write_deadline: "10s"
jetstream {{
  store_dir: "{store}"
  max_mem: 64MB
  max_file: {store_bytes_max}
  sync_interval: {sync_interval}{domain}
}}
mqtt {{
  listen: "{bind}:{mqtt_port}"
  ack_wait: "5s"
  max_ack_pending: 1000{mqtt_tls}
}}
{tls}
accounts {{
  "{site_account}" {{
    jetstream: enabled
    users: [
      {{ user: "platform", password: "{platform_password}" }}{users}
    ]
  }}
  "{callout_account}" {{ users: [ {{ user: "callout", password: "{callout_password}" }} ] }}
  "{system_account}" {{ users: [ {{ user: "{system_user}", password: "{system_password}",
    permissions: {{
      publish: {{ allow: ["$SYS.REQ.SERVER.>"] }}, subscribe: {{ allow: ["_INBOX.>"] }} }} }} ] }}{tenants}
}}
authorization {{
  timeout: 3
  auth_callout {{
    issuer: "{issuer}"
    account: "{callout_account}"
    auth_users: {known}
  }}
}}
{sections}
"""


@dataclass(frozen=True)
class TlsFiles:
    """What a listener shows, PEM files.

    Attributes:
        certificate, key: its own. authority: whose clients' certificates count.
        devices: MQTT devices must show a certificate too.
    """

    certificate: Path
    key: Path
    authority: Path
    devices: bool = False


def role_password(secret: str, user: str) -> str:
    """The password of one of our users; tells nothing of the installation's secret.

    Example:
        >>> role_password("secret", "edge") == role_password("secret", "historian")
        False
    """
    return derived(secret, f"headrace user {user}").hex()


def issuer_key(secret: str) -> SigningKey:
    """The key whose tokens this installation's broker believes."""
    return SigningKey(derived(secret, "headrace issuer"))


def tenant_account(tenant: str) -> str:
    """The broker's account of a tenant.

    Example:
        >>> tenant_account("acme")
        'T_acme'
    """
    return f"T_{tenant}"


def site_users(secret: str, device_password: str, edge: str) -> list[str]:
    """Users of the site's account beside the owner: every role of ours, and the edge's MQTT side.

    Args:
        secret: of the installation. edge: name of the edge that runs beside this broker.
    """
    users = [
        _user(role, role_password(secret, role), configured(role_rights(role, edge)))
        for role in ROLES
    ]
    return [*users, _user("device", device_password, configured(GATEWAY_RIGHTS))]


def _user(name: str, password: str, permissions: str) -> str:
    return f'{{ user: "{name}", password: "{password}", permissions: {permissions} }}'


def tls_block(files: TlsFiles, *, verify: bool = False) -> str:
    """A ``tls`` block; with ``verify`` only clients with a certificate of the authority connect."""
    clients = f", ca_file: {json.dumps(str(files.authority))}, verify: true" if verify else ""
    certificate, key = json.dumps(str(files.certificate)), json.dumps(str(files.key))
    return f"tls {{ cert_file: {certificate}, key_file: {key}{clients}, timeout: 5 }}"


def access_parts(
    secret: str, users: Sequence[str], tls: TlsFiles | None, tenants: Sequence[str]
) -> dict[str, str]:
    """The places of the template that say who may connect, and how."""
    names = [line.split('"')[1] for line in users]
    known = ["platform", CALLOUT_USER, SYSTEM_USER, *names]
    return {
        "site_account": SITE_ACCOUNT,
        "callout_account": CALLOUT_ACCOUNT,
        "system_account": SYSTEM_ACCOUNT,
        "system_user": SYSTEM_USER,
        "callout_password": role_password(secret, CALLOUT_USER),
        "system_password": role_password(secret, SYSTEM_USER),
        "issuer": issuer_key(secret).public,
        "known": json.dumps(known),
        "users": "".join(f"\n      {user}" for user in users),
        "tenants": "".join(f'\n  "{tenant_account(tenant)}" {{ }}' for tenant in tenants),
        "tls": tls_block(tls) if tls else "",
        "mqtt_tls": "\n  " + tls_block(tls, verify=tls.devices) if tls else "",
    }


def configuration(**places: object) -> str:
    """The whole text."""
    return _TEMPLATE.format(**places)
