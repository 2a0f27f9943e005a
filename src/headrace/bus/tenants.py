"""Other companies that have an account of their own at this broker: ``broker/tenants.json``.

An account is a world of its own: what is published in one is heard in no other, whatever anybody's rights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from headrace.bus.broker import write_private
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Refused
from headrace.model.folder import DataFolder
from headrace.model.ids import check_name
from headrace.security.files import make_folder

TENANTS_MAX: Final = 200


def tenants(folder: DataFolder) -> tuple[str, ...]:
    """The tenants of this installation, by name.

    Raises:
        Corrupt: BUS-1403 when the list is damaged.
    """
    path = _path(folder)
    try:
        return tuple(sorted(msgspec.json.decode(path.read_bytes(), type=list[str])))
    except FileNotFoundError:
        return ()
    except UNREADABLE as error:
        raise Corrupt(
            "BUS-1403", f"{path} cannot be read: {error}", "Restore it from a backup."
        ) from error


def set_tenants(folder: DataFolder, names: frozenset[str]) -> bool:
    """Keep this list; True when it is another one. The broker takes it over by a reload.

    Raises:
        Corrupt: BUS-1403 when the list is damaged. Misconfigured: MODEL-1002 not a name.
        Refused: BUS-1404 when there are too many.
    """
    wanted = tuple(sorted(check_name(name, "tenant") for name in names))
    if len(wanted) > TENANTS_MAX:
        raise Refused(
            "BUS-1404",
            f"{len(wanted)} tenants are too many for one broker",
            f"It takes {TENANTS_MAX}; give the others an installation of their own.",
        )
    if wanted == tenants(folder):
        return False
    make_folder(folder.broker)
    write_private(_path(folder), msgspec.json.encode(wanted).decode())
    return True


def _path(folder: DataFolder) -> Path:
    return folder.broker / "tenants.json"
