"""Secrets of the site on their way to the edges: taken from the vault, sealed to each edge's own key.

The site file names them (``password = "secret:plc_1_password"``). One that stands there in clear goes the
same way, so that none is ever readable on the bus; the keeper tells that it stands there, and
``headrace secret adopt`` moves it into the vault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.bus import leaf
from headrace.model.desired import ConnectionConfig, EdgeConfig
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.files import write_whole
from headrace.security.redaction import REDACTOR
from headrace.security.sealing import fingerprint, own_edge_key, seal
from headrace.security.secrets import PREFIX, Vault, reference
from headrace.site.edges import LOCAL_EDGE
from headrace.site.edit import SiteEdit
from headrace.site.model import SiteModel
from headrace.site.secret_words import plain_of, plain_secrets
from headrace.site.writing import rewrite_versions

_PURPOSE: Final = "seal to edges"


class Sealer:
    """Seals what edges need.

    Args:
        folder: the data folder of the console that keeps the desired state.

    Attributes:
        is_needed: an edge needed a secret at the last sealing.
        missing: names that the site file uses and the vault does not have, of the last sealing.
        keyless: edges that need secrets and whose key is not known here, of the last sealing.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self.is_needed = False
        self.missing: list[str] = []
        self.keyless: list[str] = []

    def stamp(self) -> tuple[Any, ...]:
        """Changes when a secret or an edge's key did; cheap, and () while no edge needs a secret."""
        if not self.is_needed:
            return ()
        with Vault(self._folder) as vault:
            names = tuple((each.name, each.changed_us) for each in vault.names())
        book = self._folder.hub / "edges.json"
        places = [*self._folder.keys.glob("edge*.key"), *_trusted(self._folder).glob("*.pub"), book]
        return names, tuple((str(p), p.stat().st_mtime_ns) for p in sorted(places) if p.exists())

    def seal(self, configs: Mapping[str, EdgeConfig]) -> dict[str, EdgeConfig]:
        """The configurations with references in place of secrets, and what these refer to sealed.

        A secret that the vault does not have, or an edge without a key, leaves its reference: the edge says
        of that connection what is missing, and all others run.

        Raises:
            Refused: SEC-1503 when the vault cannot be opened; then nothing goes out.
            Corrupt: SEC-1508 when a secret was tampered with.
        """
        self.missing, self.keyless = [], []
        needy = {edge: config for edge, config in configs.items() if _needs(config)}
        self.is_needed = bool(needy)
        if not needy:
            return dict(configs)
        with Vault(self._folder) as vault:
            known = {each.name for each in vault.names()}
            wanted = {name for config in needy.values() for name in _references(config)}
            self.missing = sorted(wanted - known)
            values = vault.get_all(tuple(sorted(wanted & known)))
            derive = vault.derived_key(_PURPOSE)
        sealed = {edge: self._sealed(config, values, derive) for edge, config in needy.items()}
        return {**configs, **sealed}

    def seal_draft(
        self, edge: str, draft: ConnectionConfig
    ) -> tuple[ConnectionConfig, dict[str, str]]:
        """A connection that is not saved, for a call to an edge, and its sealed secrets.

        Raises:
            Misconfigured: SEC-1516 when the edge's key is not known, SEC-1511 for an unknown secret.
            Refused, Corrupt: as :meth:`seal`.
        """
        config = EdgeConfig(enterprise="", site="", edge=edge, connections=(draft,))
        sealed = self.seal({edge: config})[edge]
        if self.keyless:
            raise Misconfigured("SEC-1516", *_keyless(edge))
        return sealed.connections[0], sealed.secrets

    def _sealed(self, config: EdgeConfig, values: Mapping[str, str], derive: bytes) -> EdgeConfig:
        plain = {f"plain.{p.name}": p for c in config.connections for p in plain_of(c)}
        secrets = {name: values[name] for name in _references(config) if name in values}
        secrets |= {name: each.value for name, each in plain.items()}
        for secret in secrets.values():
            REDACTOR.know(secret)
        public = edge_public_key(self._folder, config.edge)
        boxes = {}
        if public is None:
            self.keyless.append(config.edge)
        else:
            boxes = {
                name: seal(public, config.edge, name, secret, derive=derive)
                for name, secret in sorted(secrets.items())
            }
        connections = tuple(_referring(connection) for connection in config.connections)
        return msgspec.structs.replace(config, connections=connections, secrets=boxes)


