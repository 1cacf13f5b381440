"""HTML of the report that hostile labels and texts cannot break out of.

Every string from the data passes `escape`, and the page allows itself no script and nothing from
outside.
"""

from __future__ import annotations

import html
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from shortline import printable


def build_page(title: str, sections: Iterable[str]) -> str:
    """The whole file; `title` is text, the sections are HTML."""
    return _PAGE.format(title=escape(title, 80), style=_STYLE, body="\n".join(sections))


def section(title: str, body: str, about: str = "") -> str:
    """`body` is HTML, the others are text."""
    lead = f"<p>{escape(about)}</p>" if about else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>"


def side_by_side(*parts: str) -> str:
    """HTML in columns, below one another where the screen is narrow."""
    return f'<div class="pair">{"".join(parts)}</div>'


def bullet_list(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="notes">{items}</ul>' if texts else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Whole numbers, shares of 1 (float), labels (str), texts (list) and nothing (None)."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{whole}</div>'


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f'<td class="name"><bdi>{escape(value, 80)}</bdi></td>'
    if isinstance(value, list):
        texts = "".join(f'<p dir="auto">{escape(text, 240) or "(empty)"}</p>' for text in value)
        return f'<td class="texts">{texts}</td>'
    if isinstance(value, float):
        return f'<td class="share" style="--share:{value:.1%}">{value:.3f}</td>'
    return f'<td class="number">{format_number(value)}</td>'


def format_number(value: float | None) -> str:
    """
    >>> format_number(12345.6), format_number(7.25), format_number(None)
    ('12,346', '7.2', '–')
    """
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{1 if value < 100 else 0}f}"


def escape(value: Any, width: int = 600) -> str:
    """Any value as text for the page or a quoted attribute: it can do nothing there.

    >>> escape('<b> "\\x1b[2J"')
    '&lt;b&gt; &quot;\\\\x1b[2J&quot;'
    """
    return html.escape(shorten(str(value), width))


def shorten(text: str, width: int) -> str:
    """At most `width` columns of text, that steers neither page nor terminal.

    >>> shorten("a\\tlong label", 8)
    'a\\\\tlong…'
    """
    text = printable(text[: width + 1])
    if display_width(text) <= width:
        return text
    ends = itertools.accumulate(map(display_width, text))
    return text[: sum(end < width for end in ends)] + "…"


def display_width(text: str) -> int:
    """Columns that a text takes; Chinese, Japanese and Korean characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


_STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --page: #f5f6f8;
  --card: #fff; --line: #d9dee6; --blue: #4c78c8; --orange: #e0752d; --tint: #4c78c833; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --page: #12161c;
  --card: #1b212a; --line: #36404d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
p, figcaption { margin: .25rem 0; color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13.5rem), 1fr));
  gap: .75rem; margin: 1.25rem 0; }
.card, figure, .scroll, .notes { background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.card { padding: .7rem .9rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.55rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.small { color: var(--soft); font-size: .8rem; font-weight: 400; }
.notes { margin: 0; padding: .8rem 1rem .8rem 2.1rem; border-left: 4px solid var(--orange); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  gap: .75rem; align-items: start; }
figure { margin: .75rem 0; padding: .75rem; overflow-x: auto; }
.pair > * { margin: .75rem 0 0; }
svg { display: block; max-width: none; }
svg.plot { width: 100%; height: auto; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, sans-serif !important; }
svg.map { margin: 0 auto; overflow: visible; font-size: 10.5px; }
.map text { fill: var(--ink); } .map .count { text-anchor: middle; }
.map .frame { fill: none; stroke: var(--line); }
.map .right { fill: var(--blue); } .map .wrong { fill: var(--orange); }
.scroll { overflow-x: auto; margin: .75rem 0; }
.pair .scroll { margin: 0; } .pair .scroll + p { margin-top: .5rem; }
.pair > .scroll { margin-top: .75rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; }
td { overflow-wrap: anywhere; }
.name { min-width: 11rem; }
.number, .share { font-variant-numeric: tabular-nums; }
.share { background: linear-gradient(90deg, var(--tint) var(--share), transparent 0); }
.texts { min-width: 18rem; width: 55%; }
.words { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .6rem .9rem; margin: .75rem 0; }
.words p { color: var(--ink); overflow-wrap: anywhere; line-height: 1.75; }
h3 { margin: 1.25rem 0 0; font-size: 1rem; }
h4 { margin: .2rem 0 0; color: var(--soft); font-size: .8rem; font-weight: 600;
  overflow-wrap: anywhere; }
mark { color: inherit; border-radius: .25rem; padding: .08em .15em; }
mark.for { background: rgb(76 120 200 / calc(.75 * var(--weight))); }
mark.against { background: rgb(224 117 45 / calc(.75 * var(--weight))); }
.texts p { color: var(--ink); } .texts p + p { margin-top: .4rem; }
@media (max-width: 36rem) { body { padding: 1.25rem .75rem 3rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: .5rem; } dd:not(.small) { font-size: 1.3rem; }
  th, td { padding: .35rem .45rem; } .name { min-width: 5.5rem; } .texts { min-width: 8rem; } }
summary { cursor: pointer; margin: 1rem 0 .5rem; font-weight: 600; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
