"""What a stranger writes takes time in proportion to its size, on every way through the program.

`tests/growth/ways.py` has the functions, `bench/hostiles/texts.py` the texts. A function that reads
such bytes belongs there; the expressions that it uses are found in `test_time_of_patterns.py`.
"""

from __future__ import annotations

import re

import pytest

from relaygw.mail.content import normalise_line_ends
from relaygw.mail.drop import MAX_HEADER_BYTES
from tests.growth import measure, patterns, ways
from tests.sources import GATEWAY

SQUARES = frozenset(
    """
    decode_header make_header getaddresses parseaddr message_from_bytes message_from_string
    BytesParser HeaderParser BytesHeaderParser HTMLParser EmailMessage Header normalize idna
    parsedate_to_datetime get_close_matches SequenceMatcher wrap fill shorten literal_eval
    punycode urlsplit urljoin
    """.split()  # noqa: SIM905
)
"""Functions of the standard library that take time by the square of their text, or may."""

HELD = {
    "relaygw.alerting.channels:_content:EmailMessage": "a title of 200 characters",
    "relaygw.alerting.channels:_content:shorten": "1,000 characters of a title",
    "relaygw.alerting.digest_forms:as_mail:EmailMessage": "figures and names of the settings",
    "relaygw.delivery.scheduler:_fill:fill": "another function of that name",
    "relaygw.feedback.bounce_": "in a process with limits",
    "relaygw.feedback.formats.ses:_confirms:urlsplit": "what has the form of such a link",
    "relaygw.feedback.returned:_addresses:getaddresses": "2,000 characters",
    "relaygw.http_request:": "the settings, and a field of an HTTP answer",
    "relaygw.inbound.intake:header_of:Header": "another thing of that name",
    "relaygw.mail.address:ascii_domain:normalize": "an address",
    "relaygw.mail.address:folded:idna": "an address",
    "relaygw.mail.address:folded:normalize": "an address",
    "relaygw.mail.address:is_routable_elsewhere:normalize": "an address",
    "relaygw.mail.address:mailbox:normalize": "an address",
    "relaygw.mail.content:_decoded:decode_header": "4,096 bytes, and no word without an end",
    "relaygw.mail.content:_decoded:make_header": "4,096 bytes",
    "relaygw.mail.notice:wrap_text:wrap": "a reply",
    "relaygw.mail.searchable_text:searchable:normalize": "64 signs in a row",
    "relaygw.operations.audit:_value:literal_eval": "what this program wrote",
    "relaygw.operations.suppression.forms:read_time:parsedate_to_datetime": "a cell of a list",
    "relaygw.policy.recipient_fields:_decoded:decode_header": "a name of 78 bytes",
    "relaygw.settings.": "the settings",
    "relaygw.upstream.credentials:": "the settings",
    "relaygw.upstream.diagnosis:try_token:urlsplit": "the settings",
    "relaygw.upstream.outgoing:missing_fields:Header": "a value of the settings",
    "relaygw.web.gate.access:_is_ours:urlsplit": "Latin-1, in which nothing is out of order",
    "relaygw.web.mail.views:_host:urlsplit": "64 signs in a row",
    "relaygw.web.mail.text:_forms:idna": "the settings",
    "relaygw.web.sandbox.api.changes:_message:EmailMessage": "a header that has a limit",
    "relaygw.web.sandbox.api.messages:_date:parsedate_to_datetime": "100 characters",
    "relaygw.web.sandbox.link_check:_ask:idna": "a host of 255 characters",
    "relaygw.web.sandbox.link_check:_public_address:idna": "a host of 255 characters",
    "relaygw.web.sandbox.link_check:readable_url:urlsplit": "4,001 characters",
    "relaygw.web.sandbox.link_check:_visit:urljoin": "a field of an HTTP answer",
    "relaygw.webhooks.post:": "the settings, and a field of an HTTP answer",
}
"""Where each of them is called, or how the places begin, and what keeps its text small."""


@pytest.mark.parametrize(
    "way, name", [(way, name) for way, its in ways.WAYS.items() for name in its.calls]
)
def test_time_grows_with_size_alone(way: str, name: str) -> None:
    call = ways.WAYS[way].calls[name]
    slow = []
    for case in ways.WAYS[way].cases():
        if measure.suspect(call, case.of) and (grown := measure.growth(call, case.of)):
            slow.append(f"{case.name}: {grown}")
            if len(slow) > 3:
                break
    assert not slow, "\n".join(slow)


_LONG_BYTES = MAX_HEADER_BYTES - 1000
_HOLD_S = 0.1  # other threads, and with them the loop, wait so long at most


@pytest.mark.parametrize(
    "name, case",
    [
        ("read_header", r"fields b'a:\n' * n"),
        ("Rewriter.headers", "field From: x + b'1' * n"),
        ("FieldRule of none", "name b'[[' * n: no colon"),
        ("objection", "field Content-Type: x + b'a ' * n"),
        ("put_mark ses", "field X-SES-MESSAGE-TAGS: x + b'1' * n"),
    ],
)
def test_a_long_header_is_read_in_short_steps(name: str, case: str) -> None:
    (head,) = (one.of(_LONG_BYTES) for one in ways.WAYS["heads"].cases() if one.name == case)
    given = normalise_line_ends(head)[:_LONG_BYTES]
    hold_s = measure.longest_hold(ways.WAYS["heads"].calls[name], given, enough_s=_HOLD_S)
    assert hold_s <= _HOLD_S


@pytest.mark.parametrize("name", ["FieldRule of a block list", "sendmail.Message"])
def test_a_header_of_a_million_addresses_is_read_in_a_second(name: str) -> None:
    head = b"Bcc: " + b"a," * (_LONG_BYTES // 2) + b"\r\n\r\n"
    call = ways.WAYS["heads"].calls[name]
    assert any(measure.once(call, head) < 1.0 for _ in range(3))


def test_functions_that_take_time_by_the_square_get_little() -> None:
    found = {place for module in patterns.reached() for place in patterns.calls_in(module, SQUARES)}
    unknown = {one for one in found if not one.startswith(tuple(HELD))}
    assert not unknown, f"say in HELD what keeps their texts small, try it in ways.py: {unknown}"
    gone = {one for one in HELD if not any(place.startswith(one) for place in found)}
    assert not gone, gone


def test_every_module_of_strangers_is_looked_at() -> None:
    rooms = {name.split(".")[1] for name in patterns.reached() if "." in name}
    package = {path.stem for path in GATEWAY.iterdir() if path.suffix in (".py", "")}
    assert package - rooms - {"__pycache__", "__init__", "py"} == {"cli", "__main__"}


def test_what_grows_is_seen() -> None:
    square = re.compile(rb"\0+b").search
    line = re.compile(rb"(?<!\0)\0+b").search
    assert measure.suspect(square, bytes) and measure.growth(square, bytes)
    assert measure.growth(line, bytes) is None
