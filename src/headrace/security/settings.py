"""What an installation shares with others: the table, the metadata database, the number of writers.

All of it is optional; without the file everything lies in the data folder. ``headrace.toml`` there::

    [historian]
    table = "s3://plant/history"                       # default: the folder table/
    writers = 2                                        # default: 1
    [historian.storage]                                # of an object storage; secrets by AWS_*
    aws_endpoint_url = "https://s3.plant.example"
    [bus]
    address = "/etc/headrace/client.json"              # of a cluster; default: a broker of its own
    [metadata]
    url = "postgresql+psycopg://headrace@db/headrace"  # default: metadata.db; password: PGPASSFILE
    [identity]                                         # docs/identity.md
    idle_min = 240                                     # a session nobody uses ends; 0: never
    session_h = 12                                     # every session ends; sign in again
    second_factor_roles = ["admin", "security_officer"]
    [identity.oidc]
    issuer = "https://login.plant.example"
    client_id = "headrace"
    client_secret_file = "/etc/headrace/oidc.secret"
    group_claim = "groups"
    [identity.oidc.groups]                             # group = "role" or "role:equipment/path"
    plant-engineers = "engineer"
    [secrets]
    keyring = "headrace mill"                          # default: the master key in a file of its own
    [tls]                                              # off loopback; default: certificates of our own
    certificate = "/etc/ssl/plant.pem"                 # with its chain
    key = "/etc/ssl/plant.key"
    authority = "/etc/ssl/plant-ca.pem"                # that clients believe
    devices = true                                     # MQTT devices show a certificate; default: false
    [apps]
    unsigned = true                                    # also apps that nobody signed; default: false

``HEADRACE_TABLE``, ``HEADRACE_BUS`` and ``HEADRACE_METADATA`` go before the file.
A change counts from the next start on.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder

SETTINGS_FILE: Final = "headrace.toml"
WRITERS_MAX: Final = 16
HOURS_MAX: Final = 30 * 24
MINUTES_MAX: Final = HOURS_MAX * 60


class HistorianSettings(msgspec.Struct, forbid_unknown_fields=True):
    """``table``: URI of the samples, "" for the data folder. ``writers``: processes that write it.
    ``storage``: options of an object storage, without secrets."""

    table: str = ""
    writers: int = 1
    storage: dict[str, str] = {}


class MetadataSettings(msgspec.Struct, forbid_unknown_fields=True):
    """``url``: SQLAlchemy URL of the metadata database, "" for SQLite in the data folder."""

    url: str = ""


class BusSettings(msgspec.Struct, forbid_unknown_fields=True):
    """``address``: file that tells how to reach a cluster, "" for a broker in the data folder."""

    address: str = ""


class OidcSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Single sign-on by OpenID Connect; "" as ``issuer`` is none. See docs/identity.md.

    Attributes:
        issuer: URL of the provider, exactly as it names itself.
        client_id, client_secret_file: of this console at the provider; no file for a public client.
        title: what the button on the sign-in page names.
        scopes: asked for; ``openid`` must be among them.
        name_claim: becomes the user's name. group_claim: holds the groups.
        groups: group -> ``role`` or ``role:equipment/path``; who has none of them stays out.
        public_url: address of this console as browsers see it; "" takes it from the request.
        ca_file: certificates that the provider's is checked by; "" those of the system.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    title: str = "Single sign-on"
    scopes: list[str] = msgspec.field(default_factory=lambda: ["openid", "profile"])
    name_claim: str = "preferred_username"
    group_claim: str = "groups"
    groups: dict[str, str] = {}
    public_url: str = ""
    ca_file: str = ""


class IdentitySettings(msgspec.Struct, forbid_unknown_fields=True):
    """``idle_min``, ``session_h``: when a session ends, 0 as ``idle_min`` is never. ``second_factor_roles``:
    whose people must have a second factor. ``oidc``: single sign-on."""

    idle_min: int = 240
    session_h: int = 12
    second_factor_roles: list[str] = []
    oidc: OidcSettings = msgspec.field(default_factory=OidcSettings)


class SecretsSettings(msgspec.Struct, forbid_unknown_fields=True):
    """``keyring``: entry of the system's keyring that holds the vault's master key; "" a file."""

    keyring: str = ""


class TlsSettings(msgspec.Struct, forbid_unknown_fields=True):
    """``certificate``, ``key``, ``authority``: the user's own, PEM; "" for those that we make.
    ``devices``: MQTT devices must show a certificate that our authority signed."""

    certificate: str = ""
    key: str = ""
    authority: str = ""
    devices: bool = False


class AppsSettings(msgspec.Struct, forbid_unknown_fields=True):
    """``unsigned``: packages of apps that nobody signed may be installed too. ``benches``: public keys of the
    benches whose certificates count; none: those of all."""

    unsigned: bool = False
    benches: tuple[str, ...] = ()


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of one installation; see the module."""

    historian: HistorianSettings = msgspec.field(default_factory=HistorianSettings)
    bus: BusSettings = msgspec.field(default_factory=BusSettings)
    metadata: MetadataSettings = msgspec.field(default_factory=MetadataSettings)
    identity: IdentitySettings = msgspec.field(default_factory=IdentitySettings)
    secrets: SecretsSettings = msgspec.field(default_factory=SecretsSettings)
    tls: TlsSettings = msgspec.field(default_factory=TlsSettings)
    apps: AppsSettings = msgspec.field(default_factory=AppsSettings)


def load_settings(folder: DataFolder) -> Settings:
    """The settings of a data folder, with what the environment says before them.

    Raises:
        Misconfigured: SEC-1201 when ``headrace.toml`` is no TOML or says what cannot be.

    Example:
        >>> from pathlib import Path
        >>> load_settings(DataFolder(Path("/nowhere"))).historian.writers
        1
    """
    path = folder.root / SETTINGS_FILE
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        settings = Settings()
    except (OSError, *UNREADABLE) as error:
        raise Misconfigured(
            "SEC-1201",
            f"{path} cannot be used: {error}",
            "Correct it; docs/scale.md and docs/identity.md show every setting.",
        ) from error
    settings.historian.table = os.environ.get("HEADRACE_TABLE", settings.historian.table)
    settings.bus.address = os.environ.get("HEADRACE_BUS", settings.bus.address)
    settings.metadata.url = os.environ.get("HEADRACE_METADATA", settings.metadata.url)
    if not 1 <= settings.historian.writers <= WRITERS_MAX:
        raise Misconfigured(
            "SEC-1201",
            f"{path} asks for {settings.historian.writers} writers",
            f"Give 1 to {WRITERS_MAX}.",
        )
    identity = settings.identity
    if not 0 <= identity.idle_min <= MINUTES_MAX or not 1 <= identity.session_h <= HOURS_MAX:
        raise Misconfigured(
            "SEC-1201",
            f"{path} asks for sessions of {identity.idle_min} min idle, {identity.session_h} h",
            f"Give idle_min 0 to {MINUTES_MAX} and session_h 1 to {HOURS_MAX}.",
        )
    return settings
