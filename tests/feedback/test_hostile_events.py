"""Whatever is in an event: a format refuses it, finds nothing, or finds what a database takes."""

from __future__ import annotations

import copy
import json
import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.feedback import document
from relaygw.feedback.format import MAX_BODY, MAX_RAW, Refused
from relaygw.feedback.formats import FORMATS
from relaygw.mail.clock import clock_ms
from relaygw.mail.verdict import Event, Kind
from tests.feedback.documented import EXAMPLES, Payload, Sent, example, examples
from tests.feedback.signers import SIGNERS, Mailgun, Ses, signer_of
from tests.tables import each_of

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    -(10**400),
    1e308,
    "",
    "\0",
    "\ud800",
    "x" * 3_000,
    "a@b\r\nX: y",
    "\u202e@\u202e",
    "5.1.1",
    "9999-12-31T23:59:59+00:00",
    "0001-01-01T00:00:00+23:59",
    "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660",
    [],
    [[]],
    {},
    {"a": {"b": []}},
    ["a@b.test", 1, None, {}, "a@b.test"],
]


def read(preset: str, payload: object, signer: Any) -> list[Event]:
    """Read a payload as it stands in a post of its provider."""
    body = json.dumps(payload).encode()
    if preset == "ses":
        body = json.dumps({"Type": "Notification", "Message": body.decode()}).encode()
    if preset == "mailgun":
        body = json.dumps({"event-data": payload}).encode()
    return checked(FORMATS[preset].read(body))


