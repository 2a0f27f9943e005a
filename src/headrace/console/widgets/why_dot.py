"""The small dot beside every value: a click asks why the value is as old as it is.

It is never green: a page sees that a value is new, not that its whole way works; the dialog proves that.
"""

from __future__ import annotations

from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, tag


def why_dot(texts: Texts, tag_id: int) -> Markup:
    """A dot for one tag. No button element: it may stand inside a link."""
    title = texts("why.open")
    return tag(
        "span.hr-whydot", tag("i"), role="button", tabindex="0", data_why=tag_id,
        title=title, aria_label=title,
    )  # fmt: skip
