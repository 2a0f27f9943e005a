"""What an error of ours says in the reader's language.

The message of an error is English and names what failed. For the codes of ``texts/errors.toml`` there is a
Chinese sentence that says what happened and what to do now; the message stands behind it as detail.
"""

from __future__ import annotations

from headrace.console.texts import Texts, table
from headrace.model.errors import HeadraceError


def error_words(texts: Texts, error: HeadraceError) -> tuple[str, str, str]:
    """(sentence, detail, what to do now); the last two may be "".

    Example:
        >>> from headrace.model.errors import Refused
        >>> unsigned = Refused("APPS-2028", "nobody signed this package", "Sign it.")
        >>> error_words(Texts("en"), unsigned)
        ('nobody signed this package.', '', 'Sign it.')
        >>> error_words(Texts("zh"), unsigned)[1]
        'nobody signed this package'
    """
    key = f"errors.{error.code}"
    if texts.language == "en" or key not in table():
        return f"{error.what}.", "", error.remedy
    return texts(key), error.what, ""
