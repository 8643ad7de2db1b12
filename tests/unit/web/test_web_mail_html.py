"""The HTML of hostile mail: nothing runs, nothing loads, and it costs what its length says."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from relaygw.web.mail.html_page import MAX_HTML_CHARACTERS, MailPage, mail_page
from relaygw.web.mail.html_syntax import MAX_DEPTH
from tests.tables import each_of

PICTURE = "data:image/png;base64,AAAA"


def page_of(source: str) -> MailPage:
    return mail_page(source, title="a <title>", picture={"logo@x": PICTURE}.get)


def body_of(source: str) -> str:
    return page_of(source).document.split("</head>", 1)[1]


SCRIPTS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//x.test/a.js></SCRIPT>",
    "<script>alert(1)",
    "<img src=x onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='&#106;avascript:alert(1)'>x</a>",
    "<a href=' \t javascript:alert(1)'>x</a>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></table></math>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<title><img src=x onerror=alert(1)></title>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data='data:text/html,<script>alert(1)</script>'></object>",
    "<embed src='javascript:alert(1)'>",
    "<img src='data:text/html,<script>alert(1)</script>'>",
    "<div style='background:url(javascript:alert(1))'>x</div>",
    "<div style='width:expression(alert(1))'>x</div>",
    "<p title='\"><img src=x onerror=alert(1)>'>x</p>",
    '<p title="><img src=x onerror=alert(1)>">x</p>',
    "<<script>script>alert(1)</script>",
    "<scr\0ipt>alert(1)</scr\0ipt>",
    "<style></style><img src=x onerror=alert(1)></style>",
    "<style>p{}</sty\\le><img src=x onerror=alert(1)></style>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<template><script>alert(1)</script></template>",
    "<xmp><img src=x onerror=alert(1)></xmp>",
    "<form action=https://x.test><button formaction=javascript:alert(1)>x</button></form>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href='https://evil.test/'>",
    "\ufdd1script\ufdd3alert(1)\ufdd1/script\ufdd3",
]
LOADS = [
    "<img src='https://x.test/a.png'>",
    "<img src='//x.test/a.png'>",
    "<img src='a.png'>",
    "<img srcset='https://x.test/a.png 2x'>",
    "<picture><source srcset='https://x.test/a.png'><img src='https://x.test/b.png'></picture>",
    "<table background='https://x.test/a.png'><tr><td>x</table>",
    "<body background='https://x.test/a.png'>",
    "<link rel=stylesheet href='https://x.test/a.css'>",
    "<link rel=preconnect href='https://x.test'>",
    "<style>@import 'https://x.test/a.css';</style>",
    "<style>@im\\port url(https://x.test/a.css);</style>",
    "<style>@/**/import url(https://x.test/a.css)</style>",
    "<style>p{background:url(https://x.test/a.png)}</style>",
    "<style>p{background:u\\72l(https://x.test/a.png)}</style>",
    "<style>p{background:u/**/rl(https://x.test/a.png)}</style>",
    "<style>p{background:image-set('https://x.test/a.png' 1x)}</style>",
    "<style>@font-face{font-family:x;src:url(https://x.test/a.woff)}</style>",
    "<p style=\"background:url('https://x.test/a.png')\">x</p>",
    "<p style='background:url(&quot;https://x.test/a.png&quot;)'>x</p>",
    "<video src='https://x.test/a.mp4' poster='https://x.test/a.png'></video>",
    "<audio src='https://x.test/a.mp3' autoplay></audio>",
    "<iframe src='https://x.test/'></iframe>",
    "<object data='https://x.test/'></object>",
    "<embed src='https://x.test/'>",
    "<input type=image src='https://x.test/a.png'>",
    "<svg><image href='https://x.test/a.png'/></svg>",
    "<a ping='https://x.test/' href='#x'>x</a>",
    "<p><img src=cid:nothing@x></p>",
]


@each_of("source", SCRIPTS)
def test_no_script_is_left(source: str) -> None:
    shown = page_of(source).document
    tags = re.findall(r"<[^>]*>", re.sub(r'"[^"]*"', '""', shown))
    assert not [
        tag for tag in tags if re.search(r"(?i)<script|\son\w+\s*=|srcdoc|<base|http-eq", tag)
    ]
    # the only javascript: may be in a tooltip, which is a text
    assert "javascript:" not in re.sub(r'title="[^"]*"', "", shown)
    assert not re.search(
        r"(?i)<(?:iframe|object|embed|svg|form|input|meta [^cnv]|link|template)", shown
    )


@each_of("source", LOADS)
def test_nothing_is_loaded(source: str) -> None:
    shown = page_of(source).document
    without_tooltips = re.sub(r' title="[^"]*"', "", shown)
    assert "x.test" not in without_tooltips.replace("logo@x", "")
    assert "cid:" not in shown
    sources = re.findall(r'src="([^"]*)"', shown)
    assert all(one.startswith("data:image/") for one in sources)


@each_of("source", [one for one in LOADS if "x.test" in one and "<a " not in one])
def test_what_is_not_loaded_is_counted(source: str) -> None:
    removed = page_of(source).removed
    counted = removed.images + removed.sheets + removed.frames
    assert counted or any(word in source for word in ("preconnect", "srcset", "type=image", "<svg"))


def test_pictures_of_the_mail_are_shown() -> None:
    page = page_of(
        '<img src="cid:logo@x"><img src="CID:logo%40x"><img src="data:image/gif;base64,R0">'
    )
    assert page.document.count(PICTURE) == 2
    assert "data:image/gif;base64,R0" in page.document
    assert page.removed.images == 0


def test_a_picture_that_is_not_loaded_leaves_its_place_and_text() -> None:
    body = body_of(
        '<img src="https://x.test/a.png" width="300" height="80" alt="Our &quot;lamp&quot;">'
    )
    assert 'width="300"' in body
    assert "data:image/svg+xml," in body
    assert "Our%20" in body or "Our " in body
    small = body_of('<img src="https://x.test/p.gif" width="1" height="1" alt="pixel">')
    assert "width=%221%22" in small
    assert "pixel%3C" not in small


def test_links_lead_nowhere_and_are_listed() -> None:
    page = page_of(
        '<a href="https://x.test/?a=1&amp;b=2" class="b">Read <b>it</b></a> <a name="top">t</a>'
    )
    assert 'href="#relaygw-link" title="https://x.test/?a=1&amp;b=2"' in page.document
    assert [(link.target, link.text) for link in page.links] == [
        ("https://x.test/?a=1&b=2", "Read it")
    ]


def test_how_it_looks_stays() -> None:
    shown = page_of(
        "<!DOCTYPE html><html lang=de dir=rtl><head><style>@media (max-width:480px){h1{color:red}}"
        "</style></head><body bgcolor=#eee style='margin:0'><table width=600 cellpadding=0><tr>"
        "<td style='padding:4px' align=center>a &lt; b &amp; c&nbsp;d</td></table></body></html>"
    ).document
    assert shown.startswith('<!doctype html><html lang="de" dir="rtl">')
    assert "@media (max-width:480px){h1{color:red}}" in shown
    assert '<body bgcolor="#eee" style="margin:0">' in shown
    assert '<table width="600" cellpadding="0">' in shown
    assert '<td style="padding:4px" align="center">a &lt; b &amp; c\xa0d</td>' in shown
    assert "<title>a &lt;title&gt;</title>" in shown


def test_without_a_doctype_there_is_none() -> None:
    assert page_of("<p>x").document.startswith("<html>")


@each_of(
    ("source", "shown"),
    [
        ("<p>a<p>b", "<p>a</p><p>b</p>"),
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        ("<table><tr><td>a<td>b<tr><td>c</table>d",
         "<table><tbody><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></tbody></table>d"),
        ("<b><table><tr><td>a</b>b</td></tr></table>",
         "<b><table><tbody><tr><td>ab</td></tr></tbody></table></b>"),
        ("<p>a<div>b</p>c</div>", "<p>a</p><div>bc</div>"),
        ("<a href=#x>one<a href=#y>two</a>",
         '<a href="#relaygw-link" title="#x">one</a><a href="#relaygw-link" title="#y">two</a>'),
        ("</div></p><i>x", "<i>x</i>"),
        ("a < b > c", "a &lt; b &gt; c"),
    ],
)  # fmt: skip
def test_broken_html_is_read_as_browsers_do(source: str, shown: str) -> None:
    assert body_of(source) == f"<body>{shown}</body></html>"


BOMBS = {
    "deep": "<div>" * 400_000,
    "formatting": "".join(f"<b id={n}>" for n in range(1000)) + "<p>x" * 300_000,
    "tables": "<table><tr><td>" * 100_000,
    "unclosed tags": "<a " * 700_000,
    "less than": "<" * 2_000_000,
    "quotes": "<a \"<a' " * 250_000,
    "attributes": "<a " + "x " * 1_000_000 + ">",
    "comments": "<!--" * 500_000,
    "raw": "<svg>" * 400_000,
    "ampersands": "&" * 2_000_000,
    "entities": "&amp;" * 400_000,
    "blanks": "\xa0" * 2_000_000,
    "nul": "\0" * 2_000_000,
    "title": "<p title='" + "&" * 2_000_000 + "'>",
    "number": "&#" + "1" * 2_000_000 + ";",
    "pictures": "<img src=http://x.test alt='a picture of it'>" * 40_000,
    "links": "<a href=http://x.test>" * 90_000,
    "css": "<style>" + "url(" * 60_000 + "</style>",
    "css quotes": "<style>" + 'url("' * 50_000 + "</style>",
    "css escapes": "<style>" + "\\" * 250_000 + "</style>",
    "data": "<img src='data:image/png;base64," + "A" * 2_000_000 + "'>",
}


@each_of("name", BOMBS)
def test_html_that_is_built_to_be_expensive_is_not(name: str) -> None:
    began_s = time.process_time()
    page = page_of(BOMBS[name])
    assert time.process_time() - began_s < 2.0
    assert len(page.document) < 12 * MAX_HTML_CHARACTERS


def test_what_is_too_deep_or_too_long_is_said() -> None:
    assert page_of("<div>" * (MAX_DEPTH + 1)).is_cut
    assert page_of("<p>x" * 20_000).is_cut
    assert page_of("x" * (MAX_HTML_CHARACTERS + 1)).is_cut
    assert not page_of("<div>x</div>" * 1000).is_cut


@given(
    st.lists(
        st.sampled_from(
            ["<", ">", "'", '"', "=", "/", " ", "&", "a", "script", "<img src=", "onerror=x", "<p",
             "style=", "url(", "http://x.test/", "<style>", "</style>", "<!--", "-->", "\\", "</",
             "<a href=", "javascript:", "<table>", "<td>", "&lt;", "&#60;", "\0", "\ufdd1", "<svg>",
             "data:,0", "<title>", "*/", "/*", "@import", ";"]
        ),
        max_size=40,
    ).map("".join)
)  # fmt: skip
def test_whatever_is_put_together_loads_and_runs_nothing(source: str) -> None:
    page = page_of(source)
    body = page.document.split("<body", 1)[1]
    tags = re.findall(r"<(\w+)((?:[^>\"]|\"[^\"]*\")*)>", body)
    for name, attributes in tags:
        assert name not in ("script", "style", "svg", "title", "iframe")
        names = [one[0] for one in re.findall(r'([\w-]+)="([^"]*)"', attributes)]
        assert not [one for one in names if one.startswith("on")]
        for target in re.findall(r'(?:src|href)="([^"]*)"', attributes):
            assert target.startswith(("data:image/", "#relaygw-link"))
    styles = re.findall(r"<style>(.*?)</style>", page.document, re.DOTALL)
    assert not any(re.search(r"@import|url\((?!\)|\"data:image)", one) for one in styles)


_YES, _NO = "(min-width:0)", "(max-width:0)"
_LIGHT, _DARK = ":root{color-scheme:light", ":root{color-scheme:dark"


@each_of(
    ("head", "light", "dark"),
    [
        ("<style>@media (prefers-color-scheme: dark){p{}}</style>", _NO, _YES),
        ("<style>@media ( PREFERS-color-scheme:Light ){p{}}</style>", _YES, _NO),
        ("<style>@media (prefers-color-scheme){p{}}</style>", _YES, _YES),
        ("<style>@media (prefers-/**/color-scheme: d\\61rk){p{}}</style>", _NO, _YES),
        ("<style media='(prefers-color-scheme: dark)'>p{}</style>", _NO + "{p{}}", _YES + "{p{}}"),
        ("<style>:root{color-scheme: light dark!important}</style>", _LIGHT + "!", _DARK + "!"),
        ("<meta name=Color-Scheme content='dark light'>", _LIGHT + "}", _DARK + "}"),
        ("<body style='color-scheme:light dark'>", '"color-scheme:light"', '"color-scheme:dark"'),
    ],
)
def test_mail_is_seen_in_light_and_in_dark(head: str, light: str, dark: str) -> None:
    page = page_of(head + "<p>(prefers-color-scheme: dark) color-scheme: light dark</p>")
    for scheme, expected in (("light", light), ("dark", dark)):
        shown = page.in_scheme(scheme)
        assert expected in shown
        assert "<p>(prefers-color-scheme: dark) color-scheme: light dark</p>" in shown
        assert "prefers" not in shown.split("<p>")[0]
    assert page.has_schemes is (light != dark)


def test_what_has_one_scheme_keeps_it() -> None:
    page = page_of(
        "<style>:root{color-scheme:only light}p{supported-color-schemes:light dark}</style>"
    )
    assert not page.has_schemes
    assert page.in_scheme("dark") == page.document
