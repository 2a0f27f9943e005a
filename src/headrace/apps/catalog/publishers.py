"""Whose packages count on this installation: publishers by name, each with the keys that are theirs.

They lie in ``packages/publishers.json``. Who may write the data folder may change them; each change by our
own doors stands in the audit chain.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.apps.package import Trust, is_id
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.audit import AuditChain, telling
from headrace.security.files import write_whole
from headrace.security.package_keys import check_public
from headrace.security.settings import load_settings
from headrace.security.shared_files import SharedFiles
from headrace.site.app_package import FOLDER

FILE: Final = "publishers.json"
KEYS_MAX: Final = 8
PUBLISHERS_MAX: Final = 1_000


class Publishers:
    """The trusted publishers of a data folder.

    Args:
        folder: of the installation. audit: where each change is told.
    """

    def __init__(self, folder: DataFolder, audit: AuditChain | None = None) -> None:
        self._folder = folder
        self._path = folder.packages / FILE
        self._audit = audit
        self._files = SharedFiles(folder, FOLDER)

    def all(self) -> dict[str, tuple[str, ...]]:
        """Publisher -> public keys, base64.

        Raises:
            Corrupt: APPS-2040 when the file cannot be read; then nobody is trusted.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[str, ...]])
        except FileNotFoundError:
            return {}
        except (OSError, *UNREADABLE) as error:
            raise Corrupt(
                "APPS-2040",
                f"{self._path} cannot be read: {error}",
                "Put back the file of your backup, or take it away and trust publishers again.",
            ) from error

    def trust(self) -> Trust:
        """Whose packages count, with what ``[apps]`` of ``headrace.toml`` says of unsigned ones."""
        return Trust(self.all(), load_settings(self._folder).apps.unsigned)

    def add(self, publisher: str, key: str, by: str) -> None:
        """Trust a publisher's key.

        Args:
            key: public, base64. by: who asks.

        Raises:
            Misconfigured: APPS-2006 for a name that is none; SEC-1743 for a key that is none.
            Refused: APPS-2041 when there are too many.
        """
        if not is_id(publisher):
            raise Misconfigured(
                "APPS-2006",
                f"a publisher has the name {publisher[:60]!r}",
                "Use a-z 0-9 and -, a letter first.",
            )
        check_public(key)
        with (
            telling(self._audit, by, "app.trust", f"publisher/{publisher}", key=key),
            self._files.changing(),
        ):
            known = self.all()
            keys = tuple(dict.fromkeys((*known.get(publisher, ()), key)))
            if len(keys) > KEYS_MAX or len(known) >= PUBLISHERS_MAX:
                raise Refused(
                    "APPS-2041",
                    f"{publisher} has {KEYS_MAX} keys",
                    "Remove those that are over.",
                )
            self._write({**known, publisher: keys})

    def remove(self, publisher: str, by: str, key: str = "") -> None:
        """Trust a publisher, or one of its keys, no more; what is installed goes on until it is upgraded.

        Raises:
            Misconfigured: APPS-2042 when it is not trusted anyway.
        """
        with (
            telling(self._audit, by, "app.distrust", f"publisher/{publisher}", key=key),
            self._files.changing(),
        ):
            known = self.all()
            if publisher not in known or (key and key not in known[publisher]):
                raise Misconfigured(
                    "APPS-2042",
                    f"{publisher[:60]!r}{' with this key' if key else ''} is not trusted",
                    "See who is: headrace app trust list",
                )
            left = tuple(each for each in known.pop(publisher) if key and each != key)
            self._write({**known, **({publisher: left} if left else {})})

    def _write(self, known: dict[str, tuple[str, ...]]) -> None:
        content = msgspec.json.format(msgspec.json.encode(known, order="sorted"), indent=1)
        write_whole(self._path, content, mode=0o644)
