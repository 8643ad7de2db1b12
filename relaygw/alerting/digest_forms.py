"""The digest as text, as HTML, as mail, and for programs. What it tells comes from strangers:
nothing of it is ever markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate
from html import escape
from typing import Any

from relaygw.alerting.digest import Digest, Table
from relaygw.mail.clock import rfc3339

_NAME_WIDTH = 44
_NUMBER_WIDTH = 13
_STYLE = """
:root{color-scheme:light dark}
body{margin:0;padding:16px;background:#f4f5f7;color:#1d2430;
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:640px;margin:0 auto;background:#fff;border-radius:8px;padding:20px 24px}
h1{font-size:21px;margin:0 0 2px}h2{font-size:16px;margin:26px 0 6px}
p{margin:0 0 8px}.about{color:#5c6675}
ul{margin:14px 0 0;padding:10px 12px 10px 30px;background:#eef3fb;border-radius:6px}
table{width:100%;border-collapse:collapse;font-size:14px}
th{font-weight:600;color:#5c6675;font-size:12px;vertical-align:bottom}
th,td{padding:5px 0 5px 14px;text-align:right;border-bottom:1px solid #e3e6eb;white-space:nowrap}
th:first-child,td:first-child{padding-left:0;text-align:left;white-space:normal;width:99%;
overflow-wrap:anywhere}
@media(max-width:480px){body{padding:0}main{border-radius:0;padding:16px 14px}
th,td{padding-left:7px;font-size:13px}th{font-size:11px;white-space:normal}}
@media(prefers-color-scheme:dark){body{background:#12161c;color:#e4e8ee}main{background:#1b212a}
th,.about{color:#9aa5b4}th,td{border-color:#333c48}ul{background:#243044}a{color:#8ab4f8}}
"""


def as_text(digest: Digest) -> str:
    """Return it in lines of at most some 90 characters, but for long names."""
    return "\n".join([*_lines(digest)]) + "\n"


def _lines(digest: Digest) -> Iterator[str]:
    yield f"{digest.host}: {digest.period.words}"
    yield f"Mode {digest.mode}"
    yield ""
    for sentence in digest.news:
        yield f"* {sentence}"
    for table in digest.tables:
        yield ""
        yield table.title
        yield "-" * len(table.title)
        yield _row(table.heads)
        yield from map(_row, table.rows)
        if table.more:
            yield f"and {table.more:,} more"
    if digest.link:
        yield ""
        yield digest.link


def _row(cells: Sequence[str]) -> str:
    name, *numbers = cells
    start = name.ljust(_NAME_WIDTH)
    if len(name) > _NAME_WIDTH:
        start = f"{name}\n{'':{_NAME_WIDTH}}"
    return (start + "".join(f"{one:>{_NUMBER_WIDTH}}" for one in numbers)).rstrip()


def as_html(digest: Digest) -> str:
    """Return it as a page that needs nothing else, for desks, phones and dark screens."""
    news = "".join(f"<li>{escape(one)}</li>" for one in digest.news)
    tables = "".join(map(_table, digest.tables))
    link = escape(digest.link or "")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(digest.title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(digest.period.words)}</h1>"
        f'<p class="about">Mail gateway {escape(digest.host)}, mode {escape(digest.mode)}</p>'
        f"<ul>{news}</ul>{tables}"
        + (f'<p style="margin-top:24px"><a href="{link}">{link}</a></p>' if link else "")
        + "</main></body></html>\n"
    )


def _table(table: Table) -> str:
    heads = "".join(_cells('th scope="col"', table.heads))
    rows = "".join(f"<tr>{''.join(_cells('td', row))}</tr>\n" for row in table.rows)
    more = f'<p class="about">and {table.more:,} more</p>' if table.more else ""
    return (
        f'<h2>{escape(table.title)}</h2><table width="100%"><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table>{more}"
    )


def _cells(tag: str, cells: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(cells):  # aligned where a reader drops the style sheet, too
        align = "right" if number else "left"
        yield f'<{tag} align="{align}">{escape(text)}</{tag[:2]}>'


def as_object(digest: Digest) -> dict[str, Any]:
    """Return it as programs get it."""
    return {
        "host": digest.host,
        "mode": digest.mode,
        "since": rfc3339(digest.period.since_ms),
        "until": rfc3339(digest.period.until_ms),
        "title": digest.title,
        "news": list(digest.news),
        "counts": dict(digest.counts),
        "week_before": dict(digest.before),
        "tables": [
            {"title": one.title, "heads": list(one.heads), "rows": [list(row) for row in one.rows]}
            for one in digest.tables
        ],
        "text": as_text(digest),
        "html": as_html(digest),
        "link": digest.link,
    }


def as_mail(digest: Digest, *, sender: str, to: str) -> bytes:
    """Return it as a mail of text and HTML, seven bits each."""
    policy = SMTP if f"{sender}{to}".isascii() else SMTPUTF8
    mail = EmailMessage(policy=policy.clone(max_line_length=78))
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = digest.title
    mail["Date"] = formatdate(localtime=True)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers it by a program
    mail["X-Relaygw-Notice"] = f"digest {rfc3339(digest.period.until_ms)}"
    mail.set_content(as_text(digest), cte="quoted-printable")
    mail.add_alternative(as_html(digest), subtype="html", cte="quoted-printable")
    return mail.as_bytes()
