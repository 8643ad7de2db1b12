"""The ways that a stranger's bytes take through the program, each as a call with bytes.

Bounce mails are not among them: the parser of the standard library takes time by the square, so a
process with limits reads them (`relaygw/feedback/bounce_mail_child.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import httpx2
from starlette.exceptions import HTTPException

from bench.fuzzing import targets
from bench.hostiles import texts as hostile
from bench.hostiles.texts import Case
from relaygw.delivery.notices import objection
from relaygw.feedback import document
from relaygw.feedback.format import Post, Refused
from relaygw.feedback.formats import FORMATS
from relaygw.feedback.logins import check_login
from relaygw.feedback.returned import from_text
from relaygw.inbound.content import ContentReader
from relaygw.mail import content, exported, hold, mime_header, notice, source_header
from relaygw.mail import words as mail_words
from relaygw.mail.envelope import Source
from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply, provider_id
from relaygw.mail.returned import returned_part
from relaygw.mail.search_words import link_word, reply_ids, words_of
from relaygw.mail.searchable_text import searchable
from relaygw.mail.subject_template import subject_template
from relaygw.observe import events
from relaygw.observe.json_form import JsonForm
from relaygw.observe.postfix_form import PostfixForm
from relaygw.observe.redaction import Redaction
from relaygw.operations.story import facts
from relaygw.policy import content_check, storms
from relaygw.policy.recipient_fields import NO_FIELDS, FieldRule
from relaygw.policy.rewriting import Rewriter
from relaygw.sendmail.content import Message
from relaygw.settings.addresses import Rewrite
from relaygw.settings.presets import presets
from relaygw.settings.provider import Provider
from relaygw.upstream import brake, classifier, credentials, mark, outgoing, protocol
from relaygw.upstream.seven_bit import to_seven_bit
from relaygw.web.dashboard.figures import part_of
from relaygw.web.gate import guards, identity
from relaygw.web.mail import attachments, html_check, html_page, html_syntax, parts, preview, views
from relaygw.web.mail import text as mail_text
from relaygw.web.sandbox import link_check, spamd
from relaygw.web.sandbox.api import changes, live
from tests.builders import accepted, claimed, taken, update_of

Call = Callable[[bytes], object]


class Way(NamedTuple):
    """Functions that are fed in one way."""

    calls: dict[str, Call]
    cases: Callable[[], Iterator[Case]]


# --- a mail, taken and sent -----------------------------------------------------------------

_REWRITER = Rewriter(
    Rewrite(
        senders={"@web1.internal": "shop@example.com", "*": "@example.com"},
        recipients={"@old.test": ("x@new.test",)},
        recipient_delimiter="+",
        header=("senders", "recipients"),
    ),
    "gw.example",
)
_WANTED = frozenset(("to", "from", "x-order", "x-smtpapi", "list-unsubscribe"))
_UNTOLD: Callable[[str, str], None] = lambda queue_id, why: None  # noqa: E731


def _head(data: bytes) -> bytes:
    return data[: content.header_end(data)]


def _marks() -> dict[str, Call]:
    marks = {name: one.mark for name, one in presets().items() if one.mark is not None}
    return {
        f"put_mark {name}": partial(_marked, mark.Mark(field, 22 * "A", "4QID", _UNTOLD))
        for name, field in marks.items()
    }


def _marked(one: mark.Mark, data: bytes) -> object:
    return mark.put_mark(one, data, ())


def _read_content(data: bytes) -> object:
    reader = ContentReader(limit_bytes=1 << 30, spool_directory=Path("/nowhere"))
    for at in range(0, len(data), 4096):
        reader.feed(data[at : at + 4096])
    while reader.has_piece():
        reader.work_up()
    return reader.feed(b"\r\n.\r\n")


def _source(data: bytes) -> object:
    source = source_header.parse_source(data)
    source_header.rename_late(data)
    return source_header.format_source(
        Source(host="h", user=data.decode("utf-8", "replace"), client=data.decode("latin-1"))
    ), source


_HEADS: dict[str, Call] = {
    "normalise_line_ends": content.normalise_line_ends,
    "has_long_line": content.has_long_line,
    "read_header": lambda data: content.read_header(data, _WANTED),
    "Rewriter.headers": lambda data: _REWRITER.headers(_head(data)),
    "Rewriter.whole_from": lambda data: _REWRITER.whole_from(_head(data)),
    "FieldRule of a block list": FieldRule(is_blocked=lambda one: False).look,
    "FieldRule of none": NO_FIELDS.look,
    "missing_fields": lambda data: outgoing.missing_fields((("X-A", "b"), ("From", "c")), data),
    "rename_late": source_header.rename_late,
    "objection": lambda data: objection(data, to_sender=True),
    "returned_part": lambda data: returned_part(
        data, size_bytes=len(data), smtputf8=True, may_be_whole=True
    ),
    "sendmail.Message": lambda data: _composed(Message(data)),
    **_marks(),
}


def _composed(message: Message) -> object:
    message.has_field(b"from")
    with mock.patch("relaygw.sendmail.content.warn"):
        message.recipients()
    return message.parts(b"From: x")


_CONTENTS: dict[str, Call] = {
    "content_check.find_in": lambda data: content_check.find_in(
        data, header_end=content.header_end(data), subject=data[:8000].decode("latin-1")
    ),
    "storms.fingerprint": lambda data: storms.fingerprint(data, content.header_end(data)),
    "storms.opening": lambda data: storms.opening(data, content.header_end(data)),
    "to_seven_bit": to_seven_bit,
    "ContentReader": _read_content,
    "parts.read_tree": parts.read_tree,
}


# --- a mail, looked at -----------------------------------------------------------------------


def _seen(data: bytes) -> object:
    tree = parts.read_tree(data)
    part = html_page.html_part(tree)
    page = None
    if part is not None:
        source, _ = tree.text(part, limit_characters=1_000_000)
        page = html_page.mail_page(source, title="x", picture=html_page.pictures_of(tree))
    return [views.view_context(view, tree, page) for view in views.VIEWS]


def _previewed(data: bytes) -> object:
    tree = parts.read_tree(data)
    leaves = [one for one in tree.leaves if one.content_type != "application/pdf"]
    for one in leaves[:3]:
        with contextlib.suppress(KeyError):
            preview.preview(tree, one)
    return tree


def _hosts(data: bytes) -> object:
    return mail_text.hosts_linked(parts.read_tree(data), ("shop.test", "www.shop.test"))


_SEEN: dict[str, Call] = {
    "views.view_context": _seen,
    "text.read_facts": lambda data: mail_text.read_facts(parts.read_tree(data)),
    "text.hosts_linked": _hosts,
    "preview": _previewed,
}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _of_page(data: bytes) -> object:
    page = html_page.mail_page(_text(data), title="x", picture=lambda one: None)
    return page.in_scheme("dark"), page.has_schemes


_PAGES: dict[str, Call] = {
    "html_check": lambda data: html_check.check_html(_text(data)),
    "html_page": _of_page,
    "html_syntax.tokens": lambda data: list(html_syntax.tokens(_text(data))),
    "html_syntax.filter_css": lambda data: html_syntax.filter_css(_text(data)),
    "text_of_html": lambda data: mail_text.text_of_html(_text(data)),
    "read_words": lambda data: mail_text.read_words(_text(data), _text(data), ()),
    "hosts_named": lambda data: mail_text.hosts_named(_text(data), ("shop.test",)),
}


# --- words of one kind -------------------------------------------------------------------------


def _found_by(data: bytes) -> object:
    return [words_of([_text(data)], [_text(data)]), list(reply_ids(_text(data)))]


def _logged(data: bytes) -> object:
    return list(exported.read_entries(data.splitlines(keepends=True), limit_bytes=1 << 30))


def _mbox(data: bytes) -> object:
    entry = exported.Entry(b"From x y\n", data)
    with contextlib.suppress(exported.NotExported):
        exported.exported(entry)
    return _logged(b"From x y\n" + data)


def _spam(data: bytes) -> object:
    head = b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 5\r\n"
    return spamd.read_answer(head + b"\r\n" + data), spamd.read_answer(head[:19] + data)


def _login(data: bytes) -> object:
    authorization = f"Basic {data.decode('latin-1')}"
    post = Post(body=b"", headers={"authorization": authorization}, received_at_ms=1)
    with contextlib.suppress(Refused):
        check_login(post, "user:password")
    return post


def _link(data: bytes) -> object:
    with contextlib.suppress(link_check.NotVisited):
        parts = link_check.readable_url(f"http://{_text(data)}/")
        return parts.netloc.encode("idna"), (parts.hostname or "").encode("idna")
    return None


def _sent(data: bytes) -> object:
    """Make a mail of what `send` of Mailpit's API is given."""
    body = {
        "From": {"Email": "a@shop.test", "Name": _text(data)},
        "To": [{"Email": "b@cust.test", "Name": _text(data)}],
        "Subject": _text(data),
        "Text": _text(data),
        "Headers": {"X-A": _text(data)},
    }
    with contextlib.suppress(HTTPException):
        return changes._message(body, "<1@gw.test>").as_bytes()
    return None


