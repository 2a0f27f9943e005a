"""Which options of a connection hold secrets, and which of these stand in clear in the site file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from headrace.model.desired import ConnectionConfig
from headrace.model.errors import HeadraceError
from headrace.security.redaction import BLOT
from headrace.security.secrets import PREFIX
from headrace.site.connectors import find_connector
from headrace.site.model import Connection, SiteModel

SECRET_WORDS: Final = ("password", "passphrase", "token", "secret", "api_key")
_ELSEWHERE: Final = ("env:", "file:", PREFIX)


class PlainSecret(NamedTuple):
    """A secret that stands in clear in the site file: in which option of which connection."""

    connection: str
    option: str
    value: str

    @property
    def name(self) -> str:
        """Under which name it goes into the vault."""
        return f"{self.connection}.{self.option}"


def is_secret_word(option: str) -> bool:
    """Whether an option of this name holds a secret; a path to one is none.

    Example:
        >>> is_secret_word("password"), is_secret_word("tls_key_file")
        (True, False)
    """
    return option in SECRET_WORDS or option.endswith(tuple(f"_{word}" for word in SECRET_WORDS))


def secret_options(options: type[msgspec.Struct]) -> frozenset[str]:
    """Names of a connector's options that hold secrets.

    Example:
        >>> class Options(msgspec.Struct):
        ...     password: str = ""
        ...     plain_password: bool = False
        >>> sorted(secret_options(Options))
        ['password']
    """
    return frozenset(
        field.encode_name
        for field in msgspec.structs.fields(options)
        if field.type is str and is_secret_word(field.encode_name)
    )


def plain_secrets(model: SiteModel) -> list[PlainSecret]:
    """The secrets that stand in clear in the site file."""
    return [each for connection in model.connections for each in plain_of(connection)]


def plain_of(connection: Connection | ConnectionConfig) -> list[PlainSecret]:
    """The secrets that stand in clear in one connection's options."""
    try:
        names = secret_options(find_connector(connection.protocol).options)
    except HeadraceError:
        names = frozenset()  # its package is gone: what looks like a secret is taken for one
    return [
        PlainSecret(connection.name, option, value)
        for option, value in connection.options.items()
        if (option in names or is_secret_word(option)) and isinstance(value, str)
        if value and not value.startswith(_ELSEWHERE)
    ]


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they may be stored and shown: a secret in clear is blotted out."""
    return {
        word: BLOT
        if is_secret_word(word)
        and isinstance(value, str)
        and value
        and not value.startswith(_ELSEWHERE)
        else value
        for word, value in options.items()
    }