def _referring(connection: ConnectionConfig) -> ConnectionConfig:
    plain = {p.option: f"{PREFIX}plain.{p.name}" for p in plain_of(connection)}
    if not plain:
        return connection
    return msgspec.structs.replace(connection, options={**connection.options, **plain})


def _references(config: EdgeConfig) -> set[str]:
    return {
        name
        for connection in config.connections
        for value in connection.options.values()
        if (name := reference(value)) is not None
    }


def _needs(config: EdgeConfig) -> bool:
    return bool(_references(config)) or any(plain_of(each) for each in config.connections)


def _trusted(folder: DataFolder) -> Path:
    return folder.keys / "edges"


def edge_public_key(folder: DataFolder, edge: str) -> str | None:
    """The key to which secrets of an edge are sealed, base64; None when it is not known here.

    In this order: what an administrator put down (:func:`trust_edge_key`), what the edge gave when it joined
    this hub, the key of an edge that runs in this data folder. An edge cannot change it over the bus.
    """
    path = _trusted(folder) / f"{edge}.pub"
    if path.exists():
        return path.read_text("utf-8").strip()
    for joined in leaf.joined_edges(folder):
        if joined.name == edge:
            return joined.sealing_key or None
    if edge == LOCAL_EDGE or (folder.keys / f"edge.{edge}.key").exists():
        return own_edge_key(folder.keys, edge).public
    return None


def trust_edge_key(folder: DataFolder, edge: str, public: str) -> str:
    """Seal secrets of ``edge`` to this key from now on; gives its fingerprint.

    Raises:
        Misconfigured: SEC-1521 when this is no key.
    """
    seal(public, edge, "probe", "probe", derive=bytes(32))
    write_whole(_trusted(folder) / f"{edge}.pub", public.strip().encode() + b"\n", mode=0o644)
    return fingerprint(public.strip())


def _keyless(edge: str) -> tuple[str, str]:
    return (
        f"the key of edge {edge} is not known here, so no secret can be sealed to it",
        f"On its machine: headrace secret edge-key --edge {edge}; here: headrace secret trust-edge",
    )


def tell_of(sealer: Sealer, model: SiteModel) -> list[tuple[str, str, str]]:
    """(code, text, remedy) of what is to be told after a sealing."""
    found = []
    if plain := plain_secrets(model):
        names = ", ".join(each.name for each in plain[:5])
        more = f" and {len(plain) - 5} more" if len(plain) > 5 else ""
        what = f"{len(plain)} secrets stand in clear in the site file: {names}{more}"
        found.append(("SEC-1514", what, "Move them into the vault: headrace secret adopt"))
    if sealer.missing:
        what = f"the site file names secrets that are not in the vault: {', '.join(sealer.missing)}"
        found.append(("SEC-1515", what, "Set them: headrace secret set NAME"))
    found += [("SEC-1516", *_keyless(edge)) for edge in sealer.keyless]
    return found


def adopt(folder: DataFolder, model: SiteModel) -> list[str]:
    """Move the secrets that stand in clear in the site file into the vault; gives their names there.

    First they go into the vault, then the site file names them, then the kept versions of the site file do: a
    crash between leaves at worst a secret in both places, and the next call ends it.

    Raises:
        Misconfigured, Refused: what the vault or the edit of the site file refuses; a name that the vault has
            with another secret is SEC-1517.
    """
    plain = plain_secrets(model)
    if not plain:
        return []
    with Vault(folder) as vault:
        known = {each.name for each in vault.names()}
        held = vault.get_all(tuple(each.name for each in plain if each.name in known))
        for each in plain:
            if held.get(each.name, each.value) != each.value:
                raise Misconfigured(
                    "SEC-1517",
                    f"the vault has another secret under the name {each.name}",
                    f"See which one holds; then: headrace secret remove {each.name}",
                )
        vault.set_all({each.name: each.value for each in plain})
    edit = SiteEdit(folder)
    for each in plain:
        edit.change_option(each.connection, each.option, f"{PREFIX}{each.name}")
    edit.save()
    rewrite_versions(folder, {_literal(p.value): _literal(f"{PREFIX}{p.name}") for p in plain})
    return [each.name for each in plain]


def _literal(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
