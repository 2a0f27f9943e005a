"""Views of apps: read with every problem at once, and made safe for a page: the face of this folder."""

from __future__ import annotations

from headrace.apps.views.markdown import to_html
from headrace.apps.views.names import ShownName, shown_names
from headrace.apps.views.reading import ViewProblem, ViewRefused, read_view, read_views
from headrace.apps.views.svg import clean_svg

__all__ = [
    "ShownName",
    "ViewProblem",
    "ViewRefused",
    "clean_svg",
    "read_view",
    "read_views",
    "shown_names",
    "to_html",
]
