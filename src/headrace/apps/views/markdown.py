"""Words of an app as HTML: a small Markdown whose output is made of our own elements only.

Headings, paragraphs, lists, tables, code, bold and italics. No HTML of the text, no pictures, and links into
the console alone: all else stands there as the characters that were written.
"""

from __future__ import annotations

import re
from html import escape
from typing import Final

TEXT_MAX: Final = 50_000
_HEADING: Final = re.compile(r"(#{1,4}) +(.+)")
_BULLET: Final = re.compile(r" {0,3}[-*] +(.*)")
_NUMBERED: Final = re.compile(r" {0,3}\d{1,9}[.)] +(.*)")
_RULE_ROW: Final = re.compile(r"\|?[ :|-]*-[ :|-]*\|?")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_BOLD: Final = re.compile(r"\*\*([^*\n]+)\*\*")
_ITALIC: Final = re.compile(r"(?<![\w*])[*_]([^*_\n]+)[*_](?![\w*])")
_LINK: Final = re.compile(
    r"\[([^\]\[\n]{1,200})\]"
    r"\((/(?:apps|equipment|alarms|trend|formulas|catalog)(?:[/?#][A-Za-z0-9_./?=&;%#:,-]{0,300})?)\)"
)


def to_html(text: str) -> str:
    """The text as safe HTML.

    Args:
        text: at most 50,000 characters count; what is beyond is left out.

    Example:
        >>> to_html("# Pump\\n**1** < 2 <script>x()</script>")
        '<h3>Pump</h3><p><b>1</b> &lt; 2 &lt;script&gt;x()&lt;/script&gt;</p>'
        >>> to_html("[all](/apps) [out](https://a.example) ![](x)")
        '<p><a href="/apps">all</a> [out](https://a.example) ![](x)</p>'
    """
    blocks: list[str] = []
    for block in _blocks(text[:TEXT_MAX].replace("\r\n", "\n")):
        blocks.append(_block(block))
    return "".join(blocks)


def _blocks(text: str) -> list[list[str]]:
    """Lines that belong together: a fence as a whole, a heading alone, else up to an empty line."""
    found: list[list[str]] = [[]]
    fenced = False
    for line in text.split("\n"):
        if line.startswith("```"):
            if not fenced:
                found.append([line])
            else:
                found[-1].append(line)
                found.append([])
            fenced = not fenced
        elif fenced:
            found[-1].append(line)
        elif not line.strip():
            found.append([])
        elif _HEADING.fullmatch(line):
            found += [[line], []]
        elif found[-1] and _list_kind(line) and not _list_kind(found[-1][0]):
            found.append([line])
        else:
            found[-1].append(line)
    return [block for block in found if block]


def _list_kind(line: str) -> str:
    return "ul" if _BULLET.fullmatch(line) else "ol" if _NUMBERED.fullmatch(line) else ""


def _block(lines: list[str]) -> str:
    if lines[0].startswith("```"):
        body = lines[1:-1] if len(lines) > 1 and lines[-1].startswith("```") else lines[1:]
        return f"<pre><code>{escape(chr(10).join(body))}</code></pre>"
    heading = _HEADING.fullmatch(lines[0])
    if heading:
        level = min(len(heading[1]) + 2, 6)  # the page and the widget have the two first ones
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    if kind := _list_kind(lines[0]):
        return f"<{kind}>{_items(lines)}</{kind}>"
    if len(lines) > 1 and "|" in lines[0] and _RULE_ROW.fullmatch(lines[1].strip()):
        return _table(lines)
    return f"<p>{_inline(' '.join(line.strip() for line in lines))}</p>"


def _items(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        found = _BULLET.fullmatch(line) or _NUMBERED.fullmatch(line)
        if found:
            items.append(found[1])
        else:
            items[-1] += f" {line.strip()}"
    return "".join(f"<li>{_inline(item)}</li>" for item in items)


def _table(lines: list[str]) -> str:
    def row(line: str, cell: str) -> str:
        parts = line.strip().strip("|").split("|")
        return f"<tr>{''.join(f'<{cell}>{_inline(p.strip())}</{cell}>' for p in parts)}</tr>"

    body = "".join(row(line, "td") for line in lines[2:])
    head = row(lines[0], "th")
    return f'<table class="hr-table"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _inline(text: str) -> str:
    """Escaped first, so that only what is put in below is an element; code stays as it is."""
    pieces = _CODE.split(escape(text))
    for place, piece in enumerate(pieces):
        pieces[place] = f"<code>{piece}</code>" if place % 2 else _words(piece)
    return "".join(pieces)


def _words(text: str) -> str:
    text = _BOLD.sub(r"<b>\1</b>", text)
    parts = _LINK.split(text)
    found = _slanted(parts[0])
    for words, href, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found += f'<a href="{href}">{words}</a>{_slanted(rest)}'
    return found


def _slanted(text: str) -> str:
    return _ITALIC.sub(r"<i>\1</i>", text)
