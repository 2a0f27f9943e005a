"""A picture of an app made safe: only shapes and texts that a list names leave this file.

The picture is read as XML and written anew from what is allowed, so that nothing of the file's own spelling
reaches a page: no script, no handler, no style sheet, no reference out of the picture.
"""

from __future__ import annotations

import re
from html import escape
from typing import Final
from xml.etree import ElementTree

from headrace.model.errors import Misconfigured

SVG_BYTES_MAX: Final = 512 * 1024
ELEMENTS_MAX: Final = 20_000
DEPTH_MAX: Final = 40
_SVG: Final = "{http://www.w3.org/2000/svg}"
_XLINK_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_ELEMENT_NAMES: Final = (
    "svg g defs symbol use path rect circle ellipse line polyline polygon text tspan title desc "
    "linearGradient radialGradient stop clipPath mask pattern marker"
)
ELEMENTS: Final = frozenset(_ELEMENT_NAMES.split())
_ATTRIBUTE_NAMES: Final = (
    "id class x y dx dy x1 y1 x2 y2 cx cy r rx ry fx fy width height d points transform viewBox "
    "preserveAspectRatio fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-linecap "
    "stroke-linejoin stroke-dasharray stroke-dashoffset stroke-miterlimit opacity color display "
    "visibility font-family font-size font-style font-weight text-anchor dominant-baseline "
    "letter-spacing offset stop-color stop-opacity gradientUnits gradientTransform spreadMethod "
    "clip-path clip-rule mask maskUnits patternUnits patternTransform marker-start marker-mid "
    "marker-end markerWidth markerHeight markerUnits orient refX refY pathLength vector-effect"
)
ATTRIBUTES: Final = frozenset(_ATTRIBUTE_NAMES.split())
_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_INNER_URL: Final = re.compile(r"url\(\s*#[A-Za-z_][A-Za-z0-9_.-]{0,63}\s*\)")
_VALUE: Final = re.compile(r"[\w\s.,;:#%()+\-/'\"]*", re.UNICODE)
_CALL: Final = re.compile(r"([A-Za-z-]+)\s*\(")
_CALLS: Final = frozenset(
    ["rgb", "rgba", "hsl", "hsla", "matrix", "translate", "scale", "rotate", "skewX", "skewY"]
)
_CLASS_PREFIX: Final = "hr-"


def clean_svg(data: bytes, prefix: str = "") -> str:
    """The picture as markup that is safe in a page of ours.

    Args:
        data: the file. prefix: put before each id and reference, so that two pictures do not clash.

    Raises:
        Misconfigured: APPS-2301 for what is no SVG, APPS-2302 for more than can be drawn.

    Example:
        >>> clean_svg(b'<svg xmlns="http://www.w3.org/2000/svg" onload="x()"><script>x()</script>'
        ...           b'<rect width="3" onclick="x()"/></svg>')
        '<svg role="img"><rect width="3"></rect></svg>'
    """
    return _Cleaner(prefix).clean(_root(data))


def svg_ids(data: bytes) -> set[str]:
    """The ids that bindings may name.

    Raises:
        Misconfigured: as :func:`clean_svg`.
    """
    return {found for one in _root(data).iter() if _ID.fullmatch(found := one.get("id", ""))}


def dropped(data: bytes) -> list[str]:
    """What :func:`clean_svg` leaves out, in words, each once.

    Raises:
        Misconfigured: as :func:`clean_svg`.

    Example:
        >>> dropped(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://a/b"/></svg>')
        ['<image>']
    """
    cleaner = _Cleaner("")
    cleaner.clean(_root(data))
    return sorted(cleaner.dropped)