def _cookies(data: bytes) -> object:
    """Take what a server of a link sets."""
    response = httpx2.Response(200, headers=[(b"set-cookie", data)])
    response.request = httpx2.Request("GET", "http://a.test/")
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    httpx2.Cookies(jar).extract_cookies(response)
    return jar


def _addresses_of(data: bytes) -> object:
    return document.address(_text(data)), document.words(_text(data)), document.bare_id(_text(data))


_VALUES: dict[str, Call] = {
    "addresses": targets.addresses,
    "envelope addresses": lambda data: targets.addresses(b"<" + data),
    "MAIL and RCPT": targets.commands,
    "PROXY": targets.proxy,
    "searches": targets.searches,
    "searchable": lambda data: searchable(_text(data)),
    "words_of": _found_by,
    "link_word": lambda data: link_word(_text(data)),
    "subject_template": lambda data: subject_template(_text(data)),
    "shown_subject": lambda data: content_check.shown_subject(_text(data)),
    "parse_source": _source,
    "printable": lambda data: mail_words.escape(mail_words.printable(_text(data))),
    "mime_header.decode_words": lambda data: mime_header.decode_words(_text(data)),
    "mime_header.read_parameters": mime_header.read_parameters,
    "mime_header.read_addresses": lambda data: mime_header.read_addresses(_text(data)),
    "mime_header.decode_base64": mime_header.decode_base64,
    "hold.cause_of": lambda data: hold.cause_of(_text(data)),
    "exported": _mbox,
    "returned.from_text": lambda data: from_text(_text(data), "gw.test"),
    "document": _addresses_of,
    "mark_within": lambda data: (document.mark_within(_text(data)), document.status(_text(data))),
    "codes_of": lambda data: live.codes_of(_text(data)),
    "calendar": lambda data: attachments.read_calendar("BEGIN:VEVENT\r\n" + _text(data)),
    "spamd": _spam,
    "host of a link": _link,
    "host_name": lambda data: guards.host_name(data.decode("latin-1")),
    "own_path": lambda data: guards.own_path("/" + data.decode("latin-1"), ""),
    "check_login": _login,
    "agent_of": lambda data: identity.agent_of(data.decode("latin-1")),
}


