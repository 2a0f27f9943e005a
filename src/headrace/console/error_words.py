"""What an error of ours says in the reader's language.

The message of an error is English and names what failed. For the codes of ``texts/errors.toml`` there is a
Chinese sentence that says what happened and what to do now; the message stands behind it as detail.
"""

from __future__ import annotations

from headrace.console.texts import Texts, table
from headrace.console.widgets.markup import Markup, tag
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
    return words_of(texts, error.code, error.what, error.remedy)


def words_of(texts: Texts, code: str, what: str, remedy: str) -> tuple[str, str, str]:
    """The same of an error that came over the bus as its parts."""
    key = f"errors.{code}"
    if texts.language == "en" or key not in table():
        return f"{what.rstrip('.')}." if what else "", "", remedy
    return texts(key), what, ""


def error_markup(texts: Texts, error: HeadraceError) -> Markup:
    """An error as a part of a page, where what it hinders would stand."""
    return markup_of(texts, error.code, error.what, error.remedy)


def markup_of(
    texts: Texts, code: str, what: str, remedy: str, *, more: Markup | None = None, cls: str = ""
) -> Markup:
    """The same of an error that came over the bus as its parts.

    Args:
        more: below it. cls: further classes of the box.
    """
    sentence, detail, now = words_of(texts, code, what, remedy)
    return tag(
        ".hr-error.whole",
        tag("code", code),
        " ",
        sentence,
        tag("small.hr-sub", detail) if detail else None,
        tag(".hr-what-now", now) if now else None,
        more,
        cls=cls,
        role="alert",
    )
