"""Strategies and settings of the hostile-input tests: a quick profile, and a thorough one."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=25, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
THOROUGH = settings(QUICK, max_examples=300, derandomize=False)

NASTY = (
    "", "\0", "nul\0inside", "a,b", 'say "hi"', "two\nlines", "lone\rreturn", "a/b\\c", "../../etc",
    "=cmd()", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "-1", "+1.5e3", "'=1",
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style>", "javascript:a()",
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "\u202egnirts", "\u2066a\u2069", "\u200fא", "\ufeffbom",
    "\u2028\u2029\x85", "\x1c\x1d", "\ufdd0", "\ufffe", "\U0010ffff", "\ufffd", "e\u0301", "😀",
    "NULL", "nan", "true", "1.0", "[UNK]", "[PAD]", "__label__x", "{}", "%s{}", "é" * 300,
)  # fmt: skip
LARGE = ("x" * (1 << 20), "word " * 100_000, "é\u0301" * 60_000)
"""A word of a megabyte, a text of 100,000 words, a word of combined characters."""

MARK = "document.documentElement.dataset.ran=1"
PAYLOADS = (
    "<script>{run}</script>",
    "</td></table><script>{run}</script>",
    "</title></style></svg></details><script>{run}</script>",
    '"><img src="{url}/a.png" onerror="{run}">',
    "' onmouseover='{run}' autofocus onfocus='{run}' x='",
    '<svg onload="{run}"><use href="{url}/b.svg#x"></use></svg>',
    '<iframe src="javascript:parent.{run}"></iframe>',
    '<iframe srcdoc="<script>parent.{run}</script>"></iframe>',
    '<a href="javascript:{run}" id=link>x</a><meta http-equiv=refresh content="0;url={url}/c">',
    '<link rel=stylesheet href="{url}/d.css"><style>@import "{url}/e.css";</style>',
    '<details open ontoggle="{run}"><body onload="{run}">',
    "<style>*{{background:url({url}/f.png)}}</style>",
    "--><!--><script>{run}</script>",
    "javascript:{run}",
    "${{{run}}} {{{{{run}}}}} <%= {run} %>",
)
"""Markup that sets MARK, or asks {url} for something, where it is taken for markup."""

valid_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.one_of(
    st.sampled_from(NASTY), valid_text, st.text('",\n\r\t; \0=<\x1b\u202e', max_size=9)
)
labels = st.one_of(st.sampled_from(NASTY), valid_text).map(lambda label: label + "l")
"""Never blank: rows with blank labels are dropped."""
