"""The data folder: where one installation keeps everything. Paths only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataFolder:
    """Layout of an installation's folder.

    ::

        site.toml          desired state, written by people and by the console's forms
        site.versions/     the last 100 versions of it
        metadata.db        equipment, tags, users (SQLite)
        ledger.db          the loss ledger (SQLite), written by the historian
        table/             the historian's Delta table of samples
        broker/            the broker's configuration and JetStream store
        identity/          key under which the seeds of one-time codes lie in metadata.db
        policies/          own policies (*.cedar), and the last of them that were in force
        audit/             keys and newest entry of the audit chain, whose entries are in metadata.db
        keys/              master key of the vault, and keys of edges that run here (private)
        packages/          packages of apps and asset types, by the name <id>-<version>.hrapp
        models/            models of apps, by the name <sha256>.onnx
        certificates/      own certificates, and trusted/ and rejected/ of others
        hub/               what a hub needs to take edges in: its certificates, the edges that joined
        edge/              what an edge on its own machine got when it joined its hub
        run/               what is running now: ports, credentials, process ids (private, mode 600)
        logs/              one log file a process

    Example:
        >>> DataFolder(Path("/srv/headrace")).table
        PosixPath('/srv/headrace/table')
    """

    root: Path

    @property
    def site_file(self) -> Path:
        return self.root / "site.toml"

    @property
    def site_versions(self) -> Path:
        return self.root / "site.versions"

    @property
    def metadata_file(self) -> Path:
        return self.root / "metadata.db"

    @property
    def ledger_file(self) -> Path:
        return self.root / "ledger.db"

    @property
    def table(self) -> Path:
        return self.root / "table"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def policies(self) -> Path:
        return self.root / "policies"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def placed_apps(self) -> Path:
        """There while apps with Python are placed on this edge's machine."""
        return self.run / "placed_apps"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def hub(self) -> Path:
        return self.root / "hub"

    @property
    def edge(self) -> Path:
        return self.root / "edge"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"
