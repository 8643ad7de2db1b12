"""The mark goes into the field of its provider, and nothing else of the field changes."""

from __future__ import annotations

import json

import pytest

from relaygw.policy.recipient_fields import FieldRule
from relaygw.settings.presets import presets
from relaygw.upstream.mark import Mark, Marking, Marks
from relaygw.upstream.outgoing import chunks, sift
from tests.tables import each_of

TOKEN = "abcDEF-_0123456789abcDEF"
BODY = b"Subject: x\r\nTo: b@cust.test\r\n\r\nhello\r\n"


def mark_for(preset: str, told: list[str] | None = None) -> Mark:
    field = presets()[preset].mark
    assert field is not None
    note = [] if told is None else told
    return Mark(field, TOKEN, "4QID", lambda _, why: note.append(why))


async def marked(
    preset: str, content: bytes, *, rule: FieldRule | None = None, told: list[str] | None = None
) -> bytes:
    """Return marked content; it is the same in one piece, as a stream, and by its size."""
    mark = mark_for(preset, told)
    whole = await sift(content, b"", (), rule, mark)
    assert isinstance(whole.content, bytes)

    async def stream():  # type: ignore[no-untyped-def]
        for at in range(0, len(content), 7):
            yield content[at : at + 7]

    streamed = await sift(stream, b"", (), rule, mark)
    assert b"".join([one async for one in chunks(streamed.content)]) == whole.content
    assert len(content) + whole.grown_bytes == len(whole.content)
    head = whole.content.partition(b"\r\n\r\n")[0]
    assert all(line.strip() for line in head.split(b"\r\n")), "no line of blanks"
    return whole.content


def values_of(content: bytes, name: bytes) -> list[bytes]:
    """Return the values of a field, unfolded."""
    head = content.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return [value.strip() for key, _, value in lines if key.lower() == name.lower()]


@each_of(
    "preset, name, value",
    [
        ("sendgrid", b"X-SMTPAPI", b'{"unique_args":{"relaygw":"%s"}}'),
        ("mailgun", b"X-Mailgun-Variables", b'{"relaygw":"%s"}'),
        ("ses", b"X-SES-MESSAGE-TAGS", b"relaygw=%s"),
        ("postmark", b"X-PM-Metadata-relaygw", b"%s"),
        ("brevo", b"X-Mailin-custom", b"relaygw:%s"),
        ("resend", b"X-Relaygw-Mark", b"%s"),
    ],
)
async def test_a_mail_without_the_field_gets_it(preset: str, name: bytes, value: bytes) -> None:
    content = await marked(preset, BODY)
    assert values_of(content, name) == [value % TOKEN.encode()]
    assert content.endswith(BODY)


JSON_VALUES = [
    b"{}",
    b"{ }",
    b'{"unique_args": {}}',
    b'{"unique_args":{"order":"1"},"category":["a","b"],"n":1.10,"big":12345678901234567890.5}',
    b'{"category": "caf\\u00e9", "unique_args": {"a": "}{", "b": "\\""}}',
    b'{\r\n "category": "x",\r\n "unique_args": {\r\n  "a": "1"\r\n }\r\n }',
    b'{"unique_args":{"relaygw":"old","b":"2"}}',
    b'{"category":"' + b"x" * 900 + b'","unique_args":{"a":"1"}}',
    b'{"category":"caf\xc3\xa9"}',
]


@each_of("value", JSON_VALUES)
async def test_json_is_merged_into_and_the_rest_stays_as_it_was_written(value: bytes) -> None:
    content = await marked("sendgrid", b"x-smtpAPI: " + value + b"\r\n" + BODY)
    (merged,) = values_of(content, b"X-SMTPAPI")
    before, after = (json.loads(one, parse_float=str, parse_int=str) for one in (value, merged))
    wanted = before | {"unique_args": before.get("unique_args", {}) | {"relaygw": TOKEN}}
    assert after == wanted
    assert max(map(len, content.split(b"\r\n"))) <= 998
    plain = value.replace(b"\r\n", b"")
    left = merged.replace(b" ", b"").replace(b'"relaygw":"%s"' % TOKEN.encode(), b"")
    for piece in (b"1.10", b"12345678901234567890.5", b"\\u00e9", b"caf\xc3\xa9"):
        assert (piece in plain) == (piece in left)


@each_of(
    "value",
    [
        b"not json",
        b'{"a":1',
        b'{"a":1} x',
        b'{"a":1,"a":2}',
        b'{"unique_args":[1]}',
        b'{"unique_args":{"a":1,"a":2}}',
        b'["a"]',
        b'{"a":NaN}',
        b"{'a':1}",
        b"{" * 100_000,
        b'{"a":' + b"[" * 100_000,
        b"=?utf-8?q?{}?=",
    ],
)
async def test_what_cannot_be_merged_into_is_left_alone_and_told(value: bytes) -> None:
    told: list[str] = []
    content = b"X-SMTPAPI: " + value + b"\r\n" + BODY
    assert await marked("sendgrid", content, told=told) == content
    assert set(told) == {"its X-SMTPAPI is no JSON object that every program reads alike"}


