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
    [secrets]
    keyring = "headrace mill"                          # default: the master key in a file of its own
    [tls]                                              # off loopback; default: certificates of our own
    certificate = "/etc/ssl/plant.pem"                 # with its chain
    key = "/etc/ssl/plant.key"
    authority = "/etc/ssl/plant-ca.pem"                # that clients believe
    devices = true                                     # MQTT devices show a certificate; default: false

``HEADRACE_TABLE``, ``HEADRACE_BUS`` and ``HEADRACE_METADATA`` go before the file.
A change counts from the next start on.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder

SETTINGS_FILE: Final = "headrace.toml"
WRITERS_MAX: Final = 16


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


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of one installation; see the module."""

    historian: HistorianSettings = msgspec.field(default_factory=HistorianSettings)
    bus: BusSettings = msgspec.field(default_factory=BusSettings)
    metadata: MetadataSettings = msgspec.field(default_factory=MetadataSettings)
    secrets: SecretsSettings = msgspec.field(default_factory=SecretsSettings)
    tls: TlsSettings = msgspec.field(default_factory=TlsSettings)


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
    except (msgspec.MsgspecError, OSError) as error:
        raise Misconfigured(
            "SEC-1201",
            f"{path} cannot be used: {error}",
            "Correct it; docs/scale.md shows every setting.",
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
    return settings