_MADE: dict[str, Call] = {"send of the API": _sent, "cookies of a link": _cookies}


# --- replies, and what is said of them -----------------------------------------------------------

_CLASSIFIER = classifier.Classifier(Provider.model_validate({"host": "192.0.2.1", "port": 25}))
_MASK = credentials.Mask(credentials.Login(username="user", secret="aaaaaaaaaaaa"))


def _reply(data: bytes) -> SmtpReply:
    return SmtpReply(550, tuple(protocol.clean_text(data).split("\n")))


def _taken_replies(data: bytes) -> object:
    buffer = bytearray(data)
    with contextlib.suppress(protocol.ReplyInvalid):
        while (reply := protocol.take_reply(buffer)) is not None:
            provider_id(reply.text)
    return buffer


def _judged(data: bytes) -> object:
    reply = _reply(data)
    return _CLASSIFIER.meaning(Stage.RCPT, reply), facts.reply_of(_text(data))


def _braked(data: bytes) -> object:
    told = mock.Mock(reply=_reply(data))
    return brake.without_names(told, frozenset(("cust.test", "a")))


_REDACTION = Redaction(("addresses", "subject"))
_FORMS = (
    PostfixForm(with_subject=True),
    JsonForm(hostname="gw.test", with_subject=True),
)


def _told(data: bytes) -> object:
    text = _text(data)[:4096]
    mail = claimed("b@cust.test", subject=text, sender=text)
    change = update_of(mail.queue_id, reason=text, recipients=(taken(0, reply=text),))
    happened: list[events.Event] = [
        events.Note("smtpd", text),
        events.Accepted(accepted(subject=text, sender=text, message_id=text)),
    ]
    return [
        form.lines(event)
        for one in happened
        for event in (one, _REDACTION.apply(one))
        for form in _FORMS
    ], change


_REPLIES: dict[str, Call] = {
    "take_reply": _taken_replies,
    "Classifier": _judged,
    "Brake": _braked,
    "provider_id": lambda data: provider_id(_text(data)),
    "Mask": lambda data: _MASK(_text(data)),
    "figures.part_of": lambda data: part_of(_text(data)),
    "Redaction": lambda data: _REDACTION._text(_text(data), "subject"),
    "log lines": _told,
    "notice of it": lambda data: _noticed(_text(data)),
}


def _noticed(text: str) -> object:
    return notice.wrap_text(notice.plain(text)), notice.fold_field(f"Diagnostic-Code: {text}")


# --- events ------------------------------------------------------------------


def _of_format(name: str, data: bytes) -> object:
    return FORMATS[name].read(data)


WAYS = {
    "heads": Way(_HEADS, hostile.heads),
    "contents": Way(_CONTENTS, lambda: iter((*hostile.heads(), *hostile.mails()))),
    "mails seen": Way(_SEEN, lambda: iter((*hostile.heads(), *hostile.mails()))),
    "pages": Way(_PAGES, hostile.pages),
    "values": Way(_VALUES, hostile.values),
    "values that cost more": Way(_MADE, hostile.few_values),
    "replies": Way(_REPLIES, hostile.replies),
    "events": Way(
        {f"format {name}": partial(_of_format, name) for name in FORMATS},
        lambda: hostile.events(list(targets.TARGETS["events"].inputs[:6])),
    ),
}
