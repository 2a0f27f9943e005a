"""Icons as inline SVG strokes on a 20 x 20 grid, drawn for this console; nothing is fetched."""

from __future__ import annotations

from typing import Final

from headrace.console.widgets.markup import Markup

_STROKES: Final[dict[str, str]] = {
    "logo": "M3 6.5c2.4 0 2.4 2 4.8 2s2.4-2 4.8-2 2.4 2 4.4 2M3 11.5c2.4 0 2.4 2 4.8 2s2.4-2 "
    "4.8-2 2.4 2 4.4 2",
    "overview": "M3 3.5h6v6H3zM11 3.5h6v3.5h-6zM11 9.5h6v7h-6zM3 12h6v4.5H3z",
    "tree": "M4 3.5h5v4H4zM11 9h5v3.5h-5zM11 14h5v3h-5zM6.5 7.5v8h4.5M6.5 10.8H11",
    "trend": "M3 16.5h14M3 16.5v-13M5.5 12.5l3.2-4 3 2.6 4.8-6",
    "formula": "M12 4.5c-2-1-3-.4-3.4 2l-1.5 8c-.4 2-1.5 2.6-3 1.6M5.5 8.5h6M12 11l4 5M16 11l-4 5",
    "plug": "M7 3v4M13 3v4M5 7h10v2.5a5 5 0 0 1-10 0zM10 14.5V17",
    "ledger": "M4 3.5h12v13H4zM10 3.5v13M6 7h2M6 10h2M6 13h2M12 7h2M12 10h2M12 13h2",
    "events": "M4 5h12M4 10h12M4 15h7",
    "fault": "M10 3.5 17.5 16.5h-15zM10 8.5v3.5M10 14.2v.3",
    "user": "M10 10a3.2 3.2 0 1 0 0-6.4A3.2 3.2 0 0 0 10 10zM3.8 17c.6-3.2 3-5 6.2-5s5.6 1.8 6.2 5",
    "users": "M7.5 9.5a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6zM2.5 16c.4-2.8 2.3-4.3 5-4.3s4.6 1.5 "
    "5 4.3M13 4.2a2.6 2.6 0 0 1 0 5M14.5 12c1.7.5 2.8 1.9 3 4",
    "sun": "M10 13.2a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4zM10 2.5v1.8M10 15.7v1.8M2.5 10h1.8M15.7 "
    "10h1.8M4.7 4.7 6 6M14 14l1.3 1.3M4.7 15.3 6 14M14 6l1.3-1.3",
    "moon": "M16.3 12.2A6.8 6.8 0 0 1 7.8 3.7a6.8 6.8 0 1 0 8.5 8.5z",
    "language": "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM3.2 10h13.6M10 3c2.2 2 3.2 4.4 3.2 7s-1 5-3.2 "
    "7c-2.2-2-3.2-4.4-3.2-7s1-5 3.2-7z",
    "signout": "M8 3.5H4v13h4M12.5 6.5 16 10l-3.5 3.5M16 10H7.5",
    "plus": "M10 4v12M4 10h12",
    "search": "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l4 4",
    "close": "M5 5l10 10M15 5 5 15",
    "pause": "M7 4.5v11M13 4.5v11",
    "play": "M6 4l10 6-10 6z",
    "check": "M4 10.5l4 4 8-9",
    "chevron": "M8 5l5 5-5 5",
    "folder": "M3 5h5l1.5 2H17v8.5H3z",
    "tag": "M3.5 3.5h6l7 7-6 6-7-7zM7 7v.1",
    "link": "M8.5 11.5l3-3M7 9 5 11a2.8 2.8 0 0 0 4 4l2-2M13 11l2-2a2.8 2.8 0 0 0-4-4L9 7",
    "download": "M10 3.5v9M6.5 9.5 10 13l3.5-3.5M4 16.5h12",
    "undo": "M7.5 4.5 4 8l3.5 3.5M4 8h7.5a4.2 4.2 0 0 1 0 8.4H8",
    "help": "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM8 8a2 2 0 1 1 2.8 1.9c-.6.3-.8.7-.8 1.4M10 13.6v.2",
    "more": "M4.5 10v.1M10 10v.1M15.5 10v.1",
    "live": "M10 11.2a1.2 1.2 0 1 0 0-2.4 1.2 1.2 0 0 0 0 2.4zM6.3 13.7a5.2 5.2 0 0 1 0-7.4M13.7 6.3a5.2 "
    "5.2 0 0 1 0 7.4M4 16a8.5 8.5 0 0 1 0-12M16 4a8.5 8.5 0 0 1 0 12",
    "key": "M12.5 11a4 4 0 1 0-3.8-2.8L3.5 13.5V16.500H6V15h1.500v-1.500H9l1-1",
    "database": "M10 7.500c3.600 0 6-1 6-2.200S13.600 3 10 3 4 4 4 5.300s2.400 2.200 6 2.200zM4 5.300v9.400c0 "
    "1.300 2.400 2.300 6 2.300s6-1 6-2.300V5.300M4 10c0 1.300 2.400 2.200 6 2.200s6-.9 6-2.200",
    "edge": "M4 5.500h12v9H4zM7 14.500V17M13 14.500V17M7.500 9h5M7.500 11.500h3",
    "edit": "M4 16h3l9-9-3-3-9 9z",
    "shield": "M10 3l6 2v5c0 3.500-2.500 6-6 7-3.500-1-6-3.500-6-7V5z",
}


def icon(name: str, size: int = 20) -> Markup:
    """One icon; it takes the colour of the text around it."""
    return Markup(
        f'<svg class="hr-icon" width="{size}" height="{size}" viewBox="0 0 20 20" fill="none" '
        f'stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" '
        f'aria-hidden="true"><path d="{_STROKES[name]}"></path></svg>'
    )