def checked(events: list[Event]) -> list[Event]:
    """Return events after a look at each: they fit a database, and nothing breaks a line."""
    for event in events:
        assert isinstance(event.kind, Kind)
        assert 0 < event.at_ms < 1 << 45
        assert len(event.key) <= 200
        assert len(event.raw) <= MAX_RAW + 1 and len(event.detail) <= 1_100
        texts = (event.key, event.address, event.mark, event.provider_id, event.message_id)
        for text in (*texts, event.dsn, event.detail, event.raw):
            if text is not None:
                text.encode()
                assert not set(text) & set("\0\r\n")
                assert text == text.strip()
        assert event.address is None or ("@" in event.address and " " not in event.address)
        assert event.others >= 0
    return events


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values within a payload."""
    found = [path] if path else []
    if isinstance(value, dict):
        for name in value:
            found += places(value[name], (*path, name))
    if isinstance(value, list):
        for number, each in enumerate(value):
            found += places(each, (*path, number))
    return found


def put(payload: Payload, path: tuple[Any, ...], value: object) -> Payload:
    changed: Any = copy.deepcopy(payload)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed  # type: ignore[no-any-return]


@pytest.mark.parametrize("preset", sorted(SIGNERS))
def test_every_value_may_be_of_any_type(preset: str) -> None:
    signer = signer_of(preset)
    for kind in {each.kind for each in examples(preset)} - {None, Kind.ACCEPTED}:
        payload = example(preset, kind).make(Sent())
        for path in places(payload):
            for odd in ODD:
                read(preset, put(payload, path, odd), signer)


@pytest.mark.parametrize("preset", sorted(SIGNERS))
def test_every_value_may_lack(preset: str) -> None:
    for each in examples(preset):
        payload = each.make(Sent())
        for path in places(payload):
            changed = copy.deepcopy(payload)
            inner: Any = changed
            for step in path[:-1]:
                inner = inner[step]
            del inner[path[-1]]
            read(preset, changed, None)


@pytest.mark.parametrize("preset", sorted(SIGNERS))
def test_one_bad_event_costs_no_other(preset: str) -> None:
    if not signer_of(preset).is_array and preset != "brevo":
        return
    good = example(preset, Kind.HARD).make(Sent())
    told = read(preset, [*ODD, good, *ODD, {"event": ["bounce"]}, {"event": {}}], None)
    assert [event.kind for event in told] == [Kind.HARD]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_any_json(data: st.DataObject) -> None:
    each = data.draw(st.sampled_from(EXAMPLES))
    payload = each.make(Sent())
    path = data.draw(st.sampled_from(places(payload)))
    read(each.preset, put(payload, path, data.draw(_JSON)), None)
    read(each.preset, data.draw(_JSON), None)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    body=st.binary(max_size=400),
    headers=st.dictionaries(
        st.sampled_from(
            [
                *("authorization", "svix-id", "svix-timestamp", "svix-signature"),
                *("x-twilio-email-event-webhook-signature", "x-relaygw-secret"),
                "x-twilio-email-event-webhook-timestamp",
            ]
        ),
        st.text(alphabet=st.characters(max_codepoint=255), max_size=40),
    ),
)
async def test_any_bytes(body: bytes, headers: dict[str, str]) -> None:
    for preset, form in FORMATS.items():
        signer = signer_of(preset)
        checked(form.read(body))
        post = signer.sign_bytes(body, clock_ms()).post(clock_ms())
        for given_headers in (headers, {**post.headers, **headers}):
            try:
                await form.verify(type(post)(body, given_headers, clock_ms()), signer.trust)
            except Refused as refused:
                assert refused.reason
    with pytest.raises(Refused):
        await FORMATS["resend"].verify(type(post)(body, headers, clock_ms()), signer.trust)


@pytest.mark.parametrize("preset", sorted(SIGNERS))
async def test_a_megabyte(preset: str) -> None:
    """A body of full size is read in a moment, and what is kept of it is bounded."""
    signer = signer_of(preset)
    payload = example(preset, Kind.HARD).make(Sent())
    one = json.dumps(payload)
    if preset == "ses":
        people = [{"emailAddress": f"c{n}@cust.test", "status": "5.1.1"} for n in range(9_000)]
        payload["bounce"]["bouncedRecipients"] = people
        payloads = [payload]
    elif signer.is_array:
        payloads = [payload] * (MAX_BODY // (len(one) + 2) - 1)
    else:
        payloads = [{**payload, "padding": "\u00e4" * (MAX_BODY // 7)}]
    signed = signer.sign(payloads, clock_ms())
    assert len(signed.body) <= MAX_BODY
    began = time.process_time()
    await FORMATS[preset].verify(signed.post(clock_ms()), signer.trust)
    told = checked(FORMATS[preset].read(signed.body))
    assert time.process_time() - began < 5
    assert told and sum(len(event.raw) for event in told) < 2 * MAX_BODY


@pytest.mark.parametrize("preset", sorted(SIGNERS))
def test_deep_json(preset: str) -> None:
    for depth in (500, 900, 5_000, 200_000):
        deep = "[" * depth + "]" * depth
        for each in (deep, f'{{"event": {deep}}}', f'[{{"email": {deep}}}]'):
            FORMATS[preset].read(each.encode())
        payload = json.dumps({**example(preset, Kind.HARD).make(Sent()), "zz": "DEEP"})
        nested = payload.replace('"DEEP"', deep)
        body = {
            "ses": json.dumps({"Type": "Notification", "Message": nested}),
            "mailgun": f'{{"event-data": {nested}}}',
        }.get(preset, nested)
        checked(FORMATS[preset].read(body.encode()))


def test_the_last_of_two_members_of_one_name_counts_for_both_readings() -> None:
    """What is verified is what is read: a second topic cannot be smuggled in."""
    signer = Ses()
    signed = signer.sign([example("ses", Kind.HARD).make(Sent())], clock_ms())
    other = json.loads(signed.body)["Message"].replace("cust.test", "cost.test")
    for twice in (
        signed.body[:-1] + b',"Message":' + json.dumps(other).encode() + b"}",
        b'{"Message":' + json.dumps(other).encode() + b"," + signed.body[1:],
    ):
        events = FORMATS["ses"].read(twice)
        assert len(events) == 1
        is_ours = events[0].address == "bob@cust.test"
        post = type(signed)(twice, signed.headers).post(clock_ms())
        assert is_ours == _is_believed("ses", post, signer)


def _is_believed(preset: str, post: Any, signer: Any) -> bool:
    import asyncio

    try:
        asyncio.run(FORMATS[preset].verify(post, signer.trust))
    except Refused:
        return False
    return True


# --- what is right, in odd forms -----------------------------------------------------------------


def test_a_complaint_that_names_several_says_so() -> None:
    sent = Sent(others=("eve@cust.test", "dan@cust.test"))
    told = read("ses", example("ses", Kind.COMPLAINED).make(sent), None)
    assert [(event.address, event.others) for event in told] == [
        ("bob@cust.test", 2),
        ("eve@cust.test", 2),
        ("dan@cust.test", 2),
    ]
    bounced = read("ses", example("ses", Kind.HARD).make(sent), None)
    assert [event.others for event in bounced] == [0, 0, 0]  # each is named as bounced
    assert len({event.key for event in (*told, *bounced)}) == 6


def test_what_is_kept_of_one_recipient_names_no_other() -> None:
    sent = Sent(others=("eve@cust.test",))
    for kind in (Kind.HARD, Kind.DELIVERED):
        bob, eve = read("ses", example("ses", kind).make(sent), None)
        assert "eve@" not in bob.raw and "bob@" not in eve.raw and "bob@" in bob.raw


def test_resend_does_not_say_which_of_several() -> None:
    sent = Sent(others=("eve@cust.test",))
    (event,) = read("resend", example("resend", Kind.HARD).make(sent), None)
    assert (event.address, event.others) == (None, 1)


@pytest.mark.parametrize(
    ("fields", "at_ms"),
    [
        ({"ts_epoch": 1_604_933_654}, 1_604_933_654_000),
        ({"ts_epoch": 1_604_933_654_123}, 1_604_933_654_123),
        ({"ts_epoch": "1604933654123"}, 1_604_933_654_123),
        ({"ts_epoch": None, "ts_event": 1_604_933_654}, 1_604_933_654_000),
        ({"date": "2020-01-09 00:00:00"}, 1_578_524_400_000),  # CET
        ({"date": "2020-07-09 00:00:00"}, 1_594_245_600_000),  # CEST
    ],
)
def test_times_of_brevo(fields: Payload, at_ms: int) -> None:
    payload = example("brevo", Kind.HARD).make(Sent())
    for name in ("ts", "ts_event", "ts_epoch", "date"):
        del payload[name]
    (event,) = read("brevo", {**payload, **fields}, None)
    assert event.at_ms == at_ms


@pytest.mark.parametrize(
    "custom",
    [
        "relaygw=m4rk-0123456789",
        "shop:17|relaygw:m4rk-0123456789|x:y",
        '{"order": 1, "relaygw": "m4rk-0123456789"}',
    ],
)
def test_the_mark_among_what_the_shop_wrote(custom: str) -> None:
    payload = example("brevo", Kind.HARD).make(Sent())
    (event,) = read("brevo", {**payload, "X-Mailin-custom": custom}, None)
    assert event.mark == "m4rk-0123456789"


@pytest.mark.parametrize(
    ("sent_id", "found"),
    [
        ("nhIMmON9SFOPcT0ii4nt2A.filter0001.16648.5515E0B88.0", "nhIMmON9SFOPcT0ii4nt2A"),
        ("nhIMmON9SFOPcT0ii4nt2A.recvd-canary-74f8.0", "nhIMmON9SFOPcT0ii4nt2A"),
        ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "14c5d75ce93.dfd.64b469"),
        ("nhIMmON9SFOPcT0ii4nt2A", "nhIMmON9SFOPcT0ii4nt2A"),
    ],
)
def test_the_id_of_the_reply_in_that_of_sendgrid(sent_id: str, found: str) -> None:
    payload = {**example("sendgrid", Kind.HARD).make(Sent()), "sg_message_id": sent_id}
    assert read("sendgrid", payload, None)[0].provider_id == found


def test_an_array_of_brevo() -> None:
    told = [each.make(Sent(address=f"c{n}@x.test")) for n, each in enumerate(examples("brevo"))]
    random.Random(1).shuffle(told)
    assert len(read("brevo", told, None)) == sum(e.kind is not None for e in examples("brevo"))


def test_a_name_before_the_address() -> None:
    payload = example("ses", Kind.HARD).make(Sent(address='"Bob, B." <bob@cust.test>'))
    assert read("ses", payload, None)[0].address == "bob@cust.test"


def test_an_address_beyond_ascii() -> None:
    for preset in SIGNERS:
        payload = example(preset, Kind.HARD).make(Sent(address="b\u00f6b@c\u00fcst.test"))
        assert read(preset, payload, None)[0].address == "b\u00f6b@c\u00fcst.test"


def test_a_mark_is_none_where_it_is_odd() -> None:
    for preset in SIGNERS:
        for odd in ("x y z a b c d", "a" * 500, "\u00e4" * 20, ""):
            (event,) = read(preset, example(preset, Kind.HARD).make(Sent(mark=odd)), None)
            assert event.mark is None, (preset, odd)


def test_a_token_of_mailgun_is_read_as_it_was_verified() -> None:
    signer = Mailgun()
    body = json.loads(signer.sign([example("mailgun", Kind.HARD).make(Sent())], clock_ms()).body)
    body["signature"]["token"] = [body["signature"]["token"]]
    assert not _is_believed("mailgun", signer.unsigned(body).post(clock_ms()), signer)


@each_of("value", [0, 0.0, 1e-31, 0.0004, "0", "0.0004", -1, True, None, "1e3", 1 << 45])
def test_what_is_no_time_is_none(value: object) -> None:
    assert document.seconds_ms(value) is None
