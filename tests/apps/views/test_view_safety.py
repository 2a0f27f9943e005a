"""What an app's picture and words may not do: attacks on the page that shows them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.apps.views import clean_svg, to_html
from headrace.apps.views.svg import ELEMENTS, dropped, svg_ids
from headrace.model.errors import Misconfigured

NS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
ATTACKS = [
    '<script>alert(1)</script>',
    '<script href="data:text/javascript,alert(1)"/>',
    '<rect onclick="alert(1)" onload="alert(1)"/>',
    '<a xlink:href="javascript:alert(1)"><rect/></a>',
    '<use href="http://a.example/x.svg#y"/>',
    '<use xlink:href="data:image/svg+xml,x"/>',
    '<image href="http://a.example/track.png"/>',
    '<foreignObject><iframe src="http://a.example"/></foreignObject>',
    '<foreignObject><div xmlns="http://www.w3.org/1999/xhtml" onclick="x()">hi</div></foreignObject>',
    '<script xmlns="http://www.w3.org/1999/xhtml">alert(1)</script>',
    '<style>@import url(http://a.example/x.css);</style>',
    '<rect style="fill:url(http://a.example/x)"/>',
    '<rect style="background:url(javascript:alert(1))"/>',
    '<rect fill="url(//a.example/x#y)"/>',
    '<rect fill="URL(http://a.example)"/>',
    '<rect fill="image-set(&quot;http://a.example/x&quot;)"/>',
    r'<rect fill="u\72l(http://a.example)"/>',
    '<animate attributeName="href" values="javascript:alert(1)"/>',
    '<set attributeName="onmouseover" to="alert(1)"/>',
    '<handler type="text/javascript">alert(1)</handler>',
    '<text>&lt;img src=x onerror=alert(1)&gt;</text>',
    '<title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;</title>',
    '<rect id="x&quot; onclick=&quot;alert(1)"/>',
    '<rect fill="red&quot; onclick=&quot;alert(1)"/>',
    '<rect class="hr-x nicegui-content"/>',
    '<feImage href="http://a.example/x"/>',
    '<mpath href="http://a.example/x"/>',
    '<metadata><x onload="alert(1)"/></metadata>',
    '<?xml-stylesheet href="http://a.example/x.css"?>',
]  # fmt: skip


class Seen(HTMLParser):
    """Elements and attributes of a piece of HTML, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(key, value or "") for key, value in attrs]


def is_harmless(seen: Seen) -> bool:
    return all(
        not key.startswith("on")
        and key not in ("style", "src", "srcdoc", "formaction")
        and not re.search(r"javascript:|data:|https?:|//", value)
        for key, value in seen.attributes
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_in_a_picture_is_left_out(attack: str) -> None:
    seen = Seen(clean_svg(f"<svg {NS}>{attack}<rect id='stays'/></svg>".encode(), "w1-"))
    assert seen.tags <= {name.lower() for name in ELEMENTS}
    assert is_harmless(seen)
    assert ("id", "w1-stays") in seen.attributes


@pytest.mark.parametrize(
    "data",
    [
        b"<html/>",
        b"<svg/>",
        b"no xml",
        b"\xff\xfe<svg/>",
        b'<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>',
        b'<!doctype svg SYSTEM "file:///etc/passwd"><svg xmlns="http://www.w3.org/2000/svg"/>',
    ],
)
def test_what_is_no_plain_svg_is_refused(data: bytes) -> None:
    with pytest.raises(Misconfigured) as caught:
        clean_svg(data)
    assert caught.value.code == "APPS-2301"


def test_a_picture_has_bounds() -> None:
    deep = f"<svg {NS}>{'<g>' * 60}{'</g>' * 60}</svg>".encode()
    many = f"<svg {NS}>{'<g/>' * 20_001}</svg>".encode()
    large = f"<svg {NS}>{' ' * 600_000}</svg>".encode()
    for data in (deep, many, large):
        with pytest.raises(Misconfigured) as caught:
            clean_svg(data)
        assert caught.value.code == "APPS-2302"


def test_a_drawing_stays_what_it_is() -> None:
    picture = (
        f"<svg {NS} viewBox='0 0 10 10'><defs><linearGradient id='g'><stop offset='0' "
        "stop-color='rgb(1,2,3)'/></linearGradient></defs>"
        "<rect style='fill:url(#g);stroke:#123;-inkscape-x:1' transform='rotate(45)'/>"
        "<text id='now' font-family=\"Inter, 'Noto Sans'\">流量 &lt; 3</text><use xlink:href='#g'/></svg>"
    ).encode()
    made = clean_svg(picture, "w1-")
    assert 'fill="url(#w1-g)" stroke="#123"' in made
    assert 'transform="rotate(45)"' in made and 'href="#w1-g"' in made
    assert '<text id="w1-now"' in made and ">流量 &lt; 3</text>" in made
    assert svg_ids(picture) == {"g", "now"}
    assert dropped(picture) == []


WORDS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](/apps/x\" onclick=\"alert(1))",
    "[a](//a.example)",
    "[a](/\\a.example)",
    "[a](/apps//a.example)",
    "[a](https://a.example)",
    "![a](https://a.example/x.png)",
    "`<b onclick=x>`",
    "```\n<script>alert(1)</script>\n```",
    "| <script> | b |\n|---|---|\n| <img src=x> | <a href='x'>y</a> |",
    "**<b onclick=x>**",
    "* <svg onload=alert(1)>",
    "# <iframe src=x>",
    "&lt;script&gt;",
    "<https://a.example>",
]  # fmt: skip
_OURS = {
    *("p", "b", "i", "a", "code", "pre", "ul", "ol", "li", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def check_words(text: str) -> None:
    seen = Seen(to_html(text))
    assert seen.tags <= _OURS
    for key, value in seen.attributes:
        assert (key, value) == ("class", "hr-table") or (key == "href" and value.startswith("/"))
        assert not value.startswith("//")


@pytest.mark.parametrize("text", WORDS)
def test_an_attack_in_words_stays_words(text: str) -> None:
    check_words(text)


@given(st.text(alphabet="<>\"'&`*_[]()#|-/ \nabjs:apps1.", max_size=80))
def test_whatever_is_written_makes_only_our_elements(text: str) -> None:
    check_words(text)


def test_words_are_set_as_they_are_meant() -> None:
    made = to_html(
        "## 状态\n\nFlow is *low*:\n- **one**\n- two\n  more\n\n1. a\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    assert made == (
        "<h4>状态</h4><p>Flow is <i>low</i>:</p><ul><li><b>one</b></li><li>two more</li></ul>"
        '<ol><li>a</li></ol><table class="hr-table"><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
    )
    assert to_html("[x](/trend?tags=1&span=2)") == (
        '<p><a href="/trend?tags=1&amp;span=2">x</a></p>'
    )