async def test_a_field_is_not_made_longer_than_its_service_takes() -> None:
    def folded(length: int) -> bytes:
        """Return JSON that has so many bytes once it is unfolded."""
        rows = [b'"k%d":"%s"' % (row, b"v" * 880) for row in range(10)]
        value = b'{"unique_args":{' + b",\r\n ".join([*rows, b'"z":"%s"}}'])
        return value % (b"y" * (length - len(value.replace(b"\r\n", b"")) + 2))

    room = len(f'"relaygw":"{TOKEN}",  ')  # and the blanks of its lines
    fits, long = (b"X-SMTPAPI: " + folded(size) + b"\r\n" + BODY for size in (9_999 - room, 9_990))
    assert TOKEN.encode() in await marked("sendgrid", fits)
    told: list[str] = []
    assert await marked("sendgrid", long, told=told) == long
    assert set(told) == {"its X-SMTPAPI would have more than 10000 bytes with the mark"}


async def test_no_field_is_added_to_as_many_as_the_service_takes() -> None:
    nine = b"".join(b"x-pm-metadata-k%d: v\r\n" % number for number in range(9)) + BODY
    assert TOKEN.encode() in await marked("postmark", nine + b"X-PM-Metadata-body: x\r\n")
    ten, told = b"X-PM-Metadata-Z: v\r\n" + nine, list[str]()
    assert await marked("postmark", ten, told=told) == ten
    assert set(told) == {"it has 10 fields X-PM-Metadata-… and the service takes no more"}
    replaced = await marked("postmark", b"X-PM-Metadata-relaygw: old\r\n" + nine)
    assert values_of(replaced, b"X-PM-Metadata-relaygw") == [TOKEN.encode()]


@each_of(
    "preset, name, before, after",
    [
        ("ses", "X-SES-MESSAGE-TAGS", "a=b, c=d", "a=b, c=d, relaygw={}"),
        ("ses", "X-SES-MESSAGE-TAGS", "a=b,", "a=b, relaygw={}"),
        ("ses", "X-SES-MESSAGE-TAGS", "a=b, relaygw=old, c=d", "a=b, relaygw={}, c=d"),
        ("ses", "X-SES-MESSAGE-TAGS", "xrelaygw=1", "xrelaygw=1, relaygw={}"),
        ("brevo", "X-Mailin-custom", "a:1|b:2", "a:1|b:2| relaygw:{}"),
        ("brevo", "X-Mailin-custom", '{"a":"1"}', '{"relaygw":"{}","a":"1"}'),
        ("mailgun", "X-Mailgun-Variables", '{"a":{"b":1}}', '{"relaygw":"{}","a":{"b":1}}'),
        ("postmark", "X-PM-Metadata-relaygw", "shop's", "{}"),
        ("resend", "X-Relaygw-Mark", "shop's", "{}"),
    ],
)
async def test_what_the_shop_set_stays_beside_it(
    preset: str, name: str, before: str, after: str
) -> None:
    content = await marked(preset, f"{name}: {before}\r\n".encode() + BODY)
    assert values_of(content, name.encode()) == [after.replace("{}", TOKEN).encode()]


async def test_of_two_fields_the_first_has_it_and_is_the_first_still() -> None:
    two = b'X-SMTPAPI: {"category":"1"}\r\nX-SMTPAPI: {"category":"2"}\r\n'
    first, second = values_of(await marked("sendgrid", two + BODY), b"X-SMTPAPI")
    assert TOKEN.encode() in first
    assert b'"1"' in first
    assert second == b'{"category":"2"}'


async def test_a_field_that_names_recipients_goes_and_the_mark_stays() -> None:
    content = b'X-SMTPAPI: {"to":["c@cust.test"],"category":"1"}\r\n' + BODY
    (value,) = values_of(await marked("sendgrid", content, rule=FieldRule()), b"X-SMTPAPI")
    assert json.loads(value) == {"unique_args": {"relaygw": TOKEN}}
    blocked = FieldRule(is_blocked=lambda address: address == "c@cust.test")
    sifted = await sift(content, b"", (), blocked, mark_for("sendgrid"))
    assert sifted.found.obstacle is not None


@pytest.mark.parametrize("content", [b"\r\nbody\r\n", BODY])
async def test_the_mark_stands_in_front_of_what_is_added(content: bytes) -> None:
    added = b"X-Relaygw-Source: x\r\n"
    sifted = await sift(content, added, [("X-PM-Message-Stream", "outbound")], None,
                        mark_for("postmark"))  # fmt: skip
    assert sifted.content == (
        b"X-PM-Metadata-relaygw: %s\r\n%sX-PM-Message-Stream: outbound\r\n%s"
        % (TOKEN.encode(), added, content)
    )


def test_marks_of_the_same_mail_are_the_same() -> None:
    """A chained transaction is known by its mail."""
    field = presets()["sendgrid"].mark
    assert field is not None
    marking = Marking("main", field, Marks(b"k" * 32), print)
    one, other = marking.mark("4QID"), marking.mark("4QID")
    assert one is not other
    assert one == other