def _root(data: bytes) -> ElementTree.Element:
    if len(data) > SVG_BYTES_MAX:
        raise Misconfigured(
            "APPS-2302",
            f"the picture has {len(data):,} bytes",
            f"At most {SVG_BYTES_MAX:,}; simplify it.",
        )
    lowered = data.lower()
    # Entities could make much of little (CWE-776), and read files (CWE-611): no declaration at all.
    if b"<!doctype" in lowered or b"<!entity" in lowered or b"\0" in data:
        raise Misconfigured(
            "APPS-2301",
            "the picture has a document type",
            "Save it as plain SVG, without <!DOCTYPE>.",
        )
    try:
        root = ElementTree.fromstring(data.decode("utf-8-sig"))
    except (ElementTree.ParseError, ValueError) as error:
        raise Misconfigured(
            "APPS-2301", f"the picture cannot be read: {error}", "Save it as plain SVG in UTF-8."
        ) from error
    if root.tag != f"{_SVG}svg":
        raise Misconfigured(
            "APPS-2301",
            f"the picture is {root.tag!r}",
            'It begins with <svg xmlns="http://www.w3.org/2000/svg">.',
        )
    return root


class _Cleaner:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self.dropped: set[str] = set()

    def clean(self, root: ElementTree.Element) -> str:
        return self._element(root, 0)

    def _element(self, element: ElementTree.Element, depth: int) -> str:
        name = str(element.tag).removeprefix(_SVG) if isinstance(element.tag, str) else ""
        if name not in ELEMENTS:
            self.dropped.add(f"<{name.rpartition('}')[2]}>")
            return ""
        self._count += 1
        if self._count > ELEMENTS_MAX or depth > DEPTH_MAX:
            raise Misconfigured(
                "APPS-2302",
                f"the picture has more than {ELEMENTS_MAX:,} elements, or more than {DEPTH_MAX} in each other",
                "Simplify it.",
            )
        given = "".join(self._attribute(key, value) for key, value in element.items())
        given += ' role="img"' if not depth else ""
        inner = escape(element.text or "", quote=False) if _has_text(name) else ""
        for child in element:
            inner += self._element(child, depth + 1)
            inner += escape(child.tail or "", quote=False) if _has_text(name) else ""
        return f"<{name}{given}>{inner}</{name}>"

    def _attribute(self, key: str, value: str) -> str:
        if key in ("href", _XLINK_HREF):
            if value.startswith("#") and _ID.fullmatch(value[1:]):
                return f' href="#{self._prefix}{value[1:]}"'
            self.dropped.add(f"href {value[:40]!r}")
            return ""
        if key == "style":
            return self._style(value)
        if key == "id":
            return f' id="{self._prefix}{value}"' if _ID.fullmatch(value) else self._drop(key)
        if key == "class":
            kept = [
                one for one in value.split() if one.startswith(_CLASS_PREFIX) and _ID.fullmatch(one)
            ]
            return f' class="{" ".join(kept)}"' if kept else ""
        if key not in ATTRIBUTES:
            return self._drop(key)
        safe = self._value(value)
        return f' {key}="{escape(safe)}"' if safe is not None else self._drop(key)

    def _drop(self, key: str) -> str:
        if not key.startswith("{"):  # what a drawing program notes for itself is no loss
            self.dropped.add(f"attribute {key}")
        return ""

    def _style(self, value: str) -> str:
        """Declarations become attributes, the few that pictures need; nothing is a style sheet."""
        found = ""
        for part in value.split(";"):
            key, _, given = part.partition(":")
            key = key.strip()
            if key in ATTRIBUTES and key not in ("id", "class"):
                safe = self._value(given.strip())
                found += f' {key}="{escape(safe)}"' if safe is not None else self._drop(key)
        return found

    def _value(self, value: str) -> str | None:
        """The value with its references inside the picture; None when it is not plain."""
        rest = _INNER_URL.sub("", value)
        if not _VALUE.fullmatch(rest) or "\\" in rest:
            return None
        if any(call not in _CALLS for call in _CALL.findall(rest)):
            return None
        if re.search(r"[a-z]+:", rest, re.IGNORECASE):
            return None
        return _INNER_URL.sub(lambda url: url[0].replace("#", f"#{self._prefix}"), value)


def _has_text(name: str) -> bool:
    return name in ("text", "tspan", "title", "desc")
