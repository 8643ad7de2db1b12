"""The table of fields that name recipients, and what a look at a header makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import without_fields
from relaygw.mail.envelope import Released, Source
from relaygw.policy.recipient_fields import NO_FIELDS, FieldRule
from relaygw.policy.recipients import RecipientPolicy, Screen
from relaygw.settings.addresses import Recipients
from relaygw.settings.model import Settings
from relaygw.settings.presets import presets
from relaygw.settings.recipient_fields import GENERAL, RecipientField, recipient_fields
from relaygw.settings.section import Mode
from tests.tables import each_of

FIELDS = [field for service in recipient_fields().values() for field in service.fields]
BLOCKED = FieldRule(
    is_blocked=RecipientPolicy(
        Mode.PRODUCTION, Recipients(block=("x@cust.test", "@blocked.test"))
    ).is_blocked
)
AROUND = b"Received: from a\r\n\tby b; now\r\n", b"Subject: x\r\n\r\nBcc: body\r\n"
FORMS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "as documented": lambda name, value: b"%b: %b\r\n" % (name, value),
    "lower case": lambda name, value: b"%b:%b\r\n" % (name.lower(), value),
    "upper case": lambda name, value: b"%b:%b\r\n" % (name.upper(), value),
    "spaces before the colon": lambda name, value: b"%b \t : %b\r\n" % (name, value),
    "folded": lambda name, value: b"%b:\r\n %b\r\n\t \r\n" % (name, value),
    "twice": lambda name, value: b"%b: %b\r\n%b: %b\r\n" % (name, value, name.lower(), value),
    "8-bit name": lambda name, value: b"\xef\xbb\xbf%b\xa0: %b\r\n next\r\n" % (name, value),
    "space in the name": lambda name, value: b"%b %b: %b\r\n" % (name[:1], name[1:], value),
    "encoded name": lambda name, value: b"=?utf-8?q?%b?=: %b\r\n" % (name, value),
    "no value": lambda name, value: b"%b: %b\r\n%b:\r\n" % (name, value, name),
}


def value_of(field: RecipientField) -> bytes:
    """Return a value in which the field names x@cust.test."""
    if field.form != "json":
        return b"<x@cust.test>" if field.form == "addresses" else b"https://x@cust.test/"
    value: Any = "x@cust.test"
    for key in reversed(field.addresses[0].split(".")):
        value = [{key: value}]
    return repr(value if field.name in ("To", "Cc", "Bcc") else value[0]).replace("'", '"').encode()


def left_by(rule: FieldRule, header: bytes) -> bytes:
    return without_fields(header, rule.look(header).removed)


def test_each_preset_has_an_entry_with_a_source() -> None:
    assert set(recipient_fields()) - {GENERAL} == set(presets()), (
        "read in the service's pages which header fields of a mail name recipients, and write "
        "them into relaygw/settings/recipient_fields.yaml, or an entry without fields"
    )
    for name, service in recipient_fields().items():
        for source in (*service.sources, *(field.source for field in service.fields)):
            assert source.startswith("https://") or source == "unconfirmed", name


def test_the_table_says_how_to_read_each_field() -> None:
    for field in FIELDS:
        assert bool(field.addresses) == (field.form == "json"), field.name
        assert not (field.harmless or field.json_only) or field.form == "json", field.name
    plain = [field.name.lower() for field in FIELDS if not field.json_only]
    assert len(set(plain)) == len(plain)


@each_of("form", FORMS)
def test_every_field_is_found_however_it_is_written(form: str) -> None:
    before, behind = AROUND
    for field in FIELDS:
        if form == "no value" and field.json_only:
            continue  # an empty To is not JSON
        written = FORMS[form](field.name.encode(), value_of(field))
        assert left_by(NO_FIELDS, before + written + behind) == before + behind, field.name
        found = NO_FIELDS.look(before + written + behind)
        assert found.names == (field.name,) and found.obstacle is None


@each_of("field", FIELDS, ids=lambda field: field.name)
def test_a_blocked_address_in_any_field_goes_nowhere(field: RecipientField) -> None:
    header = AROUND[0] + FORMS["as documented"](field.name.encode(), value_of(field)) + AROUND[1]
    found = BLOCKED.look(header)
    if field.form == "url":
        assert found == NO_FIELDS.look(b"Subject: x\r\n\r\n")
    elif field.carries == "recipients":
        assert found.obstacle == (f"field {field.name} names x@cust.test, on recipients.block")
    else:
        assert left_by(BLOCKED, header) == b"".join(AROUND)
    free = header.replace(b"x@cust.test", b"y@cust.test")
    assert left_by(BLOCKED, free) == free and BLOCKED.look(free).obstacle is None


@each_of(
    "value",
    [
        b"",
        b"x",
        b"[]",
        b'{"to": "x@cust.test", "to": "y@cust.test"}',
        b'{"to": {"email": "y@cust.test"}}',
        b'{"to": ["y@cust.test", 7]}',
        b'{"to": ["y@cust.test x@cust.test"]}',
        b'{"to": ["\xff@cust.test"]}',
        b'{"filters": {"bcc": {"settings": 1}}}',
        b"=?utf-8?q?=7B=7D?=",
        b"[" * 100_000,
    ],
)
def test_json_that_cannot_be_read_in_one_way_holds_where_a_list_is_set(value: bytes) -> None:
    header = b"X-SMTPAPI: %b\r\n\r\n" % value
    obstacle = BLOCKED.look(header).obstacle
    assert (obstacle or "").startswith("field X-SMTPAPI cannot be read") or value == b"[]"
    assert left_by(NO_FIELDS, header) == b"\r\n"


@pytest.mark.parametrize(
    ("value", "stays"),
    [
        (b'{"category": "a", "unique_args": {"to": "x@cust.test"}}', True),
        (b'{"filters": {"templates": {}, "opentrack": {}}}', True),
        (b'{"category": "a", "filters": {"bcc": {}}}', False),
        (b'{"Category": "a", "to": []}', False),
        (b'{"category": "a", "new_key": 1}', False),
        (b'{"category": "a", "category": "b"}', False),
        (b'{"category": "a"', False),
    ],
)
def test_instructions_that_name_nobody_stay(value: bytes, stays: bool) -> None:
    line = b"X-SMTPAPI: %b\r\n" % value
    behind = b"Subject: x\r\n\r\n" + line  # once more, in the body
    assert left_by(NO_FIELDS, line + behind) == (line + behind if stays else behind)
    assert left_by(NO_FIELDS, line + line + behind) == behind  # who knows which one counts


def test_what_people_read_stays() -> None:
    header = (
        b"From: a@shop.test\r\nTo: [Shop] Jo <x@cust.test>\r\nCc: {x} <x@cust.test>\r\n"
        b"Reply-To: x@cust.test\r\nX-Mailgun-Variables: {}\r\nX-PM-Message-Stream: outbound\r\n"
        b"To-Do: x\r\nX-BCC-Note: y\r\n=?utf-8?b?Bccxx?=: x@cust.test\r\nno field\r\n\r\n"
    )
    assert left_by(NO_FIELDS, header) == header


@given(
    st.lists(st.sampled_from([b"Bcc", b":", b" ", b"\t", b"\r\n", b"x@cust.test", b"\xff", b"A"]))
)
def test_no_header_breaks_the_look(parts: list[bytes]) -> None:
    header = b"".join(parts) + b"\r\n\r\nBcc: body\r\n"
    for rule in (NO_FIELDS, BLOCKED):
        left = left_by(rule, header)
        assert left.endswith(b"\r\n") and b"body" in left
        assert left_by(rule, left) == left


def rules(mode: str = "production", **recipients: Any) -> Screen:
    return Screen(
        Settings.model_validate(
            {
                "mode": mode,
                "providers": {"p": {"host": "smtp.example.com"}},
                "routes": [{"name": "default", "providers": ["p"]}],
                "listeners": [
                    {"bind": "127.0.0.1:25"},
                    {"bind": "127.0.0.1:26", "mode": "staging"},
                ],
                "recipients": recipients,
            }
        )
    )


def test_plain_production_mail_is_not_looked_at() -> None:
    assert rules().field_rule(Source(), Mode.PRODUCTION) is None


@pytest.mark.parametrize(
    ("mode", "source", "accepted_in", "released", "why"),
    [
        ("production", Source(), Mode.STAGING, None, "mode staging"),
        ("production", Source(), Mode.SANDBOX, None, "mode sandbox"),
        ("staging", Source(), Mode.PRODUCTION, None, "mode staging"),
        ("production", Source(listener="127.0.0.1:26"), Mode.PRODUCTION, None, "mode staging"),
        (
            "production",
            Source(listener="127.0.0.1:25"),
            Mode.PRODUCTION,
            Released.ALLOWED,
            "released mail",
        ),
        ("production", Source(), Mode.PRODUCTION, Released.RESENT, "mail sent again"),
    ],
)
def test_the_strictest_mode_decides(
    mode: str, source: Source, accepted_in: Mode, released: Released | None, why: str
) -> None:
    screen = rules(mode, block=["x@cust.test"])
    rule = screen.field_rule(source, accepted_in, released)
    assert rule is not None and rule.is_blocked is None
    assert rule.look(b"Bcc: y@cust.test\r\n\r\n").why == why


@pytest.mark.parametrize(
    "field",
    [
        b"X-MC-BccAddress: x@cust.test.",
        b'X-MSYS-API: {"bcc": [{"address": {"email": "x@cust.test"}}]}',
    ],
)
def test_an_address_written_in_another_way_does_not_pass_the_list(field: bytes) -> None:
    assert BLOCKED.look(field + b"\r\n\r\n").obstacle is not None


@pytest.mark.parametrize("depth", [100, 480, 600, 900, 5000])
def test_lists_within_lists_are_read_or_told_however_deep(depth: int) -> None:
    value = b'{"to": %b"x@cust.test"%b}' % (b"[" * depth, b"]" * depth)
    found = BLOCKED.look(b"X-SMTPAPI: %b\r\nSubject: x\r\n\r\n" % value)
    assert found.obstacle is not None
    assert "recipients.block" in found.obstacle


def test_an_encoded_name_longer_than_a_line_may_be_is_no_name() -> None:
    name = b"=?utf-8?q?%b?=" % b"=".join([b"", *(b"%02X" % byte for byte in b"X-SMTPAPI")])
    assert len(name) <= 78
    value = b': {"to": ["x@cust.test"]}\r\n'
    assert BLOCKED.look(name + value).obstacle
    assert not BLOCKED.look(b"=?utf-8?q?a?=" * 6 + name + value).obstacle
