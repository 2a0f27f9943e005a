"""A connection that is being made: what the guided form has gathered so far, and its way into the site file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.edge.contract import BrowseItem, ConnectorType
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.ids import check_name, check_path
from headrace.security.secrets import PREFIX, Vault
from headrace.site.edit import SiteEdit
from headrace.site.model import Tag
from headrace.site.secret_words import plain_of
from headrace.site.secrets import Sealer

TAGS_MAX: Final = 2_000
_TAG_FIELDS: Final = frozenset(Tag.__struct_fields__) - {
    "path",
    "connection",
    "address",
    "id",
    "was",
}


@dataclass
class TagDraft:
    """One chosen tag; path and unit can be changed before it is saved."""

    address: str
    path: str
    unit: str = ""
    data_type: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    writable: bool = False


@dataclass
class Draft:
    """What the form has gathered.

    Attributes:
        base: equipment path that proposed paths begin with.
        tags: address -> chosen tag.
    """

    connector: ConnectorType | None = None
    protocol: str = ""
    name: str = ""
    endpoint: str = ""
    edge: str = "local"
    options: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    tags: dict[str, TagDraft] = field(default_factory=dict)

    def config(self) -> ConnectionConfig:
        """The connection as an edge takes it, checked without any I/O.

        Raises:
            Misconfigured: MODEL-1002 for a bad name; what the connector refuses.
        """
        check_name(self.name, "connection")
        config = ConnectionConfig(
            name=self.name,
            protocol=self.protocol,
            endpoint=self.endpoint.strip(),
            options=self.options,
        )
        assert self.connector is not None, "a protocol was chosen before"
        self.connector.check_connection(config)
        return config

    def choose(self, item: BrowseItem) -> TagDraft:
        """Take an item of the device as a tag, with the path that we propose.

        Raises:
            Misconfigured: CONS-1012 beyond 2,000 tags.
        """
        if len(self.tags) >= TAGS_MAX and item.address not in self.tags:
            raise Misconfigured(
                "CONS-1012",
                f"{len(self.tags)} tags are chosen",
                "Save these; add more later, or import a tag list.",
            )
        chosen = TagDraft(
            address=item.address,
            path=self.unused_path(item.proposed_path or item.name or item.address),
            unit=item.unit,
            data_type=item.data_type,
            options={k: v for k, v in item.options.items() if k in _TAG_FIELDS},
        )
        self.tags[item.address] = chosen
        return chosen

    def unused_path(self, proposed: str) -> str:
        """``base/proposed`` as a valid path that no chosen tag has yet."""
        tail = "/".join(_token(part) for part in proposed.split("/") if _token(part)) or "tag"
        base = self.base.strip("/")
        path = f"{base}/{tail}" if base else f"{_token(self.name) or 'area'}/{tail}"
        taken = {tag.path for tag in self.tags.values()}
        number, unused = 2, path
        while unused in taken:
            unused, number = f"{path}_{number}", number + 1
        return unused

    def rebase(self, base: str) -> None:
        """Move all chosen tags from the present base path to another."""
        before = f"{self.base.strip('/') or _token(self.name) or 'area'}/"
        self.base = base
        after = f"{base.strip('/') or _token(self.name) or 'area'}/"
        for tag in self.tags.values():
            if tag.path.startswith(before):
                tag.path = after + tag.path[len(before) :]

    def call(self, folder: DataFolder) -> dict[str, Any]:
        """The connection for a call to its edge; secrets are sealed to it. Blocks: reads files.

        Raises:
            Misconfigured: as :meth:`config`; what :meth:`Sealer.seal_draft` refuses.
        """
        config, secrets = Sealer(folder).seal_draft(self.edge, self.config())
        return {"connection": config, "secrets": secrets}

    def save(self, folder: DataFolder) -> list[str]:
        """Write the site file; gives the names of the secrets that went into the vault. Blocks.

        Raises:
            Misconfigured, Refused: as :meth:`edit`, :meth:`SiteEdit.save` and :meth:`Vault.set_all`.
        """
        edit = self.edit(folder)
        edit.check()
        secrets = {each.name: each.value for each in plain_of(self.config())}
        if secrets:
            with Vault(folder) as vault:
                vault.set_all(secrets)
        edit.save()
        return sorted(secrets)

    def edit(self, folder: DataFolder) -> SiteEdit:
        """The edit of the site file, where secrets are named only; nothing is written yet. Blocks: reads
        files.

        Raises:
            Misconfigured: a bad path, a name that is taken, a site file that cannot be read.
        """
        edit = SiteEdit(folder)
        named = {p.option: f"{PREFIX}{p.name}" for p in plain_of(self.config())}
        options = {**self.options, **named}
        edit.add_connection(
            self.name, self.protocol, self.endpoint.strip(), edge=self.edge, options=options
        )
        edit.add_tags(
            Tag(
                path=check_path(tag.path, f"the tag at {tag.address}"),
                connection=self.name,
                address=tag.address,
                unit=tag.unit.strip(),
                **tag.options,
            )
            for tag in self.tags.values()
        )
        return edit


def items_from(answer: Any) -> list[BrowseItem]:
    """What an edge answered to ``browse``."""
    return msgspec.convert(answer, list[BrowseItem])


def _token(text: str) -> str:
    """Text as a name of the path grammar; "" when nothing of it can stand there."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:64]
