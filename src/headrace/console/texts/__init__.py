"""Interface texts, English and Chinese, from the ``.toml`` tables beside this file.

A table's section is the first part of the key: ``[nav]`` with ``overview = ["Overview", "总览"]`` is
the key ``nav.overview``.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Final

LANGUAGES: Final = ("en", "zh")


@cache
def table() -> dict[str, tuple[str, str]]:
    """All texts: key -> (English, Chinese)."""
    texts: dict[str, tuple[str, str]] = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        for section, entries in tomllib.loads(file.read_text("utf-8")).items():
            for key, pair in entries.items():
                english, chinese = pair
                texts[f"{section}.{key}"] = (english, chinese)
    return texts


class Texts:
    """The texts of one language.

    Args:
        language: ``en`` or ``zh``; anything else gives English.

    Example:
        >>> Texts("zh")("nav.overview")
        '总览'
    """

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "en"
        self._index = LANGUAGES.index(self.language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of ``key``, with ``{name}`` filled from ``values``.

        Raises:
            KeyError: no such key; a programmer's error, held by a test.
        """
        text = table()[key][self._index]
        return text.format(**values) if values else text

    def title(self, titles: object, fallback: str) -> str:
        """A title that is plain text or ``{"en": ..., "zh": ...}``; ``fallback`` when it is empty."""
        if isinstance(titles, dict):
            return str(titles.get(self.language) or titles.get("en") or fallback)
        return str(titles) if titles else fallback
