"""A digest as text, as HTML, as an object for programs, and as a mail.

What it tells comes from strangers, and nothing of it is ever markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate
from functools import cache
from typing import TYPE_CHECKING, Any

from relaygw.alerting.digest import Digest
from relaygw.mail.clock import rfc3339

if TYPE_CHECKING:
    from jinja2 import Template

_NAME_WIDTH = 44
_NUMBER_WIDTH = 13


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
    return (start + "".join(f"{number:>{_NUMBER_WIDTH}}" for number in numbers)).rstrip()


def as_html(digest: Digest) -> str:
    """Return it as a page that needs nothing else, for desks, phones and dark screens."""
    return _page().render(digest=digest)


@cache
def _page() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # costs those who need it

    return Environment(
        loader=PackageLoader("relaygw.alerting"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("digest.html")


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
            {
                "title": table.title,
                "heads": list(table.heads),
                "rows": [list(row) for row in table.rows],
            }
            for table in digest.tables
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
