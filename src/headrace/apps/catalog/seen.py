"""What was seen last of other catalogs, so that none of them can go back to an older index.

A signature says whose an index is, not that it is the newest: whoever holds the folder, the server or the line
could give out an old one, in which a package with a known hole is still the newest. ``packages/sources.json``
keeps the highest number of each catalog, by address and publisher.

Source: The Update Framework 1.0.33, section 5.4.4 (rollback attack).
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Refused
from headrace.model.folder import DataFolder
from headrace.security.files import write_whole
from headrace.security.shared_files import SharedFiles
from headrace.site.app_package import FOLDER

FILE: Final = "sources.json"
CATALOGS_MAX: Final = 1_000


class _Index(msgspec.Struct, frozen=True):
    """One catalog's index as it was seen last."""

    address: str
    publisher: str
    number: int
    sha256: str


class Seen:
    """The memory of one installation.

    Args:
        folder: of the installation.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._path = folder.packages / FILE
        self._files = SharedFiles(folder, FOLDER)

    def look(self, address: str, publisher: str, number: int, sha256: str) -> None:
        """Pass when an index is not older than what was seen here, and keep it.

        Args:
            number: of the index. sha256: of its bytes, hex.

        Raises:
            Refused: APPS-2063 when it is older, or another one of the same number.
            Corrupt: APPS-2064 when what was seen cannot be read.
        """
        new = _Index(address, publisher, number, sha256)
        if new in self._known():
            return
        with self._files.changing():
            others = []
            for each in self._known():
                if (each.address, each.publisher) == (address, publisher):
                    self._check(new, each)
                else:
                    others.append(each)
            kept = [*others, new][-CATALOGS_MAX:]
            content = msgspec.json.format(msgspec.json.encode(kept), indent=1)
            write_whole(self._path, content, mode=0o644)

    def _check(self, new: _Index, old: _Index) -> None:
        if new.number > old.number or new.number == old.number == 0 or new == old:
            return
        how = "older than" if new.number < old.number else "another one than"
        raise Refused(
            "APPS-2063",
            f"the index of the catalog {new.address} has the number {new.number} and is {how} number "
            f"{old.number}, which was seen here",
            f"Ask whoever keeps it. When they began it anew, take its entry out of {self._path}",
        )

    def _known(self) -> list[_Index]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Index])
        except FileNotFoundError:
            return []
        except (OSError, *UNREADABLE) as error:
            raise Corrupt(
                "APPS-2064",
                f"{self._path} cannot be read: {error}",
                "Put back the file of your backup; without it older catalogs would count again.",
            ) from error
