"""Design tokens: every colour, size and radius of the console, once for light and once for dark.

``static/headrace.css`` uses only these names; the chart code reads them from the page.
"""

from __future__ import annotations

from typing import Final

LIGHT: Final[dict[str, str]] = {
    "bg": "#f5f6f8",
    "surface": "#ffffff",
    "raised": "#ffffff",
    "sunken": "#eef0f3",
    "line": "#e2e5ea",
    "line-strong": "#cdd2da",
    "text": "#14181f",
    "text-2": "#4b5565",
    "text-3": "#697282",
    "accent": "#0b6e99",
    "accent-text": "#ffffff",
    "accent-soft": "#e3f1f7",
    "good": "#1b7f4d",
    "good-soft": "#e2f3ea",
    "warn": "#996200",
    "warn-soft": "#fbf0d9",
    "bad": "#c02b3a",
    "bad-soft": "#fce8ea",
    "urgent": "#c02b3a",
    "high": "#b8500f",
    "medium": "#8a6a00",
    "low": "#31679c",
    "on-mark": "#ffffff",
    "idle": "#7b8494",
    "idle-soft": "#eceef2",
    "shadow": "0 1px 2px rgba(16,24,40,.05)",
    "shadow-2": "0 12px 32px rgba(16,24,40,.16)",
}
DARK: Final[dict[str, str]] = {
    "bg": "#0e1217",
    "surface": "#151a21",
    "raised": "#1b212a",
    "sunken": "#0b0f13",
    "line": "#252c36",
    "line-strong": "#39424f",
    "text": "#e8ebf0",
    "text-2": "#aab3c0",
    "text-3": "#8591a1",
    "accent": "#4fb3da",
    "accent-text": "#06222e",
    "accent-soft": "#12303d",
    "good": "#46c08a",
    "good-soft": "#12301f",
    "warn": "#e0aa4a",
    "warn-soft": "#352810",
    "bad": "#f2717d",
    "bad-soft": "#3c171c",
    "urgent": "#f2717d",
    "high": "#f0924e",
    "medium": "#e3c34f",
    "low": "#7db4ea",
    "on-mark": "#14181f",
    "idle": "#7d8898",
    "idle-soft": "#20262f",
    "shadow": "none",
    "shadow-2": "0 16px 40px rgba(0,0,0,.55)",
}
SERIES_LIGHT: Final = (
    "#0b6e99", "#c2571a", "#3a7d34", "#8a4fb0", "#b3264f", "#6b6b12", "#1f56b8", "#7a5230",
)  # fmt: skip
SERIES_DARK: Final = (
    "#4fb3da", "#f0a067", "#7fcb78", "#c79be8", "#f2829f", "#d3d06a", "#84aef5", "#c8a27c",
)  # fmt: skip


def css() -> str:
    """The tokens as CSS custom properties: light, and dark below ``html.hr-dark``.

    Example:
        >>> "--hr-accent:#0b6e99" in css()
        True
    """
    light = _rules(LIGHT, SERIES_LIGHT) + "color-scheme:light;"
    dark = _rules(DARK, SERIES_DARK) + "color-scheme:dark;"
    return f":root{{{light}}}html.hr-dark{{{dark}}}"


def early_script(theme: str) -> str:
    """Script for the head that sets the theme before the first paint.

    Args:
        theme: ``auto`` (as the system), ``light`` or ``dark``.
    """
    chosen = theme if theme in ("light", "dark") else "auto"
    return (
        f'window.hrTheme="{chosen}";document.documentElement.classList.toggle("hr-dark",'
        f'hrTheme==="dark"||(hrTheme==="auto"&&matchMedia("(prefers-color-scheme: dark)").matches));'
    )


def _rules(tokens: dict[str, str], series: tuple[str, ...]) -> str:
    rules = [f"--hr-{name}:{value};" for name, value in tokens.items()]
    rules += [f"--hr-series-{i}:{value};" for i, value in enumerate(series)]
    return "".join(rules)
